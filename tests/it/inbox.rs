//! The inbox of Stripe's events: each is recorded once, and its outcome stays.

use jiff::{SignedDuration, Timestamp};
use store::{EventState, Store};

use crate::support::World;

async fn inbox() -> (World, Store, Timestamp) {
    let world = World::start().await;
    let (store, now) = (world.system.store.clone(), world.system.clock.now());
    store.inbox.record("evt_1", "kind", "{}", now, now).await.unwrap();
    (world, store, now)
}

/// Number of events that are due to be applied.
async fn due(store: &Store) -> usize {
    let mut due = 0;
    for shard in store::shards() {
        due += store.inbox.pending(shard).await.unwrap().len();
    }
    due
}

#[tokio::test]
async fn a_repeated_event_keeps_its_state() {
    let (_world, store, now) = inbox().await;
    assert_eq!(due(&store).await, 1);
    let (ignored, reason) = (EventState::Ignored, Some("not ours"));
    store.inbox.end("evt_1", ignored, reason, now).await.unwrap();
    let later = now + SignedDuration::from_mins(1);
    let again = store.inbox.record("evt_1", "other", "{\"a\":1}", later, later);
    let again = again.await.unwrap();
    assert_eq!((again.state, again.reason.as_deref()), (ignored, reason));
    let stored = store.inbox.get("evt_1").await.unwrap().unwrap();
    assert_eq!((stored.kind.as_str(), stored.received_at), ("kind", now));
    assert_eq!(due(&store).await, 0);
}

/// One attempt fails while another one succeeds.
#[tokio::test]
async fn an_event_ended_meanwhile_is_not_kept_for_retry() {
    let (_world, store, now) = inbox().await;
    let applied = EventState::Applied;
    store.inbox.end("evt_1", applied, None, now).await.unwrap();
    store.inbox.keep("evt_1", "failed", now).await.unwrap();
    let stored = store.inbox.get("evt_1").await.unwrap().unwrap();
    assert_eq!((stored.state, stored.reason), (applied, None));
    assert_eq!(due(&store).await, 0);
}

/// Only a recorded event can be replayed or ended: neither creates one.
#[tokio::test]
async fn an_event_that_was_never_recorded_stays_unknown() {
    let (_world, store, now) = inbox().await;
    let applied = EventState::Applied;
    assert!(store.inbox.end("evt_2", applied, None, now).await.is_err());
    assert!(store.inbox.replay("evt_2", "somebody", now).await.is_err());
    assert_eq!(store.inbox.get("evt_2").await.unwrap(), None);
    assert_eq!(due(&store).await, 1);
}
