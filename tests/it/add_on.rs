//! The add-on's life: bought, charged once a month, lost and regained.

mod ended_periods;
mod events;
mod failures;
mod missing_at_stripe;
mod unknown;

use account::billing::PRICE_CENTS;
use http::Method;
use jiff::{SignedDuration, Timestamp};
use local::stripe::{ApiRequest, Card, Delivery, StripeSimulator};
use serde_json::{Value, json};
use store::EventState;

use crate::support::{Reply, World};
use crate::wire::Fault;

pub(crate) const ROUTE: &str = "/v1/integrations/openrouter/subscription";
pub(crate) const CARD_ROUTE: &str = "/v1/integrations/openrouter/subscription/payment-method";
/// Longer than a worker's claim on an account.
pub(crate) const LEASE: SignedDuration = SignedDuration::from_mins(3);
pub(crate) const DAY: SignedDuration = SignedDuration::from_hours(24);

impl World {
    pub(crate) fn stripe(&self) -> &StripeSimulator {
        self.system.stripe.as_ref().unwrap()
    }

    /// Advances the clock and runs a billing tick.
    pub(crate) async fn tick_after(&self, time: SignedDuration) -> Value {
        self.system.clock.advance(time);
        self.tick_in(SignedDuration::ZERO).await
    }

    /// Advances the clock just past `paid_through`.
    pub(crate) async fn wait_until_due(&self) {
        let card = self.owner("acme").card().await;
        let due = card["add_on"]["paid_through"].as_str().unwrap();
        let due: Timestamp = due.parse().unwrap();
        let wait = due.duration_since(self.system.clock.now());
        self.system.clock.advance(wait + SignedDuration::from_secs(1));
    }

    pub(crate) async fn tick_when_due(&self) -> Value {
        self.wait_until_due().await;
        self.tick_in(SignedDuration::ZERO).await
    }

    /// Sends an event from Greta's core system.
    pub(crate) async fn account_event(&self, kind: &str, detail: Value) {
        let event = json!({
            "source": "greta.core",
            "detail-type": kind,
            "time": self.system.clock.now(),
            "detail": detail,
        });
        self.system.account_event(&event).await.unwrap();
    }
}

// Each request gets a new token: tokens expire within a day.

pub(crate) async fn subscribe(world: &World) -> Reply {
    let owner = world.owner("acme");
    world.send(owner.request(Method::POST, ROUTE)).await
}

pub(crate) async fn cancel(world: &World) -> Reply {
    let owner = world.owner("acme");
    world.send(owner.request(Method::DELETE, ROUTE)).await
}

/// The Checkout Session that `subscribe` opens.
pub(crate) async fn session(world: &World) -> String {
    let reply = subscribe(world).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let url = reply.json()["checkout_url"].as_str().unwrap().to_owned();
    url.rsplit('/').next().unwrap().to_owned()
}

pub(crate) async fn pay(world: &World, card: Card) {
    let session = session(world).await;
    let stripe = world.stripe();
    stripe.pay(&session, card).unwrap();
    stripe.webhooks.until_delivered().await;
}

pub(crate) async fn status(world: &World) -> String {
    let card = world.owner("acme").card().await;
    card["add_on"]["status"].as_str().unwrap().to_owned()
}

pub(crate) fn customer(world: &World) -> String {
    let payments = world.stripe().payments();
    payments[0].customer.clone().unwrap()
}

pub(crate) async fn deleted(world: &World) {
    let detail = json!({"account_id": "acme", "version": 9});
    world.account_event("account.deleted", detail).await;
}

/// Number of payments that were not refunded.
pub(crate) fn kept(world: &World) -> usize {
    let payments = world.stripe().payments();
    payments.iter().filter(|payment| payment.refunded == 0).count()
}

/// A system with an account that has just bought the add-on.
pub(crate) async fn bought() -> World {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    pay(&world, Card::Succeeds).await;
    assert_eq!(status(&world).await, "active");
    world
}

/// The Checkout Session that `reply` links to.
pub(crate) fn session_of(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let url = reply.json()["checkout_url"].as_str().unwrap().to_owned();
    url.rsplit('/').next().unwrap().to_owned()
}

