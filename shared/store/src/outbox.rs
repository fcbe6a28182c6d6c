//! The outbox: domain events waiting for delivery.
//!
//! An event stays until its delivery is confirmed, so it is delivered at least once, with the same
//! id and content each time. It is not part of the books, and is removed with the account.

use account::{Account, AccountId};
use jiff::Timestamp;

use crate::db::{Database, Db};
use crate::domain_events::{DomainEvent, Facts};
use crate::due_index::{Due, DueIndex, DueTask, EVENT_PREFIX};
use crate::error::StoreError;
use crate::item::{self, Attributes, Item, number, text, time};
use crate::write::{Write, delete, put, update};

const EVENT: &str = "event";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    pub account: AccountId,
    pub id: String,
    pub kind: String,
    pub at: Timestamp,
    pub facts: Facts,
    /// Number of claims so far.
    pub tries: u32,
    /// No tick claims the event earlier.
    pub due: Timestamp,
    /// The account's revision, which orders events with the same time.
    revision: u64,
}

impl StoredEvent {
    fn task(&self) -> DueTask {
        DueTask::Event(self.account.clone(), self.id.clone())
    }
}

#[derive(Debug, Clone)]
pub struct Outbox {
    pub(crate) db: Db,
}

impl Outbox {
    /// The account's events in the order in which they were written, and an error for each due
    /// event that cannot be read; such an event is put off until `later`.
    pub async fn events_of(
        &self,
        account: &AccountId,
        now: Timestamp,
        later: Timestamp,
    ) -> Result<(Vec<StoredEvent>, Vec<StoreError>), StoreError> {
        let (mut events, mut errors) = (Vec::new(), Vec::new());
        for row in event_rows(&self.db, account).await? {
            match stored_event(account, &row) {
                Ok(event) => events.push(event),
                Err(error) => {
                    let row = Attributes::of(EVENT, &row);
                    if let Ok(due) = row.get::<Timestamp>("due_at")
                        && due <= now
                    {
                        let task = DueTask::Event(account.clone(), event_id(row)?);
                        self.index().postpone(&Due { task, at: due }, later).await?;
                        errors.push(error);
                    }
                }
            }
        }
        events.sort_by(|one, other| {
            (one.at, one.revision, &one.id).cmp(&(other.at, other.revision, &other.id))
        });
        Ok((events, errors))
    }

    /// Claims an event for delivery until `until`. `None` if another tick was faster.
    pub async fn claim(
        &self,
        event: &StoredEvent,
        until: Timestamp,
    ) -> Result<Option<StoredEvent>, StoreError> {
        let (table, key) = (&self.db.tables.accounts, event.task().key());
        let update = update(table, key, "SET due_at = :until ADD tries :one")
            .condition_expression("due_at = :due")
            .expression_attribute_values(":until", time(until))
            .expression_attribute_values(":due", time(event.due))
            .expression_attribute_values(":one", number(1));
        let claimed = self.db.write("claim event", update).await?;
        Ok(claimed.then(|| StoredEvent { due: until, tries: event.tries + 1, ..event.clone() }))
    }

    /// Puts an event off until `until`, unless another tick has claimed it since it was read.
    pub async fn put_off(&self, event: &StoredEvent, until: Timestamp) -> Result<(), StoreError> {
        let due = Due { task: event.task(), at: event.due };
        self.index().postpone(&due, until).await.map(drop)
    }

    fn index(&self) -> DueIndex {
        DueIndex { db: self.db.clone() }
    }

    pub async fn remove(&self, event: &StoredEvent) -> Result<(), StoreError> {
        let delete = delete(&self.db.tables.accounts, event.task().key());
        self.db.write("remove event", delete).await.map(drop)
    }
}

/// `revision` is the one that the change makes; 0 if it changes no profile.
pub(crate) fn put_event(
    db: &Database,
    account: &AccountId,
    event: &DomainEvent,
    revision: u64,
) -> Result<Write, StoreError> {
    let item = item::with(
        DueTask::Event(account.clone(), event.id.clone()).item(event.at),
        [
            ("kind", text(event.kind)),
            ("at", time(event.at)),
            ("revision", number(revision)),
            ("facts", item::to_attribute(EVENT, &event.facts)?),
        ],
    );
    Ok(put(&db.tables.accounts, item).into())
}

/// Puts the event of a changed add-on into the outbox, if there is one.
pub(crate) fn put_add_on_event(
    db: &Database,
    before: &Account,
    after: &Account,
    at: Timestamp,
) -> Result<Option<Write>, StoreError> {
    let event = DomainEvent::add_on(before, after, at);
    let put = event.map(|event| put_event(db, &before.id, &event, after.revision));
    put.transpose()
}

pub(crate) async fn event_rows(
    db: &Database,
    account: &AccountId,
) -> Result<Vec<Item>, StoreError> {
    let query = db
        .client
        .query()
        .table_name(&db.tables.accounts)
        .key_condition_expression("account_id = :id AND begins_with(#item, :event)")
        .expression_attribute_names("#item", "item")
        .expression_attribute_values(":id", text(account.as_str()))
        .expression_attribute_values(":event", text(EVENT_PREFIX))
        .consistent_read(true);
    db.query("read events", query).await
}

fn event_id(row: Attributes<'_>) -> Result<String, StoreError> {
    let id = row.text("item")?.strip_prefix(EVENT_PREFIX);
    id.map(str::to_owned).ok_or_else(|| row.corrupt())
}

fn stored_event(account: &AccountId, row: &Item) -> Result<StoredEvent, StoreError> {
    let row = Attributes::of(EVENT, row);
    Ok(StoredEvent {
        account: account.clone(),
        id: event_id(row)?,
        kind: row.get("kind")?,
        at: row.get("at")?,
        facts: row.get("facts")?,
        tries: row.optional("tries")?.unwrap_or(0),
        due: row.get("due_at")?,
        revision: row.get("revision")?,
    })
}
