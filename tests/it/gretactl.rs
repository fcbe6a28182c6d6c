//! The operator's tool, in this process, against the system's own engines.

use std::ffi::OsString;

use account::price::{Tariff, TokenPrices};
use account::{AccountId, AccountNumber, CallId, Credits, CreditsPerUsd, EntryId, Usd};
use ctl::{Console, Exit};
use edge::Env;
use http::Method;
use jiff::SignedDuration;
use local::engines::SecretsFault;
use serde_json::{Value, json};
use store::{EntryKind, NewHold, Posting, Presence};

use crate::support::{KEY, World};

/// What a command did.
struct Ran {
    exit: Exit,
    out: String,
    err: String,
}

/// Nobody is there to confirm.
const NOBODY: Option<&str> = None;

async fn run_in(env: Env, line: &str, answer: Option<&str>) -> Ran {
    let words = std::iter::once("gretactl").chain(line.split_whitespace());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut typed = answer.unwrap_or_default().as_bytes();
    let console = Console {
        out: &mut out,
        err: &mut err,
        input: match answer {
            Some(_) => Some(&mut typed),
            None => None,
        },
    };
    let exit = ctl::run(words.map(OsString::from), env, console).await;
    let ran = Ran {
        exit,
        out: String::from_utf8(out).unwrap(),
        err: String::from_utf8(err).unwrap(),
    };
    for shown in [&ran.out, &ran.err] {
        assert!(!shown.contains(KEY), "a key was shown: {shown}");
    }
    ran
}

fn env(world: &World) -> Env {
    let anna = ("GRETA_OPERATOR".to_owned(), "anna".to_owned());
    Env::from_pairs(world.system.settings.clone()).with([anna])
}

/// Runs the tool as the operator anna; `answer` is what she types.
async fn run(world: &World, line: &str, answer: Option<&str>) -> Ran {
    run_in(env(world), line, answer).await
}

/// The text of a command that is done.
async fn text(world: &World, line: &str) -> String {
    let ran = run(world, &format!("{line} --yes"), NOBODY).await;
    assert_eq!(ran.exit, Exit::Done, "{line}: {}{}", ran.out, ran.err);
    assert_eq!(ran.err, "", "{line}");
    ran.out
}

/// The JSON of a command, and how it ended.
async fn json_of(world: &World, line: &str) -> (Exit, Value) {
    let ran = run(world, &format!("{line} --yes --json"), NOBODY).await;
    assert_eq!(ran.err, "", "{line}");
    let json = serde_json::from_str(&ran.out);
    (ran.exit, json.unwrap_or_else(|_| panic!("{}", ran.out)))
}

/// The JSON of a command that is done.
async fn done(world: &World, line: &str) -> Value {
    let (exit, json) = json_of(world, line).await;
    assert_eq!(exit, Exit::Done, "{line}: {json}");
    json
}

/// Why a command failed.
async fn failed(world: &World, line: &str) -> String {
    let (exit, json) = json_of(world, line).await;
    assert_eq!(exit, Exit::Failed, "{line}: {json}");
    json["error"].as_str().unwrap_or_default().to_owned()
}

fn account_id(id: &str) -> AccountId {
    AccountId::new(id).unwrap()
}

async fn number(world: &World, id: &str) -> AccountNumber {
    world.system.account(id).await.number
}

/// Who did what to the account, newest first.
async fn history(world: &World, number: &AccountNumber) -> Vec<(String, String)> {
    let history = world.system.store.history(number, 20).await.unwrap();
    let entries = history.into_iter();
    entries.map(|entry| (entry.actor, entry.what)).collect()
}

