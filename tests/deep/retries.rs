//! Retries over hours of ticks, and after every fault.

use futures_util::future::join_all;
use http::Method;
use local::openrouter::KeyBehaviour;
use serde_json::json;

use super::pick;
use crate::support::{KEY, World};
use crate::sweep::{cost, left_open, minutes, spent};

/// The default AI's records lag behind: the sweeper looks again, less and less often.
#[tokio::test]
async fn look_ups_back_off_until_the_record_exists() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    world.default_ai().hide_generations(true);
    left_open(&world.owner("acme"), "sim-priced/no-usage").await;
    let mut lookups = Vec::new();
    for minute in (1..=58).step_by(pick(3, 1)) {
        let before = world.default_ai().generation_checks();
        assert_eq!(world.tick_in(minutes(minute)).await["swept"], 0);
        if world.default_ai().generation_checks() > before {
            lookups.push(minute);
        }
    }
    let waits: Vec<_> = lookups.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!((4..9).contains(&lookups.len()), "{lookups:?}");
    assert!(waits.is_sorted(), "{lookups:?}");
    world.default_ai().hide_generations(false);
    assert_eq!(world.tick_in(minutes(119)).await["swept"], 1);
    let call = world.default_ai().calls().pop().unwrap();
    assert_eq!(spent(&world).await, cost(&call));
}

/// Throttling, conflicts or lost responses do not make the sweeper lose a hold.
#[tokio::test]
async fn faults_on_the_wire_leave_the_hold_to_the_next_tick() {
    use crate::wire::Fault::{Conflict, NeverArrives, Repeated, ResponseLost, Throttled};
    let faults = [
        (Throttled, 2),
        (Throttled, 9),
        (Conflict, 3),
        (Conflict, 30),
        (NeverArrives, 1),
        (ResponseLost, 1),
        (Repeated, 1),
    ];
    let operations = ["Query", "GetItem", "UpdateItem", "TransactWriteItems", "GetSecretValue"];
    let disturbed = |operation: &'static str, (fault, times)| async move {
        let world = World::start().await;
        world.set("acme", json!({"credits": "7"})).await;
        left_open(&world.owner("acme"), "sim-priced/no-usage").await;
        world.wire.disturb(operation, fault, times);
        world.tick_in(minutes(1)).await;
        world.wire.disturb(operation, fault, 0);
        world.tick_in(minutes(30)).await;
        let call = world.default_ai().calls().pop().unwrap();
        assert_eq!(spent(&world).await, cost(&call), "{operation} {fault:?}");
    };
    for (at, operation) in operations.into_iter().enumerate() {
        // In the short form each fault meets one operation, and each operation one or two faults.
        let faults = faults.into_iter().skip(pick(at, 0)).step_by(pick(operations.len(), 1));
        join_all(faults.map(|fault| disturbed(operation, fault))).await;
    }
}

#[tokio::test]
async fn rejected_events_are_retried_with_backoff() {
    let world = World::start().await;
    world.system.bus.throttle(Some("add_on.activated"));
    for account in ["acme", "other"] {
        world.set(account, json!({"add_on": "active"})).await;
    }
    world.enterprise_with_key("third", "7").await;
    world.openrouter().set_key(KEY, KeyBehaviour::Rejected);
    world.owner("third").say_hello().await;
    let last = pick(20, 150);
    let mut failed = Vec::new();
    let begin = world.system.clock.now();
    for minute in 0..=last {
        let time = begin + minutes(minute);
        let request = world.request(Method::POST, "/_dev/tick");
        let request = request.body(json!({"time": time}).to_string());
        if world.send(request).await.json()["errors"] != 0 {
            failed.push(minute);
        }
    }
    let mut expected = vec![0, 1, 3, 7, 15, 31, 63, 123];
    expected.retain(|minute| *minute <= last);
    assert_eq!(failed, expected);
    assert_eq!(world.sent(), ["key.rejected"], "the batch's other events are accepted");
    world.system.bus.heal();
    assert_eq!(world.tick_in(minutes(200)).await["errors"], 0);
    assert_eq!(world.sent_of("add_on.activated").len(), 2);
    world.tick_in(minutes(400)).await;
    assert_eq!(world.sent().len(), 3);
}
