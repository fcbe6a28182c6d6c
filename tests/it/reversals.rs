//! Refunds and disputes undo a purchase at most once, whatever Stripe reports.

use futures_util::future::join_all;
use http::Method;
use jiff::SignedDuration;
use local::stripe::{Card, Delivery, Event, StripeSimulator};
use serde_json::json;
use store::Outcome;

use crate::add_on::{DAY, bought, customer, session_of, status};
use crate::support::World;

impl World {
    /// Account `acme` with 100 credits, bought for ten dollars, and the id of its PaymentIntent.
    pub(crate) async fn bought_credits() -> (Self, String) {
        let world = Self::start().await;
        world.set("acme", json!({})).await;
        let session_id = world.credits_session().await;
        world.stripe().pay(&session_id, Card::Succeeds).unwrap();
        world.stripe().webhooks.until_delivered().await;
        assert_eq!(world.settled_balance("acme").await, "100");
        let intent = world.stripe().payments()[0].intent.clone();
        (world, intent)
    }

    /// A Checkout Session for ten dollars of credits.
    async fn credits_session(&self) -> String {
        let body = json!({"usd": "10"});
        let owner = self.owner("acme");
        session_of(&owner.call(Method::POST, "/v1/credits/checkout", &body).await)
    }

    /// The balance and the amount owed. Asserts that the books add up.
    async fn balance_and_owed(&self) -> (String, String) {
        let balance = self.settled_balance("acme").await;
        let credits = self.owner("acme").get("/v1/credits").await.json();
        (balance, credits["owed"].as_str().unwrap().to_owned())
    }

    /// The kind and amount of each ledger entry, oldest first.
    async fn entries(&self) -> Vec<String> {
        let mut ledger = self.owner("acme").ledger().await;
        ledger.reverse();
        let entry = |it: &serde_json::Value| {
            format!("{} {}", it["kind"].as_str().unwrap(), it["amount"].as_str().unwrap())
        };
        ledger.iter().map(entry).collect()
    }

    async fn deliver(&self, events: &[Event]) {
        for event in events {
            // Ignore the response: Stripe would send the event again.
            self.stripe().webhooks.deliver(event).await.unwrap();
        }
        // Retries the events that are still in the inbox.
        self.tick_after(SignedDuration::from_mins(6)).await;
    }
}

/// The events of a payment of ten dollars at Stripe.
type Story = fn(&StripeSimulator, &str);

fn refund(stripe: &StripeSimulator, intent: &str, cents: i64) {
    stripe.refund_in_dashboard(intent, cents).unwrap();
}

/// Each story, and what it leaves of 100 credits.
const STORIES: [(&str, Story, &str); 12] = [
    (
        "refunded in parts",
        |stripe, intent| {
            refund(stripe, intent, 333);
            refund(stripe, intent, 100);
        },
        "56.7",
    ),
    (
        "refunded, then disputed",
        |stripe, intent| {
            refund(stripe, intent, 1_000);
            stripe.dispute(intent).unwrap();
        },
        "0",
    ),
    (
        "refunded in part, then disputed",
        |stripe, intent| {
            refund(stripe, intent, 333);
            stripe.dispute(intent).unwrap();
        },
        "0",
    ),
    (
        "refunded, disputed, and the dispute is won",
        |stripe, intent| {
            refund(stripe, intent, 1_000);
            let dispute = stripe.dispute(intent).unwrap();
            stripe.close_dispute(&dispute, true).unwrap();
        },
        "0",
    ),
    (
        "refunded in part, disputed, and the dispute is won",
        |stripe, intent| {
            refund(stripe, intent, 333);
            let dispute = stripe.dispute(intent).unwrap();
            stripe.close_dispute(&dispute, true).unwrap();
        },
        "66.7",
    ),
    (
        "a dispute is lost",
        |stripe, intent| {
            let dispute = stripe.dispute(intent).unwrap();
            stripe.close_dispute(&dispute, false).unwrap();
        },
        "0",
    ),
    (
        "a dispute is won, and another one is open",
        |stripe, intent| {
            let dispute = stripe.dispute(intent).unwrap();
            stripe.close_dispute(&dispute, true).unwrap();
            stripe.dispute(intent).unwrap();
        },
        "0",
    ),
    (
        "a refund fails",
        |stripe, intent| {
            refund(stripe, intent, 1_000);
            stripe.bounce_refund(intent).unwrap();
        },
        "100",
    ),
    (
        "one of two refunds fails",
        |stripe, intent| {
            refund(stripe, intent, 333);
            refund(stripe, intent, 100);
            stripe.bounce_refund(intent).unwrap();
        },
        "90",
    ),
    (
        "a refund fails, and the next one succeeds",
        |stripe, intent| {
            refund(stripe, intent, 1_000);
            stripe.bounce_refund(intent).unwrap();
            refund(stripe, intent, 1_000);
        },
        "0",
    ),
    (
        "the refund of a disputed payment fails, and the dispute is won",
        |stripe, intent| {
            refund(stripe, intent, 1_000);
            let dispute = stripe.dispute(intent).unwrap();
            stripe.bounce_refund(intent).unwrap();
            stripe.close_dispute(&dispute, true).unwrap();
        },
        "100",
    ),
    (
        "an inquiry becomes a dispute, which is won",
        |stripe, intent| {
            let dispute = stripe.inquire(intent).unwrap();
            stripe.escalate(&dispute).unwrap();
            stripe.close_dispute(&dispute, true).unwrap();
        },
        "100",
    ),
];

