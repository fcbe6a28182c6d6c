//! The delivery of domain events to the event bus.
//!
//! An event is sent at least once, always with the same id and content. The events of an account
//! are sent one after the other, each after the bus has accepted the one before it. An event that
//! the bus does not accept stays due, with a growing delay.

use std::collections::{BTreeSet, VecDeque};
use std::error::Error;

use aws_sdk_eventbridge::Client;
use aws_sdk_eventbridge::primitives::DateTime;
use aws_sdk_eventbridge::types::PutEventsRequestEntry;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use store::{DueKind, DueTask, StoredEvent};

use crate::deps::Deps;

/// The events' source, which the bus's rules select by.
const SOURCE: &str = "greta.openrouter-byok";
/// Maximum number of events in one request to the bus.
const MAX_BATCH: usize = 10;
/// Maximum number of due rows in one tick and shard; more wait for the next tick.
const ROWS_PER_SHARD: i32 = 250;
/// The time for which an event belongs to the tick that claimed it.
const CLAIM: SignedDuration = SignedDuration::from_mins(5);
/// The delay before an event that was not accepted is sent again; it doubles with every try.
const FIRST_DELAY: SignedDuration = SignedDuration::from_mins(1);
const LONGEST_DELAY: SignedDuration = SignedDuration::from_hours(1);

/// The events of one account, in the order in which they are sent.
type Queue = VecDeque<StoredEvent>;

/// Sends the events that are due at `now`; returns the number of those that were not delivered, and
/// of rows that could not be read.
pub(crate) async fn deliver(deps: &Deps, now: Timestamp) -> u32 {
    let mut delivery = Delivery { deps, now, accepted: 0, errors: 0 };
    let mut queues = delivery.queues().await;
    while !queues.is_empty() {
        let batch: Vec<Queue> = queues.drain(..MAX_BATCH.min(queues.len())).collect();
        let Some(left) = delivery.send(batch).await else {
            // The bus does not respond: the next tick tries again.
            break;
        };
        queues.extend(left);
    }
    edge::metric("events_delivered", delivery.accepted);
    edge::metric("events_undelivered", u64::from(delivery.errors));
    delivery.errors
}

struct Delivery<'a> {
    deps: &'a Deps,
    now: Timestamp,
    accepted: u64,
    errors: u32,
}

