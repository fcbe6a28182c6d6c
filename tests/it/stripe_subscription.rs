//! `ADD_ON_COLLECTION=provider`: Stripe runs a subscription, and we follow it.

mod endings;

use std::collections::BTreeSet;

use account::AccountId;
use aws_sdk_dynamodb::types::AttributeValue;
use charging::Charging;
use http::Method;
use jiff::SignedDuration;
use local::stripe::{Card, Delivery};
use serde_json::{Value, json};

use crate::add_on::{
    CARD_ROUTE, DAY, cancel, deleted, kept, pay, session, session_of, status, subscribe,
};
use crate::support::World;

const HOUR: SignedDuration = SignedDuration::from_hours(1);

async fn world() -> World {
    World::with_settings(&[("ADD_ON_COLLECTION", "provider")]).await
}

/// A system with an account whose add-on Stripe collects for.
async fn bought() -> World {
    let world = world().await;
    world.set("acme", json!({})).await;
    pay(&world, Card::Succeeds).await;
    assert_eq!(status(&world).await, "active");
    world
}

/// The account's subscription at Stripe.
async fn subscription_of(world: &World) -> Value {
    let account = world.system.account("acme").await;
    let subscription = account.profile.billing.subscription.as_ref().unwrap();
    world.stripe().object(&subscription.id).unwrap()
}

fn id(subscription: &Value) -> &str {
    subscription["id"].as_str().unwrap()
}

fn current(world: &World, of: &Value) -> Value {
    world.stripe().object(id(of)).unwrap()
}

fn invoice(world: &World, of: &Value) -> Value {
    let latest = current(world, of)["latest_invoice"].clone();
    world.stripe().object(latest.as_str().unwrap()).unwrap()
}

/// Changes the behaviour of the subscription's card.
fn set_card_of(world: &World, of: &Value, card: Card) {
    let customer = of["customer"].as_str().unwrap();
    world.stripe().set_card(customer, card);
}

/// Makes a change at Stripe that bypasses our system.
async fn change_at_stripe(world: &World, method: Method, path: &str, form: &'static str) {
    let url = format!("{}/v1/{path}", world.stripe().base_url());
    let request = reqwest::Client::new().request(method, url);
    let request = request.bearer_auth("sk_test").body(form);
    let answer = request.send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.status());
    world.stripe().webhooks.until_delivered().await;
}

/// Number of requests that our system sent to `path`.
fn requests_to(world: &World, method: Method, path: &str) -> usize {
    let seen = world.stripe().seen();
    let of = seen.iter().filter(|it| it.method == method && it.path.starts_with(path));
    of.count()
}

/// A worker of a deployment with another `ADD_ON_COLLECTION`.
pub(crate) fn worker(world: &World, collection: &str) -> Charging {
    let mut setup = world.setup(world.wire.clone(), &[("ADD_ON_COLLECTION", collection)]);
    let settings = charging::Settings::from_env(&mut setup.env);
    let http = edge::http_client(settings.connect).unwrap();
    Charging::new(settings, &setup, http)
}

async fn run_worker(world: &World, worker: &Charging) {
    let acme = AccountId::new("acme").unwrap();
    // An interrupted run is repeated later.
    let cx = worker.at(world.system.clock.now());
    let _ = charging::run_due(cx, &acme).await;
}

async fn pending_events(world: &World) -> usize {
    let mut pending = 0;
    for shard in store::shards() {
        let events = world.system.store.inbox.pending(shard).await;
        pending += events.unwrap().len();
    }
    pending
}

/// We charged nothing ourselves.
fn assert_only_stripe_collected(world: &World) {
    assert_eq!(requests_to(world, Method::POST, "/v1/payment_intents"), 0);
}

