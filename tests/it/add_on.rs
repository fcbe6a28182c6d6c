//! The add-on's life: bought, charged once a month, lost and regained.

use std::collections::BTreeSet;

use http::Method;
use jiff::{SignedDuration, Timestamp};
use local::provider::{Card, Delivery, PaymentProvider, SeenRequest};
use serde_json::{Value, json};

use crate::support::{Reply, World};
use crate::wire::Fault;

const ROUTE: &str = "/v1/integrations/openrouter/subscription";
const CARD_ROUTE: &str = "/v1/integrations/openrouter/subscription/payment-method";
/// Longer than a step belongs to whoever took it on.
const LEASE: SignedDuration = SignedDuration::from_mins(3);
const DAY: SignedDuration = SignedDuration::from_hours(24);

impl World {
    pub(crate) fn provider(&self) -> &PaymentProvider {
        self.system.payment_provider.as_ref().unwrap()
    }

    /// Has time pass, and the billing tick come.
    async fn tick_after(&self, time: SignedDuration) -> Value {
        self.system.clock.advance(time);
        self.tick_in(SignedDuration::ZERO).await
    }

    /// Has time pass until what is paid is over.
    async fn wait_until_due(&self) {
        let card = self.owner("acme").card().await;
        let due = card["add_on"]["paid_through"].as_str().unwrap();
        let due: Timestamp = due.parse().unwrap();
        let wait = due.duration_since(self.system.clock.now());
        self.system
            .clock
            .advance(wait + SignedDuration::from_secs(1));
    }

    async fn tick_when_due(&self) -> Value {
        self.wait_until_due().await;
        self.tick_in(SignedDuration::ZERO).await
    }
}

// Each with a new token: they end within a day.

async fn subscribe(world: &World) -> Reply {
    let owner = world.owner("acme");
    world.send(owner.request(Method::POST, ROUTE)).await
}

async fn cancel(world: &World) -> Reply {
    let owner = world.owner("acme");
    world.send(owner.request(Method::DELETE, ROUTE)).await
}

/// The checkout session that `subscribe` leads to.
pub(crate) async fn session(world: &World) -> String {
    let reply = subscribe(world).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let url = reply.json()["checkout_url"].as_str().unwrap().to_owned();
    url.rsplit('/').next().unwrap().to_owned()
}

async fn pay(world: &World, card: Card) {
    let session = session(world).await;
    let provider = world.provider();
    provider.pay(&session, card).unwrap();
    provider.until_delivered().await;
}

pub(crate) async fn status(world: &World) -> String {
    let card = world.owner("acme").card().await;
    card["add_on"]["status"].as_str().unwrap().to_owned()
}

fn customer(world: &World) -> String {
    let payments = world.provider().payments();
    payments[0].customer.clone().unwrap()
}

/// What was paid and not given back.
fn kept(world: &World) -> usize {
    let payments = world.provider().payments();
    payments
        .iter()
        .filter(|payment| payment.refunded == 0)
        .count()
}

/// A system with an account that bought the add-on just now.
async fn bought() -> World {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    pay(&world, Card::Succeeds).await;
    assert_eq!(status(&world).await, "active");
    world
}

#[tokio::test]
async fn the_add_on_is_bought_on_the_providers_page_and_then_charged_each_month() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    assert_eq!(world.owner("acme").card().await["status"], "not_enabled");
    let first = session(&world).await;
    assert_eq!(session(&world).await, first, "an open page is shown again");
    world.provider().pay(&first, Card::Succeeds).unwrap();
    world.provider().until_delivered().await;
    let card = world.owner("acme").card().await;
    assert_eq!(card["status"], "available");
    assert_eq!(card["add_on"]["status"], "active");
    assert_eq!(
        card["add_on"]["next_charge_at"],
        card["add_on"]["paid_through"]
    );
    assert_eq!(
        subscribe(&world).await.error(),
        (409, "already_subscribed".to_owned())
    );
    // Before it is due nothing happens, and then it happens once.
    assert_eq!(world.tick_after(DAY * 20).await["charged"], 0);
    for month in 2..=13 {
        let report = world.tick_when_due().await;
        assert_eq!(report["charged"], 1, "month {month}: {report}");
        assert_eq!(world.tick_after(SignedDuration::ZERO).await["charged"], 0);
        world.provider().until_delivered().await;
        assert_eq!(kept(&world), month);
        assert_eq!(status(&world).await, "active");
    }
    let payments = world.provider().payments();
    assert!(
        payments
            .iter()
            .all(|payment| payment.amount == 500 && payment.currency == "usd")
    );
}