impl Delivery<'_> {
    async fn queues(&mut self) -> VecDeque<Queue> {
        let (store, now) = (&self.deps.store, self.now);
        let mut queues = VecDeque::new();
        for shard in store::shards() {
            let due = store.due.find(DueKind::Event, shard, now, ROWS_PER_SHARD);
            let mut accounts = BTreeSet::new();
            for due in due.await.unwrap_or_else(|error| vec![Err(error)]) {
                match due.map(|due| due.task) {
                    Ok(DueTask::Event(account, _)) => drop(accounts.insert(account)),
                    Ok(_) => {}
                    Err(error) => self.failed(&error),
                }
            }
            for account in accounts {
                let events = store.outbox.events_of(&account, now, now + LONGEST_DELAY);
                let (events, unreadable) = match events.await {
                    Ok(read) => read,
                    Err(error) => (Vec::new(), vec![error]),
                };
                for error in &unreadable {
                    self.failed(error);
                }
                let queue = self.queue(events).await;
                queues.extend(Some(queue).filter(|queue| !queue.is_empty()));
            }
        }
        queues
    }

    /// The events that can be sent now. An event that has to wait delays all later ones.
    async fn queue(&mut self, events: Vec<StoredEvent>) -> Queue {
        let (mut queue, mut held_up) = (Queue::new(), None);
        for event in events {
            match held_up {
                None if event.due <= self.now => queue.push_back(event),
                None => held_up = Some(event.due),
                Some(until) if event.due <= self.now => self.put_off(&event, until).await,
                Some(_) => {}
            }
        }
        queue
    }

    /// Sends the first event of each queue; returns the queues that are left, or `None` if the bus
    /// does not respond.
    async fn send(&mut self, batch: Vec<Queue>) -> Option<Vec<Queue>> {
        let outbox = &self.deps.store.outbox;
        let until = self.now + CLAIM;
        let claims = batch.into_iter().map(async |mut queue| {
            let first = queue.pop_front()?;
            let claimed = outbox.claim(&first, until).await.transpose()?;
            Some((claimed, queue))
        });
        let mut claimed = Vec::new();
        // A queue whose first event another tick has claimed is left to that tick.
        for (event, queue) in join_all(claims).await.into_iter().flatten() {
            match event {
                Ok(event) => claimed.push((event, queue)),
                Err(error) => self.failed(&error),
            }
        }
        if claimed.is_empty() {
            return Some(Vec::new());
        }
        let events = claimed.iter().map(|(event, _)| event);
        let accepted = match put(&self.deps.event_bus, &self.deps.event_bus_name, events).await {
            Ok(accepted) => accepted,
            Err(error) => {
                edge::log_error(&*error, "could not put events on the event bus");
                for (event, _) in &claimed {
                    self.refused(event).await;
                }
                return None;
            }
        };
        let mut left = Vec::new();
        let results = accepted.into_iter().chain(std::iter::repeat(Err(None)));
        for ((event, queue), accepted) in claimed.into_iter().zip(results) {
            if let Err(code) = accepted {
                let code = code.unwrap_or_default();
                tracing::error!(event = event.id, code, "the event bus refused an event");
                self.refused(&event).await;
                continue;
            }
            self.accepted += 1;
            if let Err(error) = outbox.remove(&event).await {
                edge::log_error(&error, "a delivered event will be sent again");
                self.errors += 1;
            }
            left.extend(Some(queue).filter(|queue| !queue.is_empty()));
        }
        Some(left)
    }

    async fn refused(&mut self, event: &StoredEvent) {
        self.errors += 1;
        let doublings = event.tries.saturating_sub(1).min(16);
        let delay = FIRST_DELAY.checked_mul(1 << doublings);
        let delay = delay.unwrap_or(LONGEST_DELAY).min(LONGEST_DELAY);
        self.put_off(event, self.now + delay).await;
    }

    async fn put_off(&mut self, event: &StoredEvent, until: Timestamp) {
        if let Err(error) = self.deps.store.outbox.put_off(event, until).await {
            self.failed(&error);
        }
    }

    fn failed(&mut self, error: &(dyn Error + 'static)) {
        edge::log_error(error, "a domain event was not delivered");
        self.errors += 1;
    }
}

/// Puts the events on the bus. Returns the result of each, in order: accepted, or the bus's error
/// code.
async fn put<'a>(
    client: &Client,
    bus: &str,
    events: impl Iterator<Item = &'a StoredEvent>,
) -> Result<Vec<Result<(), Option<String>>>, Box<dyn Error + Send + Sync>> {
    let entries = events.map(|event| {
        PutEventsRequestEntry::builder()
            .event_bus_name(bus)
            .source(SOURCE)
            .detail_type(&event.kind)
            .time(DateTime::from_secs(event.at.as_second()))
            .detail(detail(event).to_string())
            .build()
    });
    let put = client.put_events().set_entries(Some(entries.collect()));
    let entries = put.send().await?.entries.unwrap_or_default().into_iter();
    let accepted = entries.map(|entry| match entry.event_id {
        Some(_) => Ok(()),
        None => Err(entry.error_code),
    });
    Ok(accepted.collect())
}

fn detail(event: &StoredEvent) -> Value {
    let facts = event.facts.iter();
    let mut detail: Map<_, _> = facts.map(|(name, fact)| (name.clone(), json!(fact))).collect();
    detail.insert("id".to_owned(), json!(event.id));
    detail.insert("account_id".to_owned(), json!(event.account));
    detail.insert("at".to_owned(), json!(event.at));
    Value::Object(detail)
}