#[tokio::test]
async fn stripe_collects_each_month_and_we_follow() {
    let world = bought().await;
    let subscription = subscription_of(&world).await;
    for month in 2..=13 {
        world.wait_until_due().await;
        // Stripe's own charge and its events come as time passes.
        world.tick_after(HOUR).await;
        assert_eq!(kept(&world), month);
        let card = world.owner("acme").card().await;
        assert_eq!(card["add_on"]["status"], "active");
        assert_eq!(card["add_on"]["next_charge_at"], card["add_on"]["paid_through"]);
        let paid_through = card["add_on"]["paid_through"].as_str().unwrap();
        let paid_through: jiff::Timestamp = paid_through.parse().unwrap();
        let end = &current(&world, &subscription)["items"]["data"][0]["current_period_end"];
        assert_eq!(end.as_i64(), Some(paid_through.as_second()), "month {month}");
    }
    assert_only_stripe_collected(&world);
    assert_eq!(subscribe(&world).await.code(), "already_subscribed");
}

#[tokio::test]
async fn a_payment_is_applied_without_an_event() {
    let world = bought().await;
    // Events that arrived before their checkout have been applied.
    world.tick_after(HOUR).await;
    world.stripe().webhooks.set_delivery(Delivery::Drop);
    world.wait_until_due().await;
    world.tick_after(HOUR).await;
    let before = world.owner("acme").card().await["add_on"]["paid_through"].clone();
    assert_eq!(world.tick_after(HOUR).await["charged"], 1);
    let after = world.owner("acme").card().await["add_on"]["paid_through"].clone();
    assert_ne!(before, after);
    assert_eq!(status(&world).await, "active");
    assert_only_stripe_collected(&world);
}

#[tokio::test]
async fn a_past_due_invoice_is_paid_on_stripes_page() {
    let world = bought().await;
    let subscription = subscription_of(&world).await;
    set_card_of(&world, &subscription, Card::DeclinesSoftly);
    world.tick_when_due().await;
    assert_eq!(status(&world).await, "past_due");
    let bought = subscribe(&world).await.json();
    let url = bought["checkout_url"].as_str().unwrap().to_owned();
    let invoice = invoice(&world, &subscription);
    assert_eq!(invoice["hosted_invoice_url"], url, "the only thing to pay");
    let html = reqwest::get(&url).await.unwrap().text().await.unwrap();
    assert!(html.contains("5.00 USD") && html.contains("Pay"), "{html}");
    let stripe = world.stripe();
    stripe.pay_open_invoice(id(&invoice), Card::Succeeds).unwrap();
    stripe.webhooks.until_delivered().await;
    assert_eq!(status(&world).await, "active");
    assert_eq!(subscribe(&world).await.code(), "already_subscribed");
    assert_eq!(kept(&world), 2);
    assert_only_stripe_collected(&world);
}

#[tokio::test]
async fn an_unpaid_subscription_is_suspended_and_its_invoice_voided() {
    let world = bought().await;
    let subscription = subscription_of(&world).await;
    set_card_of(&world, &subscription, Card::DeclinesSoftly);
    world.tick_when_due().await;
    for day in 1..=7 {
        world.tick_after(DAY).await;
        assert_eq!(status(&world).await, "past_due", "day {day}");
    }
    world.tick_after(DAY).await;
    assert_eq!(status(&world).await, "suspended");
    assert_eq!(current(&world, &subscription)["status"], "canceled");
    assert_eq!(invoice(&world, &subscription)["status"], "void");
    // A new purchase starts a new subscription.
    let session_id = session(&world).await;
    world.stripe().pay(&session_id, Card::Succeeds).unwrap();
    world.stripe().webhooks.until_delivered().await;
    assert_eq!(status(&world).await, "active");
    assert_ne!(id(&subscription_of(&world).await), id(&subscription));
    assert_eq!(kept(&world), 2);
    assert_only_stripe_collected(&world);
}

#[tokio::test]
async fn a_cancellation_and_its_undoing_reach_stripe() {
    let world = bought().await;
    let subscription = subscription_of(&world).await;
    assert_eq!(cancel(&world).await.status, 200);
    assert_eq!(current(&world, &subscription)["cancel_at_period_end"], true);
    let resumed = subscribe(&world).await.json();
    assert_eq!(resumed["integration"]["add_on"]["status"], "active");
    assert_eq!(current(&world, &subscription)["cancel_at_period_end"], false);
    cancel(&world).await;
    world.tick_when_due().await;
    assert_eq!(status(&world).await, "ended");
    assert_eq!(current(&world, &subscription)["status"], "canceled");
    assert_eq!(kept(&world), 1);
}

