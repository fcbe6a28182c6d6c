//! The inbox of payment provider events: each is recorded once, by its id.
//!
//! What could not be applied stays, with its reason, and comes up again. Of an event only what we use is
//! kept: no name and no address is in it.

use aws_sdk_dynamodb::types::Put;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::due_index::{DueKind, due_shard};
use crate::error::condition_failed;
use crate::item::{self, Item, get_number, get_text, get_time, key, number, text, time};
use crate::{Store, StoreError};

/// How long an event that is done with is kept.
const KEPT: SignedDuration = SignedDuration::from_hours(90 * 24);

/// An event as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The provider's id of it.
    pub id: String,
    /// The provider's type of it.
    pub kind: String,
    pub state: EventState,
    /// Why it is in this state, where that is not plain.
    pub reason: Option<String>,
    /// What of it is used, as JSON.
    pub content: String,
    pub received_at: Timestamp,
    /// How often it was tried to apply it.
    pub tries: u32,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventState {
    /// It is still to be applied.
    Pending,
    Applied,
    /// It is none of ours.
    Ignored,
}

/// An event that is to be applied again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueEvent {
    pub id: String,
    pub due: Timestamp,
}

impl Store {
    /// Records an event that has come, still to be applied and due again at `again`, in case whoever
    /// received it does not get that far. One that was recorded before is returned as it stands.
    ///
    /// # Errors
    /// [`StoreError`] if the outcome is not known; recording again is safe.
    pub async fn record_event(
        &self,
        id: &str,
        kind: &str,
        content: &str,
        now: Timestamp,
        again: Timestamp,
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
        let mut item = event_key(id);
        let attributes = [
            ("kind", text(kind)),
            ("event_state", item::to_attribute(WHAT, &event.state)?),
            ("content", text(content)),
            ("received_at", time(now)),
            ("tries", number(0)),
            ("due_shard", text(due_shard(DueKind::Webhook, id))),
            ("due_at", time(again)),
        ];
        item.extend(attributes.map(|(name, value)| (name.to_owned(), value)));
        let put = Put::builder()
            .table_name(&self.tables.webhooks)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(event_id)");
        let put = vec![crate::transaction::put(put)?];
        if self.transact("record event", put).await?.is_ok() {
            return Ok(event);
        }
        let known = self.recorded_event(id).await?;
        known.ok_or_else(|| StoreError::corrupt(WHAT))
    }

    /// The event of this id.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer or the item cannot be read.
    pub async fn recorded_event(&self, id: &str) -> Result<Option<Recorded>, StoreError> {
        let item = self
            .read("read event", &self.tables.webhooks, event_key(id))
            .await?;
        item.as_ref().map(recorded).transpose()
    }

    /// Writes down what became of an event.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer; it then comes up again.
    pub async fn end_event(
        &self,
        id: &str,
        state: EventState,
        reason: Option<&str>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let gone = now.saturating_add(KEPT).unwrap_or(now);
        self.client
            .update_item()
            .table_name(&self.tables.webhooks)
            .set_key(Some(event_key(id)))
            // An event that was never recorded has no tries, and DynamoDB then does nothing.
            .update_expression(
                "SET event_state = :state, reason = :reason, tries = tries + :one, \
                 expires_at_epoch = :gone REMOVE due_shard, due_at",
            )
            .expression_attribute_values(":state", item::to_attribute(WHAT, &state)?)
            .expression_attribute_values(":reason", text(reason.unwrap_or_default()))
            .expression_attribute_values(":one", number(1))
            .expression_attribute_values(":gone", number(gone.as_second()))
            .send()
            .await
            .map(drop)
            .map_err(|error| StoreError::unavailable("end event", error))
    }

    /// Keeps an event that could not be applied, for another try at `again`. One that was ended
    /// meanwhile stays so.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn keep_event(
        &self,
        id: &str,
        reason: &str,
        again: Timestamp,
    ) -> Result<(), StoreError> {
        let kept = self
            .client
            .update_item()
            .table_name(&self.tables.webhooks)
            .set_key(Some(event_key(id)))
            .update_expression(
                "SET reason = :reason, tries = tries + :one, due_shard = :shard, due_at = :again",
            )
            .condition_expression("event_state = :pending")
            .expression_attribute_values(":reason", text(reason))
            .expression_attribute_values(":one", number(1))
            .expression_attribute_values(":shard", text(due_shard(DueKind::Webhook, id)))
            .expression_attribute_values(":again", time(again))
            .expression_attribute_values(
                ":pending",
                item::to_attribute(WHAT, &EventState::Pending)?,
            )
            .send()
            .await;
        match kept {
            Ok(_) => Ok(()),
            Err(error) if condition_failed(&error) => Ok(()),
            Err(error) => Err(StoreError::unavailable("keep event", error)),
        }
    }

    /// Has an event applied again at `now`, whatever became of it, on the word of `actor`.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer; replaying again is safe.
    pub async fn replay_event(
        &self,
        id: &str,
        actor: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.client
            .update_item()
            .table_name(&self.tables.webhooks)
            .set_key(Some(event_key(id)))
            .update_expression(
                "SET event_state = :pending, reason = :reason, due_shard = :shard, due_at = :now \
                 REMOVE expires_at_epoch",
            )
            .condition_expression("attribute_exists(event_id)")
            .expression_attribute_values(":reason", text(format!("replayed by {actor}")))
            .expression_attribute_values(
                ":pending",
                item::to_attribute(WHAT, &EventState::Pending)?,
            )
            .expression_attribute_values(":shard", text(due_shard(DueKind::Webhook, id)))
            .expression_attribute_values(":now", time(now))
            .send()
            .await
            .map(drop)
            .map_err(|error| StoreError::unavailable("replay event", error))
    }

    /// The events of one shard that are not applied, those that are due the longest first; at most 250.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer or an item cannot be read.
    pub async fn pending_events(&self, shard: u8) -> Result<Vec<Recorded>, StoreError> {
        let mut events = Vec::new();
        for due in self.due_events(shard, Timestamp::MAX, 250).await? {
            events.extend(self.recorded_event(&due?.id).await?);
        }
        Ok(events)
    }

    /// The events of one shard that are to be applied again at `now`, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn due_events(
        &self,
        shard: u8,
        now: Timestamp,
        limit: i32,
    ) -> Result<Vec<Result<DueEvent, StoreError>>, StoreError> {
        let table = &self.tables.webhooks;
        let event = |item: &Item| {
            Ok(DueEvent {
                id: get_text(item, "event_id", WHAT)?,
                due: get_time(item, "due_at", WHAT)?,
            })
        };
        self.due_in(table, DueKind::Webhook, shard, now, limit, event)
            .await
    }
}

const WHAT: &str = "event";

fn event_key(id: &str) -> Item {
    key([("event_id", id)])
}

fn recorded(item: &Item) -> Result<Recorded, StoreError> {
    let state = item.get("event_state").cloned();
    let reason = item.get("reason").and_then(|reason| reason.as_s().ok());
    Ok(Recorded {
        id: get_text(item, "event_id", WHAT)?,
        kind: get_text(item, "kind", WHAT)?,
        state: item::from_attribute(WHAT, state.ok_or_else(|| StoreError::corrupt(WHAT))?)?,
        reason: reason.filter(|reason| !reason.is_empty()).cloned(),
        content: get_text(item, "content", WHAT)?,
        received_at: get_time(item, "received_at", WHAT)?,
        tries: get_number(item, "tries", WHAT)?,
    })
}
