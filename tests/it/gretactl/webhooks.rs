//! `gretactl webhooks`.

use local::stripe::Card;
use serde_json::json;

use super::{done, failed, run, text};
use crate::add_on;
use crate::support::World;

#[tokio::test]
async fn unapplied_events_are_listed_and_replayed() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let none = text(&world, "webhooks list").await;
    assert!(none.contains("all events that were received are applied"), "{none}");
    let stripe = world.system.stripe.as_ref().unwrap();
    let session = add_on::session(&world).await;
    stripe.webhooks.set_delivery(local::stripe::Delivery::Hold);
    stripe.pay(&session, Card::Succeeds).unwrap();
    stripe.limit_rate(1, None);
    for event in stripe.webhooks.take_held() {
        stripe.webhooks.deliver(&event).await.unwrap();
    }
    let listed = done(&world, "webhooks list").await;
    let events = listed["events"].as_array().unwrap();
    assert_eq!(events.len(), 1, "{listed}");
    assert_eq!(events[0]["type"], "checkout.session.completed");
    assert!(events[0]["reason"].is_string());
    let id = events[0]["event_id"].as_str().unwrap();
    let replay = format!("webhooks replay {id}");
    let asked = run(&world, &replay, Some("")).await;
    assert!(asked.err.contains("it may move money"), "{}", asked.err);
    assert_eq!(add_on::status(&world).await, "none");
    done(&world, &replay).await;
    world.tick_in(jiff::SignedDuration::ZERO).await;
    assert_eq!(add_on::status(&world).await, "active");
    let listed = done(&world, "webhooks list").await;
    assert_eq!(listed["events"], json!([]));
    // A second replay changes nothing.
    done(&world, &replay).await;
    let report = world.tick_in(jiff::SignedDuration::ZERO).await;
    assert_eq!(report["errors"], 0);
    assert_eq!(stripe.payments()[0].refunded, 0);
    let unknown = failed(&world, "webhooks replay evt_none").await;
    assert!(unknown.contains("no event evt_none was received"), "{unknown}");
}
