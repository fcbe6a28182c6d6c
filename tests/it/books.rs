//! Promises of the store that no single call shows.

use std::convert::Infallible;

use account::hold::HoldState;
use account::{Account, CallId, Credits, KeyId, KeyLimits, KeyState, SavedKey};
use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use store::{Effect, HoldOutcome, NewHold, Resolution, UpdateError};

use crate::support::{World, hello, new_hold};

async fn hold(
    world: &World,
    account: &Account,
    call: &CallId,
    idempotency: Option<&str>,
    at: Timestamp,
) -> HoldOutcome {
    let new = NewHold { idempotency, ..new_hold(call, Credits::from_micros(1_000), at) };
    world.system.store.holds.take(account, &new).await.unwrap()
}

fn call(name: &str) -> CallId {
    CallId::new(name).unwrap()
}

#[tokio::test]
async fn a_hold_is_resolved_once() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    let account = world.system.account("acme").await;
    let now = world.system.clock.now();
    let store = &world.system.store;
    let cost = Credits::from_micros(400);
    let held = hold(&world, &account, &call("call_1"), None, now).await.taken().unwrap();
    let (a, b, c) = tokio::join!(
        store.holds.settle(&held, cost, now, "test", None),
        store.holds.release(&held, now, "test", None),
        store.holds.settle(&held, Credits::from_micros(7), now, "test", None),
    );
    let ends = [a.unwrap(), b.unwrap(), c.unwrap()];
    let done = ends.iter().filter(|end| matches!(end, Resolution::Done(_)));
    assert_eq!(done.count(), 1, "{ends:?}");
    world.settled_balance("acme").await;

    // Repeating the same resolution reports it as done; another one finds the hold resolved.
    let held = hold(&world, &account, &call("call_2"), None, now).await.taken().unwrap();
    for _ in 0..2 {
        assert_eq!(
            store.holds.settle(&held, cost, now, "test", None).await.unwrap(),
            Resolution::Done(HoldState::Settled(cost))
        );
    }
    assert_eq!(
        store.holds.release(&held, now, "test", None).await.unwrap(),
        Resolution::Already(Some(HoldState::Settled(cost)))
    );
    world.settled_balance("acme").await;

    // Never more than the hold.
    let held = hold(&world, &account, &call("call_3"), None, now).await.taken().unwrap();
    let more = Credits::from_micros(5_000);
    let most = Resolution::Done(HoldState::Settled(Credits::from_micros(1_000)));
    assert_eq!(store.holds.settle(&held, more, now, "test", None).await.unwrap(), most);
    world.settled_balance("acme").await;
}

/// A hold whose transaction got no response either exists or can never appear.
#[tokio::test]
async fn a_lost_hold_is_fenced() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    let owner = world.owner("acme");
    let send = || world.send(owner.chat_request(&hello()).header("idempotency-key", "k"));
    world.wire.swallow_next("TransactWriteItems");
    let refused = send().await;
    assert_eq!(refused.error(), (503, "storage_unavailable".to_owned()));
    assert_eq!(world.settled_balance("acme").await, "7");
    assert_eq!(world.default_ai().calls().len(), 0);

    // The same hold, arriving late, fails on the fence.
    let account = world.system.account("acme").await;
    let late = call(refused.header("x-greta-call-id"));
    let new = new_hold(&late, Credits::MICRO, world.system.clock.now());
    assert!(world.system.store.holds.take(&account, &new).await.is_err());
    assert_eq!(world.settled_balance("acme").await, "7");
    assert_eq!(send().await.status, 200, "the idempotency key is free");
}

/// The hold's transaction is still running when its fence arrives: the fence waits.
#[tokio::test]
async fn a_fence_waits_for_a_hold_in_flight() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    let owner = world.owner("acme");
    world.wire.lose_next_response_of("TransactWriteItems");
    world.wire.conflict_with_next("PutItem", 3);
    assert_eq!(owner.say_hello().await.status, 200);
    let spent = world.settled_balance("acme").await;
    assert_ne!(spent, "7");
    world.wire.swallow_next("TransactWriteItems");
    world.wire.conflict_with_next("PutItem", 3);
    let refused = owner.say_hello().await;
    assert_eq!(refused.error(), (503, "storage_unavailable".to_owned()));
    assert_eq!(world.settled_balance("acme").await, spent);
}

/// A call plans a second hold and then finds its own first one, which arrived late: the whole first
/// hold counts, and is resolved.
#[tokio::test]
async fn an_earlier_plans_hold_is_kept_whole() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    let account = world.system.account("acme").await;
    let now = world.system.clock.now();
    let first = hold(&world, &account, &call("call_1"), None, now).await.taken().unwrap();
    let smaller = new_hold(&first.call, Credits::from_micros(400), now);
    let found = world.system.store.holds.take(&account, &smaller).await.unwrap().taken().unwrap();
    assert_eq!(found.amount, first.amount);
    // It is found behind its own fence, too.
    let store = world.store_over_the_wire();
    world.wire.swallow_next("TransactWriteItems");
    let found = store.holds.take(&account, &smaller).await.unwrap().taken().unwrap();
    assert_eq!(found.amount, first.amount);
    store.holds.settle(&found, Credits::MICRO, now, "test", None).await.unwrap();
    assert_eq!(world.settled_balance("acme").await, "6.999999");
}

