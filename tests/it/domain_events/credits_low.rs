//! A standard account's balance goes below the minimum: one event per crossing.

use account::{AccountId, CallId, Credits, EntryId};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use store::{EntryKind, Hold, Posting, Resolution, Store};

use super::{NOW, TRANSACTION, minutes};
use crate::support::{World, new_hold};
use crate::wire::Fault;

fn credits(text: &str) -> Credits {
    text.parse().unwrap()
}

async fn take(world: &World, store: &Store, call: &str, amount: &str) -> Hold {
    let call = CallId::new(call).unwrap();
    let new = new_hold(&call, credits(amount), world.system.clock.now());
    let account = world.system.account("acme").await;
    let taken = store.holds.take(&account, &new).await;
    taken.unwrap().taken().unwrap()
}

async fn settle(world: &World, store: &Store, hold: &Hold, cost: &str) {
    let now = world.system.clock.now();
    let settled = store.holds.settle(hold, credits(cost), now, "test", None).await.unwrap();
    assert!(matches!(settled, Resolution::Done(_)), "{settled:?}");
}

/// The `credits.low` events so far.
async fn low_credits_events(world: &World) -> Vec<Value> {
    assert_eq!(world.tick_in(NOW).await["errors"], 0);
    world.sent_of("credits.low")
}

#[tokio::test]
async fn a_call_that_crosses_the_minimum_sends_an_event() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "1.000001"})).await;
    let owner = world.owner("acme");
    world.wire.take();
    assert_eq!(owner.say_hello().await.status, 200);
    let requests = || {
        let mut requests = world.wire.take();
        requests.retain(|operation| operation != "GetSecretValue");
        requests
    };
    assert_eq!(
        requests(),
        [
            "GetItem",
            TRANSACTION,
            "UpdateItem",
            TRANSACTION,
            // It crosses the minimum: the settlement is repeated with the event.
            "GetItem",
            TRANSACTION
        ]
    );
    assert_eq!(owner.say_hello().await.status, 200);
    let below = ["GetItem", TRANSACTION, "UpdateItem", TRANSACTION];
    assert_eq!(requests(), below, "as any other call");
    let events = low_credits_events(&world).await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["minimum"], "1");
    assert_eq!(events[0]["account_id"], "acme");
    // One event per crossing.
    world.set("acme", json!({"credits": "1"})).await;
    owner.say_hello().await;
    let events = low_credits_events(&world).await;
    assert_eq!(events.len(), 2);
    assert_ne!(events[0]["id"], events[1]["id"]);
    world.settled_balance("acme").await;
}

#[tokio::test]
async fn above_below_and_at_the_minimum() {
    let world = World::with_settings(&[("MIN_CREDIT_BALANCE", "2.5")]).await;
    let store = world.system.store.clone();
    // The balance before, the amount taken, and whether an event is expected.
    let table = [
        ("10", "7", false),
        ("10", "7.5", false),
        ("10", "7.500001", true),
        ("2.5", "0.000001", true),
        ("2.5", "0", false),
        ("2.499999", "1", false),
    ];
    let mut expected = 0;
    for (number, (before, taken, crosses)) in table.into_iter().enumerate() {
        world.set("acme", json!({"credits": "20"})).await;
        world.set("acme", json!({"credits": before})).await;
        expected = low_credits_events(&world).await.len();
        let hold = take(&world, &store, &format!("call_{number}"), before).await;
        settle(&world, &store, &hold, taken).await;
        let now = low_credits_events(&world).await.len();
        assert_eq!(now - expected, usize::from(crosses), "{before} − {taken}");
        // An adjustment by the same amount.
        world.set("acme", json!({"credits": "20"})).await;
        world.set("acme", json!({"credits": before})).await;
        expected = low_credits_events(&world).await.len();
        if credits(taken) > Credits::ZERO {
            let id = EntryId::new(format!("adj_{number}")).unwrap();
            let posting = posting(&id, &format!("-{taken}"), world.system.clock.now());
            let acme = AccountId::new("acme").unwrap();
            store.ledger.post(&acme, &posting).await.unwrap();
            store.ledger.post(&acme, &posting).await.unwrap();
        }
        let now = low_credits_events(&world).await.len();
        assert_eq!(now - expected, usize::from(crosses), "{before} − {taken}");
    }
    assert!(expected > 0);
}

