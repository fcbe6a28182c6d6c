//! Refunds: the ones we make, and the ones made at Stripe.

use account::ReversalReport;
use http::Method;
use jiff::SignedDuration;
use local::stripe::{Card, Delivery};
use serde_json::json;
use store::{EventState, Outcome, Store};

use crate::add_on::{DAY, bought, deleted, deliver_again, session, session_of, status, subscribe};
use crate::secrecy::{Log, log_of_this_thread};
use crate::stripe_subscription::worker;
use crate::support::World;

const TRANSACTION: &str = "TransactWriteItems";

impl World {
    /// The stored payment of a credits purchase.
    async fn purchase() -> (Self, Store, String) {
        let (world, _) = Self::bought_credits().await;
        let events = world.stripe().webhooks.events();
        let paid = events.iter().find(|it| it.kind == "checkout.session.completed");
        let (store, session) = (world.store_over_the_wire(), paid.unwrap().object.clone());
        (world, store, session)
    }
}

/// A refund that Stripe refuses is not retried forever: an operator must act.
#[tokio::test]
async fn a_refused_refund_is_left_to_an_operator() {
    for is_disputed in [false, true] {
        let world = World::start().await;
        world.set("acme", json!({})).await;
        let session_id = session(&world).await;
        world.set("acme", json!({"plan": "enterprise"})).await;
        let stripe = world.stripe();
        stripe.webhooks.set_delivery(Delivery::Hold);
        stripe.pay(&session_id, Card::Succeeds).unwrap();
        if is_disputed {
            let intent = stripe.payments()[0].intent.clone();
            stripe.dispute(&intent).unwrap();
        } else {
            stripe.fail_refunds(1);
        }
        let outcome = async || {
            let stored = world.system.store.payments.order(&session_id).await.unwrap();
            stored.unwrap().1
        };
        let at = format!("disputed: {is_disputed}");
        for _ in 0..2 {
            for event in stripe.webhooks.events() {
                stripe.webhooks.deliver(&event).await.unwrap();
            }
            assert_eq!(outcome().await, Some(Outcome::RefundFailed), "{at}");
            assert_eq!(world.tick_after(DAY).await["errors"], 0, "{at}");
        }
        let seen = stripe.seen().into_iter();
        let stripe_requests = seen.filter(|it| it.path == "/v1/refunds").count();
        assert_eq!((stripe_requests, stripe.payments()[0].refunded), (1, 0), "{at}");
    }
}

/// A refund that is rate limited is postponed, and does not block others until it is due.
#[tokio::test]
async fn a_rate_limited_refund_is_retried_later() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let session_id = session(&world).await;
    let stripe = world.stripe();
    stripe.webhooks.set_delivery(Delivery::Hold);
    stripe.pay(&session_id, Card::Succeeds).unwrap();
    let (store, now) = (&world.system.store, world.system.clock.now());
    let applied = store.payments.apply(&session_id, now, |_, _| (false, Vec::new()));
    assert_eq!(applied.await.unwrap().unwrap().outcome, Outcome::RefundDue);
    let stripe_requests = || stripe.seen().len();
    let before = stripe_requests();
    stripe.limit_rate(u32::MAX, None);
    for (errors, more) in [(1, 1), (0, 1)] {
        let ticked = world.tick_after(SignedDuration::from_secs(1)).await;
        assert_eq!(ticked["errors"], errors);
        assert_eq!(stripe_requests(), before + more);
    }
    stripe.limit_rate(0, None);
    world.tick_after(DAY / 24).await;
    assert_eq!(stripe.payments()[0].refunded, 500);
}

#[tokio::test]
async fn an_unknown_payment_is_not_refunded() {
    let world = World::start().await;
    let store = &world.system.store;
    let refunded = Outcome::Refunded;
    store.payments.end_refund("pi_unknown", refunded).await.unwrap();
    assert_eq!(store.payments.order("pi_unknown").await.unwrap(), None);
}

fn refunded(id: &str, cents: u64) -> ReversalReport {
    ReversalReport::Refund { id: id.to_owned(), cents, failed: false }
}

/// Two refunds are applied concurrently; each is posted once.
#[tokio::test]
async fn concurrent_refunds_are_each_reversed_once() {
    let (world, disturbed, session) = World::purchase().await;
    let store = world.system.store.clone();
    let (order, _) = store.payments.order(&session).await.unwrap().unwrap();
    let (of, now) = (order.clone(), world.system.clock.now());
    world.wire.meanwhile(TRANSACTION, async move {
        let first = [refunded("re_1", 100)];
        store.ledger.apply_reversals(&of, &first, now).await.unwrap();
    });
    let both = [refunded("re_1", 100), refunded("re_2", 200)];
    disturbed.ledger.apply_reversals(&order, &both, now).await.unwrap();
    assert_eq!(world.settled_balance("acme").await, "70");
    let known = disturbed.payments.reversals(&session).await.unwrap();
    assert_eq!((known.undone_cents(), known.version()), (300, 2));
}

