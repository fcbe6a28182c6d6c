//! `gretactl account`.

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use ctl::Exit;
use edge::Env;
use serde_json::{Value, json};
use store::Presence;

use super::{
    HOUR, NOBODY, account_id, done, env, failed, history, hold, json_of, number, run, run_in, text,
    tick,
};
use crate::support::World;

#[tokio::test]
async fn accounts_are_created_shown_and_changed() {
    let world = World::start().await;
    let created = done(&world, "account create acme --plan standard").await;
    assert_eq!((&created["plan"], &created["plan_version"]), (&json!("standard"), &json!(1)));
    assert_eq!(created["actor"], "operator:anna");
    let again = failed(&world, "account create acme --plan enterprise").await;
    assert!(again.contains("already"), "{again}");
    let other = text(&world, "account create other --plan enterprise --version 7").await;
    assert!(other.contains("plan          enterprise\nplan version  7"), "{other}");

    let shown = done(&world, "account show acme").await;
    assert_eq!(shown["state"], "live");
    let facts = &shown["account"];
    assert_eq!(facts["plan"], "standard");
    assert_eq!(facts["add_on"], json!({"status": "none", "paid_through": null}));
    assert_eq!((&facts["key"], &facts["enabled"]), (&Value::Null, &json!(false)));
    let nothing =
        json!({"balance": "0", "held": "0", "available": "0", "owed": "0", "open_holds": 0});
    assert_eq!(facts["credits"], nothing);
    assert_eq!(facts["history"][0]["what"], "created: standard, version 1");

    let set = done(&world, "account set-plan acme enterprise").await;
    assert_eq!((&set["plan"], &set["plan_version"]), (&json!("enterprise"), &json!(2)));
    assert_eq!((&set["changed"], &set["plan_before"]), (&json!(true), &json!("standard")));
    let again = text(&world, "account set-plan acme enterprise --version 2").await;
    assert!(again.contains("nothing was changed"), "{again}");
    let older = failed(&world, "account set-plan acme standard --version 1").await;
    assert!(older.contains("stored version is 2"), "{older}");
    let same = done(&world, "account set-plan acme standard --version 2").await;
    assert_eq!((&same["plan"], &same["changed"]), (&json!("standard"), &json!(true)));

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

/// A plan change needs no confirmation, unless it ends a paid add-on.
#[tokio::test]
async fn an_upgrade_that_ends_the_add_on_needs_confirmation() {
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
    // After a downgrade, the paid period can still be used.
    let down = done(&world, "account set-plan acme standard").await;
    assert_eq!(down["add_on"], "cancelling");
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
    assert_eq!((actor.as_str(), what.as_str()), ("operator:anna", "deleted, version 5"));
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
        assert!(never.contains("there is no account nobody"), "{line}: {never}");
    }
    let recreated = failed(&world, "account create acme --plan standard --version 5").await;
    assert!(recreated.contains("higher --version"), "{recreated}");
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
    let recreated = failed(&world, "account create acme --plan standard --version 9").await;
    assert!(recreated.contains("not all of it is gone"), "{recreated}");
    let shown = run(&world, "account show acme", NOBODY).await;
    assert!(shown.out.contains("until all holds have ended"), "{}", shown.out);
    done(&world, "credits reconcile acme").await;
    done(&world, "holds resolve acme call_1 --charge 0.001 --reason=late").await;
    let entries = history(&world, &number).await;
    assert_eq!(entries[0].1, "hold of call call_1 charged with 0.001: late");
    let presence =
        || async { world.system.store.accounts.presence(&account_id("acme")).await.unwrap() };
    let gone = |scrubbed| Presence::Deleted { version: 1, scrubbed };
    assert_eq!(presence().await, gone(false));
    tick(&world).await;
    assert_eq!(presence().await, gone(true));
    let all = done(&world, "credits reconcile --all").await;
    assert_eq!(all["accounts"], 0);
}