#[tokio::test]
async fn a_purchase_is_undone_at_most_once() {
    for (story, happens, balance) in STORIES {
        for reversed in [false, true] {
            let (world, intent) = World::bought_credits().await;
            world.stripe().webhooks.set_delivery(Delivery::Hold);
            happens(world.stripe(), &intent);
            let mut events = world.stripe().webhooks.take_held();
            if reversed {
                events.reverse();
            }
            for delivery in ["first", "second"] {
                world.deliver(&events).await;
                let left = world.balance_and_owed().await;
                let at = format!("{story}, reversed: {reversed}, {delivery} delivery");
                assert_eq!(left, (balance.to_owned(), "0".to_owned()), "{at}");
                events.reverse();
            }
        }
    }
}

/// Each event is applied before the next one happens.
#[tokio::test]
async fn a_failed_refund_and_a_won_dispute_return_what_was_taken() {
    let (world, intent) = World::bought_credits().await;
    let stripe = world.stripe();
    refund(stripe, &intent, 333);
    stripe.webhooks.until_delivered().await;
    let dispute = stripe.dispute(&intent).unwrap();
    stripe.webhooks.until_delivered().await;
    assert_eq!(world.balance_and_owed().await.0, "0");
    stripe.bounce_refund(&intent).unwrap();
    stripe.webhooks.until_delivered().await;
    assert_eq!(world.balance_and_owed().await.0, "33.3");
    stripe.close_dispute(&dispute, true).unwrap();
    stripe.webhooks.until_delivered().await;
    assert_eq!(world.balance_and_owed().await.0, "100");
    let entries =
        ["purchase 100", "reversal -33.3", "reversal -66.7", "refund 33.3", "refund 66.7"];
    assert_eq!(world.entries().await, entries);
}

/// Disputed credits that were already spent are owed until the dispute is won.
#[tokio::test]
async fn a_won_dispute_of_spent_credits_cancels_what_is_owed() {
    let (world, intent) = World::bought_credits().await;
    let stripe = world.stripe();
    world.set("acme", json!({"credits": "40"})).await;
    let dispute = stripe.dispute(&intent).unwrap();
    stripe.webhooks.until_delivered().await;
    assert_eq!(world.balance_and_owed().await, ("0".to_owned(), "60".to_owned()));
    stripe.close_dispute(&dispute, true).unwrap();
    stripe.webhooks.until_delivered().await;
    assert_eq!(world.balance_and_owed().await, ("40".to_owned(), "0".to_owned()));
    let entries = ["purchase 100", "adjustment -60", "reversal -40", "refund 40"];
    assert_eq!(world.entries().await, entries);
}

#[tokio::test]
async fn an_inquiry_moves_no_credits() {
    let (world, intent) = World::bought_credits().await;
    let stripe = world.stripe();
    let inquiry = stripe.inquire(&intent).unwrap();
    stripe.webhooks.until_delivered().await;
    stripe.close_dispute(&inquiry, false).unwrap();
    stripe.webhooks.until_delivered().await;
    assert_eq!(world.entries().await, ["purchase 100"]);
}

#[tokio::test]
async fn an_inquiry_leaves_the_add_on_as_it_is() {
    let world = bought().await;
    let stripe = world.stripe();
    let intent = stripe.payments()[0].intent.clone();
    let inquiry = stripe.inquire(&intent).unwrap();
    stripe.webhooks.until_delivered().await;
    assert_eq!(status(&world).await, "active");
    // The paid period is over when the inquiry is closed.
    stripe.set_card(&customer(&world), Card::DeclinesSoftly);
    world.tick_when_due().await;
    stripe.close_dispute(&inquiry, false).unwrap();
    stripe.webhooks.until_delivered().await;
    assert_eq!(status(&world).await, "past_due");
}

/// A purchase that did not count was refunded, so its dispute has nothing to undo.
#[tokio::test]
async fn a_dispute_of_a_payment_that_did_not_count_changes_nothing() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    let stripe = world.stripe();
    stripe.webhooks.set_delivery(Delivery::Hold);
    let session_id = world.credits_session().await;
    stripe.pay(&session_id, Card::Succeeds).unwrap();
    let payments = &world.system.store.payments;
    let (order, _) = payments.order(&session_id).await.unwrap().unwrap();
    let now = world.system.clock.now();
    assert!(payments.set_outcome(&order, Outcome::RefundDue, now).await.unwrap());
    let intent = stripe.payments()[0].intent.clone();
    stripe.dispute(&intent).unwrap();
    let events = stripe.webhooks.take_held();
    world.deliver(&events).await;
    world.tick_after(DAY).await;
    assert_eq!(world.balance_and_owed().await, ("7".to_owned(), "0".to_owned()));
}

/// Two deliveries at once: the second one finds what the first one stored.
#[tokio::test]
async fn a_purchase_that_two_deliveries_report_at_once_is_granted_once() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let session_id = world.credits_session().await;
    let stripe = world.stripe();
    stripe.webhooks.set_delivery(Delivery::Hold);
    stripe.pay(&session_id, Card::Succeeds).unwrap();
    let held = stripe.webhooks.take_held();
    let paid = held.iter().find(|event| event.kind == "checkout.session.completed").unwrap();
    // The same report under other ids, because one id is applied only once.
    let events: Vec<_> = (0..8)
        .map(|n| {
            let id = format!("evt_again_{n}");
            Event { body: paid.body.replace(&paid.id, &id), id, ..paid.clone() }
        })
        .collect();
    join_all(events.iter().map(|event| stripe.webhooks.deliver(event))).await;
    world.tick_after(SignedDuration::ZERO).await;
    assert_eq!(world.settled_balance("acme").await, "100");
    assert_eq!(world.entries().await.len(), 1);
}