/// Delivers all past events again, in the order that `order` gives them.
pub(crate) async fn deliver_again(
    world: &World,
    order: impl FnOnce(&mut Vec<local::stripe::Event>),
) {
    let stripe = world.stripe();
    let mut events = stripe.webhooks.events();
    order(&mut events);
    for event in &events {
        stripe.webhooks.deliver(event).await.unwrap();
    }
}

/// The card, Stripe's page and the Plans page each state the price.
#[tokio::test]
async fn the_same_price_is_shown_everywhere() {
    let (dollars, cents) = (PRICE_CENTS / 100, PRICE_CENTS % 100);
    let title = format!("Power your AI with OpenRouter – ${dollars} Add-on");
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let price = format!("{dollars}.{cents:02}");
    assert_eq!(world.owner("acme").card().await["add_on"]["price_usd"], price);
    let checkout_url = subscribe(&world).await.json()["checkout_url"].take();
    let page = reqwest::get(checkout_url.as_str().unwrap()).await.unwrap().text().await.unwrap();
    assert!(page.contains(&title) && page.contains(&price), "{page}");
    let plans = include_str!("../../functions/settings-page/assets/openrouter-plans.js");
    assert!(plans.contains(&title));
}

#[tokio::test]
async fn the_add_on_is_bought_at_checkout_and_then_charged_each_month() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    assert_eq!(world.owner("acme").card().await["status"], "not_enabled");
    let first = session(&world).await;
    assert_eq!(session(&world).await, first, "an open Checkout Session is reused");
    world.stripe().pay(&first, Card::Succeeds).unwrap();
    world.stripe().webhooks.until_delivered().await;
    let card = world.owner("acme").card().await;
    assert_eq!(card["status"], "available");
    assert_eq!(card["add_on"]["status"], "active");
    assert_eq!(card["add_on"]["next_charge_at"], card["add_on"]["paid_through"]);
    assert_eq!(subscribe(&world).await.error(), (409, "already_subscribed".to_owned()));
    // Nothing happens before it is due, and then it happens once.
    assert_eq!(world.tick_after(DAY * 20).await["charged"], 0);
    for month in 2..=13 {
        let report = world.tick_when_due().await;
        assert_eq!(report["charged"], 1, "month {month}: {report}");
        assert_eq!(world.tick_after(SignedDuration::ZERO).await["charged"], 0);
        world.stripe().webhooks.until_delivered().await;
        assert_eq!(kept(&world), month);
        assert_eq!(status(&world).await, "active");
    }
    let payments = world.stripe().payments();
    assert!(payments.iter().all(|payment| payment.amount == 500 && payment.currency == "usd"));
}

#[tokio::test]
async fn a_declined_card_is_retried_on_schedule_and_then_access_ends() {
    let world = bought().await;
    world.stripe().set_card(&customer(&world), Card::DeclinesSoftly);
    let report = world.tick_when_due().await;
    assert_eq!((&report["charged"], &report["declined"]), (&json!(0), &json!(1)));
    assert_eq!(status(&world).await, "past_due");
    let mut days = vec![0];
    for day in 1..=7 {
        if world.tick_after(DAY).await["declined"] == 1 {
            days.push(day);
        }
        let expected = if day < 7 { "past_due" } else { "suspended" };
        assert_eq!(status(&world).await, expected, "day {day}");
    }
    assert_eq!(days, [0, 1, 3, 5, 7]);
    assert_eq!(kept(&world), 1);
    // Bought again; a new period starts now.
    pay(&world, Card::Succeeds).await;
    assert_eq!(status(&world).await, "active");
    assert_eq!(world.tick_when_due().await["charged"], 1);
    assert_eq!(kept(&world), 3);
}

#[tokio::test]
async fn a_past_due_period_can_be_paid_at_once() {
    let world = bought().await;
    world.stripe().set_card(&customer(&world), Card::DeclinesHard);
    world.tick_when_due().await;
    assert_eq!(status(&world).await, "past_due");
    pay(&world, Card::Succeeds).await;
    assert_eq!(status(&world).await, "active");
    assert_eq!(world.tick_after(DAY).await["charged"], 0);
    assert_eq!(kept(&world), 2);
    // The new card is the one charged from then on.
    assert_eq!(world.tick_when_due().await["charged"], 1);
}