#[tokio::test]
async fn a_declined_card_is_tried_on_its_days_and_then_access_ends() {
    let world = bought().await;
    world
        .provider()
        .set_card(&customer(&world), Card::DeclinesSoftly);
    let report = world.tick_when_due().await;
    assert_eq!(
        (&report["charged"], &report["declined"]),
        (&json!(0), &json!(1))
    );
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
    // Regained, from now on.
    pay(&world, Card::Succeeds).await;
    assert_eq!(status(&world).await, "active");
    assert_eq!(world.tick_when_due().await["charged"], 1);
    assert_eq!(kept(&world), 3);
}

#[tokio::test]
async fn what_is_past_due_can_be_paid_at_once() {
    let world = bought().await;
    world
        .provider()
        .set_card(&customer(&world), Card::DeclinesHard);
    world.tick_when_due().await;
    assert_eq!(status(&world).await, "past_due");
    pay(&world, Card::Succeeds).await;
    assert_eq!(status(&world).await, "active");
    assert_eq!(world.tick_after(DAY).await["charged"], 0);
    assert_eq!(kept(&world), 2);
    // The new card is the one that is charged from then on.
    assert_eq!(world.tick_when_due().await["charged"], 1);
}

/// The charge took place and its answer was lost: it is looked up, not made again.
#[tokio::test]
async fn an_unknown_outcome_is_looked_up() {
    for (card, kept_after) in [
        (Card::TimesOutAfterCharging, 2),
        (Card::TimesOutBeforeCharging, 2),
    ] {
        let world = bought().await;
        world.provider().script(&customer(&world), &[card]);
        // Only the look-up is to tell.
        world.provider().set_delivery(Delivery::Drop);
        let report = world.tick_when_due().await;
        assert_eq!(
            (&report["charged"], &report["unknown"]),
            (&json!(0), &json!(1)),
            "{card:?}"
        );
        let report = world.tick_after(SignedDuration::from_mins(6)).await;
        assert_eq!(report["charged"], 1, "{card:?}: {report}");
        assert_eq!(kept(&world), kept_after);
        assert_eq!(status(&world).await, "active");
    }
}

#[tokio::test]
async fn cancelling_keeps_what_is_paid_and_can_be_taken_back() {
    let world = bought().await;
    let reply = cancel(&world).await;
    assert_eq!(
        reply.json()["integration"]["add_on"]["status"],
        "cancelling"
    );
    assert_eq!(cancel(&world).await.status, 200, "again");
    let resumed = subscribe(&world).await;
    assert_eq!(resumed.json()["checkout_url"], Value::Null);
    assert_eq!(status(&world).await, "active");
    cancel(&world).await;
    assert_eq!(world.tick_when_due().await["charged"], 0);
    assert_eq!(status(&world).await, "ended");
    assert_eq!(
        cancel(&world).await.error(),
        (409, "not_subscribed".to_owned())
    );
    assert_eq!(kept(&world), 1);
}

/// The page was open while the plan changed: what is paid there is given back.
#[tokio::test]
async fn a_payment_that_is_not_owed_is_given_back_once() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let session = session(&world).await;
    world.set("acme", json!({"plan": "enterprise"})).await;
    assert_eq!(
        subscribe(&world).await.error(),
        (409, "add_on_not_needed".to_owned())
    );
    let provider = world.provider();
    provider.pay(&session, Card::Succeeds).unwrap();
    provider.until_delivered().await;
    assert_eq!(status(&world).await, "none");
    let payments = provider.payments();
    assert_eq!((payments.len(), payments[0].refunded), (1, 500));
    // The tick finds nothing that is left to do.
    world.tick_after(DAY).await;
    let refunds = |world: &World| {
        let seen = world.provider().seen();
        seen.iter()
            .filter(|request| request.path == "/v1/refunds")
            .count()
    };
    assert_eq!(refunds(&world), 1);
}

