//! Money goes back: what we give back ourselves, and what others do.

use http::Method;
use jiff::SignedDuration;
use local::stripe::{Card, Delivery};
use serde_json::json;
use store::{EventState, Outcome, ReversalStep, Store};

use crate::add_on::{DAY, bought, deleted, deliver_again, session, session_of, status, subscribe};
use crate::provider_run::worker;
use crate::secrecy::{Log, log_of_this_thread};
use crate::support::World;

const TRANSACTION: &str = "TransactWriteItems";

impl World {
    /// An account that bought credits for ten dollars; the provider's id of the payment.
    async fn bought_credits() -> (Self, String) {
        let world = Self::start().await;
        world.set("acme", json!({})).await;
        let body = json!({"usd": "10"});
        let owner = world.owner("acme");
        let page = owner.call(Method::POST, "/v1/credits/checkout", &body);
        let page = session_of(&page.await);
        world.provider().pay(&page, Card::Succeeds).unwrap();
        world.provider().until_delivered().await;
        assert_eq!(world.settled_balance("acme").await, "100");
        let intent = world.provider().payments()[0].intent.clone();
        (world, intent)
    }

    /// The payment of bought credits, as it is stored.
    async fn purchase() -> (Self, Store, String) {
        let (world, _) = Self::bought_credits().await;
        let events = world.provider().events();
        let paid = events.iter().find(|it| it.kind == "checkout.session.completed");
        let (store, session) = (world.store_over_the_wire(), paid.unwrap().object.clone());
        (world, store, session)
    }
}

/// Nobody tries it for ever: a person has to look.
#[tokio::test]
async fn a_refund_that_cannot_be_made_is_left_to_people() {
    for is_disputed in [false, true] {
        let world = World::start().await;
        world.set("acme", json!({})).await;
        let page = session(&world).await;
        world.set("acme", json!({"plan": "enterprise"})).await;
        let provider = world.provider();
        provider.set_delivery(Delivery::Hold);
        provider.pay(&page, Card::Succeeds).unwrap();
        if is_disputed {
            let intent = provider.payments()[0].intent.clone();
            provider.dispute(&intent).unwrap();
        } else {
            provider.fail_refunds(1);
        }
        let outcome = async || {
            let stored = world.system.store.payments.order(&page).await.unwrap();
            stored.unwrap().1
        };
        let at = format!("disputed: {is_disputed}");
        for _ in 0..2 {
            for event in provider.events() {
                provider.deliver(&event).await.unwrap();
            }
            assert_eq!(outcome().await, Some(Outcome::RefundFailed), "{at}");
            assert_eq!(world.tick_after(DAY).await["errors"], 0, "{at}");
        }
        let seen = provider.seen().into_iter();
        let asked = seen.filter(|it| it.path == "/v1/refunds").count();
        assert_eq!((asked, provider.payments()[0].refunded), (1, 0), "{at}");
    }
}

/// What becomes of a refund is written down of payments that are to be given back, and of nothing else.
/// It does not stand in the way of others until then.
#[tokio::test]
async fn a_refund_that_could_not_be_asked_for_comes_up_again_later() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let page = session(&world).await;
    let provider = world.provider();
    provider.set_delivery(Delivery::Hold);
    provider.pay(&page, Card::Succeeds).unwrap();
    let (store, now) = (&world.system.store, world.system.clock.now());
    let heard = store.payments.apply(&page, now, |_, _| (false, Vec::new()));
    assert_eq!(heard.await.unwrap().unwrap().outcome, Outcome::RefundDue);
    let asked = || provider.seen().len();
    let before = asked();
    provider.limit_rate(u32::MAX, None);
    for (errors, more) in [(1, 1), (0, 1)] {
        let ticked = world.tick_after(SignedDuration::from_secs(1)).await;
        assert_eq!(ticked["errors"], errors);
        assert_eq!(asked(), before + more);
    }
    provider.limit_rate(0, None);
    world.tick_after(DAY / 24).await;
    assert_eq!(provider.payments()[0].refunded, 500);
}

#[tokio::test]
async fn only_what_is_to_be_given_back_is_given_back() {
    let world = World::start().await;
    let store = &world.system.store;
    let refunded = Outcome::Refunded;
    store.payments.end_refund("pi_unknown", refunded).await.unwrap();
    assert_eq!(store.payments.order("pi_unknown").await.unwrap(), None);
}

