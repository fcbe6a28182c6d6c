//! The provider is asked no more often than it allows, by all workers together.

use aws_sdk_dynamodb::types::AttributeValue::{N, S};
use futures_util::future::join_all;
use http::Method;
use jiff::SignedDuration;
use serde_json::json;
use store::Pace;

use crate::support::World;

const MONTH: SignedDuration = SignedDuration::from_hours(31 * 24);
const NOW: SignedDuration = SignedDuration::ZERO;

impl World {
    /// The next request of this kind may be made so long from now.
    async fn busy_for(&self, kind: &str, time: SignedDuration) {
        let free_at = edge::Clock::system().now() + time;
        let row = [
            ("account_number", S(format!("rate#{kind}"))),
            ("charge", S("pace".to_owned())),
            ("free_at", N(free_at.as_microsecond().to_string())),
        ];
        let row = row.map(|(name, value)| (name.to_owned(), value));
        let put = self.engines().dynamodb().put_item();
        let put = put.table_name(&self.system.tables.charges);
        put.set_item(Some(row.into())).send().await.unwrap();
    }

    /// What the provider was asked, but for the makings of payers.
    fn asked(&self) -> usize {
        let seen = self.provider().seen();
        let asked = seen.iter().filter(|it| it.path != "/v1/customers");
        asked.count()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_reservations_never_get_the_same_slot() {
    let world = World::start().await;
    let store = world.store_over_the_wire();
    let pace = Pace::new(20, SignedDuration::from_mins(1));
    let now = world.system.clock.now();
    // Each with a clock of its own, and each with as many reservations in a row.
    let holders = (0..16_u32).map(async |holder| {
        let now = now + SignedDuration::from_millis(i64::from(holder));
        let mut slots = Vec::new();
        for wanted in (1..=5).cycle().take(10) {
            let reserved = store.reserve_slots("test", wanted, pace, now).await;
            let reserved = reserved.unwrap().unwrap();
            assert_eq!(reserved.len(), usize::try_from(wanted).unwrap());
            assert!(reserved[0] >= now);
            slots.extend(reserved);
        }
        slots
    });
    let mut slots: Vec<_> = join_all(holders).await.concat();
    slots.sort_unstable();
    assert_eq!(slots.len(), 16 * 30);
    let interval = SignedDuration::from_millis(50);
    for pair in slots.windows(2) {
        assert!(pair[1].duration_since(pair[0]) >= interval, "{pair:?}");
    }
    // So many take 24 seconds; nobody waits for more than a minute.
    let much = store.reserve_slots("test", 2_000, pace, now).await;
    much.unwrap().unwrap();
    let refused = store.reserve_slots("test", 1, pace, now).await.unwrap();
    assert!(refused.unwrap_err() > SignedDuration::from_mins(1));
    // Another kind has slots of its own, and what is over is free.
    let other = store.reserve_slots("other", 1, pace, now).await.unwrap();
    assert_eq!(other.unwrap(), [now]);
    let later = now + SignedDuration::from_mins(10);
    let free = store.reserve_slots("test", 2, pace, later).await.unwrap();
    assert_eq!(free.unwrap(), [later, later + interval]);
}

/// A wait that is too long is not begun: the account is put off until then, and charged then.
#[tokio::test]
async fn what_would_wait_too_long_is_put_off() {
    for kind in ["create_intent", "confirm_intent"] {
        let world = World::start().await;
        world.set("acme", json!({"add_on": "active"})).await;
        let hour = SignedDuration::from_hours(1);
        world.busy_for(kind, hour).await;
        let asked = world.asked();
        let time = world.system.clock.now() + MONTH;
        let report = world.tick_in(MONTH).await;
        let expected = json!({"charged": 0, "declined": 0, "unknown": 0, "swept": 0, "errors": 0});
        assert_eq!(report, expected, "{kind}");
        let is_confirm = kind == "confirm_intent";
        assert_eq!(world.asked() - asked, usize::from(is_confirm), "{kind}");
        let account = world.system.account("acme").await;
        let again = billing::due_at(&account.profile)
            .unwrap()
            .duration_since(time);
        assert!(
            again > hour - SignedDuration::from_mins(1),
            "{kind}: {again}"
        );
        assert!(
            again < hour + SignedDuration::from_mins(1),
            "{kind}: {again}"
        );
        world.busy_for(kind, NOW).await;
        assert_eq!(world.tick_in(MONTH + hour / 2).await["charged"], 0);
        assert_eq!(world.tick_in(MONTH + hour * 2).await["charged"], 1);
        assert_eq!(world.provider().payments().len(), 1);
    }
}

/// Without a permit the provider is not asked, whatever the reason.
#[tokio::test]
async fn without_the_store_the_provider_is_not_asked() {
    let world = World::start().await;
    world.set("acme", json!({"add_on": "active"})).await;
    world.wire.refuse_about(Some("rate#create_intent"));
    let asked = world.asked();
    assert_eq!(world.tick_in(MONTH).await["charged"], 0);
    assert_eq!(world.asked(), asked);
    world.wire.refuse_about(None);
    // The step belongs to whoever took it on.
    let lease = SignedDuration::from_mins(3);
    assert_eq!(world.tick_in(MONTH + lease).await["charged"], 1);
    assert_eq!(world.provider().payments().len(), 1);
}

/// A user waits for nobody.
#[tokio::test]
async fn routes_do_not_wait() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    for kind in ["create_intent", "confirm_intent", "look_up_intent", "other"] {
        world.busy_for(kind, SignedDuration::from_hours(1)).await;
    }
    let session = crate::add_on::session(&world).await;
    let provider = world.provider();
    provider
        .pay(&session, local::stripe::Card::Succeeds)
        .unwrap();
    provider.until_delivered().await;
    assert_eq!(crate::add_on::status(&world).await, "active");
    let owner = world.owner("acme");
    let path = "/v1/integrations/openrouter/subscription/payment-method";
    assert_eq!(
        world.send(owner.request(Method::POST, path)).await.status,
        200
    );
}

/// The provider limits us all the same: nothing is lost, and nothing is made twice.
#[tokio::test]
async fn what_the_provider_limits_is_asked_again_later() {
    let again = SignedDuration::from_mins(6);
    // The next request, or all but the first one of a second.
    for (next, per_second) in [(1, None), (0, Some(1))] {
        let world = World::start().await;
        world.set("acme", json!({"add_on": "active"})).await;
        world.provider().limit_rate(next, per_second);
        let report = world.tick_in(MONTH).await;
        assert_eq!(
            (&report["charged"], &report["errors"]),
            (&json!(0), &json!(0))
        );
        world.provider().limit_rate(0, None);
        assert_eq!(world.tick_in(MONTH + again / 2).await["charged"], 0);
        assert_eq!(world.tick_in(MONTH + again).await["charged"], 1);
        assert_eq!(world.provider().payments().len(), 1);
    }
}
