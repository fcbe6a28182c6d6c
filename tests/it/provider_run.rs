//! Collection by the provider: it runs a subscription, and we follow what it did.

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

/// A system with an account whose add-on the provider collects for.
async fn bought() -> World {
    let world = world().await;
    world.set("acme", json!({})).await;
    pay(&world, Card::Succeeds).await;
    assert_eq!(status(&world).await, "active");
    world
}

/// The subscription of the account, as the provider shows it.
async fn running(world: &World) -> Value {
    let account = world.system.account("acme").await;
    let subscription = account.profile.billing.subscription.as_ref().unwrap();
    world.provider().object(&subscription.id).unwrap()
}

fn id(subscription: &Value) -> &str {
    subscription["id"].as_str().unwrap()
}

fn shown(world: &World, of: &Value) -> Value {
    world.provider().object(id(of)).unwrap()
}

fn invoice(world: &World, of: &Value) -> Value {
    let latest = shown(world, of)["latest_invoice"].clone();
    world.provider().object(latest.as_str().unwrap()).unwrap()
}

/// The card of the subscription behaves so from now on.
fn card_is(world: &World, of: &Value, card: Card) {
    let customer = of["customer"].as_str().unwrap();
    world.provider().set_card(customer, card);
}

/// Somebody does something past our system.
async fn at_the_provider(world: &World, method: Method, path: &str, form: &'static str) {
    let url = format!("{}/v1/{path}", world.provider().base_url());
    let request = reqwest::Client::new().request(method, url);
    let request = request.bearer_auth("sk_test").body(form);
    let answer = request.send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.status());
    world.provider().until_delivered().await;
}

/// What our system asked for at `path`, so many times.
fn asked(world: &World, method: Method, path: &str) -> usize {
    let seen = world.provider().seen();
    let of = seen.iter().filter(|it| it.method == method && it.path.starts_with(path));
    of.count()
}

/// A worker of a deployment with another setting.
pub(crate) fn worker(world: &World, collection: &str) -> Charging {
    let mut setup = world.setup(world.wire.clone(), &[("ADD_ON_COLLECTION", collection)]);
    let settings = charging::Settings::from_env(&mut setup.env);
    let http = edge::http_client(settings.connect).unwrap();
    Charging::new(settings, &setup, http)
}

