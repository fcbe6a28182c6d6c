//! Checkout Sessions for which no event arrives: their outcome is looked up after they close.

use http::Method;
use jiff::SignedDuration;
use local::stripe::{Card, Delivery};
use serde_json::{Value, json};

use crate::add_on::{CARD_ROUTE, bought, customer, session_of, status};
use crate::support::World;

const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// Opens a Checkout Session for ten dollars of credits.
async fn credits_session(world: &World) -> String {
    let owner = world.owner("acme");
    let body = json!({"usd": "10"});
    let reply = owner.call(Method::POST, "/v1/credits/checkout", &body);
    session_of(&reply.await)
}

/// A system in which no event is delivered.
async fn without_events() -> World {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    world.stripe().webhooks.set_delivery(Delivery::Hold);
    world
}

#[tokio::test]
async fn credits_are_granted_without_an_event() {
    let world = without_events().await;
    let session_id = credits_session(&world).await;
    world.stripe().pay(&session_id, Card::Succeeds).unwrap();
    assert_eq!(world.settled_balance("acme").await, "0");
    assert_eq!(world.tick_after(HOUR * 2).await["errors"], 0);
    assert_eq!(world.settled_balance("acme").await, "100");
    // Granted once, even if the event arrives after all.
    for event in world.stripe().webhooks.take_held() {
        world.stripe().webhooks.deliver(&event).await.unwrap();
    }
    world.tick_after(HOUR).await;
    assert_eq!(world.settled_balance("acme").await, "100");
}

#[tokio::test]
async fn an_unpaid_session_is_looked_up_once() {
    let world = without_events().await;
    credits_session(&world).await;
    let lookups = || {
        let seen = world.stripe().seen();
        let gets = seen.iter().filter(|it| it.method == Method::GET);
        gets.count()
    };
    for expected in [1, 1] {
        world.tick_after(HOUR * 2).await;
        assert_eq!(lookups(), expected);
    }
    assert_eq!(world.settled_balance("acme").await, "0");
}

/// A session whose event has been applied is not looked up.
#[tokio::test]
async fn a_session_with_an_event_is_not_looked_up() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let session_id = credits_session(&world).await;
    world.stripe().pay(&session_id, Card::Succeeds).unwrap();
    world.stripe().webhooks.until_delivered().await;
    assert_eq!(world.settled_balance("acme").await, "100");
    let before = world.stripe().seen().len();
    world.tick_after(HOUR * 2).await;
    assert_eq!(world.stripe().seen().len(), before);
}

/// While Stripe cannot be reached, the look-up stays due.
#[tokio::test]
async fn a_failed_look_up_is_retried_later() {
    let world = without_events().await;
    let session_id = credits_session(&world).await;
    world.stripe().pay(&session_id, Card::Succeeds).unwrap();
    world.stripe().limit_rate(1, None);
    assert_eq!(world.tick_after(HOUR * 2).await["errors"], 1);
    assert_eq!(world.settled_balance("acme").await, "0");
    world.tick_after(HOUR).await;
    assert_eq!(world.settled_balance("acme").await, "100");
}

#[tokio::test]
async fn a_new_card_is_stored_without_an_event() {
    let world = bought().await;
    let stripe = world.stripe();
    stripe.set_card(&customer(&world), Card::DeclinesSoftly);
    world.tick_when_due().await;
    assert_eq!(status(&world).await, "past_due");
    stripe.webhooks.set_delivery(Delivery::Drop);
    let owner = world.owner("acme");
    let reply = world.send(owner.request(Method::POST, CARD_ROUTE)).await;
    stripe.pay(&session_of(&reply), Card::Succeeds).unwrap();
    world.tick_after(HOUR * 2).await;
    // The worker's next run charges it at once.
    let report: Value = world.tick_after(HOUR).await;
    assert_eq!(report["charged"], 1, "{report}");
    assert_eq!(status(&world).await, "active");
}