#[tokio::test]
async fn cancelling_keeps_the_paid_period_and_can_be_undone() {
    let world = bought().await;
    let reply = cancel(&world).await;
    assert_eq!(reply.json()["integration"]["add_on"]["status"], "cancelling");
    assert_eq!(cancel(&world).await.status, 200, "again");
    let resumed = subscribe(&world).await;
    assert_eq!(resumed.json()["checkout_url"], Value::Null);
    assert_eq!(status(&world).await, "active");
    cancel(&world).await;
    assert_eq!(world.tick_when_due().await["charged"], 0);
    assert_eq!(status(&world).await, "ended");
    assert_eq!(cancel(&world).await.error(), (409, "not_subscribed".to_owned()));
    assert_eq!(kept(&world), 1);
}

#[tokio::test]
async fn a_cancellation_cannot_be_undone_after_the_paid_period() {
    for collection in ["card", "credits", "provider"] {
        let world = World::with_settings(&[("ADD_ON_COLLECTION", collection)]).await;
        world.set("acme", json!({"credits": "1000"})).await;
        if collection == "credits" {
            assert_eq!(subscribe(&world).await.status, 200);
        } else {
            pay(&world, Card::Succeeds).await;
        }
        cancel(&world).await;
        let anchor = async || {
            let account = world.system.account("acme").await;
            account.profile.add_on.anchor().unwrap()
        };
        let first = anchor().await;
        world.wait_until_due().await;
        // No tick has run since.
        world.stripe().renew_due();
        world.stripe().webhooks.until_delivered().await;
        let bought = subscribe(&world).await.json();
        let new = if collection == "credits" {
            bought["integration"]["add_on"]["status"] == "active"
        } else {
            bought["checkout_url"].is_string()
        };
        assert!(new, "{collection}: {bought}");
        let started_over = anchor().await > first;
        assert_eq!(started_over, collection == "credits", "{collection}");
    }
}

#[tokio::test]
async fn only_an_owner_can_buy_and_cancel() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let member = world.caller("acme", "member");
    let routes = [
        (Method::POST, ROUTE),
        (Method::DELETE, ROUTE),
        (Method::POST, CARD_ROUTE),
        (Method::POST, "/v1/credits/checkout"),
    ];
    for (method, path) in routes {
        let reply = world.send(member.request(method, path)).await;
        assert_eq!(reply.error(), (403, "not_owner".to_owned()));
    }
}

#[tokio::test]
async fn a_new_card_pays_what_the_old_one_could_not() {
    let world = bought().await;
    let new_card = || async {
        let owner = world.owner("acme");
        world.send(owner.request(Method::POST, CARD_ROUTE)).await
    };
    world.stripe().set_card(&customer(&world), Card::DeclinesHard);
    world.tick_when_due().await;
    world.tick_after(DAY).await;
    assert_eq!(status(&world).await, "past_due");
    let session = session_of(&new_card().await);
    world.stripe().pay(&session, Card::Succeeds).unwrap();
    world.stripe().webhooks.until_delivered().await;
    let report = world.tick_after(SignedDuration::from_secs(1)).await;
    assert_eq!(report["charged"], 1, "{report}");
    assert_eq!(status(&world).await, "active");
    assert_eq!(kept(&world), 2);
    // With nothing to charge, there is no card to replace.
    cancel(&world).await;
    world.tick_when_due().await;
    assert_eq!(new_card().await.error(), (409, "not_subscribed".to_owned()));
}

#[tokio::test]
async fn credits_are_bought_at_checkout() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let owner = world.owner("acme");
    let checkout = async |usd: Value| {
        let body = json!({ "usd": usd });
        owner.call(Method::POST, "/v1/credits/checkout", &body).await
    };
    for wrong in [json!("4.99"), json!("1000.01"), json!("5.001"), json!("x"), json!(5)] {
        assert_eq!(checkout(wrong).await.error(), (400, "invalid_request".to_owned()));
    }
    let session = session_of(&checkout(json!("12.34")).await);
    let stripe = world.stripe();
    stripe.pay(&session, Card::Succeeds).unwrap();
    stripe.webhooks.until_delivered().await;
    for event in stripe.webhooks.events() {
        stripe.webhooks.deliver(&event).await.unwrap();
    }
    let ledger = owner.ledger().await;
    assert_eq!(ledger.len(), 1);
    let entry = &ledger[0];
    assert_eq!((&entry["kind"], &entry["amount"]), (&json!("purchase"), &json!("123.4")));
    assert_eq!(kept(&world), 1);
    let shown = world.shown("acme").await;
    assert_eq!(shown["reconciliation"]["ok"], true);
}