#[tokio::test]
async fn a_page_that_nobody_wants_any_more_is_closed() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let session = session(&world).await;
    world.set("acme", json!({"plan": "enterprise"})).await;
    world.tick_after(SignedDuration::from_mins(3)).await;
    let provider = world.provider();
    assert_eq!(provider.object(&session).unwrap()["status"], "expired");
    assert!(provider.pay(&session, Card::Succeeds).is_err());
}

#[tokio::test]
async fn the_same_event_many_times_over_is_one() {
    let world = bought().await;
    world.tick_when_due().await;
    let provider = world.provider();
    provider.until_delivered().await;
    let before = world.owner("acme").card().await;
    for event in provider.events() {
        let again = (0..20).map(|_| provider.deliver(&event));
        for delivered in futures_util::future::join_all(again).await {
            delivered.unwrap();
        }
    }
    assert_eq!(world.owner("acme").card().await, before);
    assert_eq!(kept(&world), 2);
}

#[tokio::test]
async fn a_bad_signature_is_refused() {
    let world = World::start().await;
    let body = r#"{"id":"evt_1","type":"payment_intent.succeeded"}"#;
    for header in ["", "t=1,v1=00", "nonsense"] {
        let request = world.request(Method::POST, "/v1/webhooks/stripe");
        let request = request.header("stripe-signature", header).body(body);
        let reply = world.send(request).await;
        assert_eq!(
            reply.error(),
            (400, "invalid_signature".to_owned()),
            "{header}"
        );
    }
}