/// Leaves a hold of 0.001 credits open, taken so long ago.
async fn hold(world: &World, id: &str, call: &str, age: SignedDuration) {
    let account = world.system.account(id).await;
    let free = TokenPrices {
        input: Usd::ZERO,
        output: Usd::ZERO,
    };
    let new = NewHold {
        call: &CallId::new(call).unwrap(),
        amount: Credits::from_micros(1_000),
        at: world.system.clock.now() - age,
        model: "some/model",
        tariff: Tariff {
            prices: free,
            rate: CreditsPerUsd::ONE,
        },
        idempotency: None,
        max_holds: 64,
    };
    let held = world.system.store.hold(&account, &new).await.unwrap();
    held.unwrap();
}

/// Gives acme a micro-credit.
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
    let posted = world.system.store.post(&acme, &posting).await;
    posted.unwrap().unwrap();
}

const HOUR: SignedDuration = SignedDuration::from_hours(1);

async fn tick(world: &World) {
    let body = json!({"time": world.system.clock.now() + HOUR * 2});
    let request = world.request(Method::POST, "/_dev/tick");
    let report = world.send(request.body(body.to_string())).await.json();
    assert_eq!(report["errors"], 0, "{report}");
}

#[tokio::test]
async fn accounts_are_made_shown_and_changed() {
    let world = World::start().await;
    let made = done(&world, "account create acme --plan standard").await;
    assert_eq!(
        (&made["plan"], &made["plan_version"]),
        (&json!("standard"), &json!(1))
    );
    assert_eq!(made["actor"], "operator:anna");
    let again = failed(&world, "account create acme --plan enterprise").await;
    assert!(again.contains("already"), "{again}");
    let other = text(&world, "account create other --plan enterprise --version 7").await;
    assert!(other.contains("enterprise, version 7"), "{other}");

    let shown = done(&world, "account show acme").await;
    assert_eq!(shown["state"], "live");
    let facts = &shown["account"];
    assert_eq!(facts["plan"], "standard");
    assert_eq!(
        facts["add_on"],
        json!({"status": "none", "paid_through": null})
    );
    assert_eq!(
        (&facts["key"], &facts["enabled"]),
        (&Value::Null, &json!(false))
    );
    let nothing =
        json!({"balance": "0", "held": "0", "available": "0", "owed": "0", "open_holds": 0});
    assert_eq!(facts["credits"], nothing);
    assert_eq!(facts["history"][0]["what"], "created: standard, version 1");

    let set = done(&world, "account set-plan acme enterprise").await;
    assert_eq!(
        (&set["plan"], &set["plan_version"]),
        (&json!("enterprise"), &json!(2))
    );
    assert_eq!(
        (&set["changed"], &set["plan_before"]),
        (&json!(true), &json!("standard"))
    );
    let again = text(&world, "account set-plan acme enterprise --version 2").await;
    assert!(again.contains("nothing was changed"), "{again}");
    let older = failed(&world, "account set-plan acme standard --version 1").await;
    assert!(older.contains("stored version is 2"), "{older}");
    let same = done(&world, "account set-plan acme standard --version 2").await;
    assert_eq!(
        (&same["plan"], &same["changed"]),
        (&json!("standard"), &json!(true))
    );

    let shown = text(&world, "account show acme").await;
    for part in [
        "live",
        "standard, version 2",
        "none is connected",
        "balance 0, held 0 by 0 open holds",
        "operator:anna  plan set to standard, version 2, from enterprise, version 2",
        "operator:anna  created: standard, version 1",
    ] {
        assert!(shown.contains(part), "no {part} in {shown}");
    }

    let (exit, never) = json_of(&world, "account show nobody").await;
    assert_eq!((exit, &never["state"]), (Exit::Failed, &json!("never")));
    let never = run(&world, "account show nobody", NOBODY).await;
    assert!(never.out.contains("never was"), "{}", never.out);
}