#[tokio::test]
async fn a_renewal_that_overtakes_a_cancellation_is_refunded() {
    let world = bought().await;
    let subscription = subscription_of(&world).await;
    world.stripe().limit_rate(1, None);
    assert_eq!(cancel(&world).await.status, 200);
    assert_eq!(current(&world, &subscription)["cancel_at_period_end"], false);
    // No tick runs before Stripe collects.
    world.wait_until_due().await;
    world.stripe().renew_due();
    world.stripe().webhooks.until_delivered().await;
    let payments = world.stripe().payments();
    assert_eq!((payments.len(), payments[1].refunded), (2, 500));
    world.tick_after(HOUR).await;
    assert_eq!(status(&world).await, "ended");
    assert_eq!(current(&world, &subscription)["status"], "canceled");
    assert_eq!(world.stripe().payments()[1].refunded, 500, "once");
}

#[tokio::test]
async fn cancelling_while_past_due_ends_at_once() {
    let world = bought().await;
    let subscription = subscription_of(&world).await;
    set_card_of(&world, &subscription, Card::DeclinesSoftly);
    world.tick_when_due().await;
    assert_eq!(cancel(&world).await.status, 200);
    assert_eq!(status(&world).await, "ended");
    assert_eq!(current(&world, &subscription)["status"], "canceled");
    assert_eq!(invoice(&world, &subscription)["status"], "void");
}

#[tokio::test]
async fn a_late_payment_that_is_not_owed_is_refunded() {
    let world = bought().await;
    let subscription = subscription_of(&world).await;
    set_card_of(&world, &subscription, Card::DeclinesSoftly);
    world.tick_when_due().await;
    world.stripe().limit_rate(1, None);
    cancel(&world).await;
    assert_eq!(status(&world).await, "ended");
    let invoice = invoice(&world, &subscription);
    let stripe = world.stripe();
    stripe.webhooks.set_delivery(Delivery::Drop);
    stripe.pay_open_invoice(id(&invoice), Card::Succeeds).unwrap();
    for _ in 0..2 {
        world.tick_after(HOUR).await;
        let payments = world.stripe().payments();
        assert_eq!((payments.len(), payments[1].refunded), (2, 500));
    }
    assert_eq!(status(&world).await, "ended");
}

#[tokio::test]
async fn changes_made_at_stripe_count() {
    let world = bought().await;
    let subscription = subscription_of(&world).await;
    let path = format!("subscriptions/{}", id(&subscription));
    let ends = "cancel_at_period_end=true";
    change_at_stripe(&world, Method::POST, &path, ends).await;
    assert_eq!(status(&world).await, "cancelling");
    let resumes = "cancel_at_period_end=false";
    change_at_stripe(&world, Method::POST, &path, resumes).await;
    assert_eq!(status(&world).await, "active");
    change_at_stripe(&world, Method::DELETE, &path, "").await;
    world.tick_after(HOUR).await;
    assert_eq!(status(&world).await, "cancelling", "the paid period stays");
    assert_eq!(subscribe(&world).await.code(), "already_subscribed", "there is nothing to resume");
    world.tick_when_due().await;
    assert_eq!(status(&world).await, "ended");
    assert_eq!(kept(&world), 1);
}

#[tokio::test]
async fn a_counted_payment_is_not_undone_by_a_contradicting_event() {
    let world = world().await;
    world.set("acme", json!({})).await;
    let session_id = session(&world).await;
    let stripe = world.stripe();
    stripe.webhooks.set_delivery(Delivery::Hold);
    stripe.pay(&session_id, Card::Succeeds).unwrap();
    let held = stripe.webhooks.take_held();
    let mut event = held.into_iter().find(|it| it.object == session_id).unwrap();
    assert_eq!(stripe.webhooks.deliver(&event).await.unwrap(), 204);
    assert_eq!(status(&world).await, "active");
    let subscription = subscription_of(&world).await;
    let mut body: Value = serde_json::from_str(&event.body).unwrap();
    body["id"] = json!("evt_other");
    body["data"]["object"]["amount_total"] = json!(400);
    event.body = body.to_string();
    assert_eq!(stripe.webhooks.deliver(&event).await.unwrap(), 204);
    assert_eq!(status(&world).await, "active");
    assert_eq!(current(&world, &subscription)["status"], "active");
}