#[tokio::test]
async fn an_add_on_set_by_the_dev_route_is_charged_like_a_bought_one() {
    let world = World::start().await;
    for (add_on, charged) in [("active", 1), ("past_due", 1), ("cancelling", 0)] {
        world.set("acme", json!({"add_on": add_on})).await;
        assert_eq!(status(&world).await, add_on);
        let report = world.tick_after(DAY * 31).await;
        assert_eq!(report["charged"], charged, "{add_on}: {report}");
        assert_eq!(report["declined"], 0);
    }
}

#[tokio::test]
async fn credits_can_pay_for_the_add_on() {
    let world = World::with_settings(&[("ADD_ON_COLLECTION", "credits")]).await;
    world.set("acme", json!({"credits": "49.999999"})).await;
    assert_eq!(subscribe(&world).await.error(), (402, "insufficient_credits".to_owned()));
    world.set("acme", json!({"credits": "120"})).await;
    let twice = tokio::join!(subscribe(&world), subscribe(&world));
    let mut answers = [twice.0.status.as_u16(), twice.1.status.as_u16()];
    answers.sort_unstable();
    assert_eq!(answers, [200, 409], "paid once despite two clicks");
    assert_eq!(status(&world).await, "active");
    assert_eq!(world.settled_balance("acme").await, "70");
    assert_eq!(world.tick_when_due().await["charged"], 1);
    assert_eq!(world.settled_balance("acme").await, "20");
    // Without credits it is past due; the same route restores it once there are some.
    assert_eq!(world.tick_when_due().await["declined"], 1);
    assert_eq!(status(&world).await, "past_due");
    assert_eq!(subscribe(&world).await.error(), (402, "insufficient_credits".to_owned()));
    world.set("acme", json!({"credits": "60"})).await;
    assert_eq!(subscribe(&world).await.status, 200);
    assert_eq!(status(&world).await, "active");
    assert_eq!(world.tick_after(DAY).await["charged"], 0);
    let ledger = world.owner("acme").ledger().await;
    let add_on = ledger.iter().filter(|entry| entry["kind"] == "add_on");
    let amounts: Vec<_> = add_on.map(|entry| entry["amount"].clone()).collect();
    assert_eq!(amounts, ["-50", "-50", "-50"]);
    assert_eq!(world.stripe().seen().len(), 0, "Stripe is not involved");
    assert_eq!(world.shown("acme").await["reconciliation"]["ok"], true);
}

/// The response to the write is lost; what is stored tells that the month was paid.
#[tokio::test]
async fn a_month_in_credits_whose_write_has_no_response_is_paid_once() {
    let world = World::with_settings(&[("ADD_ON_COLLECTION", "credits")]).await;
    world.set("acme", json!({"credits": "120"})).await;
    assert_eq!(subscribe(&world).await.status, 200);
    world.wire.disturb("TransactWriteItems", Fault::ResponseLost, 1);
    world.tick_when_due().await;
    assert_eq!(status(&world).await, "active");
    assert_eq!(world.settled_balance("acme").await, "20");
}