/// One zero too many would make every later event from the core system too old.
#[tokio::test]
async fn a_version_far_ahead_needs_confirmation() {
    let world = World::start().await;
    done(&world, "account create acme --plan standard").await;
    let version =
        async || done(&world, "account show acme").await["account"]["plan_version"].clone();
    let near = "account set-plan acme standard --version 1001";
    assert_eq!(run(&world, near, NOBODY).await.exit, Exit::Done);
    let far = "account set-plan acme standard --version 2002";
    assert_eq!(run(&world, far, NOBODY).await.exit, Exit::Usage);
    let asked = run(&world, far, Some("no\n")).await;
    assert_eq!(asked.exit, Exit::Usage);
    assert!(asked.err.contains("1001 ahead"), "{}", asked.err);
    assert_eq!(version().await, 1001);
    let asked = run(&world, far, Some("yes\n")).await;
    assert_eq!(asked.exit, Exit::Done, "{}", asked.err);
    // A system that uses timestamps as versions can do so.
    done(&world, "account set-plan acme standard --version 1800000000000").await;
    let next = "account set-plan acme enterprise";
    assert_eq!(run(&world, next, NOBODY).await.exit, Exit::Done);
    assert_eq!(version().await, 1_800_000_000_001_u64);

    let near = "account delete acme --version 1800000001001";
    let asked = run(&world, near, Some("no\n")).await;
    assert!(!asked.err.contains("ahead"), "{}", asked.err);
    let far = "account delete acme --version 1800000001002";
    let asked = run(&world, far, Some("no\n")).await;
    assert!(asked.err.contains("1001 ahead"), "{}", asked.err);
    done(&world, far).await;
    // A new account must be newer than the tombstone's version.
    let near = "account delete acme --version 1800000002002";
    assert_eq!(run(&world, near, NOBODY).await.exit, Exit::Done);
    let far = "account delete acme --version 1800000003003";
    assert_eq!(run(&world, far, NOBODY).await.exit, Exit::Usage);
    let (_, shown) = json_of(&world, "account show acme").await;
    assert_eq!(shown["deleted_version"], 1_800_000_002_002_u64);
    let asked = run(&world, far, Some("yes\n")).await;
    assert_eq!(asked.exit, Exit::Done, "{}", asked.err);
}

/// The outcome of a transaction on its way to DynamoDB.
#[derive(Clone, Copy)]
enum Fate {
    /// It is carried out, and every response is lost.
    ResponseLost,
    /// Every attempt is refused because of a conflict.
    Refused,
}

/// The settings of a tool whose transactions end that way.
async fn env_with(world: &World, fate: Fate) -> Env {
    let dynamodb = world.engines().dynamodb_url.clone();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let relay = Router::new().fallback(async move |request: Request| {
        let (parts, body) = request.into_parts();
        let target = parts.headers["x-amz-target"].to_str().unwrap();
        let is_transaction = target.ends_with(".TransactWriteItems");
        if is_transaction && matches!(fate, Fate::Refused) {
            let body = json!({
                "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
                "CancellationReasons": [{"Code": "TransactionConflict"}, {"Code": "None"}],
            });
            let body = body.to_string().into();
            return (StatusCode::BAD_REQUEST, HeaderMap::new(), body);
        }
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let sent = http.post(&dynamodb).headers(parts.headers).body(body);
        let answer = sent.send().await.unwrap();
        if is_transaction {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            return (status, HeaderMap::new(), axum::body::Bytes::new());
        }
        let (status, headers) = (answer.status(), answer.headers().clone());
        (status, headers, answer.bytes().await.unwrap())
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    edge::spawn(async move { axum::serve(listener, relay).await.unwrap() });
    env(world).with([("AWS_ENDPOINT_URL_DYNAMODB".to_owned(), url)])
}

/// If it were reported as failed, an operator would create the account again.
#[tokio::test]
async fn an_unknown_creation_is_reported_as_unknown() {
    let world = World::start().await;
    let create = "account create acme --plan standard";
    let refused = run_in(env_with(&world, Fate::Refused).await, create, NOBODY).await;
    assert_eq!(refused.exit, Exit::Failed);
    assert!(refused.err.contains("retries included"), "{}", refused.err);
    assert!(!refused.err.contains("not known"), "{}", refused.err);
    let response_lost = run_in(env_with(&world, Fate::ResponseLost).await, create, NOBODY).await;
    assert_eq!(response_lost.exit, Exit::Failed);
    for part in ["not known whether", "`gretactl account show acme`"] {
        assert!(response_lost.err.contains(part), "{}", response_lost.err);
    }
    done(&world, "account show acme").await;
}
