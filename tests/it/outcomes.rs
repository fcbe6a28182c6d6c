//! Each payment has one outcome and each period one payment, in any order of workers.

use account::Period;
use account::add_on::GenerationId;
use jiff::Timestamp;
use serde_json::json;
use store::{DueTask, Outcome, PaymentOrder, Purchase, Store, StoreError};

use crate::support::World;

struct UnpaidOrder {
    world: World,
    /// A store that others can race against.
    disturbed: Store,
    order: PaymentOrder,
    now: Timestamp,
}

/// A payment order that is not paid yet.
async fn unpaid() -> UnpaidOrder {
    let world = World::start().await;
    world.set("acme", json!({"add_on": "active"})).await;
    let account = world.system.account("acme").await;
    let order = PaymentOrder {
        stripe_id: "pi_1".to_owned(),
        account_number: account.number.clone(),
        purchase: Purchase::Period { generation: GenerationId::new("cs_1"), period: Period::FIRST },
        amount_cents: 500,
        created_at: world.system.clock.now(),
    };
    world.system.store.payments.create_order(&order).await.unwrap();
    UnpaidOrder {
        disturbed: world.store_over_the_wire(),
        now: world.system.clock.now(),
        world,
        order,
    }
}

/// Applies the payment as owed or not, without changing the profile.
async fn apply_payment(
    store: &Store,
    object: &str,
    at: Timestamp,
    owed: bool,
) -> Result<Outcome, StoreError> {
    let applied = store.payments.apply(object, at, |_, _| (owed, Vec::new()));
    Ok(applied.await?.unwrap().outcome)
}

impl UnpaidOrder {
    /// The payments with a refund due.
    async fn refunds(&self) -> Vec<String> {
        let mut refunds = Vec::new();
        for shard in store::shards() {
            let due =
                self.disturbed.due.find(store::DueKind::Refund, shard, Timestamp::MAX, 9).await;
            for due in due.unwrap() {
                if let DueTask::Refund(stripe_id) = due.unwrap().task {
                    refunds.push(stripe_id);
                }
            }
        }
        refunds
    }

    async fn outcome(&self) -> Option<Outcome> {
        let stored = self.world.system.store.payments.order("pi_1").await.unwrap();
        stored.unwrap().1
    }
}

#[tokio::test]
async fn the_first_outcome_of_a_payment_stands() {
    let unpaid = unpaid().await;
    let (store, now) = (unpaid.world.system.store.clone(), unpaid.now);
    unpaid.world.wire.meanwhile("TransactWriteItems", async move {
        let first = apply_payment(&store, "pi_1", now, true).await;
        assert_eq!(first.unwrap(), Outcome::Counted);
    });
    let second = apply_payment(&unpaid.disturbed, "pi_1", now, false).await;
    assert_eq!(second.unwrap(), Outcome::Counted);
    assert_eq!(unpaid.outcome().await, Some(Outcome::Counted));
    assert_eq!(unpaid.refunds().await, [""; 0]);
}

/// Closing a session keeps a refund that became due at the same moment.
#[tokio::test]
async fn closing_a_session_keeps_its_due_refund() {
    let unpaid = unpaid().await;
    let order = PaymentOrder { stripe_id: "cs_session".to_owned(), ..unpaid.order.clone() };
    let store = &unpaid.disturbed;
    let (now, payments) = (unpaid.now, &store.payments);
    payments.create_session_order(&order, now).await.unwrap();
    let ended = payments.set_outcome(&order, Outcome::RefundDue, now);
    assert!(ended.await.unwrap());
    payments.close_session("cs_session").await.unwrap();
    assert_eq!(unpaid.refunds().await, ["cs_session"]);
}

#[tokio::test]
async fn an_outcome_is_written_once_even_without_a_profile_change() {
    let unpaid = unpaid().await;
    let (store, now, order) = (&unpaid.disturbed, unpaid.now, &unpaid.order);
    let ended = async |outcome| store.payments.set_outcome(order, outcome, now).await.unwrap();
    assert!(ended(Outcome::Counted).await);
    assert!(ended(Outcome::Counted).await, "it already has this outcome");
    assert!(!ended(Outcome::RefundDue).await);
    assert_eq!(unpaid.outcome().await, Some(Outcome::Counted));
    // An unknown payment gets no outcome.
    let unknown = PaymentOrder { stripe_id: "pi_unknown".to_owned(), ..order.clone() };
    let ended = store.payments.set_outcome(&unknown, Outcome::Counted, now).await;
    assert!(!ended.unwrap());
    assert_eq!(store.payments.order("pi_unknown").await.unwrap(), None);
}

/// Two workers refund the payment at once; the refund fails before the second one records its
/// success.
#[tokio::test]
async fn a_failed_refund_stays_failed() {
    let unpaid = unpaid().await;
    let store = &unpaid.disturbed;
    apply_payment(store, "pi_1", unpaid.now, false).await.unwrap();
    for outcome in [Outcome::Refunded, Outcome::RefundFailed, Outcome::Refunded] {
        store.payments.end_refund("pi_1", outcome).await.unwrap();
    }
    assert_eq!(unpaid.outcome().await, Some(Outcome::RefundFailed));
    assert_eq!(unpaid.refunds().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_repeated_order_keeps_its_outcome() {
    let unpaid = unpaid().await;
    apply_payment(&unpaid.disturbed, "pi_1", unpaid.now, true).await.unwrap();
    let other = PaymentOrder { amount_cents: 1, ..unpaid.order.clone() };
    unpaid.disturbed.payments.create_order(&other).await.unwrap();
    let stored = unpaid.disturbed.payments.order("pi_1").await.unwrap();
    assert_eq!(stored, Some((unpaid.order, Some(Outcome::Counted))));
}

/// Whatever was judged, a period's charge record accepts one payment, and any other is refunded.
#[tokio::test]
async fn a_period_is_paid_by_one_payment() {
    let unpaid = unpaid().await;
    let other = PaymentOrder { stripe_id: "pi_2".to_owned(), ..unpaid.order.clone() };
    unpaid.disturbed.payments.create_order(&other).await.unwrap();
    apply_payment(&unpaid.disturbed, "pi_1", unpaid.now, true).await.unwrap();
    apply_payment(&unpaid.disturbed, "pi_2", unpaid.now, true).await.unwrap();
    let stored = unpaid.disturbed.payments.order("pi_2").await.unwrap();
    assert_eq!(stored, Some((other, Some(Outcome::RefundDue))));
}