/// The fence's response is lost and the SDK sends it again: it finds itself, not the hold.
#[tokio::test]
async fn a_fence_is_not_mistaken_for_the_hold() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    let owner = world.owner("acme");
    world.wire.swallow_next("TransactWriteItems");
    world.wire.repeat_next("PutItem");
    let refused = owner.say_hello().await;
    assert_eq!(refused.error(), (503, "storage_unavailable".to_owned()));
    assert_eq!(world.default_ai().calls().len(), 0, "no call without a hold");
    assert_eq!(world.settled_balance("acme").await, "7");
    assert_eq!(owner.say_hello().await.status, 200);
}

/// A write that the SDK repeats after a lost response counts once.
#[tokio::test]
async fn a_repeated_write_counts_once() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "7").await;
    for _ in 0..4 {
        assert_eq!(owner.test_key().await.status, 200);
    }
    world.wire.repeat_next("PutItem");
    assert_eq!(owner.test_key().await.status, 200);
    // One save and five tests are counted: four more are allowed, and no fifth.
    for _ in 0..4 {
        assert_eq!(owner.test_key().await.status, 200);
    }
    assert_eq!(owner.test_key().await.error().0, 429);
    world.wire.repeat_next("UpdateItem");
    let off = json!({"enabled": false});
    assert_eq!(owner.switch(off).await.status, 200);
    world.wire.repeat_next("TransactWriteItems");
    assert_eq!(owner.say_hello().await.status, 200);
    world.settled_balance("acme").await;
    assert_eq!(owner.ledger().await.len(), 2);
}

#[tokio::test]
async fn releasing_keeps_a_later_calls_idempotency_key() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    let account = world.system.account("acme").await;
    let now = world.system.clock.now();
    let later = now + SignedDuration::from_hours(24);
    let first = hold(&world, &account, &call("call_1"), Some("k"), now).await.taken().unwrap();
    let second = hold(&world, &account, &call("call_2"), Some("k"), later).await.taken().unwrap();
    let released = world.system.store.holds.release(&first, later, "test", None).await.unwrap();
    assert_eq!(released, Resolution::Done(HoldState::Released));
    let third = hold(&world, &account, &call("call_3"), Some("k"), later).await;
    assert_eq!(third, HoldOutcome::Duplicate);
    world.system.store.holds.release(&second, later, "test", None).await.unwrap();
    let fourth = hold(&world, &account, &call("call_4"), Some("k"), later).await;
    assert!(fourth.taken().is_some(), "a released call's key is free");
}

/// The first call holds nearly everything: a second one with its idempotency key is still reported
/// as a duplicate.
#[tokio::test]
async fn a_duplicate_is_reported_even_without_credits() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "0.01"})).await;
    let owner = world.owner("acme");
    let mut body = hello();
    body["model"] = json!("sim-priced/slow-head-200");
    let first = world.send(owner.chat_request(&body).header("idempotency-key", "k"));
    let again = async {
        let sent = |calls: &[local::openrouter::RecordedCall]| calls.len() == 1;
        world.default_ai().until(sent).await;
        world.send(owner.chat_request(&body).header("idempotency-key", "k")).await
    };
    let (first, again) = tokio::join!(first, again);
    assert_eq!(first.status, 200);
    assert_eq!(again.error(), (409, "duplicate_call".to_owned()));
}

fn saved(id: &KeyId, at: Timestamp) -> SavedKey {
    SavedKey {
        id: id.clone(),
        label: "sk-or-v1-a...b".to_owned(),
        last4: "wxyz".to_owned(),
        sha256: "00".to_owned(),
        saved_at: at,
        saved_by: "user_1".to_owned(),
        state: KeyState::Usable,
        limits: KeyLimits::default(),
        checked_at: at,
        unclear_error_at: None,
    }
}

/// A save so slow that the clean-up has deleted its secret does not put its key in force.
#[tokio::test]
async fn clean_up_and_save_cannot_both_win() {
    let world = World::start().await;
    world.set("acme", json!({"plan": "enterprise"})).await;
    let account = world.system.account("acme").await;
    let store = &world.system.store;
    let now = world.system.clock.now();
    let due = now + SignedDuration::from_hours(1);
    let key = KeyId::new("key_1").unwrap();
    store.accounts.remember_secret(&account.id, &key, due).await.unwrap();
    let request = world.request(Method::POST, "/_dev/tick").body(json!({"time": due}).to_string());
    assert_eq!(world.send(request).await.json()["errors"], 0);
    let switched = store
        .accounts
        .update(&account.id, None, now, |profile| {
            profile.connect(saved(&key, now));
            let key = key.clone();
            Ok::<_, Infallible>(vec![Effect::SecretInForce { key, due }])
        })
        .await;
    assert!(matches!(switched, Err(UpdateError::Store(_))), "{switched:?}");
    assert!(world.system.account("acme").await.profile.key.is_none());
}

/// The proof can fail: tampered books are detected, and not repaired.
#[tokio::test]
async fn reconciliation_finds_what_does_not_add_up() {
    use aws_sdk_dynamodb::types::AttributeValue::{N, S};
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    world
        .engines()
        .dynamodb()
        .update_item()
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
        let shown = world.shown("acme").await;
        assert_eq!(shown["reconciliation"]["ok"], false);
        let problems = shown["reconciliation"]["problems"].as_array().unwrap().len();
        assert_eq!(problems, 3, "ledger, holds, available: {shown}");
    }
}