/// The transaction succeeded, but its response was lost.
#[tokio::test]
async fn a_reversal_whose_response_is_lost_is_made_once() {
    let (world, disturbed, session) = World::purchase().await;
    let (order, _) = disturbed.payments.order(&session).await.unwrap().unwrap();
    let now = world.system.clock.now();
    world.wire.lose_next_response_of(TRANSACTION);
    let reports = [refunded("re_1", 100)];
    disturbed.ledger.apply_reversals(&order, &reports, now).await.unwrap();
    disturbed.ledger.apply_reversals(&order, &reports, now).await.unwrap();
    assert_eq!(world.settled_balance("acme").await, "90");
}

async fn deliver_refund_events(world: &World) {
    for event in world.stripe().webhooks.take_held() {
        // Ignore the response: Stripe would send the event again.
        world.stripe().webhooks.deliver(&event).await.unwrap();
    }
}

/// The webhook dies after each of its requests; the next delivery continues.
#[tokio::test]
async fn credits_are_reversed_once_after_a_crash_anywhere() {
    let (world, intent) = World::bought_credits().await;
    let refund = |world: &World, intent: &str| {
        world.stripe().webhooks.set_delivery(Delivery::Hold);
        for cents in [333, 100] {
            let stripe = world.stripe();
            stripe.refund_in_dashboard(intent, cents).unwrap();
        }
    };
    refund(&world, &intent);
    world.wire.take();
    deliver_refund_events(&world).await;
    assert_eq!(world.settled_balance("acme").await, "56.7");
    let requests = world.wire.take().len();
    for place in 0..requests {
        let (world, intent) = World::bought_credits().await;
        refund(&world, &intent);
        world.wire.die_after(place);
        deliver_refund_events(&world).await;
        let at = format!("after {place} of {requests} requests");
        assert!(world.wire.revive(), "it died {at}");
        // Recorded events are retried, and Stripe resends those that were not recorded.
        world.tick_after(SignedDuration::from_mins(6)).await;
        for event in world.stripe().webhooks.events() {
            world.stripe().webhooks.deliver(&event).await.unwrap();
        }
        assert_eq!(world.settled_balance("acme").await, "56.7", "{at}");
    }
}

/// The plan changes while the Checkout Session is open: a payment there is refunded.
#[tokio::test]
async fn a_payment_that_is_not_owed_is_refunded_once() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let session = session(&world).await;
    world.set("acme", json!({"plan": "enterprise"})).await;
    assert_eq!(subscribe(&world).await.error(), (409, "add_on_not_needed".to_owned()));
    let stripe = world.stripe();
    stripe.pay(&session, Card::Succeeds).unwrap();
    stripe.webhooks.until_delivered().await;
    assert_eq!(status(&world).await, "none");
    let payments = stripe.payments();
    assert_eq!((payments.len(), payments[0].refunded), (1, 500));
    // The tick finds nothing left to do.
    world.tick_after(DAY).await;
    let refunds = |world: &World| {
        let seen = world.stripe().seen();
        seen.iter().filter(|request| request.path == "/v1/refunds").count()
    };
    assert_eq!(refunds(&world), 1);
}

#[tokio::test]
async fn a_full_refund_at_stripe_ends_the_add_on() {
    let world = bought().await;
    let intent = world.stripe().payments()[0].intent.clone();
    world.stripe().refund_in_dashboard(&intent, 100).unwrap();
    world.stripe().webhooks.until_delivered().await;
    assert_eq!(status(&world).await, "active", "a partial refund only goes into the history");
    world.stripe().refund_in_dashboard(&intent, 400).unwrap();
    world.stripe().webhooks.until_delivered().await;
    assert_eq!(status(&world).await, "ended");
    assert_eq!(world.tick_after(DAY * 40).await["charged"], 0);
    assert_eq!(world.stripe().payments().len(), 1);
}

#[tokio::test]
async fn a_dispute_suspends_until_it_is_closed() {
    for (won, expected) in [(true, "active"), (false, "ended")] {
        let world = bought().await;
        let intent = world.stripe().payments()[0].intent.clone();
        let dispute = world.stripe().dispute(&intent).unwrap();
        world.stripe().webhooks.until_delivered().await;
        assert_eq!(status(&world).await, "suspended");
        world.stripe().close_dispute(&dispute, won).unwrap();
        world.stripe().webhooks.until_delivered().await;
        assert_eq!(status(&world).await, expected);
    }
}

