//! The inbox of Stripe's events: each is recorded once, by its id.
//!
//! An event that cannot be applied is kept with the reason and becomes due again. Only the parts
//! that we use are kept; no name or address is among them.

use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_dynamodb::types::builders::UpdateBuilder;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::db::Db;
use crate::due_index::{DueIndex, DueKind, DueTask};
use crate::error::StoreError;
use crate::item::{self, number, text, time};
use crate::write::{put, update};

const EVENT: &str = "Stripe event";
/// Retention of an event after it was applied or ignored.
const KEPT: SignedDuration = SignedDuration::from_hours(90 * 24);
/// Maximum number of pending events listed per shard.
const MAX_PENDING: i32 = 250;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// Stripe's id of the event.
    #[serde(rename = "event_id")]
    pub id: String,
    pub kind: String,
    #[serde(rename = "event_state")]
    pub state: EventState,
    /// The reason for this state, if one was given.
    pub reason: Option<String>,
    /// The parts of the event that are used, as JSON.
    pub content: String,
    pub received_at: Timestamp,
    /// Number of tries to apply it.
    pub tries: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventState {
    Pending,
    Applied,
    /// It concerns another product or mode.
    Ignored,
}

#[derive(Debug, Clone)]
pub struct Inbox {
    pub(crate) db: Db,
}

impl Inbox {
    /// Records a new event as pending, and due at `retry_at` in case its receiver fails to apply
    /// it. A known event is returned unchanged. Recording again is safe.
    pub async fn record(
        &self,
        id: &str,
        kind: &str,
        content: &str,
        now: Timestamp,
        retry_at: Timestamp,
    ) -> Result<Recorded, StoreError> {
        let event = Recorded {
            id: id.to_owned(),
            kind: kind.to_owned(),
            state: EventState::Pending,
            reason: None,
            content: content.to_owned(),
            received_at: now,
            tries: 0,
        };
        let mut item = task(id).item(retry_at);
        item.extend(item::write(EVENT, &event)?);
        let put = put(&self.db.tables.webhooks, item)
            .condition_expression("attribute_not_exists(event_id)");
        let items = vec![put.into()];
        if self.db.transact("record event", items).await?.succeeded() {
            return Ok(event);
        }
        let known = self.get(id).await?;
        known.ok_or_else(|| StoreError::corrupt(EVENT))
    }

    pub async fn get(&self, id: &str) -> Result<Option<Recorded>, StoreError> {
        let table = &self.db.tables.webhooks;
        let item = self.db.get("read event", table, task(id).key()).await?;
        item.map(|item| item::read(EVENT, item)).transpose()
    }

    /// Marks an event as applied or ignored. Fails if it was never recorded.
    pub async fn end(
        &self,
        id: &str,
        state: EventState,
        reason: Option<&str>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let gone_at = now.saturating_add(KEPT).unwrap_or(now);
        let reason = reason.map_or(AttributeValue::Null(true), text);
        // `tries` is missing, and the update fails, if the event was never recorded.
        let expression = "SET event_state = :state, reason = :reason, tries = tries + :one, \
                          expires_at_epoch = :gone_at REMOVE due_shard, due_at";
        let update = self
            .update(id, expression)
            .expression_attribute_values(":state", item::to_attribute(EVENT, &state)?)
            .expression_attribute_values(":reason", reason)
            .expression_attribute_values(":one", number(1))
            .expression_attribute_values(":gone_at", number(gone_at.as_second()));
        self.db.write("end event", update).await.map(drop)
    }

    /// Schedules another try at `retry_at` for an event that could not be applied, unless it has
    /// ended.
    pub async fn keep(
        &self,
        id: &str,
        reason: &str,
        retry_at: Timestamp,
    ) -> Result<(), StoreError> {
        let pending = item::to_attribute(EVENT, &EventState::Pending)?;
        let expression =
            "SET reason = :reason, tries = tries + :one, due_shard = :shard, due_at = :again";
        let update = self
            .update(id, expression)
            .condition_expression("event_state = :pending")
            .expression_attribute_values(":reason", text(reason))
            .expression_attribute_values(":one", number(1))
            .expression_attribute_values(":shard", text(task(id).partition()))
            .expression_attribute_values(":again", time(retry_at))
            .expression_attribute_values(":pending", pending);
        self.db.write("keep event", update).await.map(drop)
    }

    /// Makes an event pending and due at `now`, whatever its state. Fails if it was never recorded.
    pub async fn replay(&self, id: &str, actor: &str, now: Timestamp) -> Result<(), StoreError> {
        let pending = item::to_attribute(EVENT, &EventState::Pending)?;
        let expression = "SET event_state = :pending, reason = :reason, due_shard = :shard, \
                          due_at = :now REMOVE expires_at_epoch";
        let update = self
            .update(id, expression)
            .condition_expression("attribute_exists(event_id)")
            .expression_attribute_values(":reason", text(format!("replayed by {actor}")))
            .expression_attribute_values(":pending", pending)
            .expression_attribute_values(":shard", text(task(id).partition()))
            .expression_attribute_values(":now", time(now));
        let replayed = self.db.write("replay event", update).await?;
        replayed.then_some(()).ok_or_else(|| StoreError::corrupt(EVENT))
    }

    /// The pending events of one shard, earliest due first; at most 250.
    pub async fn pending(&self, shard: u8) -> Result<Vec<Recorded>, StoreError> {
        let index = DueIndex { db: self.db.clone() };
        let due = index.find(DueKind::StripeEvent, shard, Timestamp::MAX, MAX_PENDING);
        let mut events = Vec::new();
        for due in due.await? {
            if let DueTask::StripeEvent(id) = due?.task {
                events.extend(self.get(&id).await?);
            }
        }
        Ok(events)
    }

    fn update(&self, id: &str, expression: &str) -> UpdateBuilder {
        update(&self.db.tables.webhooks, task(id).key(), expression)
    }
}

fn task(id: &str) -> DueTask {
    DueTask::StripeEvent(id.to_owned())
}
