//! Many accounts at once.

use aws_sdk_dynamodb::types::AttributeValue::S;
use futures_util::future::join_all;
use jiff::SignedDuration;
use local::queue::Drained;
use serde_json::json;

use super::pick;
use crate::reconciler::{mismatches, number};
use crate::support::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ticks_at_the_same_instant_charge_each_account_once() {
    let accounts = pick(40, 1_000);
    let world = World::with_due(accounts).await;
    let time = world.due_in(SignedDuration::ZERO);
    let ticks = (0..2).map(|_| async {
        let planned = world.plan_at(time).await;
        (planned, world.system.drain_queue().await)
    });
    let reports = join_all(ticks).await;
    let sum = |count: fn(&((u64, u64), Drained)) -> u64| reports.iter().map(count).sum::<u64>();
    let everyone = u64::try_from(accounts).unwrap();
    assert_eq!(sum(|it| it.0.0), everyone, "queued once: {reports:?}");
    assert_eq!(sum(|it| it.0.1), 0, "{reports:?}");
    assert_eq!(sum(|it| it.1.report.charged.into()), everyone);
    assert_eq!(sum(|it| it.1.dead_letters.into()), 0, "{reports:?}");
    world.assert_charged_once(accounts).await;
}

/// With several pages, in one segment or in several, every account is checked once.
#[tokio::test]
async fn all_pages_and_segments_together_cover_every_account_once() {
    let world = World::start().await;
    let names: Vec<_> = (0..pick(8, 24)).map(|number| format!("acme-{number}")).collect();
    let mut all = Vec::new();
    for name in &names {
        world.set(name, json!({"credits": "7"})).await;
        all.push(world.system.account(name).await.number.as_str().to_owned());
        // Give each account a mismatch to be found by, and fill the page: one ends after 1 MB.
        world.tamper(name, "SET owed = :value", number(-1)).await;
        let padding = S("x".repeat(300_000));
        world.tamper(name, "SET padding = :value", padding).await;
    }
    all.sort_unstable();
    for segments in pick(vec![1, 2], vec![1, 2, 5]) {
        let mut found = Vec::new();
        world.wire.take();
        for segment in 0..segments {
            let event = json!({"segment": segment, "segments": segments});
            let answer = world.reconcile(&event).await;
            assert_eq!(answer["complete"], true);
            assert_eq!(answer["accounts"], mismatches(&answer).len());
            found.extend(mismatches(&answer).into_keys());
        }
        found.sort_unstable();
        assert_eq!(found, all, "{segments}");
        let operations = world.wire.take();
        let scans = operations.iter().filter(|operation| *operation == "Scan");
        assert!(scans.count() > segments, "several pages");
    }
}
