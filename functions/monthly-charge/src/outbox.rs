//! The outbox: what Greta's other systems are to hear of goes to the event bus.
//!
//! An event is sent at least once, always with the same id and content, and of one account not before
//! those that came to be before it were accepted. What the bus does not accept stays due, later and
//! later.

use std::collections::{BTreeSet, VecDeque};
use std::error::Error;

use account::AccountId;
use aws_sdk_eventbridge::Client;
use aws_sdk_eventbridge::primitives::DateTime;
use aws_sdk_eventbridge::types::PutEventsRequestEntry;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use store::{Due, DueKind, DueTask, StoreError, StoredEvent};

use crate::Deps;

/// Who sends them; rules of the bus select by it.
const SOURCE: &str = "greta.openrouter-byok";
/// The most that the bus takes at once.
const AT_ONCE: usize = 10;
/// Rows looked at by one tick, a shard; more wait for the next tick.
const ROWS_A_SHARD: i32 = 250;
/// How long an event belongs to whoever took it on.
const LEASE: SignedDuration = SignedDuration::from_mins(5);
/// When an event that was not accepted is sent again; twice as late each time.
const FIRST_WAIT: SignedDuration = SignedDuration::from_mins(1);
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(1);

/// The events of one account that are to be sent, one after the other.
type Queue = VecDeque<StoredEvent>;

/// Sends what is due at `now`; the number of events that were not delivered, and of rows that could not
/// be read.
pub(crate) async fn deliver(deps: &Deps, now: Timestamp) -> u32 {
    let mut delivery = Delivery {
        deps,
        now,
        accepted: 0,
        errors: 0,
    };
    let mut queues = delivery.queues().await;
    while !queues.is_empty() {
        let batch: Vec<Queue> = queues.drain(..AT_ONCE.min(queues.len())).collect();
        let Some(left) = delivery.send(batch).await else {
            // The bus does not answer: the next tick asks it again.
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
        let (store, mut queues) = (&self.deps.store, VecDeque::new());
        for shard in store::shards() {
            let due = store
                .due
                .find(DueKind::Event, shard, self.now, ROWS_A_SHARD);
            for account in self.accounts(due.await) {
                let later = later(self.now, LONGEST_WAIT);
                let events = store.outbox.events_of(&account, self.now, later).await;
                let (events, unreadable) = events.unwrap_or_else(|error| (Vec::new(), vec![error]));
                unreadable.iter().for_each(|error| self.failed(error));
                let queue = self.queue(events).await;
                queues.extend(Some(queue).filter(|queue| !queue.is_empty()));
            }
        }
        queues
    }

    /// The accounts that have due events; errors are counted.
    fn accounts(
        &mut self,
        due: Result<Vec<Result<Due, StoreError>>, StoreError>,
    ) -> BTreeSet<AccountId> {
        let mut accounts = BTreeSet::new();
        for due in due.unwrap_or_else(|error| vec![Err(error)]) {
            match due {
                Ok(Due {
                    task: DueTask::Event { account, .. },
                    ..
                }) => drop(accounts.insert(account)),
                Ok(_) => {}
                Err(error) => self.failed(&error),
            }
        }
        accounts
    }

    /// Those that can be sent now. Behind one that has to wait, all wait.
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

    /// Sends the first event of each; what is left to send. `None` if the bus did not answer.
    async fn send(&mut self, batch: Vec<Queue>) -> Option<Vec<Queue>> {
        let until = later(self.now, LEASE);
        let store = &self.deps.store;
        let claims = batch.into_iter().map(async |mut queue| {
            let first = queue.pop_front()?;
            let claimed = store.outbox.claim(&first, until).await.transpose()?;
            Some((claimed, queue))
        });
        let mut claimed = Vec::new();
        // Of an account whose event somebody else took on, nothing more is sent here.
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
                edge::log_error(&*error, "the event bus did not take events");
                for (event, _) in &claimed {
                    self.refused(event).await;
                }
                return None;
            }
        };
        let mut left = Vec::new();
        let refusals = accepted.into_iter().chain(std::iter::repeat(Err(None)));
        for ((event, queue), accepted) in claimed.into_iter().zip(refusals) {
            if let Err(code) = accepted {
                let code = code.unwrap_or_default();
                tracing::error!(
                    event = event.id,
                    code,
                    "the event bus does not take an event"
                );
                self.refused(&event).await;
                continue;
            }
            self.accepted += 1;
            if let Err(error) = store.outbox.remove(&event).await {
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
        let wait = FIRST_WAIT
            .checked_mul(1 << doublings)
            .map_or(LONGEST_WAIT, |wait| wait.min(LONGEST_WAIT));
        self.put_off(event, later(self.now, wait)).await;
    }

    async fn put_off(&mut self, event: &StoredEvent, until: Timestamp) {
        if let Err(error) = self.deps.store.outbox.put_off(event, until).await {
            self.failed(&error);
        }
    }

    fn failed(&mut self, error: &(dyn Error + 'static)) {
        edge::log_error(error, "an event was not delivered");
        self.errors += 1;
    }
}

fn later(now: Timestamp, by: SignedDuration) -> Timestamp {
    now.saturating_add(by).unwrap_or(now)
}

/// Puts the events on the bus: for each, in order, whether it was accepted, or the bus's code.
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
    let answer = client
        .put_events()
        .set_entries(Some(entries.collect()))
        .send()
        .await?;
    let entries = answer.entries.unwrap_or_default().into_iter();
    let accepted = entries.map(|entry| match entry.event_id {
        Some(_) => Ok(()),
        None => Err(entry.error_code),
    });
    Ok(accepted.collect())
}

fn detail(event: &StoredEvent) -> Value {
    let facts = event.facts.iter();
    let mut detail: Map<_, _> = facts
        .map(|(name, fact)| (name.clone(), json!(fact)))
        .collect();
    detail.insert("id".to_owned(), json!(event.id));
    detail.insert("account_id".to_owned(), json!(event.account));
    detail.insert("at".to_owned(), json!(event.at));
    Value::Object(detail)
}