#[tokio::test]
async fn enterprise_accounts_have_no_minimum() {
    let world = World::start().await;
    let plan = json!({"plan": "enterprise", "credits": "1"});
    world.set("acme", plan).await;
    assert_eq!(world.owner("acme").say_hello().await.status, 200);
    world.set("acme", json!({"credits": "0.1"})).await;
    assert_eq!(low_credits_events(&world).await, Vec::<Value>::new());
}

/// Any settlement sends the event, by the terms of its hold.
#[tokio::test]
async fn the_sweeper_sends_the_event_too() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "1"})).await;
    let body = json!({
        "model": "sim-priced/no-usage",
        "messages": [{"role": "user", "content": "Hello there, how are you?"}],
    });
    assert_eq!(world.owner("acme").chat(&body).await.status, 200);
    let report = world.tick_in(minutes(1)).await;
    assert_eq!(report["swept"], 1, "{report}");
    world.tick_in(minutes(2)).await;
    assert_eq!(world.sent_of("credits.low").len(), 1);
}

#[tokio::test]
async fn a_retried_settlement_sends_one_event() {
    use Fault::{Conflict, Repeated, ResponseLost, Throttled};
    for fault in [ResponseLost, Repeated, Throttled, Conflict] {
        for times in [1, 2] {
            let world = World::start().await;
            world.set("acme", json!({"credits": "2"})).await;
            let store = world.store_over_the_wire();
            let store = store.with_low_credits_events(credits("1"));
            let hold = take(&world, &store, "call_1", "2").await;
            world.wire.disturb(TRANSACTION, fault, times);
            let now = world.system.clock.now();
            let mut settled = None;
            while settled.is_none() {
                let tried = store.holds.settle(&hold, credits("1.5"), now, "test", None);
                settled = tried.await.ok();
            }
            world.wire.disturb(TRANSACTION, fault, 0);
            assert_eq!(world.settled_balance("acme").await, "0.5");
            assert_eq!(low_credits_events(&world).await.len(), 1, "{fault:?} {times}");
        }
    }
}

/// Two calls end at once, and each alone would cross: only the one that does sends the event.
#[tokio::test]
async fn one_of_two_concurrent_calls_crosses() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "2"})).await;
    let store = world.store_over_the_wire();
    let store = store.with_low_credits_events(credits("1"));
    let mine = take(&world, &store, "call_1", "1").await;
    let others = take(&world, &store, "call_2", "1").await;
    // My settlement would not cross alone. It does after the other one, which comes first and does
    // not cross.
    let (undisturbed, now) = (world.system.store.clone(), world.system.clock.now());
    world.wire.meanwhile(TRANSACTION, async move {
        let cost = "0.6".parse().unwrap();
        let settled = undisturbed.holds.settle(&others, cost, now, "test", None).await;
        settled.unwrap();
    });
    settle(&world, &store, &mine, "0.6").await;
    assert_eq!(world.settled_balance("acme").await, "0.8");
    assert_eq!(low_credits_events(&world).await.len(), 1);

    // The reverse: the other one crosses just before mine would.
    world.set("acme", json!({"credits": "2"})).await;
    let mine = take(&world, &store, "call_4", "1").await;
    let others = take(&world, &store, "call_5", "1").await;
    let store_of_others = world.system.store.clone();
    let cross = async move {
        let cost = credits("1");
        let settled = store_of_others.holds.settle(&others, cost, now, "test", None);
        settled.await.unwrap();
    };
    world.wire.meanwhile(TRANSACTION, cross);
    settle(&world, &store, &mine, "0.1").await;
    assert_eq!(world.settled_balance("acme").await, "0.9");
    assert_eq!(low_credits_events(&world).await.len(), 2);
}