/// The plan may change unasked, but not an add-on that is paid for.
#[tokio::test]
async fn an_upgrade_that_ends_the_add_on_is_confirmed() {
    let world = World::start().await;
    world.set("acme", json!({"add_on": "active"})).await;
    let asked = run(&world, "account set-plan acme enterprise", Some("no\n")).await;
    assert_eq!(asked.exit, Exit::Usage);
    assert!(asked.err.contains("add-on then"), "{}", asked.err);
    let shown = done(&world, "account show acme").await;
    assert_eq!(shown["account"]["plan"], "standard");
    let asked = run(&world, "account set-plan acme enterprise", Some("yes\n")).await;
    assert_eq!(asked.exit, Exit::Done, "{}", asked.err);
    let shown = done(&world, "account show acme").await;
    assert_eq!(shown["account"]["add_on"]["status"], "ended");
    // Back again, what was paid for may still be used.
    let down = done(&world, "account set-plan acme standard").await;
    assert_eq!(down["add_on"], "cancelling");
}

#[tokio::test]
async fn credits_are_given_and_taken_once_by_their_id() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let grant = "credits grant acme 12.5 --reason=beta --id beta-acme";
    let first = done(&world, grant).await;
    assert_eq!(
        (&first["posted"], &first["moved"]),
        (&json!(true), &json!("12.5"))
    );
    assert_eq!(first["credits"]["balance"], "12.5");
    let again = done(&world, grant).await;
    assert_eq!(
        (&again["posted"], &again["moved"]),
        (&json!(false), &json!("0"))
    );
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
    assert_eq!(
        (&adjusted["moved"], &adjusted["kind"]),
        (&json!("-3"), &json!("adjustment"))
    );
    let adjusted = text(&world, "credits adjust acme +1 --reason=mistake").await;
    assert!(adjusted.contains("balance 11, held 0"), "{adjusted}");
    let too_much = failed(&world, "credits adjust acme -11.000001 --reason=mistake").await;
    assert!(too_much.contains("balance 11"), "{too_much}");

    let shown = done(&world, "credits history acme").await;
    let entries = shown["entries"].as_array().unwrap();
    let of = |entry: &Value| {
        let text = |name: &str| entry[name].as_str().unwrap().to_owned();
        (
            text("kind"),
            text("amount"),
            text("balance_after"),
            text("note"),
        )
    };
    let row = |kind: &str, amount: &str, after: &str, note: &str| {
        (
            kind.to_owned(),
            amount.to_owned(),
            after.to_owned(),
            note.to_owned(),
        )
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
    assert!(
        entries
            .iter()
            .all(|entry| entry["actor"] == "operator:anna")
    );
    assert_eq!(world.settled_balance("acme").await, "11");
}

#[tokio::test]
async fn amounts_that_make_no_sense_are_refused() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    for (line, why) in [
        ("credits grant acme -5 --reason=r", "positive"),
        ("credits refund acme -5 --reason=r", "positive"),
        ("credits grant acme 0 --reason=r", "nothing would move"),
        ("credits adjust acme 0 --reason=r", "nothing would move"),
        ("credits grant acme five --reason=r", "decimal"),
        ("credits grant acme 0.0000001 --reason=r", "6 decimals"),
        ("credits grant acme 5 --reason=", "reason"),
        ("credits grant acme 5", "--reason"),
        ("credits grant acme 5 --reason=r --id a/b", "entry's id"),
        ("credits grant a/b 5 --reason=r", "an id has"),
        ("credits reconcile", "--all"),
        ("credits reconcile acme --all", "cannot be used"),
        ("credits reconcile --all --segment 3/2", "segment"),
        ("holds resolve acme call_1 --reason=r", "--release"),
        (
            "holds resolve acme call_1 --charge 0 --reason=r",
            "nothing would move",
        ),
        ("account create acme --plan gold", "standard, enterprise"),
        ("account create acme --plan standard --version 0", "0"),
        ("account show acme --operator=a/b", "operator's name"),
    ] {
        let (exit, json) = json_of(&world, line).await;
        let error = json["error"].as_str().unwrap();
        assert_eq!(exit, Exit::Usage, "{line}");
        assert!(error.contains(why), "{line}: {error}");
        let shown = run(&world, line, NOBODY).await;
        assert!(
            shown.out.is_empty() && shown.err.contains(why),
            "{}",
            shown.err
        );
    }
    // An amount that no balance can hold.
    let huge = failed(&world, "credits grant acme 9223372036854 --reason=r").await;
    assert!(huge.contains("cannot be counted"), "{huge}");
    assert_eq!(world.settled_balance("acme").await, "7");
}

