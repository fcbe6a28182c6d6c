//! A payment has one outcome, and a period one payment, whoever hears of it first.

use account::Period;
use account::add_on::GenerationId;
use jiff::Timestamp;
use serde_json::json;
use store::{DueTask, Outcome, PaymentOrder, Purchase, Store, StoreError};

use crate::support::World;

struct Asked {
    world: World,
    /// Over which others can come in between.
    disturbed: Store,
    order: PaymentOrder,
    now: Timestamp,
}

/// Something is asked for, and not paid yet.
async fn asked() -> Asked {
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
    Asked { disturbed: world.store_over_the_wire(), now: world.system.clock.now(), world, order }
}

/// Takes in that it was paid, as owed or not, and without a change of the profile.
async fn hear(
    store: &Store,
    object: &str,
    at: Timestamp,
    owed: bool,
) -> Result<Outcome, StoreError> {
    let heard = store.payments.apply(object, at, |_, _| (owed, Vec::new()));
    Ok(heard.await?.unwrap().outcome)
}

impl Asked {
    /// The payments that are to be given back some time.
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
async fn who_hears_of_a_payment_second_keeps_to_the_first_ones_word() {
    let asked = asked().await;
    let (store, now) = (asked.world.system.store.clone(), asked.now);
    asked.world.wire.meanwhile("TransactWriteItems", async move {
        let first = hear(&store, "pi_1", now, true).await;
        assert_eq!(first.unwrap(), Outcome::Counted);
    });
    let second = hear(&asked.disturbed, "pi_1", now, false).await;
    assert_eq!(second.unwrap(), Outcome::Counted);
    assert_eq!(asked.outcome().await, Some(Outcome::Counted));
    assert_eq!(asked.refunds().await, [""; 0]);
}

/// A page that is done with takes no refund along that became due at the same moment.
#[tokio::test]
async fn a_page_that_is_done_with_leaves_what_is_to_be_given_back() {
    let asked = asked().await;
    let order = PaymentOrder { stripe_id: "cs_page".to_owned(), ..asked.order.clone() };
    let store = &asked.disturbed;
    let (now, payments) = (asked.now, &store.payments);
    payments.create_session_order(&order, now).await.unwrap();
    let ended = payments.set_outcome(&order, Outcome::RefundDue, now);
    assert!(ended.await.unwrap());
    payments.close_session("cs_page").await.unwrap();
    assert_eq!(asked.refunds().await, ["cs_page"]);
}

#[tokio::test]
async fn an_outcome_is_written_once_also_where_no_profile_changes() {
    let asked = asked().await;
    let (store, now, order) = (&asked.disturbed, asked.now, &asked.order);
    let ended = async |outcome| store.payments.set_outcome(order, outcome, now).await.unwrap();
    assert!(ended(Outcome::Counted).await);
    assert!(ended(Outcome::Counted).await, "it is so by now");
    assert!(!ended(Outcome::RefundDue).await);
    assert_eq!(asked.outcome().await, Some(Outcome::Counted));
    // Of what nobody asked for there is none.
    let unknown = PaymentOrder { stripe_id: "pi_unknown".to_owned(), ..order.clone() };
    let ended = store.payments.set_outcome(&unknown, Outcome::Counted, now).await;
    assert!(!ended.unwrap());
    assert_eq!(store.payments.order("pi_unknown").await.unwrap(), None);
}

/// Two give it back at once; the bank sends the money back before the second one writes that it went.
#[tokio::test]
async fn what_could_not_be_given_back_stays_so() {
    let asked = asked().await;
    let store = &asked.disturbed;
    hear(store, "pi_1", asked.now, false).await.unwrap();
    for outcome in [Outcome::Refunded, Outcome::RefundFailed, Outcome::Refunded] {
        store.payments.end_refund("pi_1", outcome).await.unwrap();
    }
    assert_eq!(asked.outcome().await, Some(Outcome::RefundFailed));
    assert_eq!(asked.refunds().await, Vec::<String>::new());
}

#[tokio::test]
async fn what_is_asked_for_again_keeps_its_outcome() {
    let asked = asked().await;
    hear(&asked.disturbed, "pi_1", asked.now, true).await.unwrap();
    let other = PaymentOrder { amount_cents: 1, ..asked.order.clone() };
    asked.disturbed.payments.create_order(&other).await.unwrap();
    let stored = asked.disturbed.payments.order("pi_1").await.unwrap();
    assert_eq!(stored, Some((asked.order, Some(Outcome::Counted))));
}

/// Whatever was judged: the charge record of a period takes one payment, and another one goes back.
#[tokio::test]
async fn a_period_is_paid_by_one_payment() {
    let asked = asked().await;
    let other = PaymentOrder { stripe_id: "pi_2".to_owned(), ..asked.order.clone() };
    asked.disturbed.payments.create_order(&other).await.unwrap();
    hear(&asked.disturbed, "pi_1", asked.now, true).await.unwrap();
    hear(&asked.disturbed, "pi_2", asked.now, true).await.unwrap();
    let stored = asked.disturbed.payments.order("pi_2").await.unwrap();
    assert_eq!(stored, Some((other, Some(Outcome::RefundDue))));
}