#[tokio::test]
async fn only_an_owner_buys_and_cancels() {
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

/// The session of the page that `reply` leads to.
fn session_of(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let url = reply.json()["checkout_url"].as_str().unwrap().to_owned();
    url.rsplit('/').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_new_card_pays_what_the_old_one_did_not() {
    let world = bought().await;
    let new_card = || async {
        let owner = world.owner("acme");
        world.send(owner.request(Method::POST, CARD_ROUTE)).await
    };
    world
        .provider()
        .set_card(&customer(&world), Card::DeclinesHard);
    world.tick_when_due().await;
    world.tick_after(DAY).await;
    assert_eq!(status(&world).await, "past_due");
    let session = session_of(&new_card().await);
    world.provider().pay(&session, Card::Succeeds).unwrap();
    world.provider().until_delivered().await;
    let report = world.tick_after(SignedDuration::from_secs(1)).await;
    assert_eq!(report["charged"], 1, "{report}");
    assert_eq!(status(&world).await, "active");
    assert_eq!(kept(&world), 2);
    // Where nothing is charged, there is no card to replace.
    cancel(&world).await;
    world.tick_when_due().await;
    assert_eq!(new_card().await.error(), (409, "not_subscribed".to_owned()));
}

#[tokio::test]
async fn credits_are_bought_on_the_providers_page() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let owner = world.owner("acme");
    let checkout = async |usd: Value| {
        let body = json!({ "usd": usd });
        owner
            .call(Method::POST, "/v1/credits/checkout", &body)
            .await
    };
    for wrong in [
        json!("4.99"),
        json!("1000.01"),
        json!("5.001"),
        json!("x"),
        json!(5),
    ] {
        assert_eq!(
            checkout(wrong).await.error(),
            (400, "invalid_request".to_owned())
        );
    }
    let session = session_of(&checkout(json!("12.34")).await);
    let provider = world.provider();
    provider.pay(&session, Card::Succeeds).unwrap();
    provider.until_delivered().await;
    for event in provider.events() {
        provider.deliver(&event).await.unwrap();
    }
    let ledger = owner.ledger().await;
    assert_eq!(ledger.len(), 1);
    let entry = &ledger[0];
    assert_eq!(
        (&entry["kind"], &entry["amount"]),
        (&json!("purchase"), &json!("123.4"))
    );
    assert_eq!(kept(&world), 1);
    let shown = world.shown("acme").await;
    assert_eq!(shown["reconciliation"]["ok"], true);
}

/// Delivers all that happened, in the order that `order` makes of it.
async fn deliver_again(world: &World, order: impl FnOnce(&mut Vec<local::provider::Event>)) {
    let provider = world.provider();
    let mut events = provider.events();
    order(&mut events);
    for event in &events {
        provider.deliver(event).await.unwrap();
    }
}

#[tokio::test]
async fn what_others_give_back_ends_the_add_on() {
    let world = bought().await;
    let intent = world.provider().payments()[0].intent.clone();
    world.provider().refund_from_outside(&intent, 100).unwrap();
    world.provider().until_delivered().await;
    assert_eq!(
        status(&world).await,
        "active",
        "a part of it is history only"
    );
    world.provider().refund_from_outside(&intent, 400).unwrap();
    world.provider().until_delivered().await;
    assert_eq!(status(&world).await, "ended");
    assert_eq!(world.tick_after(DAY * 40).await["charged"], 0);
    assert_eq!(world.provider().payments().len(), 1);
}

#[tokio::test]
async fn a_dispute_suspends_until_it_is_decided() {
    for (won, expected) in [(true, "active"), (false, "ended")] {
        let world = bought().await;
        let intent = world.provider().payments()[0].intent.clone();
        let dispute = world.provider().dispute(&intent).unwrap();
        world.provider().until_delivered().await;
        assert_eq!(status(&world).await, "suspended");
        world.provider().close_dispute(&dispute, won).unwrap();
        world.provider().until_delivered().await;
        assert_eq!(status(&world).await, expected);
    }
}

#[tokio::test]
async fn credits_that_were_given_back_are_taken_back_for_their_share() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let owner = world.owner("acme");
    let body = json!({"usd": "10"});
    let reply = owner
        .call(Method::POST, "/v1/credits/checkout", &body)
        .await;
    let provider = world.provider();
    provider.pay(&session_of(&reply), Card::Succeeds).unwrap();
    let intent = provider.payments()[0].intent.clone();
    for cents in [333, 100] {
        provider.refund_from_outside(&intent, cents).unwrap();
    }
    provider.until_delivered().await;
    // Backwards, and often.
    deliver_again(&world, |events| events.reverse()).await;
    deliver_again(&world, |_| ()).await;
    let credits = world
        .send(owner.request(Method::GET, "/v1/credits"))
        .await
        .json();
    assert_eq!(
        (&credits["balance"], &credits["owed"]),
        (&json!("56.7"), &json!("0"))
    );
    let dispute = provider.dispute(&intent).unwrap();
    provider.until_delivered().await;
    let credits = world
        .send(owner.request(Method::GET, "/v1/credits"))
        .await
        .json();
    assert_eq!(credits["balance"], "0");
    provider.close_dispute(&dispute, true).unwrap();
    provider.until_delivered().await;
    deliver_again(&world, |events| events.reverse()).await;
    let credits = world
        .send(owner.request(Method::GET, "/v1/credits"))
        .await
        .json();
    assert_eq!(
        (&credits["balance"], &credits["owed"]),
        (&json!("56.7"), &json!("0"))
    );
    assert_eq!(world.shown("acme").await["reconciliation"]["ok"], true);
}

