//! Credits that move without a call.

use account::{AccountId, Credits, EntryId};
use serde_json::json;
use store::{EntryKind, PostRefused, Posted, Posting};

use crate::support::{World, refused};

fn id(name: &str) -> EntryId {
    EntryId::new(name).unwrap()
}

async fn post(
    world: &World,
    name: &str,
    kind: EntryKind,
    micros: i64,
) -> Result<Posted, PostRefused> {
    let account = AccountId::new("acme").unwrap();
    let posting = Posting {
        id: &id(name),
        kind,
        amount: Credits::from_micros(micros),
        at: world.system.clock.now(),
        note: "why",
        actor: "test",
    };
    refused(world.system.store.ledger.post(&account, &posting).await)
}

fn moved(balance: i64, owed: i64) -> Posted {
    Posted::Now { balance: Credits::from_micros(balance), owed: Credits::from_micros(owed) }
}

const CREDIT: i64 = 1_000_000;

#[tokio::test]
async fn a_posting_counts_once() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    let grant = post(&world, "grant_1", EntryKind::Grant, CREDIT).await;
    assert_eq!(grant, Ok(moved(CREDIT, 0)));
    let again = post(&world, "grant_1", EntryKind::Grant, CREDIT).await;
    assert_eq!(again, Ok(Posted::Before));
    assert_eq!(world.settled_balance("acme").await, "8");
    // Reusing an id for something else is an error.
    for (kind, amount) in [(EntryKind::Grant, 2 * CREDIT), (EntryKind::Refund, CREDIT)] {
        let other = post(&world, "grant_1", kind, amount).await;
        assert_eq!(other, Err(PostRefused::IdTaken));
    }
    let more = post(&world, "adj_1", EntryKind::Adjustment, -9 * CREDIT).await;
    assert!(matches!(more, Err(PostRefused::Insufficient(_))), "{more:?}");
    // An adjustment that took all credits is not refused as insufficient when it is repeated.
    let all = post(&world, "adj_2", EntryKind::Adjustment, -8 * CREDIT).await;
    assert_eq!(all, Ok(moved(-8 * CREDIT, 0)));
    let again = post(&world, "adj_2", EntryKind::Adjustment, -8 * CREDIT).await;
    assert_eq!(again, Ok(Posted::Before));
    assert_eq!(world.settled_balance("acme").await, "0");
}

#[tokio::test]
async fn a_lost_response_is_not_posted_again() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    let account = AccountId::new("acme").unwrap();
    let over_the_wire = world.store_over_the_wire();
    let posting = Posting {
        id: &id("grant_1"),
        kind: EntryKind::Grant,
        amount: Credits::from_micros(CREDIT),
        at: world.system.clock.now(),
        note: "why",
        actor: "test",
    };
    world.wire.lose_next_response_of("TransactWriteItems");
    let posted = refused(over_the_wire.ledger.post(&account, &posting).await);
    assert_eq!(posted, Ok(moved(CREDIT, 0)), "the same posting");
    world.wire.repeat_next("TransactWriteItems");
    let posted = refused(over_the_wire.ledger.post(&account, &posting).await);
    assert_eq!(posted, Ok(Posted::Before));
    // A posting that never arrived is reported as failed and can be retried.
    let second = Posting { id: &id("grant_2"), ..posting };
    world.wire.swallow_next("TransactWriteItems");
    assert!(over_the_wire.ledger.post(&account, &second).await.is_err());
    assert_eq!(world.settled_balance("acme").await, "8");
    world.wire.conflict_with_next("TransactWriteItems", 3);
    let posted = refused(over_the_wire.ledger.post(&account, &second).await);
    assert_eq!(posted, Ok(moved(CREDIT, 0)));
    assert_eq!(world.settled_balance("acme").await, "9");
}