#[tokio::test]
async fn a_reversal_takes_what_is_there_and_the_rest_is_owed() {
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
        (
            &reversed["amount"],
            &reversed["moved"],
            &reversed["owed_change"]
        ),
        (&json!("-10"), &json!("-4"), &json!("6"))
    );
    assert_eq!(reversed["credits"]["owed"], "6");
    let again = done(&world, reverse).await;
    assert_eq!(
        (&again["posted"], &again["credits"]["owed"]),
        (&json!(false), &json!("6"))
    );

    // The next grant pays first.
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
    let long = failed(
        &world,
        &format!("credits reverse acme {purchase} --reason=r"),
    )
    .await;
    assert!(long.contains("no room"), "{long}");
}

#[tokio::test]
async fn the_ledger_is_read_page_by_page() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let empty = text(&world, "credits history acme").await;
    assert!(empty.contains("no entries"), "{empty}");
    for entry in 0..103 {
        post(
            &world,
            &format!("grant-{entry}"),
            EntryKind::Grant,
            "\u{1b}[2Jred",
        )
        .await;
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
        assert_eq!(
            (entries.len(), &shown["more"]),
            (count, &json!(more)),
            "{options}"
        );
        let oldest = entries.last().unwrap()["balance_after"].as_str().unwrap();
        let oldest: Credits = oldest.parse().unwrap();
        assert_eq!(oldest.micros(), 104 - i64::try_from(count).unwrap());
    }
    let shown = text(&world, "credits history acme --limit 2").await;
    assert!(shown.contains("there are older ones"), "{shown}");
    assert!(
        !shown.contains('\u{1b}'),
        "other people's text steers no terminal"
    );
}

