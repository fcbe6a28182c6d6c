//! `gretactl credits`.

use account::{Credits, EntryId};
use ctl::Exit;
use serde_json::{Value, json};
use store::{EntryKind, Posting};

use super::{HOUR, NOBODY, account_id, done, failed, hold, json_of, run, text};
use crate::support::World;

/// Posts one micro-credit to acme.
async fn post(world: &World, id: &str, kind: EntryKind, note: &str) {
    let posting = Posting {
        id: &EntryId::new(id).unwrap(),
        kind,
        amount: Credits::MICRO,
        at: world.system.clock.now(),
        note,
        actor: "test",
    };
    let acme = account_id("acme");
    let posted = world.system.store.ledger.post(&acme, &posting).await;
    posted.unwrap();
}

#[tokio::test]
async fn credits_move_once_per_entry_id() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let grant = "credits grant acme 12.5 --reason=beta --id beta-acme";
    let first = done(&world, grant).await;
    assert_eq!((&first["posted"], &first["moved"]), (&json!(true), &json!("12.5")));
    assert_eq!(first["credits"]["balance"], "12.5");
    let again = done(&world, grant).await;
    assert_eq!((&again["posted"], &again["moved"]), (&json!(false), &json!("0")));
    let again = text(&world, grant).await;
    assert!(again.contains("nothing moved"), "{again}");
    // Nothing is left to confirm.
    assert_eq!(run(&world, grant, NOBODY).await.exit, Exit::Done);
    for other in [
        "credits grant acme 13 --reason=beta --id beta-acme",
        "credits refund acme 12.5 --reason=beta --id beta-acme",
    ] {
        let taken = failed(&world, other).await;
        assert!(taken.contains("another entry"), "{taken}");
    }

    let refund = done(&world, "credits refund acme 0.5 --reason=sorry").await;
    let id = refund["entry_id"].as_str().unwrap();
    assert!(id.starts_with("refund_"), "{id}");
    let adjusted = done(&world, "credits adjust acme -3 --reason=mistake --id adj-1").await;
    assert_eq!((&adjusted["moved"], &adjusted["kind"]), (&json!("-3"), &json!("adjustment")));
    let adjusted = text(&world, "credits adjust acme +1 --reason=mistake").await;
    assert!(adjusted.contains("balance 11, held 0"), "{adjusted}");
    let too_much = failed(&world, "credits adjust acme -11.000001 --reason=mistake").await;
    assert!(too_much.contains("balance 11"), "{too_much}");

    let shown = done(&world, "credits history acme").await;
    let entries = shown["entries"].as_array().unwrap();
    let of = |entry: &Value| {
        let text = |name: &str| entry[name].as_str().unwrap().to_owned();
        (text("kind"), text("amount"), text("balance_after"), text("note"))
    };
    let row = |kind: &str, amount: &str, after: &str, note: &str| {
        (kind.to_owned(), amount.to_owned(), after.to_owned(), note.to_owned())
    };
    assert_eq!(
        entries.iter().map(of).collect::<Vec<_>>(),
        [
            row("adjustment", "1", "11", "mistake"),
            row("adjustment", "-3", "10", "mistake"),
            row("refund", "0.5", "13", "sorry"),
            row("grant", "12.5", "12.5", "beta"),
        ]
    );
    assert!(entries.iter().all(|entry| entry["actor"] == "operator:anna"));
    assert_eq!(world.settled_balance("acme").await, "11");
}

#[tokio::test]
async fn a_reversal_takes_what_is_available_and_the_rest_is_owed() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    done(&world, "credits grant acme 10 --reason=beta --id beta-1").await;
    done(&world, "credits adjust acme -6 --reason=spent").await;
    let reverse = "credits reverse acme beta-1 --reason=fraud";
    let asked = run(&world, reverse, Some("n\n")).await;
    assert!(asked.err.contains("4 taken now, 6 owed"), "{}", asked.err);
    let reversed = done(&world, reverse).await;
    assert_eq!(reversed["entry_id"], "reversal-beta-1");
    assert_eq!(
        (&reversed["amount"], &reversed["moved"], &reversed["owed_change"]),
        (&json!("-10"), &json!("-4"), &json!("6"))
    );
    assert_eq!(reversed["credits"]["owed"], "6");
    let again = done(&world, reverse).await;
    assert_eq!((&again["posted"], &again["credits"]["owed"]), (&json!(false), &json!("6")));

    // The next grant pays the debt first.
    let grant = text(&world, "credits grant acme 8 --reason=again").await;
    assert!(grant.contains("6 paid what was owed"), "{grant}");
    assert_eq!(world.settled_balance("acme").await, "2");

    done(&world, "credits refund acme 1 --reason=sorry --id refund-1").await;
    let refused = failed(&world, "credits reverse acme refund-1 --reason=r").await;
    assert!(refused.contains("only a grant or a purchase"), "{refused}");
    let unknown = failed(&world, "credits reverse acme nothing --reason=r").await;
    assert!(unknown.contains("no grant or purchase"), "{unknown}");

    let purchase = "x".repeat(56);
    post(&world, &purchase, EntryKind::Purchase, "bought").await;
    let long = failed(&world, &format!("credits reverse acme {purchase} --reason=r")).await;
    assert!(long.contains("no room"), "{long}");
}