#[tokio::test]
async fn the_rest_of_a_reversal_is_owed_until_credits_come() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let owner = world.owner("acme");
    post(&world, "buy_1", EntryKind::Purchase, 10 * CREDIT).await.unwrap();
    post(&world, "adj_1", EntryKind::Adjustment, -6 * CREDIT).await.unwrap();
    let reversal = post(&world, "rev_1", EntryKind::Reversal, -10 * CREDIT).await;
    assert_eq!(reversal, Ok(moved(-4 * CREDIT, 6 * CREDIT)));
    let credits = owner.get("/v1/credits").await.json();
    assert_eq!((&credits["balance"], &credits["owed"]), (&json!("0"), &json!("6")));
    // A refund of credits does not reduce the debt; a purchase or grant pays it at once.
    post(&world, "refund_1", EntryKind::Refund, CREDIT).await.unwrap();
    let purchase = post(&world, "buy_2", EntryKind::Purchase, 3 * CREDIT).await;
    assert_eq!(purchase, Ok(moved(-CREDIT, -4 * CREDIT)));
    let grant = post(&world, "grant_1", EntryKind::Grant, 5 * CREDIT).await;
    assert_eq!(grant, Ok(moved(3 * CREDIT, -2 * CREDIT)));
    let credits = owner.get("/v1/credits").await.json();
    assert_eq!((&credits["balance"], &credits["owed"]), (&json!("3"), &json!("0")));
    assert_eq!(world.settled_balance("acme").await, "3");
    let ledger = owner.ledger().await;
    let amounts: Vec<_> = ledger
        .iter()
        .map(|entry| (entry["kind"].as_str().unwrap(), entry["amount"].as_str().unwrap()))
        .collect();
    assert_eq!(
        amounts,
        [
            ("reversal", "-2"),
            ("grant", "5"),
            ("reversal", "-4"),
            ("purchase", "3"),
            ("refund", "1"),
            ("reversal", "-4"),
            ("adjustment", "-6"),
            ("purchase", "10"),
        ]
    );
}

#[tokio::test]
async fn each_kind_moves_credits_in_its_own_direction() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    let wrong = [
        (EntryKind::Grant, -1),
        (EntryKind::Purchase, -1),
        (EntryKind::Refund, -1),
        (EntryKind::Reversal, 1),
        (EntryKind::AddOn, 1),
        (EntryKind::Call, -1),
    ];
    for (number, (kind, amount)) in wrong.into_iter().enumerate() {
        let posted = post(&world, &format!("p_{number}"), kind, amount).await;
        assert_eq!(posted, Err(PostRefused::Amount(kind)));
    }
    let nobody = AccountId::new("nobody").unwrap();
    let posting = Posting {
        id: &id("grant_1"),
        kind: EntryKind::Grant,
        amount: Credits::MICRO,
        at: world.system.clock.now(),
        note: "why",
        actor: "test",
    };
    let posted = refused(world.system.store.ledger.post(&nobody, &posting).await);
    assert_eq!(posted, Err(PostRefused::NoAccount));
    assert_eq!(world.settled_balance("acme").await, "7");
}

/// Each of two grants fits, but not both: the later write is refused.
#[tokio::test]
async fn two_postings_at_once_cannot_overflow_the_balance() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let (account, at) = (AccountId::new("acme").unwrap(), world.system.clock.now());
    let half = Credits::from_micros(i64::MAX / 2 + 1);
    let grant = async move |store: store::Store, account: AccountId, name: &str| {
        let posting = Posting {
            id: &id(name),
            kind: EntryKind::Grant,
            amount: half,
            at,
            note: "why",
            actor: "test",
        };
        refused(store.ledger.post(&account, &posting).await)
    };
    let (store, of) = (world.system.store.clone(), account.clone());
    let over_the_wire = world.store_over_the_wire();
    world.wire.meanwhile("TransactWriteItems", async move {
        grant(store, of, "grant_1").await.unwrap();
    });
    let posted = grant(over_the_wire, account, "grant_2").await;
    assert_eq!(posted, Err(PostRefused::Amount(EntryKind::Grant)));
    assert_eq!(world.settled_balance("acme").await, half.to_string());
}