/// The whole history of an account, delivered backwards for the first time.
#[tokio::test]
async fn events_in_any_order_lead_to_the_same_state() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    world.provider().set_delivery(Delivery::Hold);
    let session = session(&world).await;
    world.provider().pay(&session, Card::Succeeds).unwrap();
    let intent = world.provider().payments()[0].intent.clone();
    let dispute = world.provider().dispute(&intent).unwrap();
    world.provider().close_dispute(&dispute, true).unwrap();
    deliver_again(&world, |events| events.reverse()).await;
    // What came before its payment comes up again.
    world.tick_after(SignedDuration::from_mins(6)).await;
    assert_eq!(status(&world).await, "active");
    deliver_again(&world, |_| ()).await;
    assert_eq!(status(&world).await, "active");
    assert_eq!(kept(&world), 1);
}

/// An event that cannot be applied when it comes is kept, and applied later.
#[tokio::test]
async fn an_event_that_cannot_be_applied_is_kept() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let session = session(&world).await;
    world.provider().set_delivery(Delivery::Hold);
    world.provider().pay(&session, Card::Succeeds).unwrap();
    // The look-up of the card fails.
    world.provider().limit_rate(1, None);
    for event in world.provider().take_held() {
        world.provider().deliver(&event).await.unwrap();
    }
    assert_eq!(status(&world).await, "none");
    let report = world.tick_after(SignedDuration::from_mins(6)).await;
    assert_eq!(report["errors"], 0);
    assert_eq!(status(&world).await, "active");
}

#[tokio::test]
async fn what_we_did_not_ask_for_changes_nothing() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let stripe = payments::Stripe::new(
        world.provider().base_url().parse().unwrap(),
        payments::TimeOuts::new(std::time::Duration::from_secs(1)),
    );
    let url = "https://greta.example/".parse().unwrap();
    let foreign = payments::NewCheckout {
        purpose: payments::Purpose::Payment {
            price: payments::Price {
                product: "Power your AI with OpenRouter \u{2013} $5 Add-on",
                amount: payments::Cents::new(500),
            },
            keep_card: false,
        },
        customer: None,
        success_url: &url,
        cancel_url: &url,
        client_reference_id: "acme",
        expires_at: world.system.clock.now() + DAY / 2,
    };
    let key = "sk_test".to_owned().into();
    let made = stripe
        .unwrap()
        .create_checkout(&key, &foreign, "x")
        .await
        .unwrap();
    world
        .provider()
        .pay(made.id.as_str(), Card::Succeeds)
        .unwrap();
    world.provider().until_delivered().await;
    assert_eq!(status(&world).await, "none");
    assert_eq!(
        world.provider().payments()[0].refunded,
        0,
        "it is not ours to give back"
    );
}

/// A payment that was under way when the account was deleted is called off, or given back.
#[tokio::test]
async fn a_deleted_account_pays_nothing_any_more() {
    let deleted = async |world: &World| {
        let event = json!({
            "source": "greta.core",
            "detail-type": "account.deleted",
            "time": world.system.clock.now(),
            "detail": {"account_id": "acme", "version": 9},
        });
        world.system.account_event(&event).await.unwrap();
    };
    // A page is open.
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let session = session(&world).await;
    deleted(&world).await;
    world.tick_after(SignedDuration::from_secs(1)).await;
    assert_eq!(
        world.provider().object(&session).unwrap()["status"],
        "expired"
    );
    // A charge was declined, and would be tried again.
    let world = bought().await;
    world
        .provider()
        .set_card(&customer(&world), Card::DeclinesSoftly);
    world.tick_when_due().await;
    world.provider().set_card(&customer(&world), Card::Succeeds);
    deleted(&world).await;
    for _ in 0..10 {
        world.tick_after(DAY).await;
    }
    assert_eq!(world.provider().payments().len(), 1);
    // The outcome of a charge is not known.
    let world = bought().await;
    world.provider().set_delivery(Delivery::Drop);
    world
        .provider()
        .script(&customer(&world), &[Card::TimesOutAfterCharging]);
    world.tick_when_due().await;
    deleted(&world).await;
    world.tick_after(SignedDuration::from_secs(1)).await;
    let payments = world.provider().payments();
    assert_eq!((payments.len(), payments[1].refunded), (2, 500));
    // A page was paid just before.
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let page = self::session(&world).await;
    world.provider().set_delivery(Delivery::Drop);
    world.provider().pay(&page, Card::Succeeds).unwrap();
    deleted(&world).await;
    world.tick_after(SignedDuration::from_secs(1)).await;
    assert_eq!(world.provider().payments()[0].refunded, 500);
}

