//! The sweeper: the outcome of holds that their calls left open.

use account::{CallId, Credits, CreditsPerUsd, Usd};
use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::future::join_all;
use jiff::SignedDuration;
use local::openrouter::{CallOutcome, KeyBehaviour, RecordedCall};
use serde_json::{Value, json};

use crate::support::{Caller, Reply, World, hello};

const PLATFORM_KEY: &str = "sk-or-v1-greta-platform-key-0000";

pub(crate) fn minutes(minutes: i64) -> SignedDuration {
    SignedDuration::from_mins(minutes)
}

/// A call that leaves its hold open.
pub(crate) async fn left_open(owner: &Caller<'_>, model: &str) -> Reply {
    let mut body = hello();
    body["model"] = json!(model);
    body["stream"] = json!(true);
    body["max_tokens"] = json!(50);
    let reply = owner.chat(&body).await;
    assert!(reply.status == 200 || reply.status == 424, "{}", reply.text());
    reply
}

async fn holds(world: &World) -> Vec<Value> {
    let shown = world.shown("acme").await;
    shown["holds"].as_array().unwrap().clone()
}

pub(crate) fn cost(call: &RecordedCall) -> Credits {
    let cost = call.upstream_inference_cost.as_ref().unwrap_or(&call.cost);
    let cost: Usd = cost.parse().unwrap();
    cost.in_credits(CreditsPerUsd::new(10).unwrap()).unwrap()
}

pub(crate) async fn spent(world: &World) -> Credits {
    let balance: Credits = world.settled_balance("acme").await.parse().unwrap();
    Credits::from_micros(7_000_000 - balance.micros())
}

/// A stream breaks without usage or an end marker: the default AI's record has the cost.
#[tokio::test]
async fn a_broken_call_is_settled_from_the_default_ais_record() {
    for model in ["cut", "no-usage", "midstream-error", "cut-mid-line", "reset-after-head"] {
        let world = World::start().await;
        world.set("acme", json!({"credits": "7"})).await;
        let owner = world.owner("acme");
        let reply = left_open(&owner, &format!("sim-priced/{model}")).await;
        let ended = |calls: &[RecordedCall]| calls.iter().all(RecordedCall::has_ended);
        world.default_ai().until(ended).await;
        assert_eq!(holds(&world).await.len(), 1, "{model}");
        let report = world.tick_in(minutes(1)).await;
        assert_eq!((&report["swept"], &report["errors"]), (&json!(1), &json!(0)), "{model}");
        let call = world.default_ai().calls().pop().unwrap();
        assert_eq!(spent(&world).await, cost(&call), "{model}");
        let entry = owner.ledger().await.remove(0);
        assert_eq!(entry["call_id"], reply.header("x-greta-call-id"));
        assert_eq!(entry["kind"], "call");
        // Nothing is left to do.
        let checks = world.default_ai().generation_checks();
        assert_eq!(world.tick_in(minutes(60 * 25)).await["swept"], 0);
        assert_eq!(world.default_ai().generation_checks(), checks);
    }
}

/// A call keeps its own terms: later prices and settings do not matter.
#[tokio::test]
async fn a_call_is_charged_on_its_own_terms() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    left_open(&world.owner("acme"), "sim-priced/no-usage").await;
    let deps = world.monthly_charge(&[("CREDITS_PER_USD", "1000")]);
    let time = deps.clock.now() + minutes(1);
    assert_eq!(monthly_charge::tick(&deps, time, |_| false).await.swept, 1);
    let call = world.default_ai().calls().pop().unwrap();
    assert_eq!(spent(&world).await, cost(&call));
}

/// A hold whose outcome is unknown for a day is released: the call is free and may be repeated.
#[tokio::test]
async fn a_hold_unknown_for_a_day_is_released() {
    for kind in ["openrouter", "openai"] {
        let world = World::with_settings(&[("DEFAULT_AI_KIND", kind)]).await;
        world.set("acme", json!({"credits": "7"})).await;
        let owner = world.owner("acme");
        world.default_ai().hide_generations(true);
        let mut body = hello();
        body["model"] =
            json!(if kind == "openai" { "openai/gpt-4o-mini" } else { "sim-priced/cut" });
        body["stream"] = json!(true);
        let send = || world.send(owner.chat_request(&body).header("idempotency-key", "k"));
        if kind == "openai" {
            // Here only models in the shipped price table have a price, and their responses always
            // succeed, so the settlement fails instead.
            world.wire.die_after(3);
            let _ = send().await;
            assert!(world.wire.revive());
        } else {
            assert_eq!(send().await.status, 200);
        }
        assert_eq!(holds(&world).await.len(), 1, "{kind}");
        assert_eq!(world.tick_in(minutes(60 * 24 - 1)).await["swept"], 0, "{kind}");
        assert_eq!(send().await.error(), (409, "duplicate_call".to_owned()));
        assert_eq!(world.tick_in(minutes(60 * 24 + 1)).await["swept"], 1, "{kind}");
        assert_eq!(world.settled_balance("acme").await, "7");
        assert_eq!(send().await.status, 200, "{kind}: the key is free again");
        let looked_up = world.default_ai().generation_checks() > 0;
        assert_eq!(looked_up, kind == "openrouter");
    }
}