#[tokio::test]
async fn books_that_do_not_add_up_are_told() {
    use aws_sdk_dynamodb::types::AttributeValue::{N, S};
    let world = World::start().await;
    for id in ["acme", "bravo", "charlie", "delta"] {
        world.set(id, json!({"credits": "7"})).await;
    }
    hold(&world, "bravo", "call_1", HOUR).await;
    let good = done(&world, "credits reconcile acme").await;
    assert_eq!((&good["ok"], &good["accounts"]), (&json!(true), &json!(1)));
    let good = done(&world, "credits reconcile --all").await;
    assert_eq!(
        (&good["accounts"], &good["open_holds"]),
        (&json!(4), &json!(1))
    );

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
    assert!(
        shown.out.contains("acme: sum of the ledger"),
        "{}",
        shown.out
    );
    assert!(shown.out.contains("1 do not add up"), "{}", shown.out);

    // The segments are all accounts together, and each account once.
    let mut seen = (0, 0);
    for part in 1..=3 {
        let line = format!("credits reconcile --all --segment {part}/3");
        let (_, part) = json_of(&world, &line).await;
        seen.0 += part["accounts"].as_u64().unwrap();
        seen.1 += part["wrong"].as_array().unwrap().len();
    }
    assert_eq!(seen, (4, 1));

    // One whose books cannot be read does not keep the others from being looked at.
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

#[tokio::test]
async fn holds_are_ended_by_hand_once() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    let none = text(&world, "holds list acme").await;
    assert!(none.contains("no open holds"), "{none}");
    for (call, hours) in [("call_1", 3), ("call_2", 2), ("call_3", 0)] {
        hold(&world, "acme", call, HOUR * hours).await;
    }
    let listed = done(&world, "holds list acme").await;
    let calls: Vec<_> = listed["holds"].as_array().unwrap().iter().collect();
    assert_eq!(
        calls
            .iter()
            .map(|hold| hold["call_id"].as_str().unwrap())
            .collect::<Vec<_>>(),
        ["call_1", "call_2", "call_3"]
    );
    assert_eq!(
        (&calls[0]["amount"], &calls[0]["model"]),
        (&json!("0.001"), &json!("some/model"))
    );
    let listed = text(&world, "holds list acme").await;
    assert!(listed.contains("call_2  0.001"), "{listed}");

    let above = failed(
        &world,
        "holds resolve acme call_1 --charge 0.0011 --reason=r",
    )
    .await;
    assert!(
        above.contains("more than the 0.001 that are held"),
        "{above}"
    );
    let asked = run(
        &world,
        "holds resolve acme call_3 --release --reason=r",
        Some(""),
    )
    .await;
    assert_eq!(asked.exit, Exit::Usage);
    assert!(asked.err.contains("may still be running"), "{}", asked.err);
    let asked = run(
        &world,
        "holds resolve acme call_1 --release --reason=r",
        Some(""),
    )
    .await;
    assert!(!asked.err.contains("may still be running"), "{}", asked.err);

    let charged = done(
        &world,
        "holds resolve acme call_1 --charge 0.0004 --reason=invoice",
    )
    .await;
    assert_eq!(
        (&charged["held"], &charged["charged"]),
        (&json!("0.001"), &json!("0.0004"))
    );
    let released = text(
        &world,
        "holds resolve acme call_2 --release --reason=outage",
    )
    .await;
    assert!(released.starts_with("released"), "{released}");
    for end in ["--release", "--charge 0.0004"] {
        let line = format!("holds resolve acme call_1 {end} --reason=r");
        let again = failed(&world, &line).await;
        assert!(again.contains("was charged with 0.0004 on"), "{again}");
        assert!(again.contains("by operator:anna"), "{again}");
        let again = failed(&world, &line.replace("call_1", "call_2")).await;
        assert!(again.contains("was released on"), "{again}");
    }
    let unknown = failed(&world, "holds resolve acme call_9 --release --reason=r").await;
    assert!(unknown.contains("no hold of call call_9"), "{unknown}");
    done(&world, "holds resolve acme call_3 --release --reason=r").await;

    assert_eq!(world.settled_balance("acme").await, "6.9996");
    let ledger = done(&world, "credits history acme --limit 1").await;
    let entry = &ledger["entries"][0];
    assert_eq!(
        (&entry["call_id"], &entry["actor"]),
        (&json!("call_1"), &json!("operator:anna"))
    );
    let anna = |what: &str| ("operator:anna".to_owned(), what.to_owned());
    assert_eq!(
        history(&world, &number(&world, "acme").await).await[..3],
        [
            anna("hold of call call_3 released: r"),
            anna("hold of call call_2 released: outage"),
            anna("hold of call call_1 charged with 0.0004: invoice"),
        ]
    );
}