#[tokio::test]
async fn the_ledger_is_read_page_by_page() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let empty = text(&world, "credits history acme").await;
    assert!(empty.contains("no entries"), "{empty}");
    for entry in 0..103 {
        post(&world, &format!("grant-{entry}"), EntryKind::Grant, "\u{1b}[2Jred").await;
    }
    for (options, count, more) in [
        ("", 50, true),
        ("--limit 1", 1, true),
        ("--limit 102", 102, true),
        ("--limit 103", 103, false),
        ("--all", 103, false),
    ] {
        let shown = done(&world, &format!("credits history acme {options}")).await;
        let entries = shown["entries"].as_array().unwrap();
        assert_eq!((entries.len(), &shown["more"]), (count, &json!(more)), "{options}");
        let oldest = entries.last().unwrap()["balance_after"].as_str().unwrap();
        let oldest: Credits = oldest.parse().unwrap();
        assert_eq!(oldest.micros(), 104 - i64::try_from(count).unwrap());
    }
    let shown = text(&world, "credits history acme --limit 2").await;
    assert!(shown.contains("there are older ones"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "no escape sequences reach the terminal");
}

#[tokio::test]
async fn books_that_do_not_add_up_are_reported() {
    use aws_sdk_dynamodb::types::AttributeValue::{N, S};
    let world = World::start().await;
    for id in ["acme", "bravo", "charlie", "delta"] {
        world.set(id, json!({"credits": "7"})).await;
    }
    hold(&world, "bravo", "call_1", HOUR).await;
    let good = done(&world, "credits reconcile acme").await;
    assert_eq!((&good["ok"], &good["accounts"]), (&json!(true), &json!(1)));
    let good = done(&world, "credits reconcile --all").await;
    assert_eq!((&good["accounts"], &good["open_holds"]), (&json!(4), &json!(1)));

    let tamper = world.engines().dynamodb().update_item();
    tamper
        .table_name("AccountsTable")
        .key("account_id", S("acme".to_owned()))
        .key("item", S("account".to_owned()))
        .update_expression("SET balance = :wrong, held = :held")
        .expression_attribute_values(":wrong", N("8000000".to_owned()))
        .expression_attribute_values(":held", N("5".to_owned()))
        .send()
        .await
        .unwrap();
    for _ in 0..2 {
        for which in ["acme", "--all"] {
            let (exit, bad) = json_of(&world, &format!("credits reconcile {which}")).await;
            assert_eq!((exit, &bad["ok"]), (Exit::Failed, &json!(false)));
            let wrong = bad["wrong"].as_array().unwrap();
            assert_eq!((wrong.len(), &wrong[0]["account_id"]), (1, &json!("acme")));
            assert_eq!(wrong[0]["problems"].as_array().unwrap().len(), 3, "{bad}");
        }
    }
    let shown = run(&world, "credits reconcile --all", NOBODY).await;
    assert_eq!(shown.exit, Exit::Failed);
    assert!(shown.out.contains("acme: sum of the ledger"), "{}", shown.out);
    assert!(shown.out.contains("1 do not add up"), "{}", shown.out);

    // The segments together cover every account once.
    let mut seen = (0, 0);
    for part in 1..=3 {
        let line = format!("credits reconcile --all --segment {part}/3");
        let (_, part) = json_of(&world, &line).await;
        seen.0 += part["accounts"].as_u64().unwrap();
        seen.1 += part["wrong"].as_array().unwrap().len();
    }
    assert_eq!(seen, (4, 1));

    // An account with unreadable books does not stop the check of the others.
    let tamper = world.engines().dynamodb().update_item();
    tamper
        .table_name("AccountsTable")
        .key("account_id", S("bravo".to_owned()))
        .key("item", S("account".to_owned()))
        .update_expression("REMOVE balance")
        .send()
        .await
        .unwrap();
    let (exit, bad) = json_of(&world, "credits reconcile --all").await;
    assert_eq!((exit, &bad["accounts"]), (Exit::Failed, &json!(4)));
    assert_eq!(bad["unread"][0]["account_id"], "bravo");
}