async fn work(world: &World, worker: &Charging) {
    let acme = AccountId::new("acme").unwrap();
    // What broke off comes up again.
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

/// Nothing was charged by us.
fn only_the_provider_collected(world: &World) {
    assert_eq!(asked(world, Method::POST, "/v1/payment_intents"), 0);
}

#[tokio::test]
async fn the_provider_collects_each_month_and_we_follow() {
    let world = bought().await;
    let subscription = running(&world).await;
    for month in 2..=13 {
        world.wait_until_due().await;
        // The provider's own charge comes with the time, and its events with it.
        world.tick_after(HOUR).await;
        assert_eq!(kept(&world), month);
        let card = world.owner("acme").card().await;
        assert_eq!(card["add_on"]["status"], "active");
        assert_eq!(card["add_on"]["next_charge_at"], card["add_on"]["paid_through"]);
        let paid_through = card["add_on"]["paid_through"].as_str().unwrap();
        let paid_through: jiff::Timestamp = paid_through.parse().unwrap();
        let end = &shown(&world, &subscription)["items"]["data"][0]["current_period_end"];
        assert_eq!(end.as_i64(), Some(paid_through.as_second()), "month {month}");
    }
    only_the_provider_collected(&world);
    assert_eq!(subscribe(&world).await.code(), "already_subscribed");
}

#[tokio::test]
async fn a_month_is_noticed_though_no_event_comes() {
    let world = bought().await;
    // Events that came before their checkout are done with.
    world.tick_after(HOUR).await;
    world.provider().set_delivery(Delivery::Drop);
    world.wait_until_due().await;
    world.tick_after(HOUR).await;
    let before = world.owner("acme").card().await["add_on"]["paid_through"].clone();
    assert_eq!(world.tick_after(HOUR).await["charged"], 1);
    let after = world.owner("acme").card().await["add_on"]["paid_through"].clone();
    assert_ne!(before, after);
    assert_eq!(status(&world).await, "active");
    only_the_provider_collected(&world);
}

#[tokio::test]
async fn what_the_provider_could_not_collect_is_paid_on_its_page() {
    let world = bought().await;
    let subscription = running(&world).await;
    card_is(&world, &subscription, Card::DeclinesSoftly);
    world.tick_when_due().await;
    assert_eq!(status(&world).await, "past_due");
    let bought = subscribe(&world).await.json();
    let page = bought["checkout_url"].as_str().unwrap().to_owned();
    let invoice = invoice(&world, &subscription);
    assert_eq!(invoice["hosted_invoice_url"], page, "no second thing to pay");
    let html = reqwest::get(&page).await.unwrap().text().await.unwrap();
    assert!(html.contains("5.00 USD") && html.contains("Pay"), "{html}");
    let provider = world.provider();
    provider.pay_open_invoice(id(&invoice), Card::Succeeds).unwrap();
    provider.until_delivered().await;
    assert_eq!(status(&world).await, "active");
    assert_eq!(subscribe(&world).await.code(), "already_subscribed");
    assert_eq!(kept(&world), 2);
    only_the_provider_collected(&world);
}

#[tokio::test]
async fn what_stays_unpaid_is_suspended_and_nothing_of_it_can_be_paid_beside_a_new_purchase() {
    let world = bought().await;
    let subscription = running(&world).await;
    card_is(&world, &subscription, Card::DeclinesSoftly);
    world.tick_when_due().await;
    for day in 1..=7 {
        world.tick_after(DAY).await;
        assert_eq!(status(&world).await, "past_due", "day {day}");
    }
    world.tick_after(DAY).await;
    assert_eq!(status(&world).await, "suspended");
    assert_eq!(shown(&world, &subscription)["status"], "canceled");
    assert_eq!(invoice(&world, &subscription)["status"], "void");
    // A new one begins anew.
    let page = session(&world).await;
    world.provider().pay(&page, Card::Succeeds).unwrap();
    world.provider().until_delivered().await;
    assert_eq!(status(&world).await, "active");
    assert_ne!(id(&running(&world).await), id(&subscription));
    assert_eq!(kept(&world), 2);
    only_the_provider_collected(&world);
}

#[tokio::test]
async fn a_cancellation_is_told_to_the_provider_and_taken_back_there() {
    let world = bought().await;
    let subscription = running(&world).await;
    assert_eq!(cancel(&world).await.status, 200);
    assert_eq!(shown(&world, &subscription)["cancel_at_period_end"], true);
    let resumed = subscribe(&world).await.json();
    assert_eq!(resumed["integration"]["add_on"]["status"], "active");
    assert_eq!(shown(&world, &subscription)["cancel_at_period_end"], false);
    cancel(&world).await;
    world.tick_when_due().await;
    assert_eq!(status(&world).await, "ended");
    assert_eq!(shown(&world, &subscription)["status"], "canceled");
    assert_eq!(kept(&world), 1);
}

#[tokio::test]
async fn a_renewal_that_overtakes_the_word_of_a_cancellation_is_given_back() {
    let world = bought().await;
    let subscription = running(&world).await;
    world.provider().limit_rate(1, None);
    assert_eq!(cancel(&world).await.status, 200);
    assert_eq!(shown(&world, &subscription)["cancel_at_period_end"], false);
    // No tick comes before the provider collects.
    world.wait_until_due().await;
    world.provider().renew_due();
    world.provider().until_delivered().await;
    let payments = world.provider().payments();
    assert_eq!((payments.len(), payments[1].refunded), (2, 500));
    world.tick_after(HOUR).await;
    assert_eq!(status(&world).await, "ended");
    assert_eq!(shown(&world, &subscription)["status"], "canceled");
    assert_eq!(world.provider().payments()[1].refunded, 500, "once");
}

#[tokio::test]
async fn what_is_past_due_and_cancelled_is_over_at_once() {
    let world = bought().await;
    let subscription = running(&world).await;
    card_is(&world, &subscription, Card::DeclinesSoftly);
    world.tick_when_due().await;
    assert_eq!(cancel(&world).await.status, 200);
    assert_eq!(status(&world).await, "ended");
    assert_eq!(shown(&world, &subscription)["status"], "canceled");
    assert_eq!(invoice(&world, &subscription)["status"], "void");
}

#[tokio::test]
async fn what_is_paid_late_and_not_owed_any_more_is_given_back() {
    let world = bought().await;
    let subscription = running(&world).await;
    card_is(&world, &subscription, Card::DeclinesSoftly);
    world.tick_when_due().await;
    world.provider().limit_rate(1, None);
    cancel(&world).await;
    assert_eq!(status(&world).await, "ended");
    let invoice = invoice(&world, &subscription);
    let provider = world.provider();
    provider.set_delivery(Delivery::Drop);
    provider.pay_open_invoice(id(&invoice), Card::Succeeds).unwrap();
    for _ in 0..2 {
        world.tick_after(HOUR).await;
        let payments = world.provider().payments();
        assert_eq!((payments.len(), payments[1].refunded), (2, 500));
    }
    assert_eq!(status(&world).await, "ended");
}

#[tokio::test]
async fn what_is_decided_at_the_provider_counts() {
    let world = bought().await;
    let subscription = running(&world).await;
    let path = format!("subscriptions/{}", id(&subscription));
    let ends = "cancel_at_period_end=true";
    at_the_provider(&world, Method::POST, &path, ends).await;
    assert_eq!(status(&world).await, "cancelling");
    let goes_on = "cancel_at_period_end=false";
    at_the_provider(&world, Method::POST, &path, goes_on).await;
    assert_eq!(status(&world).await, "active");
    at_the_provider(&world, Method::DELETE, &path, "").await;
    world.tick_after(HOUR).await;
    assert_eq!(status(&world).await, "cancelling", "it is paid until its end");
    assert_eq!(
        subscribe(&world).await.code(),
        "already_subscribed",
        "nothing is there that could go on"
    );
    world.tick_when_due().await;
    assert_eq!(status(&world).await, "ended");
    assert_eq!(kept(&world), 1);
}

#[tokio::test]
async fn what_counted_is_not_undone_by_an_event_that_reads_otherwise() {
    let world = world().await;
    world.set("acme", json!({})).await;
    let page = session(&world).await;
    let provider = world.provider();
    provider.set_delivery(Delivery::Hold);
    provider.pay(&page, Card::Succeeds).unwrap();
    let told = provider.take_held();
    let mut told = told.into_iter().find(|it| it.object == page).unwrap();
    assert_eq!(provider.deliver(&told).await.unwrap(), 204);
    assert_eq!(status(&world).await, "active");
    let subscription = running(&world).await;
    let mut body: Value = serde_json::from_str(&told.body).unwrap();
    body["id"] = json!("evt_other");
    body["data"]["object"]["amount_total"] = json!(400);
    told.body = body.to_string();
    assert_eq!(provider.deliver(&told).await.unwrap(), 204);
    assert_eq!(status(&world).await, "active");
    assert_eq!(shown(&world, &subscription)["status"], "active");
}

#[tokio::test]
async fn an_upgrade_and_a_deletion_stop_the_subscription() {
    let world = bought().await;
    let subscription = running(&world).await;
    world.set("acme", json!({"plan": "enterprise"})).await;
    world.tick_after(HOUR).await;
    assert_eq!(status(&world).await, "ended");
    assert_eq!(shown(&world, &subscription)["status"], "canceled");

    let world = bought().await;
    let subscription = running(&world).await;
    deleted(&world).await;
    world.tick_after(HOUR).await;
    assert_eq!(shown(&world, &subscription)["status"], "canceled");
    assert_eq!(kept(&world), 1);
    // The provider was faster: what it took goes back.
    let world = bought().await;
    deleted(&world).await;
    world.system.clock.advance(DAY * 31);
    world.provider().renew_due();
    world.provider().until_delivered().await;
    world.tick_after(HOUR).await;
    assert_eq!(kept(&world), 1);
    assert_eq!(world.provider().payments().len(), 2);
}

#[tokio::test]
async fn what_others_take_back_ends_it_at_the_provider_too() {
    for disputed in [false, true] {
        let world = bought().await;
        let subscription = running(&world).await;
        world.tick_when_due().await;
        let intent = world.provider().payments()[1].intent.clone();
        let provider = world.provider();
        if disputed {
            provider.dispute(&intent).unwrap();
        } else {
            provider.refund_in_dashboard(&intent, 500).unwrap();
        }
        provider.until_delivered().await;
        let expected = if disputed { "suspended" } else { "ended" };
        assert_eq!(status(&world).await, expected);
        world.tick_after(HOUR).await;
        assert_eq!(shown(&world, &subscription)["status"], "canceled");
    }
}

#[tokio::test]
async fn a_new_card_is_the_subscriptions() {
    let world = bought().await;
    let subscription = running(&world).await;
    card_is(&world, &subscription, Card::DeclinesSoftly);
    let owner = world.owner("acme");
    let page = world.send(owner.request(Method::POST, CARD_ROUTE)).await;
    let provider = world.provider();
    provider.pay(&session_of(&page), Card::Succeeds).unwrap();
    provider.until_delivered().await;
    let before = &subscription["default_payment_method"];
    assert_ne!(shown(&world, &subscription)["default_payment_method"], *before);
    world.tick_when_due().await;
    assert_eq!(status(&world).await, "active");
    assert_eq!(kept(&world), 2);
}

/// A card that is given while the provider has not been paid is charged by the provider, at once.
#[tokio::test]
async fn a_new_card_pays_what_is_past_due_and_we_charge_nothing() {
    let world = bought().await;
    let subscription = running(&world).await;
    card_is(&world, &subscription, Card::DeclinesSoftly);
    // The provider's decline is heard of before our own tick comes.
    world.wait_until_due().await;
    world.provider().renew_due();
    world.provider().until_delivered().await;
    assert_eq!(status(&world).await, "past_due");
    let worker = worker(&world, "provider");
    work(&world, &worker).await;
    let owner = world.owner("acme");
    let page = world.send(owner.request(Method::POST, CARD_ROUTE)).await;
    let provider = world.provider();
    provider.pay(&session_of(&page), Card::Succeeds).unwrap();
    provider.until_delivered().await;
    for _ in 0..3 {
        work(&world, &worker).await;
        world.system.clock.advance(HOUR);
    }
    only_the_provider_collected(&world);
    assert_eq!(status(&world).await, "active");
    assert_eq!(kept(&world), 2);
}

/// A period that is paid already is paid by nothing else: that goes back, and holds nothing up.
#[tokio::test]
async fn what_the_provider_collected_twice_goes_back() {
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
    let payments = world.provider().payments();
    assert_eq!((payments.len(), payments[1].refunded), (2, 500));
    assert_eq!(status(&world).await, "active");
    assert_eq!(pending_events(&world).await, 0);
}

/// A refusal does not say that a subscription is over.
#[tokio::test]
async fn a_subscription_that_cannot_be_told_is_not_forgotten() {
    let world = bought().await;
    let subscription = running(&world).await;
    let provider = world.provider();
    provider.schedule(id(&subscription), true);
    cancel(&world).await;
    world.tick_after(HOUR).await;
    assert_eq!(status(&world).await, "cancelling");
    assert_eq!(running(&world).await["status"], "active", "it is known");
    provider.schedule(id(&subscription), false);
    world.tick_after(HOUR).await;
    assert_eq!(shown(&world, &subscription)["cancel_at_period_end"], true);
}

/// What a subscription collected is heard of, also where it was never told what it was to be told.
#[tokio::test]
async fn a_subscription_that_could_not_be_told_is_followed() {
    for is_over in [false, true] {
        let world = bought().await;
        world.tick_after(HOUR).await;
        let subscription = running(&world).await;
        let provider = world.provider();
        let is_scheduled = |scheduled| {
            provider.schedule(id(&subscription), scheduled);
        };
        is_scheduled(true);
        cancel(&world).await;
        assert_eq!(subscribe(&world).await.status, 200);
        is_scheduled(false);
        provider.set_delivery(Delivery::Drop);
        world.wait_until_due().await;
        world.system.clock.advance(HOUR * 3);
        provider.renew_due();
        if is_over {
            let path = format!("subscriptions/{}", id(&subscription));
            at_the_provider(&world, Method::DELETE, &path, "").await;
        } else {
            is_scheduled(true);
        }
        world.tick_after(HOUR).await;
        world.tick_after(HOUR).await;
        let expected = if is_over { "cancelling" } else { "active" };
        assert_eq!(status(&world).await, expected);
        let account = world.system.account("acme").await;
        let paid = account.profile.add_on.last_paid().unwrap();
        assert_eq!((paid.number(), kept(&world)), (2, 2), "over: {is_over}");
    }
}

#[tokio::test]
async fn a_subscription_that_is_over_is_not_told_for_ever() {
    let world = bought().await;
    // Events that came before their checkout are done with.
    world.tick_after(HOUR).await;
    let subscription = running(&world).await;
    let provider = world.provider();
    provider.schedule(id(&subscription), true);
    cancel(&world).await;
    provider.set_delivery(Delivery::Drop);
    let path = format!("subscriptions/{}", id(&subscription));
    at_the_provider(&world, Method::DELETE, &path, "").await;
    world.tick_after(HOUR).await;
    let account = world.system.account("acme").await;
    assert_eq!(account.profile.billing.subscription, None);
    assert_eq!(status(&world).await, "cancelling");
}

/// Nobody is told that an add-on goes on whose subscription turns out to be over: an upgrade ended it, and
/// what ended it died before it could write that down.
#[tokio::test]
async fn what_is_over_at_the_provider_is_not_said_to_go_on() {
    let world = bought().await;
    world.tick_after(HOUR).await;
    let subscription = running(&world).await;
    world.provider().set_delivery(Delivery::Drop);
    let path = format!("subscriptions/{}", id(&subscription));
    at_the_provider(&world, Method::DELETE, &path, "").await;
    world.set("acme", json!({"plan": "enterprise"})).await;
    world.set("acme", json!({"plan": "standard"})).await;
    assert_eq!(status(&world).await, "cancelling");
    assert_eq!(subscribe(&world).await.code(), "already_subscribed");
    assert_eq!(status(&world).await, "cancelling");
    // What was paid for stays, and then it can be bought again.
    assert!(world.owner("acme").card().await["add_on"]["paid_through"].is_string());
    world.tick_when_due().await;
    assert_eq!(status(&world).await, "ended");
    world.provider().set_delivery(Delivery::Immediate);
    pay(&world, Card::Succeeds).await;
    assert_eq!(status(&world).await, "active");
}

/// What the provider itself gave up cannot be paid any more either.
#[tokio::test]
async fn what_the_provider_gave_up_is_void() {
    let world = bought().await;
    let subscription = running(&world).await;
    card_is(&world, &subscription, Card::DeclinesSoftly);
    world.tick_when_due().await;
    let path = format!("subscriptions/{}", id(&subscription));
    at_the_provider(&world, Method::DELETE, &path, "").await;
    assert_eq!(invoice(&world, &subscription)["status"], "void");
    world.tick_after(HOUR).await;
    assert_eq!(status(&world).await, "suspended");
}

/// Access does not end before the provider said that nothing was paid.
#[tokio::test]
async fn the_end_of_grace_asks_the_provider_first() {
    let world = bought().await;
    let subscription = running(&world).await;
    card_is(&world, &subscription, Card::DeclinesSoftly);
    world.tick_when_due().await;
    let invoice = invoice(&world, &subscription);
    let provider = world.provider();
    provider.set_delivery(Delivery::Drop);
    let worker = worker(&world, "provider");
    world.system.clock.advance(DAY * 7 + HOUR * 3);
    work(&world, &worker).await;
    provider.pay_open_invoice(id(&invoice), Card::Succeeds).unwrap();
    world.system.clock.advance(DAY);
    provider.limit_rate(1, None);
    work(&world, &worker).await;
    assert_eq!(status(&world).await, "past_due", "it is not known yet");
    world.system.clock.advance(HOUR);
    work(&world, &worker).await;
    assert_eq!(status(&world).await, "active");
    assert_eq!(shown(&world, &subscription)["status"], "active");
}

/// However far the end of an unpaid period got when the customer paid at last: the money counts, or it
/// could not be paid.
#[tokio::test]
async fn who_pays_while_access_ends_has_what_was_paid() {
    let unpaid = async || {
        let world = bought().await;
        let subscription = running(&world).await;
        card_is(&world, &subscription, Card::DeclinesSoftly);
        world.tick_when_due().await;
        world.provider().set_delivery(Delivery::Drop);
        world.system.clock.advance(DAY * 9);
        world.wire.take();
        (world, subscription)
    };
    let (world, _) = unpaid().await;
    work(&world, &worker(&world, "provider")).await;
    let requests = world.wire.take().len();
    let mut ends = BTreeSet::new();
    for place in 0..=requests {
        let (world, subscription) = unpaid().await;
        let worker = worker(&world, "provider");
        world.wire.die_after(place);
        work(&world, &worker).await;
        world.wire.revive();
        let open = invoice(&world, &subscription);
        let paid = world.provider().pay_open_invoice(id(&open), Card::Succeeds);
        for _ in 0..3 {
            world.system.clock.advance(HOUR);
            work(&world, &worker).await;
        }
        let running = shown(&world, &subscription)["status"].clone();
        let end = (status(&world).await, running, kept(&world));
        let expected = match (paid.is_ok(), end.0.as_str()) {
            (true, "active") => ("active", "active", 2),
            (true, _) => ("cancelling", "canceled", 2),
            (false, _) => ("suspended", "canceled", 1),
        };
        let expected = (expected.0.to_owned(), json!(expected.1), expected.2);
        assert_eq!(end, expected, "after {place} of {requests} requests");
        ends.insert(end.0);
    }
    assert_eq!(ends.len(), 2, "{ends:?}");
}

/// A draft that is left behind is asked for by nobody.
#[tokio::test]
async fn a_draft_is_called_off_with_its_subscription() {
    let world = bought().await;
    let subscription = running(&world).await;
    world.wait_until_due().await;
    let provider = world.provider();
    provider.draft_renewal(id(&subscription)).unwrap();
    world.set("acme", json!({"plan": "enterprise"})).await;
    work(&world, &worker(&world, "provider")).await;
    assert_eq!(shown(&world, &subscription)["status"], "canceled");
    provider.finalize_drafts();
    provider.until_delivered().await;
    assert_eq!(provider.payments().len(), 1);
}

/// The whole history of a subscription, in any order and twice, leaves what the provider says now.
#[tokio::test]
async fn the_order_of_events_does_not_matter() {
    for seed in 0..6 {
        let world = world().await;
        world.set("acme", json!({})).await;
        let provider = world.provider();
        provider.set_delivery(Delivery::Hold);
        let page = session(&world).await;
        provider.pay(&page, Card::Succeeds).unwrap();
        for _ in 0..3 {
            world.system.clock.advance(DAY * 31);
            provider.renew_due();
        }
        let events = provider.events();
        let mut held = provider.take_held();
        fastrand::Rng::with_seed(seed).shuffle(&mut held);
        for event in &held {
            provider.deliver(event).await.unwrap();
        }
        for event in events.iter().rev() {
            assert_eq!(provider.deliver(event).await.unwrap(), 204);
        }
        // What came before its checkout is applied again.
        for _ in 0..3 {
            world.tick_after(HOUR).await;
        }
        assert_eq!(status(&world).await, "active", "seed {seed}");
        assert_eq!(kept(&world), 4, "seed {seed}");
        let card = world.owner("acme").card().await;
        let paid_through = card["add_on"]["paid_through"].as_str().unwrap();
        let paid_through: jiff::Timestamp = paid_through.parse().unwrap();
        let now = running(&world).await;
        let end = &now["items"]["data"][0]["current_period_end"];
        assert_eq!(end.as_i64(), Some(paid_through.as_second()), "seed {seed}");
        assert_eq!(pending_events(&world).await, 0, "seed {seed}");
    }
}

/// Whoever collects from an account, nobody else does: not the tick, not the provider, not the credits; also
/// where the deployment's setting changed since.
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
                world.provider().renew_due();
                world.provider().until_delivered().await;
                for _ in 0..4 {
                    world.system.clock.advance(HOUR);
                    work(&world, &worker).await;
                }
                let name = format!("{collection}, then {setting}, month {month}");
                assert_eq!(status(&world).await, "active", "{name}");
                let ledger = world.owner("acme").ledger().await;
                let add_on = ledger.iter().filter(|entry| entry["kind"] == "add_on");
                let (from_credits, from_cards) = (add_on.count(), kept(&world));
                let charged = asked(&world, Method::POST, "/v1/payment_intents");
                let subscribed = world.provider().object("sub_000001").is_some();
                match collection {
                    "credits" => {
                        assert_eq!((from_credits, from_cards), (month, 0), "{name}");
                        assert_eq!(world.provider().seen().len(), 0, "{name}");
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