#[tokio::test]
async fn an_add_on_that_was_set_is_charged_like_one_that_was_bought() {
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
    assert_eq!(
        subscribe(&world).await.error(),
        (402, "insufficient_credits".to_owned())
    );
    world.set("acme", json!({"credits": "120"})).await;
    let twice = tokio::join!(subscribe(&world), subscribe(&world));
    let mut answers = [twice.0.status.as_u16(), twice.1.status.as_u16()];
    answers.sort_unstable();
    assert_eq!(answers, [200, 409], "once, however often one clicks");
    assert_eq!(status(&world).await, "active");
    assert_eq!(world.settled_balance("acme").await, "70");
    assert_eq!(world.tick_when_due().await["charged"], 1);
    assert_eq!(world.settled_balance("acme").await, "20");
    // Without credits it is past due, and regained by the same route once there are some.
    assert_eq!(world.tick_when_due().await["declined"], 1);
    assert_eq!(status(&world).await, "past_due");
    assert_eq!(
        subscribe(&world).await.error(),
        (402, "insufficient_credits".to_owned())
    );
    world.set("acme", json!({"credits": "60"})).await;
    assert_eq!(subscribe(&world).await.status, 200);
    assert_eq!(status(&world).await, "active");
    assert_eq!(world.tick_after(DAY).await["charged"], 0);
    let ledger = world.owner("acme").ledger().await;
    let add_on = ledger.iter().filter(|entry| entry["kind"] == "add_on");
    let amounts: Vec<_> = add_on.map(|entry| entry["amount"].clone()).collect();
    assert_eq!(amounts, ["-50", "-50", "-50"]);
    assert_eq!(
        world.provider().seen().len(),
        0,
        "the provider has no part in it"
    );
    assert_eq!(world.shown("acme").await["reconciliation"]["ok"], true);
}

/// The way of tick and worker to the store breaks off, for good, before and after each of their requests that is
/// not a search for work; later ticks go on, and the period is paid once all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_charge_that_broke_off_anywhere_is_made_once() {
    for delivery in [Delivery::Drop, Delivery::AtOnce] {
        let due = async || {
            let world = bought().await;
            world.provider().set_delivery(delivery);
            world.wait_until_due().await;
            world
        };
        let world = due().await;
        world.wire.take();
        world.tick_in(SignedDuration::ZERO).await;
        let requests = world.wire.take();
        let is_search = |at: usize| requests.get(at).is_none_or(|name| name == "Query");
        let places = (1..requests.len()).filter(|at| !(is_search(at - 1) && is_search(*at)));
        assert!(places.clone().count() > 5, "{requests:?}");
        for place in places {
            let world = due().await;
            world.wire.die_after(place);
            world.tick_in(SignedDuration::ZERO).await;
            let at = format!("{delivery:?}, after {place} requests");
            // How many requests the webhook makes depends on who is faster.
            assert!(world.wire.revive() || delivery == Delivery::AtOnce, "{at}");
            for _ in 0..4 {
                world.tick_after(LEASE * 2).await;
            }
            world.provider().until_delivered().await;
            assert_eq!(world.provider().payments().len(), 2, "{at}");
            assert_eq!(kept(&world), 2, "{at}");
            assert_eq!(status(&world).await, "active", "{at}");
        }
    }
}

/// Writes whose answers are lost, or that meet others, are not made twice.
#[tokio::test]
async fn a_charge_whose_writes_are_not_answered_is_made_once() {
    for operation in ["TransactWriteItems", "UpdateItem"] {
        for fault in [Fault::AnswerLost, Fault::NeverArrives, Fault::Repeated] {
            for times in 1..=4 {
                let world = bought().await;
                world.provider().set_delivery(Delivery::Drop);
                world.wait_until_due().await;
                world.wire.disturb(operation, fault, times);
                world.tick_in(SignedDuration::ZERO).await;
                world.wire.disturb(operation, fault, 0);
                for _ in 0..4 {
                    world.tick_after(LEASE * 2).await;
                }
                let at = format!("{operation}, {fault:?}, {times} times");
                assert_eq!(world.provider().payments().len(), 2, "{at}");
                assert_eq!(kept(&world), 2, "{at}");
                assert_eq!(status(&world).await, "active", "{at}");
            }
        }
    }
}