#[tokio::test]
async fn refunded_credits_are_reversed_in_proportion() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let owner = world.owner("acme");
    let body = json!({"usd": "10"});
    let reply = owner.call(Method::POST, "/v1/credits/checkout", &body).await;
    let stripe = world.stripe();
    stripe.pay(&session_of(&reply), Card::Succeeds).unwrap();
    let intent = stripe.payments()[0].intent.clone();
    for cents in [333, 100] {
        stripe.refund_in_dashboard(&intent, cents).unwrap();
    }
    stripe.webhooks.until_delivered().await;
    // In reverse order, and again.
    deliver_again(&world, |events| events.reverse()).await;
    deliver_again(&world, |_| ()).await;
    let credits = world.send(owner.request(Method::GET, "/v1/credits")).await.json();
    assert_eq!((&credits["balance"], &credits["owed"]), (&json!("56.7"), &json!("0")));
    let dispute = stripe.dispute(&intent).unwrap();
    stripe.webhooks.until_delivered().await;
    let credits = world.send(owner.request(Method::GET, "/v1/credits")).await.json();
    assert_eq!(credits["balance"], "0");
    stripe.close_dispute(&dispute, true).unwrap();
    stripe.webhooks.until_delivered().await;
    deliver_again(&world, |events| events.reverse()).await;
    let credits = world.send(owner.request(Method::GET, "/v1/credits")).await.json();
    assert_eq!((&credits["balance"], &credits["owed"]), (&json!("56.7"), &json!("0")));
    assert_eq!(world.shown("acme").await["reconciliation"]["ok"], true);
}

/// A payment that was not owed and was refunded, and its Checkout Session.
async fn refunded_payment(collection: &str, is_deleted: bool) -> (World, String) {
    let world = World::with_settings(&[("ADD_ON_COLLECTION", collection)]).await;
    world.set("acme", json!({})).await;
    let session_id = session(&world).await;
    let stripe = world.stripe();
    stripe.webhooks.set_delivery(Delivery::Hold);
    stripe.pay(&session_id, Card::Succeeds).unwrap();
    if is_deleted {
        deleted(&world).await;
    } else {
        world.set("acme", json!({"plan": "enterprise"})).await;
    }
    for event in stripe.webhooks.take_held() {
        stripe.webhooks.deliver(&event).await.unwrap();
    }
    let payment = &stripe.payments()[0];
    assert_eq!(payment.refunded, 500, "{collection}, deleted: {is_deleted}");
    (world, session_id)
}

/// Number of alarms about payments that cannot be refunded.
fn alarms(log: &Log) -> usize {
    let alarm = "a payment cannot be refunded; an operator must act";
    let logged = log.text();
    let count = logged.lines().filter(|line| line.contains(alarm)).count();
    let counted = logged.matches("\"refunds_failed\"").count();
    assert_eq!(count, counted, "{logged}");
    count
}

/// A bank may return a refund days later, whatever has become of the account.
#[tokio::test]
async fn a_refund_the_bank_returns_is_left_to_an_operator() {
    for (collection, is_deleted) in [("card", false), ("card", true), ("provider", true)] {
        let (log, _guard) = log_of_this_thread();
        let (world, session_id) = refunded_payment(collection, is_deleted).await;
        let (stripe, at) = (world.stripe(), format!("{collection}, deleted: {is_deleted}"));
        world.tick_after(DAY * 3).await;
        stripe.bounce_refund(&stripe.payments()[0].intent).unwrap();
        for event in stripe.webhooks.take_held() {
            stripe.webhooks.deliver(&event).await.unwrap();
        }
        let stored = world.system.store.payments.order(&session_id).await.unwrap();
        assert_eq!(stored.unwrap().1, Some(Outcome::RefundFailed), "{at}");
        assert_eq!(alarms(&log), 1, "{at}");
        // It is not retried: the same bank would refuse it again.
        world.tick_after(DAY).await;
        assert_eq!(stripe.payments()[0].refunded, 0, "{at}");
    }
}

/// The alarm is logged before its record is stored: after a crash in between it is logged again,
/// rather than never.
#[tokio::test]
async fn a_returned_refund_raises_its_alarm_despite_a_crash() {
    let (log, _guard) = log_of_this_thread();
    let (world, session_id) = refunded_payment("card", false).await;
    let stripe = world.stripe();
    stripe.bounce_refund(&stripe.payments()[0].intent).unwrap();
    let held = stripe.webhooks.take_held();
    let failed = held.iter().find(|it| it.kind == "refund.failed").unwrap();
    let event = payments::Event::parse(failed.body.as_bytes()).unwrap();
    let (worker, now) = (worker(&world, "card"), world.system.clock.now());
    world.wire.swallow_next("UpdateItem");
    let state = charging::receive(worker.at(now), &event).await.unwrap();
    assert_eq!((state, alarms(&log)), (EventState::Pending, 1));
    for alarm_count in [2, 2] {
        let state = charging::replay(worker.at(now), event.id.as_str()).await;
        let state = (state.unwrap(), alarms(&log));
        assert_eq!(state, (Some(EventState::Applied), alarm_count));
        let stored = world.system.store.payments.order(&session_id).await.unwrap();
        assert_eq!(stored.unwrap().1, Some(Outcome::RefundFailed));
    }
}
