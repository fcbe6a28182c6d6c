//! Charges and the sweeper, interrupted at each of their requests in turn.

use account::Credits;
use edge::Setup;
use jiff::SignedDuration;
use local::stripe::Delivery;
use serde_json::json;

use super::pick;
use crate::add_on::{LEASE, bought, kept, status};
use crate::crash::{Mortal, PLAIN, START, Scenario, body, in_credits};
use crate::steps::Steps;
use crate::wire::Fault;

/// The tick and the worker lose their connection to the store for good, before and after each of
/// their requests other than searches for due work. Later ticks continue, and the period is still
/// paid once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_charge_interrupted_anywhere_is_made_once() {
    for delivery in [Delivery::Drop, Delivery::Immediate] {
        let due = async || {
            let world = bought().await;
            world.stripe().webhooks.set_delivery(delivery);
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
        for place in places.step_by(pick(7, 1)) {
            let world = due().await;
            world.wire.die_after(place);
            world.tick_in(SignedDuration::ZERO).await;
            let at = format!("{delivery:?}, after {place} requests");
            // How many requests the webhook makes depends on which one is faster.
            assert!(world.wire.revive() || delivery == Delivery::Immediate, "{at}");
            for _ in 0..4 {
                world.tick_after(LEASE * 2).await;
            }
            world.stripe().webhooks.until_delivered().await;
            assert_eq!(world.stripe().payments().len(), 2, "{at}");
            assert_eq!(kept(&world), 2, "{at}");
            assert_eq!(status(&world).await, "active", "{at}");
        }
    }
}

/// Writes whose responses are lost, or that conflict with others, are not repeated.
#[tokio::test]
async fn a_charge_whose_write_responses_are_lost_is_made_once() {
    for operation in ["TransactWriteItems", "UpdateItem"] {
        for fault in [Fault::ResponseLost, Fault::NeverArrives, Fault::Repeated] {
            for times in (1..=4).step_by(pick(4, 1)) {
                let world = bought().await;
                world.stripe().webhooks.set_delivery(Delivery::Drop);
                world.wait_until_due().await;
                world.wire.disturb(operation, fault, times);
                world.tick_in(SignedDuration::ZERO).await;
                world.wire.disturb(operation, fault, 0);
                for _ in 0..4 {
                    world.tick_after(LEASE * 2).await;
                }
                let at = format!("{operation}, {fault:?}, {times} times");
                assert_eq!(world.stripe().payments().len(), 2, "{at}");
                assert_eq!(kept(&world), 2, "{at}");
                assert_eq!(status(&world).await, "active", "{at}");
            }
        }
    }
}

/// The sweeper dies at each of its own steps; the next run finishes its work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_sweep_is_finished_by_the_next() {
    let mortal = Mortal::start().await;
    let left_open = Scenario { stream: true, model: "sim-priced/no-usage", ..PLAIN };
    let mut dies_at = 0;
    loop {
        let now = mortal.world.system.clock.now();
        let account = format!("acme-{dies_at}");
        mortal.world.set(&account, json!({"credits": START})).await;
        let owner = mortal.world.owner(&account);
        let call = owner.chat(&body(&account, left_open)).await;
        assert_eq!(call.status, 200);
        let holds = mortal.world.shown(&account).await["holds"].take();
        assert_eq!(holds.as_array().unwrap().len(), 1);

        let steps = Steps::until(dies_at);
        let sweep = move |setup: Setup| async move {
            let deps = monthly_charge::Deps::new(setup).unwrap();
            let time = now + SignedDuration::from_mins(2);
            monthly_charge::tick(&deps, time, |_| false).await;
        };
        let survived = mortal.run(&steps, sweep).await;
        let report = mortal.world.tick_in(SignedDuration::from_hours(1)).await;
        assert_eq!(report["errors"], 0);

        let cost = in_credits(&mortal.record(&account).unwrap());
        let balance: Credits = mortal.world.settled_balance(&account).await.parse().unwrap();
        let start: Credits = START.parse().unwrap();
        let at = steps.names();
        assert_eq!(start.checked_sub(balance), Some(cost), "died at {at:?}");
        if survived {
            assert!(dies_at > 40, "the sweep covers all shards: {at:?}");
            assert!(at.iter().any(|step| step == "GET /api/v1/generation head"));
            break;
        }
        dies_at += pick(29, 1);
    }
}