/// The default AI had no record of a call for an hour, so the call counts as not made.
#[tokio::test]
async fn a_hold_without_a_record_for_an_hour_is_released() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    left_open(&world.owner("acme"), "sim-priced/no-usage").await;
    world.default_ai().hide_generations(true);
    // A failed look-up does not count as a missing record.
    world.default_ai().set_key(PLATFORM_KEY, KeyBehaviour::Down);
    for minute in [1, 61] {
        assert_eq!(world.tick_in(minutes(minute)).await["swept"], 0, "{minute}");
    }
    world.default_ai().set_key(PLATFORM_KEY, KeyBehaviour::Usable);
    for minute in [130, 189] {
        assert_eq!(world.tick_in(minutes(minute)).await["swept"], 0, "{minute}");
    }
    assert_eq!(world.tick_in(minutes(400)).await["swept"], 1);
    assert_eq!(world.settled_balance("acme").await, "7");
}

/// While the default AI is down it is not queried hundreds of times, no hold is lost, and the next
/// tick settles.
#[tokio::test]
async fn a_default_ai_that_is_down_gets_few_requests() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    let owner = world.owner("acme");
    for _ in 0..40 {
        left_open(&owner, "sim-priced/no-usage").await;
    }
    world.default_ai().set_key(PLATFORM_KEY, KeyBehaviour::Down);
    let report = world.tick_in(minutes(1)).await;
    assert_eq!((&report["swept"], &report["errors"]), (&json!(0), &json!(0)));
    let lookups = world.default_ai().generation_checks();
    assert!((1..40).contains(&lookups), "{lookups}");
    world.default_ai().set_key(PLATFORM_KEY, KeyBehaviour::Usable);
    assert_eq!(world.tick_in(minutes(5)).await["swept"], 40);
    let cost: i64 = world.default_ai().calls().iter().map(|call| cost(call).micros()).sum();
    assert_eq!(spent(&world).await.micros(), cost);
}

/// Ticks repeat and overlap.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_sweepers_settle_each_hold_once() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    let owner = world.owner("acme");
    for _ in 0..10 {
        left_open(&owner, "sim-priced/no-usage").await;
    }
    let ticks = join_all((0..8).map(|_| world.tick_in(minutes(1)))).await;
    let swept: u64 = ticks.iter().map(|report| report["swept"].as_u64().unwrap()).sum();
    assert_eq!(swept, 10, "{ticks:?}");
    let cost: i64 = world.default_ai().calls().iter().map(|call| cost(call).micros()).sum();
    assert_eq!(spent(&world).await.micros(), cost);
    assert_eq!(owner.ledger().await.len(), 11);
}

/// A running call's hold is never swept, however late it seems.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_call_is_left_alone() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    let owner = world.owner("acme");
    let mut body = hello();
    body["model"] = json!("sim-priced/slow-chunks-200");
    body["stream"] = json!(true);
    let call = owner.chat(&body);
    let sweep = async {
        let begun =
            |calls: &[RecordedCall]| calls.first().is_some_and(|call| call.completion_tokens > 1);
        world.default_ai().until(begun).await;
        let report = world.tick_in(minutes(60 * 48)).await;
        let call = world.default_ai().calls().pop().unwrap();
        assert_eq!(call.outcome, CallOutcome::Running, "the tick ran during the call");
        report
    };
    let (reply, report) = tokio::join!(call, sweep);
    assert_eq!((&report["swept"], &report["errors"]), (&json!(0), &json!(0)));
    assert!(reply.text().contains("credits_charged"), "{}", reply.text());
    let call = world.default_ai().calls().pop().unwrap();
    assert_eq!(spent(&world).await, cost(&call));
}

/// The sweeper was faster than the call: the call finds its hold settled and charges nothing.
#[tokio::test]
async fn a_late_settlement_finds_the_hold_settled() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    let owner = world.owner("acme");
    left_open(&owner, "sim-priced/no-usage").await;
    let number = world.system.account("acme").await.number;
    let open = world.system.store.holds.open(&number).await.unwrap().remove(0);
    assert_eq!(world.tick_in(minutes(1)).await["swept"], 1);
    let spent_by_sweeper = spent(&world).await;
    let now = world.system.clock.now();
    let late = Credits::from_micros(1);
    let late = world.system.store.holds.settle(&open.hold, late, now, "late", None).await;
    let settled = account::hold::HoldState::Settled(spent_by_sweeper);
    assert_eq!(late.unwrap(), store::Resolution::Already(Some(settled)));
    assert_eq!(spent(&world).await, spent_by_sweeper);
}

/// Unreadable rows block no others, however many there are.
#[tokio::test]
async fn unreadable_rows_hide_no_hold() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    let reply = left_open(&world.owner("acme"), "sim-priced/no-usage").await;
    let call = CallId::new(reply.header("x-greta-call-id")).unwrap();
    let shard = store::shard_of(call.as_str());
    for number in 0..3 {
        let row = [
            ("account_number", "nobody".to_owned()),
            ("hold", format!("not a call {number}")),
            ("check_shard", shard.to_string()),
            ("next_check_at", "2020-01-01T00:00:00.000000Z".to_owned()),
        ];
        let row = row.map(|(name, value)| (name.to_owned(), AttributeValue::S(value)));
        let put = world.engines().dynamodb().put_item();
        let put = put.table_name(&world.system.tables.holds);
        put.set_item(Some(row.into())).send().await.unwrap();
    }
    let later = world.system.clock.now() + minutes(1);
    let due = world.system.store.holds.due(shard, later, 1).await.unwrap();
    let readable: Vec<_> = due.iter().filter_map(|row| row.as_ref().ok()).collect();
    assert_eq!((due.len(), readable.len()), (4, 1));
    assert_eq!(readable[0].call, call);
    let report = world.tick_in(minutes(1)).await;
    assert_eq!((&report["swept"], &report["errors"]), (&json!(1), &json!(3)));
}
