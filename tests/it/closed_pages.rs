//! Pages of the provider's of which no event tells: what came of them is looked up once they have closed.

use http::Method;
use jiff::SignedDuration;
use local::stripe::{Card, Delivery};
use serde_json::{Value, json};

use crate::add_on::{CARD_ROUTE, bought, customer, session_of, status};
use crate::support::World;

const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// A page on which credits for ten dollars are bought.
async fn credits_page(world: &World) -> String {
    let owner = world.owner("acme");
    let body = json!({"usd": "10"});
    let page = owner.call(Method::POST, "/v1/credits/checkout", &body);
    session_of(&page.await)
}

/// No event is delivered.
async fn unheard() -> World {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    world.provider().set_delivery(Delivery::Hold);
    world
}

#[tokio::test]
async fn credits_that_nobody_told_of_are_granted() {
    let world = unheard().await;
    let page = credits_page(&world).await;
    world.provider().pay(&page, Card::Succeeds).unwrap();
    assert_eq!(world.settled_balance("acme").await, "0");
    assert_eq!(world.tick_after(HOUR * 2).await["errors"], 0);
    assert_eq!(world.settled_balance("acme").await, "100");
    // Once, also where the event comes after all.
    for event in world.provider().take_held() {
        world.provider().deliver(&event).await.unwrap();
    }
    world.tick_after(HOUR).await;
    assert_eq!(world.settled_balance("acme").await, "100");
}

#[tokio::test]
async fn a_page_that_was_not_paid_is_looked_at_once() {
    let world = unheard().await;
    credits_page(&world).await;
    let looks = || {
        let seen = world.provider().seen();
        let gets = seen.iter().filter(|it| it.method == Method::GET);
        gets.count()
    };
    for expected in [1, 1] {
        world.tick_after(HOUR * 2).await;
        assert_eq!(looks(), expected);
    }
    assert_eq!(world.settled_balance("acme").await, "0");
}

/// What was heard of is not looked at.
#[tokio::test]
async fn a_page_that_was_told_of_is_not_looked_at() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let page = credits_page(&world).await;
    world.provider().pay(&page, Card::Succeeds).unwrap();
    world.provider().until_delivered().await;
    assert_eq!(world.settled_balance("acme").await, "100");
    let before = world.provider().seen().len();
    world.tick_after(HOUR * 2).await;
    assert_eq!(world.provider().seen().len(), before);
}

/// While the provider cannot be asked, it stays due.
#[tokio::test]
async fn a_page_that_cannot_be_looked_at_is_looked_at_later() {
    let world = unheard().await;
    let page = credits_page(&world).await;
    world.provider().pay(&page, Card::Succeeds).unwrap();
    world.provider().limit_rate(1, None);
    assert_eq!(world.tick_after(HOUR * 2).await["errors"], 1);
    assert_eq!(world.settled_balance("acme").await, "0");
    world.tick_after(HOUR).await;
    assert_eq!(world.settled_balance("acme").await, "100");
}

#[tokio::test]
async fn a_card_that_nobody_told_of_is_kept() {
    let world = bought().await;
    let provider = world.provider();
    provider.set_card(&customer(&world), Card::DeclinesSoftly);
    world.tick_when_due().await;
    assert_eq!(status(&world).await, "past_due");
    provider.set_delivery(Delivery::Drop);
    let owner = world.owner("acme");
    let page = world.send(owner.request(Method::POST, CARD_ROUTE)).await;
    provider.pay(&session_of(&page), Card::Succeeds).unwrap();
    world.tick_after(HOUR * 2).await;
    // Charged at once by the worker that comes next.
    let report: Value = world.tick_after(HOUR).await;
    assert_eq!(report["charged"], 1, "{report}");
    assert_eq!(status(&world).await, "active");
}