#[tokio::test]
async fn an_upgrade_and_a_deletion_stop_the_subscription() {
    let world = bought().await;
    let subscription = subscription_of(&world).await;
    world.set("acme", json!({"plan": "enterprise"})).await;
    world.tick_after(HOUR).await;
    assert_eq!(status(&world).await, "ended");
    assert_eq!(current(&world, &subscription)["status"], "canceled");

    let world = bought().await;
    let subscription = subscription_of(&world).await;
    deleted(&world).await;
    world.tick_after(HOUR).await;
    assert_eq!(current(&world, &subscription)["status"], "canceled");
    assert_eq!(kept(&world), 1);
    // Stripe was faster: its charge is refunded.
    let world = bought().await;
    deleted(&world).await;
    world.system.clock.advance(DAY * 31);
    world.stripe().renew_due();
    world.stripe().webhooks.until_delivered().await;
    world.tick_after(HOUR).await;
    assert_eq!(kept(&world), 1);
    assert_eq!(world.stripe().payments().len(), 2);
}

#[tokio::test]
async fn a_refund_or_dispute_cancels_the_subscription() {
    for disputed in [false, true] {
        let world = bought().await;
        let subscription = subscription_of(&world).await;
        world.tick_when_due().await;
        let intent = world.stripe().payments()[1].intent.clone();
        let stripe = world.stripe();
        if disputed {
            stripe.dispute(&intent).unwrap();
        } else {
            stripe.refund_in_dashboard(&intent, 500).unwrap();
        }
        stripe.webhooks.until_delivered().await;
        let expected = if disputed { "suspended" } else { "ended" };
        assert_eq!(status(&world).await, expected);
        world.tick_after(HOUR).await;
        assert_eq!(current(&world, &subscription)["status"], "canceled");
    }
}

#[tokio::test]
async fn a_new_card_becomes_the_subscriptions() {
    let world = bought().await;
    let subscription = subscription_of(&world).await;
    set_card_of(&world, &subscription, Card::DeclinesSoftly);
    let owner = world.owner("acme");
    let reply = world.send(owner.request(Method::POST, CARD_ROUTE)).await;
    let stripe = world.stripe();
    stripe.pay(&session_of(&reply), Card::Succeeds).unwrap();
    stripe.webhooks.until_delivered().await;
    let before = &subscription["default_payment_method"];
    assert_ne!(current(&world, &subscription)["default_payment_method"], *before);
    world.tick_when_due().await;
    assert_eq!(status(&world).await, "active");
    assert_eq!(kept(&world), 2);
}

/// A new card given while past due is charged by Stripe at once.
#[tokio::test]
async fn stripe_charges_a_new_card_for_a_past_due_period() {
    let world = bought().await;
    let subscription = subscription_of(&world).await;
    set_card_of(&world, &subscription, Card::DeclinesSoftly);
    // Stripe's decline is applied before our own tick runs.
    world.wait_until_due().await;
    world.stripe().renew_due();
    world.stripe().webhooks.until_delivered().await;
    assert_eq!(status(&world).await, "past_due");
    let worker = worker(&world, "provider");
    run_worker(&world, &worker).await;
    let owner = world.owner("acme");
    let reply = world.send(owner.request(Method::POST, CARD_ROUTE)).await;
    let stripe = world.stripe();
    stripe.pay(&session_of(&reply), Card::Succeeds).unwrap();
    stripe.webhooks.until_delivered().await;
    for _ in 0..3 {
        run_worker(&world, &worker).await;
        world.system.clock.advance(HOUR);
    }
    assert_only_stripe_collected(&world);
    assert_eq!(status(&world).await, "active");
    assert_eq!(kept(&world), 2);
}