/// Each state that a user can see, and how each route responds: buying, cancelling, replacing the
/// card, buying credits.
#[tokio::test]
async fn every_state_responds_to_every_route() {
    let routes = [
        (Method::POST, ROUTE),
        (Method::DELETE, ROUTE),
        (Method::POST, CARD_ROUTE),
        (Method::POST, "/v1/credits/checkout"),
    ];
    let no = "not_subscribed";
    let table = [
        ("none", ["checkout", no, no, "checkout"]),
        ("active", ["already_subscribed", "cancelling", "checkout", "checkout"]),
        ("past_due", ["checkout", "ended", "checkout", "checkout"]),
        ("cancelling", ["resumed", "cancelling", "checkout", "checkout"]),
        ("suspended", ["checkout", no, no, "checkout"]),
        ("ended", ["checkout", no, no, "checkout"]),
    ];
    let enterprise = ["add_on_not_needed", no, no, "checkout"];
    let world = World::start().await;
    let answers = async |state: &str, plan: &str| {
        let mut answers = Vec::new();
        for (method, route) in &routes {
            let fresh = json!({"plan": "standard", "add_on": state});
            world.set("acme", fresh).await;
            assert_eq!(status(&world).await, state);
            world.set("acme", json!({ "plan": plan })).await;
            let owner = world.owner("acme");
            let body = if *route == "/v1/credits/checkout" {
                json!({"usd": "5"}).to_string()
            } else {
                String::new()
            };
            let request = owner.request(method.clone(), route).body(body);
            let reply = world.send(request).await;
            if reply.status != 200 {
                answers.push(reply.code());
                continue;
            }
            let url = &reply.json()["checkout_url"];
            answers.push(match (method, url.is_string()) {
                (_, true) => "checkout".to_owned(),
                (&Method::DELETE, _) => status(&world).await,
                _ => "resumed".to_owned(),
            });
            if url.is_string() && *route == ROUTE {
                let stripe = world.stripe();
                stripe.pay(&session_of(&reply), Card::Succeeds).unwrap();
                stripe.webhooks.until_delivered().await;
                assert_eq!(status(&world).await, "active", "{state}");
            }
        }
        answers
    };
    for (state, expected) in table {
        assert_eq!(answers(state, "standard").await, expected, "{state}");
        // Enterprise needs no add-on.
        assert_eq!(answers(state, "enterprise").await, enterprise, "{state}");
    }
}

/// The second click arrives while Stripe still handles the first one's request.
#[tokio::test]
async fn two_clicks_at_once_open_one_checkout_session() {
    let world = World::start().await;
    world.set("acme", json!({"plan": "standard"})).await;
    let (owner, stripe) = (world.owner("acme"), world.stripe());
    let click = || owner.call(Method::POST, ROUTE, &Value::Null);
    let customer_requests = || {
        let seen = stripe.seen();
        let of = seen.iter().filter(|it| it.path.ends_with("/customers"));
        of.count()
    };
    stripe.pause_at("/customers");
    let release_stripe = async {
        while customer_requests() < 2 {
            tokio::task::yield_now().await;
        }
        stripe.resume();
    };
    let (one, other, ()) = tokio::join!(click(), click(), release_stripe);
    for answer in [&one, &other] {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(session_of(&one), session_of(&other));
    assert!(customer_requests() > 2, "the refused request was retried");
}

/// Section 5 of the contract: at most 60 requests for payment pages per account per hour.
#[tokio::test]
async fn payment_page_requests_are_limited_to_60_per_hour() {
    let world = World::start().await;
    world.set("acme", json!({"plan": "standard"})).await;
    let owner = world.owner("acme");
    let usd = json!({"usd": "5"});
    let credits = || owner.call(Method::POST, "/v1/credits/checkout", &usd);
    let add_on = || owner.call(Method::POST, ROUTE, &Value::Null);
    for _ in 0..2 {
        let at_once = futures_util::future::join_all((0..15).map(|_| add_on()));
        for reply in at_once.await {
            assert!([200, 409].contains(&reply.status.as_u16()), "{reply:?}");
        }
        let at_once = futures_util::future::join_all((0..15).map(|_| credits()));
        for reply in at_once.await {
            assert_eq!(reply.status, 200, "{reply:?}");
        }
    }
    for refused in [credits().await, add_on().await] {
        assert_eq!(refused.error(), (429, "too_many_attempts".to_owned()));
        let wait: i64 = refused.header("retry-after").parse().unwrap();
        assert!((3_500..=3_600).contains(&wait), "{wait}");
    }
    let other = json!({"plan": "standard"});
    world.set("other", other).await;
    let other = world.owner("other");
    let reply = other.call(Method::POST, ROUTE, &Value::Null).await;
    assert_eq!(reply.status, 200);
}
