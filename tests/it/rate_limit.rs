//! All workers together stay under Stripe's rate limit.

use std::time::{Duration, Instant};

use account::AccountId;
use charging::{ChargeReport, run_due};
use futures_util::future::join_all;
use http::Method;
use jiff::SignedDuration;
use serde_json::json;

use crate::stripe_subscription::worker;
use crate::support::World;

const MONTH: SignedDuration = SignedDuration::from_hours(31 * 24);

fn id(name: &str) -> AccountId {
    AccountId::new(name).unwrap()
}

impl World {
    /// Number of requests to Stripe, except those that create customers.
    fn requests(&self) -> usize {
        let seen = self.stripe().seen();
        let counted = seen.iter().filter(|it| it.path != "/v1/customers");
        counted.count()
    }

    /// The time between two requests of one worker under these settings.
    fn interval(&self, settings: &[(&str, &str)]) -> Duration {
        let settings =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let env = edge::Env::from_pairs(self.system.settings.clone()).with(settings);
        let settings = monthly_charge::Settings::from_env(env).unwrap();
        settings.stripe_interval()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_workers_together_stay_under_the_limit() {
    const WORKERS: usize = 3;
    const RATE: usize = 40;
    let world = World::start().await;
    let interval =
        world.interval(&[("STRIPE_REQUESTS_PER_SECOND", "40"), ("CHARGE_CONCURRENCY", "3")]);
    for number in 0..12 {
        world.set(&format!("acme-{number}"), json!({"add_on": "active"})).await;
    }
    let (before, started) = (world.requests(), Instant::now());
    let time = world.system.clock.now() + MONTH;
    let workers = (0..WORKERS).map(async |number| {
        let charging = worker(&world, "card").with_rate_limit(interval);
        for account in (number..12).step_by(WORKERS) {
            let account = id(&format!("acme-{account}"));
            let report = run_due(charging.at(time), &account).await.unwrap();
            assert_eq!(report.charged, 1);
        }
    });
    join_all(workers).await;
    let millis = usize::try_from(started.elapsed().as_millis()).unwrap();
    // The first request of each worker does not wait.
    let allowed = millis * RATE / 1_000 + WORKERS;
    let sent = world.requests() - before;
    assert_eq!(sent, 24, "each account's payment is created and confirmed");
    assert!(sent <= allowed, "{sent} requests in {millis} ms");
    assert_eq!(world.stripe().payments().len(), 12);
}

#[tokio::test]
async fn a_rate_too_low_for_the_workers_is_refused() {
    let world = World::start().await;
    for (concurrency, is_accepted) in [("9", true), ("10", false)] {
        let settings = [("STRIPE_REQUESTS_PER_SECOND", "1"), ("CHARGE_CONCURRENCY", concurrency)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let env = edge::Env::from_pairs(world.system.settings.clone()).with(settings);
        let read = monthly_charge::Settings::from_env(env);
        assert_eq!(read.is_ok(), is_accepted, "{concurrency}");
    }
}

/// The account is postponed by as long as it would have to wait, and is charged then.
#[tokio::test]
async fn an_account_with_too_long_a_wait_is_postponed() {
    let hour = SignedDuration::from_hours(1);
    // A worker's first request does not wait, the second one does.
    for (first, sent) in [("acme", 1), ("other", 0)] {
        let world = World::start().await;
        world.set("acme", json!({"add_on": "active"})).await;
        world.set("other", json!({"add_on": "active"})).await;
        let charging = worker(&world, "card").with_rate_limit(Duration::from_hours(1));
        let time = world.system.clock.now() + MONTH;
        let cx = charging.at(time);
        let nothing = ChargeReport::default();
        if first != "acme" {
            assert_eq!(run_due(cx, &id(first)).await.unwrap(), nothing);
        }
        let before = world.requests();
        assert_eq!(run_due(cx, &id("acme")).await.unwrap(), nothing);
        assert_eq!(world.requests() - before, sent);
        let account = world.system.account("acme").await;
        let wait = billing::due_at(&account.profile).unwrap().duration_since(time);
        let minute = SignedDuration::from_mins(1);
        assert!(wait > hour - minute && wait < hour + minute, "{wait}");
        let charged = async |time| world.tick_in(time).await["charged"].clone();
        let others = u32::from(first == "acme");
        assert_eq!(charged(MONTH + hour / 2).await, others);
        assert_eq!(charged(MONTH + hour * 2).await, 2 - others);
        assert_eq!(world.stripe().payments().len(), 2);
    }
}

#[tokio::test]
async fn routes_do_not_wait() {
    let settings = [("STRIPE_REQUESTS_PER_SECOND", "1")];
    let world = World::with_settings(&settings).await;
    let (interval, started) = (world.interval(&settings), Instant::now());
    world.set("acme", json!({})).await;
    let session = crate::add_on::session(&world).await;
    let stripe = world.stripe();
    stripe.pay(&session, local::stripe::Card::Succeeds).unwrap();
    stripe.webhooks.until_delivered().await;
    assert_eq!(crate::add_on::status(&world).await, "active");
    let owner = world.owner("acme");
    let path = "/v1/integrations/openrouter/subscription/payment-method";
    assert_eq!(world.send(owner.request(Method::POST, path)).await.status, 200);
    let waits = u32::try_from(world.requests()).unwrap() - 1;
    assert!(waits >= 2 && started.elapsed() < interval * waits);
}

/// If Stripe limits us anyway, nothing is lost and nothing is created twice.
#[tokio::test]
async fn a_rate_limited_request_is_retried_later() {
    let later = SignedDuration::from_mins(6);
    // The next request is limited, or all but the first one of each second.
    for (next, per_second) in [(1, None), (0, Some(1))] {
        let world = World::start().await;
        world.set("acme", json!({"add_on": "active"})).await;
        world.stripe().limit_rate(next, per_second);
        let report = world.tick_in(MONTH).await;
        assert_eq!((&report["charged"], &report["errors"]), (&json!(0), &json!(0)));
        world.stripe().limit_rate(0, None);
        assert_eq!(world.tick_in(MONTH + later / 2).await["charged"], 0);
        assert_eq!(world.tick_in(MONTH + later).await["charged"], 1);
        assert_eq!(world.stripe().payments().len(), 1);
    }
}