#[tokio::test]
async fn a_key_is_forgotten_and_never_shown() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "7").await;
    owner.switch(json!({"always_use_key": true})).await;
    let names = || async { world.engines().secret_names().await };
    let before = names().await.len();

    let status = done(&world, "key status acme").await;
    let last4 = &KEY[KEY.len() - 4..];
    assert_eq!(status["key"]["last4"], last4);
    assert_eq!(
        (&status["key"]["state"], &status["always_use_key"]),
        (&json!("usable"), &json!(true))
    );
    for line in ["key status acme", "account show acme"] {
        let shown = text(&world, line).await;
        for part in ["usable", "always use", "sk-or-v1-", last4] {
            assert!(shown.contains(part), "no {part} in {shown}");
        }
    }

    let asked = run(&world, "key forget acme --reason=leaked", Some("no\n")).await;
    assert_eq!((asked.exit, names().await.len()), (Exit::Usage, before));
    let forgotten = done(&world, "key forget acme --reason=leaked").await;
    assert_eq!(
        (&forgotten["disconnected"], &forgotten["secret_deleted"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(names().await.len(), before - 1);
    let card = owner.card().await;
    assert_eq!(
        (&card["key"], &card["always_use_key"]),
        (&Value::Null, &json!(false))
    );
    let (actor, what) = history(&world, &number(&world, "acme").await)
        .await
        .remove(0);
    assert_eq!(actor, "operator:anna");
    assert!(what.contains("disconnected: leaked"), "{what}");

    let again = done(&world, "key forget acme --reason=leaked").await;
    assert_eq!(again["disconnected"], false);
    let status = text(&world, "key status acme").await;
    assert!(status.contains("none is connected"), "{status}");

    // What Secrets Manager does not do now, the tick does.
    owner.save_key(KEY).await;
    world
        .engines()
        .fail_secrets(None, SecretsFault::AccessDenied);
    let left = text(&world, "key forget acme --reason=again").await;
    assert!(left.contains("the billing tick does"), "{left}");
    world.engines().heal_secrets();
    assert_eq!(names().await.len(), before);
    tick(&world).await;
    assert_eq!(names().await.len(), before - 1);
}

#[tokio::test]
async fn an_account_is_deleted_with_its_key() {
    let world = World::start().await;
    world.enterprise_with_key("acme", "7").await;
    let before = world.engines().secret_names().await.len();
    let number = number(&world, "acme").await;
    let asked = run(&world, "account delete acme", Some("no\n")).await;
    assert_eq!(asked.exit, Exit::Usage);
    assert!(asked.err.contains("balance 7"), "{}", asked.err);
    let late = failed(&world, "account delete nobody").await;
    assert!(late.contains("never was"), "{late}");
    done(&world, "account set-plan acme enterprise --version 5").await;
    let late = failed(&world, "account delete acme --version 4").await;
    assert!(late.contains("younger than version 4"), "{late}");

    let deleted = done(&world, "account delete acme").await;
    assert_eq!(
        deleted,
        json!({
            "account_id": "acme", "deleted_version": 5, "deleted_now": true,
            "secret": "deleted", "scrubbed": true, "actor": "operator:anna",
        })
    );
    assert_eq!(world.engines().secret_names().await.len(), before - 1);
    let (actor, what) = history(&world, &number).await.remove(0);
    assert_eq!(
        (actor.as_str(), what.as_str()),
        ("operator:anna", "deleted, version 5")
    );
    let again = text(&world, "account delete acme").await;
    assert!(again.contains("it was deleted before"), "{again}");
    let shown = run(&world, "account show acme", NOBODY).await;
    assert_eq!(shown.exit, Exit::Failed);
    assert!(shown.out.contains("deleted by version 5"), "{}", shown.out);

    for line in [
        "credits grant acme 5 --reason=r",
        "credits history acme",
        "credits reconcile acme",
        "holds list acme",
        "key status acme",
        "key forget acme --reason=r",
        "account set-plan acme standard",
    ] {
        let gone = failed(&world, line).await;
        assert!(gone.contains("was deleted (version 5)"), "{line}: {gone}");
        let never = failed(&world, &line.replace("acme", "nobody")).await;
        assert!(
            never.contains("there is no account nobody"),
            "{line}: {never}"
        );
    }
    let anew = failed(&world, "account create acme --plan standard --version 5").await;
    assert!(anew.contains("higher --version"), "{anew}");
    done(&world, "account create acme --plan standard --version 6").await;
    assert_eq!(world.settled_balance("acme").await, "0");
}

#[tokio::test]
async fn a_deletion_waits_for_the_last_hold() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    hold(&world, "acme", "call_1", HOUR).await;
    let number = number(&world, "acme").await;
    let deleted = text(&world, "account delete acme").await;
    assert!(deleted.contains("until all holds have ended"), "{deleted}");
    let anew = failed(&world, "account create acme --plan standard --version 9").await;
    assert!(anew.contains("not all of it is gone"), "{anew}");
    let shown = run(&world, "account show acme", NOBODY).await;
    assert!(
        shown.out.contains("until all holds have ended"),
        "{}",
        shown.out
    );
    done(&world, "credits reconcile acme").await;
    done(
        &world,
        "holds resolve acme call_1 --charge 0.001 --reason=late",
    )
    .await;
    let entries = history(&world, &number).await;
    assert_eq!(entries[0].1, "hold of call call_1 charged with 0.001: late");
    let presence = || async {
        world
            .system
            .store
            .presence(&account_id("acme"))
            .await
            .unwrap()
    };
    let gone = |scrubbed| Presence::Deleted {
        version: 1,
        scrubbed,
    };
    assert_eq!(presence().await, gone(false));
    tick(&world).await;
    assert_eq!(presence().await, gone(true));
    let all = done(&world, "credits reconcile --all").await;
    assert_eq!(all["accounts"], 0);
}

/// Asked without an answer, or answered with anything but yes, nothing is changed.
#[tokio::test]
async fn nothing_is_done_without_a_yes() {
    let world = World::start().await;
    world.enterprise_with_key("acme", "0").await;
    done(&world, "credits grant acme 7 --reason=r --id grant-1").await;
    hold(&world, "acme", "call_1", HOUR).await;
    let before = (
        world.system.account("acme").await,
        world.engines().secret_names().await,
        done(&world, "account show acme").await,
        done(&world, "credits history acme").await,
        done(&world, "holds list acme").await,
    );
    for line in [
        "account delete acme",
        "credits grant acme 5 --reason=r",
        "credits refund acme 5 --reason=r",
        "credits adjust acme 5 --reason=r",
        "credits adjust acme -5 --reason=r",
        "credits reverse acme grant-1 --reason=r",
        "holds resolve acme call_1 --release --reason=r",
        "holds resolve acme call_1 --charge 0.0001 --reason=r",
        "key forget acme --reason=r",
    ] {
        let nobody = run(&world, line, NOBODY).await;
        assert_eq!(
            (nobody.exit, nobody.out.as_str()),
            (Exit::Usage, ""),
            "{line}"
        );
        assert!(nobody.err.contains("--yes"), "{line}: {}", nobody.err);
        let json = run(&world, &format!("{line} --json"), NOBODY).await;
        let json: Value = serde_json::from_str(&json.out).unwrap();
        assert!(json["error"].as_str().unwrap().contains("--yes"));
        for answer in ["no\n", "\n", "", "yess\n", "maybe\nyes\n"] {
            let asked = run(&world, line, Some(answer)).await;
            assert_eq!(
                (asked.exit, asked.out.as_str()),
                (Exit::Usage, ""),
                "{line}"
            );
            assert!(
                asked.err.contains("Do it? (yes/no)"),
                "{line}: {}",
                asked.err
            );
            assert!(
                asked.err.contains("AccountsTable at http://"),
                "{}",
                asked.err
            );
        }
    }
    let after = (
        world.system.account("acme").await,
        world.engines().secret_names().await,
        done(&world, "account show acme").await,
        done(&world, "credits history acme").await,
        done(&world, "holds list acme").await,
    );
    assert_eq!(before, after);
    let asked = run(&world, "credits grant acme 5 --reason=r", Some("yes\n")).await;
    assert_eq!(asked.exit, Exit::Done);
    assert!(
        asked.err.contains("before") && asked.err.contains("balance 7"),
        "{}",
        asked.err
    );
}

#[tokio::test]
async fn a_change_needs_somebody_who_makes_it() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    let nameless = || Env::from_pairs(world.system.settings.clone());
    for line in [
        "account create other --plan standard",
        "account set-plan acme enterprise",
        "account delete acme --yes",
        "credits grant acme 5 --reason=r --yes",
        "holds resolve acme call_1 --release --reason=r --yes",
        "key forget acme --reason=r --yes",
    ] {
        let ran = run_in(nameless(), line, NOBODY).await;
        assert_eq!(ran.exit, Exit::Usage, "{line}");
        assert!(ran.err.contains("--operator"), "{line}: {}", ran.err);
    }
    let ran = run_in(nameless(), "account show acme", NOBODY).await;
    assert_eq!(ran.exit, Exit::Done, "looking needs no name");
    let grant = "credits grant acme 1 --reason=r --yes --json";
    let user = ("USER".to_owned(), "berta".to_owned());
    let by = |ran: Ran| serde_json::from_str::<Value>(&ran.out).unwrap()["actor"].clone();
    let ran = run_in(nameless().with([user.clone()]), grant, NOBODY).await;
    assert_eq!(by(ran), "operator:berta");
    let ran = run_in(env(&world).with([user]), grant, NOBODY).await;
    assert_eq!(by(ran), "operator:anna");
    let ran = run(&world, &format!("{grant} --operator carla"), NOBODY).await;
    assert_eq!(by(ran), "operator:carla");
}