/// From the second attempt on, the object does not tell by its state whether the attempt arrived: it is made
/// again under the same number.
#[tokio::test]
async fn a_later_attempt_of_unknown_outcome_is_the_same_attempt() {
    let cases = [
        (Card::TimesOutBeforeCharging, 1, 0),
        (Card::TimesOutAfterDeclining, 0, 1),
        (Card::TimesOutAfterCharging, 1, 0),
    ];
    for (card, charged, declined) in cases {
        let world = bought().await;
        let script = [Card::DeclinesSoftly, card, Card::Succeeds];
        world.provider().script(&customer(&world), &script);
        world.provider().set_delivery(Delivery::Drop);
        assert_eq!(world.tick_when_due().await["declined"], 1);
        assert_eq!(world.tick_after(DAY).await["unknown"], 1, "{card:?}");
        let report = world.tick_after(LEASE * 2).await;
        assert_eq!(
            (&report["charged"], &report["declined"]),
            (&json!(charged), &json!(declined)),
            "{card:?}: {report}"
        );
        let confirmed = |requests: Vec<SeenRequest>| {
            let confirms = requests
                .into_iter()
                .filter(|it| it.path.ends_with("/confirm"));
            confirms
                .filter_map(|it| it.idempotency_key)
                .collect::<BTreeSet<_>>()
                .len()
        };
        assert_eq!(
            confirmed(world.provider().seen()),
            2,
            "{card:?}: two attempts"
        );
        world.tick_after(DAY * 3).await;
        assert_eq!(kept(&world), 2, "{card:?}");
        assert_eq!(status(&world).await, "active");
    }
}

/// Each state that a user can see, and what buying and cancelling makes of it.
#[tokio::test]
async fn every_state_answers_to_buying_and_to_cancelling() {
    let table = [
        ("none", "checkout", "not_subscribed"),
        ("active", "already_subscribed", "cancelling"),
        ("past_due", "checkout", "ended"),
        ("cancelling", "resumed", "cancelling"),
        ("suspended", "checkout", "not_subscribed"),
        ("ended", "checkout", "not_subscribed"),
    ];
    let world = World::start().await;
    for (add_on, buying, cancelling) in table {
        let fresh = async || {
            world
                .set("acme", json!({"plan": "standard", "add_on": add_on}))
                .await;
            assert_eq!(status(&world).await, add_on);
        };
        fresh().await;
        let bought = subscribe(&world).await;
        let answer = match bought.status.as_u16() {
            200 if bought.json()["checkout_url"].is_string() => "checkout".to_owned(),
            200 => "resumed".to_owned(),
            _ => bought.code(),
        };
        assert_eq!(answer, buying, "{add_on}");
        if answer == "checkout" {
            world
                .provider()
                .pay(&session_of(&bought), Card::Succeeds)
                .unwrap();
            world.provider().until_delivered().await;
            assert_eq!(status(&world).await, "active", "{add_on}");
        }
        fresh().await;
        let cancelled = cancel(&world).await;
        let answer = match cancelled.status.as_u16() {
            200 => status(&world).await,
            _ => cancelled.code(),
        };
        assert_eq!(answer, cancelling, "{add_on}");
        // Enterprise needs none of it.
        fresh().await;
        world.set("acme", json!({"plan": "enterprise"})).await;
        assert_eq!(
            subscribe(&world).await.code(),
            "add_on_not_needed",
            "{add_on}"
        );
        assert_eq!(cancel(&world).await.code(), "not_subscribed", "{add_on}");
    }
}