fn posting<'a>(id: &'a EntryId, amount: &str, at: Timestamp) -> Posting<'a> {
    Posting {
        id,
        kind: EntryKind::Adjustment,
        amount: credits(amount),
        at,
        note: "a correction",
        actor: "test",
    }
}

/// Between the attempt that detects the crossing and the one that reports it, another writer moves
/// credits.
#[tokio::test]
async fn changes_between_attempts_count() {
    let world = World::start().await;
    let store = world.store_over_the_wire();
    let store = store.with_low_credits_events(credits("1"));
    let acme = AccountId::new("acme").unwrap();
    // The balance, the call's cost, what the other writer moves, the final balance, and the number
    // of crossings.
    let table = [
        ("2", "1.2", "-0.6", "0.2", 1),
        ("2", "1.2", "0.1", "0.9", 1),
        ("2", "1.2", "5", "5.8", 0),
        // The other writer crosses, so the call does not.
        ("1.5", "0.6", "-0.6", "0.3", 1),
    ];
    for (number, (start, cost, amount, balance, crossed)) in table.into_iter().enumerate() {
        world.set("acme", json!({"credits": start})).await;
        let hold = take(&world, &store, &format!("call_{number}"), cost).await;
        let before = low_credits_events(&world).await.len();
        let id = EntryId::new(format!("adj_{number}")).unwrap();
        let (others, account) = (world.system.store.clone(), acme.clone());
        let now = world.system.clock.now();
        world.wire.meanwhile(TRANSACTION, async {});
        world.wire.meanwhile(TRANSACTION, async move {
            let posting = posting(&id, amount, now);
            others.ledger.post(&account, &posting).await.unwrap();
        });
        settle(&world, &store, &hold, cost).await;
        assert_eq!(world.settled_balance("acme").await, balance);
        assert_eq!(low_credits_events(&world).await.len() - before, crossed, "{amount}");
    }
}

/// The same for postings: the balance may have changed since they began.
#[tokio::test]
async fn concurrent_postings_send_one_event() {
    let world = World::start().await;
    let store = world.store_over_the_wire();
    let store = store.with_low_credits_events(credits("1"));
    let acme = AccountId::new("acme").unwrap();
    // My amount, and another one posted just before it: mine crosses only because of the other, or
    // would have crossed without it.
    let table = [("-0.6", "-0.6", 1), ("-0.4", "-1.5", 1), ("-1.2", "0.5", 0), ("-0.2", "-1.2", 1)];
    for (number, (mine, others, crossed)) in table.into_iter().enumerate() {
        world.set("acme", json!({"credits": "3"})).await;
        world.set("acme", json!({"credits": "2"})).await;
        let before = low_credits_events(&world).await.len();
        let (one, other) = (format!("one_{number}"), format!("other_{number}"));
        let (one, other) = (EntryId::new(one).unwrap(), EntryId::new(other).unwrap());
        let (of_others, account) = (world.system.store.clone(), acme.clone());
        let now = world.system.clock.now();
        world.wire.meanwhile(TRANSACTION, async move {
            let posting = posting(&other, others, now);
            of_others.ledger.post(&account, &posting).await.unwrap();
        });
        let posting = posting(&one, mine, now);
        store.ledger.post(&acme, &posting).await.unwrap();
        world.settled_balance("acme").await;
        assert_eq!(low_credits_events(&world).await.len() - before, crossed, "{mine} {others}");
    }
}

/// No event is sent for a deleted account, but its calls are still settled.
#[tokio::test]
async fn a_deleted_account_sends_no_low_credits_event() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "2"})).await;
    let store = world.system.store.clone();
    let hold = take(&world, &store, "call_1", "2").await;
    crate::add_on::deleted(&world).await;
    settle(&world, &store, &hold, "2").await;
    assert_eq!(low_credits_events(&world).await, Vec::<Value>::new());
    assert_eq!(world.tick_in(SignedDuration::from_hours(2)).await["errors"], 0);
    assert_eq!(world.undelivered("acme").await, Vec::<String>::new());
}