#[tokio::test]
async fn settings_come_from_the_environment_and_over_it_from_a_file() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let none = || Env::from_pairs([("ACCOUNTS_TABLE", "x"), ("AWS_SESSION_TOKEN", "x")]);
    let missing = run_in(none(), "account show acme", NOBODY).await;
    assert_eq!(missing.exit, Exit::Usage);
    assert!(
        missing.err.contains("SECRETS_PREFIX is not set"),
        "{}",
        missing.err
    );

    let folder = std::env::temp_dir().join(edge::random_id("gretactl"));
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("dev.env");
    let settings = world.system.settings.iter();
    let lines = settings.map(|(name, value)| format!("{name}={value}\n"));
    let lines = lines.collect::<String>();
    std::fs::write(&file, format!("# comment\n\n{lines}")).unwrap();
    let line = format!("account show acme --env-file {}", file.display());
    let ran = run_in(none(), &line, NOBODY).await;
    assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
    std::fs::write(&file, "ACCOUNTS_TABLE\n").unwrap();
    let bad = run_in(none(), &line, NOBODY).await;
    assert!(bad.err.contains("line 1 of"), "{}", bad.err);
    std::fs::remove_dir_all(&folder).unwrap();
    let gone = run_in(none(), &format!("{line} --json"), NOBODY).await;
    assert_eq!(gone.exit, Exit::Usage);
    assert!(gone.out.contains("cannot be read"), "{}", gone.out);
}