/// Two refunds are heard of at once: each step of the way is made once.
#[tokio::test]
async fn a_part_that_somebody_else_took_back_is_not_taken_again() {
    let (world, disturbed, session) = World::purchase().await;
    let (store, of) = (world.system.store.clone(), session.clone());
    world.wire.meanwhile(TRANSACTION, async move {
        assert_eq!(
            store.payments.begin_reversal(&of, 100).await.unwrap(),
            Some(ReversalStep { from: 0, to: 100 })
        );
        store.payments.end_reversal(&of, 100).await.unwrap();
    });
    let step = disturbed.payments.begin_reversal(&session, 300).await.unwrap();
    assert_eq!(step, Some(ReversalStep { from: 100, to: 300 }));
}

#[tokio::test]
async fn a_step_that_somebody_else_began_is_finished_first() {
    let (world, disturbed, session) = World::purchase().await;
    let (store, of) = (world.system.store.clone(), session.clone());
    world.wire.meanwhile(TRANSACTION, async move {
        assert_eq!(
            store.payments.begin_reversal(&of, 100).await.unwrap(),
            Some(ReversalStep { from: 0, to: 100 })
        );
    });
    let step = disturbed.payments.begin_reversal(&session, 300).await.unwrap();
    assert_eq!(step, Some(ReversalStep { from: 0, to: 100 }));
}

#[tokio::test]
async fn who_finishes_a_step_late_does_not_undo_the_next_one() {
    let (_world, store, session) = World::purchase().await;
    for to in [100, 300] {
        let step = store.payments.begin_reversal(&session, to).await.unwrap();
        assert_eq!(step.map(|step| step.to), Some(to));
        store.payments.end_reversal(&session, to).await.unwrap();
    }
    store.payments.end_reversal(&session, 100).await.unwrap();
    assert_eq!(store.payments.begin_reversal(&session, 300).await.unwrap(), None);
}

async fn hear_of_refunds(world: &World) {
    for event in world.provider().take_held() {
        // Whatever it answers: the provider would send it again.
        world.provider().deliver(&event).await.unwrap();
    }
}

/// Whoever takes credits back stops for ever after each of its requests; who hears of it next goes on.
#[tokio::test]
async fn credits_are_taken_back_once_wherever_it_breaks_off() {
    let (world, intent) = World::bought_credits().await;
    let refund = |world: &World, intent: &str| {
        world.provider().set_delivery(Delivery::Hold);
        for cents in [333, 100] {
            let provider = world.provider();
            provider.refund_in_dashboard(intent, cents).unwrap();
        }
    };
    refund(&world, &intent);
    world.wire.take();
    hear_of_refunds(&world).await;
    assert_eq!(world.settled_balance("acme").await, "56.7");
    let requests = world.wire.take().len();
    for place in 0..requests {
        let (world, intent) = World::bought_credits().await;
        refund(&world, &intent);
        world.wire.die_after(place);
        hear_of_refunds(&world).await;
        let at = format!("after {place} of {requests} requests");
        assert!(world.wire.revive(), "it broke off {at}");
        // What was recorded comes up again, and the provider sends what was not.
        world.tick_after(SignedDuration::from_mins(6)).await;
        for event in world.provider().events() {
            world.provider().deliver(&event).await.unwrap();
        }
        assert_eq!(world.settled_balance("acme").await, "56.7", "{at}");
    }
}

/// The page was open while the plan changed: what is paid there is given back.
#[tokio::test]
async fn a_payment_that_is_not_owed_is_given_back_once() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let session = session(&world).await;
    world.set("acme", json!({"plan": "enterprise"})).await;
    assert_eq!(subscribe(&world).await.error(), (409, "add_on_not_needed".to_owned()));
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
        seen.iter().filter(|request| request.path == "/v1/refunds").count()
    };
    assert_eq!(refunds(&world), 1);
}