/// A period that is already paid takes no second payment: that one is refunded and blocks nothing.
#[tokio::test]
async fn a_second_payment_for_a_period_is_refunded() {
    let world = bought().await;
    let account = world.system.account("acme").await;
    let generation = account.profile.add_on.generation().unwrap();
    let record = format!("{}#0002", generation.as_str());
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let put = world.engines().dynamodb().put_item();
    put.table_name(&world.system.tables.charges)
        .item("account_number", text(account.number.as_str()))
        .item("charge", text(&record))
        .item("paid_by", text("in_another"))
        .send()
        .await
        .unwrap();
    world.tick_when_due().await;
    world.tick_after(HOUR).await;
    let payments = world.stripe().payments();
    assert_eq!((payments.len(), payments[1].refunded), (2, 500));
    assert_eq!(status(&world).await, "active");
    assert_eq!(pending_events(&world).await, 0);
}

/// A subscription's whole history, in any order and repeated, ends in Stripe's current state.
#[tokio::test]
async fn the_order_of_events_does_not_matter() {
    for seed in 0..6 {
        let world = world().await;
        world.set("acme", json!({})).await;
        let stripe = world.stripe();
        stripe.webhooks.set_delivery(Delivery::Hold);
        let session_id = session(&world).await;
        stripe.pay(&session_id, Card::Succeeds).unwrap();
        for _ in 0..3 {
            world.system.clock.advance(DAY * 31);
            stripe.renew_due();
        }
        let events = stripe.webhooks.events();
        let mut held = stripe.webhooks.take_held();
        fastrand::Rng::with_seed(seed).shuffle(&mut held);
        for event in &held {
            stripe.webhooks.deliver(event).await.unwrap();
        }
        for event in events.iter().rev() {
            assert_eq!(stripe.webhooks.deliver(event).await.unwrap(), 204);
        }
        // Events that arrived before their checkout are applied later.
        for _ in 0..3 {
            world.tick_after(HOUR).await;
        }
        assert_eq!(status(&world).await, "active", "seed {seed}");
        assert_eq!(kept(&world), 4, "seed {seed}");
        let card = world.owner("acme").card().await;
        let paid_through = card["add_on"]["paid_through"].as_str().unwrap();
        let paid_through: jiff::Timestamp = paid_through.parse().unwrap();
        let now = subscription_of(&world).await;
        let end = &now["items"]["data"][0]["current_period_end"];
        assert_eq!(end.as_i64(), Some(paid_through.as_second()), "seed {seed}");
        assert_eq!(pending_events(&world).await, 0, "seed {seed}");
    }
}

/// Only one way of collection charges an account: card, credits or Stripe's subscription, even if
/// the deployment's setting has changed.
#[tokio::test]
async fn no_account_is_collected_from_in_two_ways() {
    let kinds = ["card", "credits", "provider"];
    for collection in kinds {
        for setting in kinds {
            let world = World::with_settings(&[("ADD_ON_COLLECTION", collection)]).await;
            world.set("acme", json!({"credits": "1000"})).await;
            if collection == "credits" {
                assert_eq!(subscribe(&world).await.status, 200);
            } else {
                pay(&world, Card::Succeeds).await;
            }
            let worker = worker(&world, setting);
            for month in 2..=4 {
                world.wait_until_due().await;
                world.stripe().renew_due();
                world.stripe().webhooks.until_delivered().await;
                for _ in 0..4 {
                    world.system.clock.advance(HOUR);
                    run_worker(&world, &worker).await;
                }
                let name = format!("{collection}, then {setting}, month {month}");
                assert_eq!(status(&world).await, "active", "{name}");
                let ledger = world.owner("acme").ledger().await;
                let add_on = ledger.iter().filter(|entry| entry["kind"] == "add_on");
                let (from_credits, from_cards) = (add_on.count(), kept(&world));
                let charged = requests_to(&world, Method::POST, "/v1/payment_intents");
                let subscribed = world.stripe().object("sub_000001").is_some();
                match collection {
                    "credits" => {
                        assert_eq!((from_credits, from_cards), (month, 0), "{name}");
                        assert_eq!(world.stripe().seen().len(), 0, "{name}");
                    }
                    "card" => {
                        assert_eq!((from_credits, from_cards), (0, month), "{name}");
                        assert!(charged > 0 && !subscribed, "{name}");
                    }
                    _ => {
                        assert_eq!((from_credits, from_cards), (0, month), "{name}");
                        assert!(charged == 0 && subscribed, "{name}");
                    }
                }
            }
        }
    }
}