#[tokio::test]
async fn the_help_is_enough() {
    let env = || Env::from_pairs::<String, String>([]);
    let help = run_in(env(), "--help", NOBODY).await;
    assert_eq!((help.exit, help.err.as_str()), (Exit::Done, ""));
    let commands = [
        "account create",
        "account show",
        "account set-plan",
        "account delete",
        "credits grant",
        "credits refund",
        "credits adjust",
        "credits reverse",
        "credits history",
        "credits reconcile",
        "holds list",
        "holds resolve",
        "key status",
        "key forget",
    ];
    for command in commands {
        assert!(help.out.contains(command), "{command}");
        let own = run_in(env(), &format!("{command} --help"), NOBODY).await;
        assert_eq!(own.exit, Exit::Done, "{command}");
    }
    for part in [
        "Exit codes",
        "ACCOUNTS_TABLE",
        "SECRETS_PREFIX",
        "cargo dev",
    ] {
        assert!(help.out.contains(part), "{part}");
    }
    let nothing = run_in(env(), "", NOBODY).await;
    assert_eq!(nothing.exit, Exit::Usage);
    assert!(nothing.err.contains("credits grant"), "{}", nothing.err);
    let version = run_in(env(), "--version", NOBODY).await;
    assert_eq!(version.exit, Exit::Done);
}