#[tokio::test]
async fn what_others_give_back_ends_the_add_on() {
    let world = bought().await;
    let intent = world.provider().payments()[0].intent.clone();
    world.provider().refund_in_dashboard(&intent, 100).unwrap();
    world.provider().until_delivered().await;
    assert_eq!(status(&world).await, "active", "a part of it is history only");
    world.provider().refund_in_dashboard(&intent, 400).unwrap();
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
    let reply = owner.call(Method::POST, "/v1/credits/checkout", &body).await;
    let provider = world.provider();
    provider.pay(&session_of(&reply), Card::Succeeds).unwrap();
    let intent = provider.payments()[0].intent.clone();
    for cents in [333, 100] {
        provider.refund_in_dashboard(&intent, cents).unwrap();
    }
    provider.until_delivered().await;
    // Backwards, and often.
    deliver_again(&world, |events| events.reverse()).await;
    deliver_again(&world, |_| ()).await;
    let credits = world.send(owner.request(Method::GET, "/v1/credits")).await.json();
    assert_eq!((&credits["balance"], &credits["owed"]), (&json!("56.7"), &json!("0")));
    let dispute = provider.dispute(&intent).unwrap();
    provider.until_delivered().await;
    let credits = world.send(owner.request(Method::GET, "/v1/credits")).await.json();
    assert_eq!(credits["balance"], "0");
    provider.close_dispute(&dispute, true).unwrap();
    provider.until_delivered().await;
    deliver_again(&world, |events| events.reverse()).await;
    let credits = world.send(owner.request(Method::GET, "/v1/credits")).await.json();
    assert_eq!((&credits["balance"], &credits["owed"]), (&json!("56.7"), &json!("0")));
    assert_eq!(world.shown("acme").await["reconciliation"]["ok"], true);
}

/// A payment that was not owed, and was given back; the page that it was made on.
async fn given_back(collection: &str, is_deleted: bool) -> (World, String) {
    let world = World::with_settings(&[("ADD_ON_COLLECTION", collection)]).await;
    world.set("acme", json!({})).await;
    let page = session(&world).await;
    let provider = world.provider();
    provider.set_delivery(Delivery::Hold);
    provider.pay(&page, Card::Succeeds).unwrap();
    if is_deleted {
        deleted(&world).await;
    } else {
        world.set("acme", json!({"plan": "enterprise"})).await;
    }
    for event in provider.take_held() {
        provider.deliver(&event).await.unwrap();
    }
    let payment = &provider.payments()[0];
    assert_eq!(payment.refunded, 500, "{collection}, deleted: {is_deleted}");
    (world, page)
}

/// How many times people were told that a payment cannot be given back.
fn alarms(log: &Log) -> usize {
    let alarm = "a payment cannot be refunded; an operator has to look";
    let logged = log.text();
    let told = logged.lines().filter(|line| line.contains(alarm)).count();
    let counted = logged.matches("\"refunds_failed\"").count();
    assert_eq!(told, counted, "{logged}");
    told
}

/// A bank may send money back days after it was given back, whoever the account was and is.
#[tokio::test]
async fn what_the_bank_does_not_take_is_left_to_people() {
    for (collection, is_deleted) in [("card", false), ("card", true), ("provider", true)] {
        let (log, _guard) = log_of_this_thread();
        let (world, page) = given_back(collection, is_deleted).await;
        let (provider, at) = (world.provider(), format!("{collection}, deleted: {is_deleted}"));
        world.tick_after(DAY * 3).await;
        provider.bounce_refund(&provider.payments()[0].intent).unwrap();
        for event in provider.take_held() {
            provider.deliver(&event).await.unwrap();
        }
        let stored = world.system.store.payments.order(&page).await.unwrap();
        assert_eq!(stored.unwrap().1, Some(Outcome::RefundFailed), "{at}");
        assert_eq!(alarms(&log), 1, "{at}");
        // It is not tried again: the same bank would say the same.
        world.tick_after(DAY).await;
        assert_eq!(provider.payments()[0].refunded, 0, "{at}");
    }
}

/// People are told before it is written down that they were: where that breaks off, they are told once
/// more, and not never.
#[tokio::test]
async fn money_that_came_back_is_told_of_also_where_that_breaks_off() {
    let (log, _guard) = log_of_this_thread();
    let (world, page) = given_back("card", false).await;
    let provider = world.provider();
    provider.bounce_refund(&provider.payments()[0].intent).unwrap();
    let held = provider.take_held();
    let failed = held.iter().find(|it| it.kind == "refund.failed").unwrap();
    let event = payments::Event::parse(failed.body.as_bytes()).unwrap();
    let (worker, now) = (worker(&world, "card"), world.system.clock.now());
    world.wire.swallow_next("UpdateItem");
    let state = charging::receive(worker.at(now), &event).await.unwrap();
    assert_eq!((state, alarms(&log)), (EventState::Pending, 1));
    for told in [2, 2] {
        let state = charging::replay(worker.at(now), event.id.as_str()).await;
        let state = (state.unwrap(), alarms(&log));
        assert_eq!(state, (Some(EventState::Applied), told));
        let stored = world.system.store.payments.order(&page).await.unwrap();
        assert_eq!(stored.unwrap().1, Some(Outcome::RefundFailed));
    }
}
