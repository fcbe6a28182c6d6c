//! The inbox of the provider's events: each is recorded once, and what became of it stays.

use jiff::{SignedDuration, Timestamp};
use store::{EventState, Store};

use crate::support::World;

async fn inbox() -> (World, Store, Timestamp) {
    let world = World::start().await;
    let (store, now) = (world.system.store.clone(), world.system.clock.now());
    store.inbox.record("evt_1", "kind", "{}", now, now).await.unwrap();
    (world, store, now)
}

/// How many events are to be applied again.
async fn due(store: &Store) -> usize {
    let mut due = 0;
    for shard in store::shards() {
        due += store.inbox.pending(shard).await.unwrap().len();
    }
    due
}

#[tokio::test]
async fn an_event_that_comes_again_stands_as_it_was_left() {
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

/// Who tried in vain while somebody else succeeded.
#[tokio::test]
async fn an_event_that_was_ended_meanwhile_is_not_kept_for_another_try() {
    let (_world, store, now) = inbox().await;
    let applied = EventState::Applied;
    store.inbox.end("evt_1", applied, None, now).await.unwrap();
    store.inbox.keep("evt_1", "in vain", now).await.unwrap();
    let stored = store.inbox.get("evt_1").await.unwrap().unwrap();
    assert_eq!((stored.state, stored.reason), (applied, None));
    assert_eq!(due(&store).await, 0);
}

/// What a person has replayed, or the tick ends, was recorded: nothing comes into being by it.
#[tokio::test]
async fn an_event_that_was_never_recorded_stays_unknown() {
    let (_world, store, now) = inbox().await;
    let applied = EventState::Applied;
    assert!(store.inbox.end("evt_2", applied, None, now).await.is_err());
    assert!(store.inbox.replay("evt_2", "somebody", now).await.is_err());
    assert_eq!(store.inbox.get("evt_2").await.unwrap(), None);
    assert_eq!(due(&store).await, 1);
}
