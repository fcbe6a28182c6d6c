//! The balance of a standard account goes below the minimum: once for each time.

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

/// What others heard by now.
async fn told(world: &World) -> Vec<Value> {
    assert_eq!(world.tick_in(NOW).await["errors"], 0);
    world.told_of("credits.low")
}

#[tokio::test]
async fn a_call_that_goes_below_the_minimum_tells() {
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
            // It crosses: once more, with the event.
            "GetItem",
            TRANSACTION
        ]
    );
    assert_eq!(owner.say_hello().await.status, 200);
    let below = ["GetItem", TRANSACTION, "UpdateItem", TRANSACTION];
    assert_eq!(requests(), below, "as any other call");
    let events = told(&world).await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["minimum"], "1");
    assert_eq!(events[0]["account_id"], "acme");
    // Once for each time.
    world.set("acme", json!({"credits": "1"})).await;
    owner.say_hello().await;
    let events = told(&world).await;
    assert_eq!(events.len(), 2);
    assert_ne!(events[0]["id"], events[1]["id"]);
    world.settled_balance("acme").await;
}

#[tokio::test]
async fn above_below_and_at_the_minimum() {
    let world = World::with_settings(&[("MIN_CREDIT_BALANCE", "2.5")]).await;
    let store = world.system.store.clone();
    // The balance before, what is taken of it, and is it told?
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
        expected = told(&world).await.len();
        let hold = take(&world, &store, &format!("call_{number}"), before).await;
        settle(&world, &store, &hold, taken).await;
        let now = told(&world).await.len();
        assert_eq!(now - expected, usize::from(crosses), "{before} − {taken}");
        // A correction of the same kind.
        world.set("acme", json!({"credits": "20"})).await;
        world.set("acme", json!({"credits": before})).await;
        expected = told(&world).await.len();
        if credits(taken) > Credits::ZERO {
            let id = EntryId::new(format!("adj_{number}")).unwrap();
            let posting = posting(&id, &format!("-{taken}"), world.system.clock.now());
            let acme = AccountId::new("acme").unwrap();
            store.ledger.post(&acme, &posting).await.unwrap();
            store.ledger.post(&acme, &posting).await.unwrap();
        }
        let now = told(&world).await.len();
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
    assert_eq!(told(&world).await, Vec::<Value>::new());
}

/// Whoever settles a call tells by the terms of its hold.
#[tokio::test]
async fn the_sweeper_tells_as_well() {
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
    assert_eq!(world.told_of("credits.low").len(), 1);
}

#[tokio::test]
async fn a_settlement_that_goes_wrong_tells_once() {
    use Fault::{AnswerLost, Conflict, Repeated, Throttled};
    for fault in [AnswerLost, Repeated, Throttled, Conflict] {
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
            assert_eq!(told(&world).await.len(), 1, "{fault:?} {times}");
        }
    }
}

/// Two calls end at once, each of which would cross alone: whichever does tells.
#[tokio::test]
async fn of_two_calls_that_end_at_once_one_crosses() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "2"})).await;
    let store = world.store_over_the_wire();
    let store = store.with_low_credits_events(credits("1"));
    let mine = take(&world, &store, "call_1", "1").await;
    let others = take(&world, &store, "call_2", "1").await;
    // Mine does not cross by itself; it does after the other one, which comes first and does not.
    let (undisturbed, now) = (world.system.store.clone(), world.system.clock.now());
    world.wire.meanwhile(TRANSACTION, async move {
        let cost = "0.6".parse().unwrap();
        let settled = undisturbed.holds.settle(&others, cost, now, "test", None).await;
        settled.unwrap();
    });
    settle(&world, &store, &mine, "0.6").await;
    assert_eq!(world.settled_balance("acme").await, "0.8");
    assert_eq!(told(&world).await.len(), 1);

    // And the other way round: the other one crosses just before mine does.
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
    assert_eq!(told(&world).await.len(), 2);
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

/// Between the try that finds that it crosses and the one that tells, somebody else moves credits.
#[tokio::test]
async fn what_changes_between_the_tries_counts() {
    let world = World::start().await;
    let store = world.store_over_the_wire();
    let store = store.with_low_credits_events(credits("1"));
    let acme = AccountId::new("acme").unwrap();
    // The balance, what the call costs, what the other one moves, the balance in the end, and how often
    // it went below the minimum.
    let table = [
        ("2", "1.2", "-0.6", "0.2", 1),
        ("2", "1.2", "0.1", "0.9", 1),
        ("2", "1.2", "5", "5.8", 0),
        // The other one crosses, so the call does not.
        ("1.5", "0.6", "-0.6", "0.3", 1),
    ];
    for (number, (start, cost, amount, balance, crossed)) in table.into_iter().enumerate() {
        world.set("acme", json!({"credits": start})).await;
        let hold = take(&world, &store, &format!("call_{number}"), cost).await;
        let before = told(&world).await.len();
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
        assert_eq!(told(&world).await.len() - before, crossed, "{amount}");
    }
}

/// The same of postings: what they found when they began may have changed.
#[tokio::test]
async fn postings_at_once_tell_of_one_crossing() {
    let world = World::start().await;
    let store = world.store_over_the_wire();
    let store = store.with_low_credits_events(credits("1"));
    let acme = AccountId::new("acme").unwrap();
    // What is taken by mine, and by another one just before it: mine crosses only after it, or would
    // have crossed without it.
    let table = [("-0.6", "-0.6", 1), ("-0.4", "-1.5", 1), ("-1.2", "0.5", 0), ("-0.2", "-1.2", 1)];
    for (number, (mine, others, crossed)) in table.into_iter().enumerate() {
        world.set("acme", json!({"credits": "3"})).await;
        world.set("acme", json!({"credits": "2"})).await;
        let before = told(&world).await.len();
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
        assert_eq!(told(&world).await.len() - before, crossed, "{mine} {others}");
    }
}

/// A deleted account is told of no more, and its calls are settled all the same.
#[tokio::test]
async fn a_deleted_account_has_no_low_credits() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "2"})).await;
    let store = world.system.store.clone();
    let hold = take(&world, &store, "call_1", "2").await;
    crate::add_on::deleted(&world).await;
    settle(&world, &store, &hold, "2").await;
    assert_eq!(told(&world).await, Vec::<Value>::new());
    assert_eq!(world.tick_in(SignedDuration::from_hours(2)).await["errors"], 0);
    assert_eq!(world.waiting("acme").await, Vec::<String>::new());
}
