//! The sparse index of due tasks, which the billing tick works through.

use std::ops::Range;

use account::{AccountId, AccountNumber, KeyId};
use jiff::Timestamp;

use crate::db::{Database, Db, Tables};
use crate::error::StoreError;
use crate::item::{self, ACCOUNT, Attributes, Item, key, text, time};
use crate::write::update;

/// Number of partitions for the tasks of each kind.
const SHARDS: u8 = 16;

/// All partitions of the index.
pub fn shards() -> Range<u8> {
    0..SHARDS
}

/// The partition that contains the tasks of `id`.
pub fn shard_of(id: &str) -> u8 {
    let sum = id.bytes().fold(0_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
    sum % SHARDS
}

/// A kind of task. Each kind has its own partitions, so that none waits behind another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DueKind {
    Secret,
    Event,
    Deletion,
    Billing,
    CheckoutSession,
    Refund,
    StripeEvent,
    Cleanup,
}

impl DueKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Event => "event",
            Self::Deletion => "deletion",
            Self::Billing => "billing",
            Self::CheckoutSession => "page",
            Self::Refund => "refund",
            Self::StripeEvent => "webhook",
            Self::Cleanup => "cleanup",
        }
    }

    fn table(self, tables: &Tables) -> &str {
        match self {
            Self::Secret | Self::Event | Self::Deletion | Self::Billing => &tables.accounts,
            Self::CheckoutSession | Self::Refund | Self::Cleanup => &tables.charges,
            Self::StripeEvent => &tables.webhooks,
        }
    }
}

/// A task to run once it is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DueTask {
    /// A secret to delete unless it is the account's key.
    Secret(AccountId, KeyId),
    /// A domain event to deliver, by its id.
    Event(AccountId, String),
    /// A deleted account to scrub.
    Deletion(AccountId),
    /// An account whose add-on needs a payment or a look-up, or has to end.
    Billing(AccountId),
    /// A closed Checkout Session to look up.
    CheckoutSession(String),
    /// A payment to refund, by its Stripe id.
    Refund(String),
    /// A Stripe event to apply again.
    StripeEvent(String),
    /// A deleted account's open payments to cancel.
    Cleanup(AccountNumber),
}

impl DueTask {
    /// The task's kind, the id that it belongs to, and its name among the items of that id.
    fn parts(&self) -> (DueKind, &str, String) {
        match self {
            Self::Secret(account, key) => {
                (DueKind::Secret, account.as_str(), format!("{SECRET_PREFIX}{key}"))
            }
            Self::Event(account, id) => {
                (DueKind::Event, account.as_str(), format!("{EVENT_PREFIX}{id}"))
            }
            Self::Deletion(account) => (DueKind::Deletion, account.as_str(), "deletion".into()),
            Self::Billing(account) => (DueKind::Billing, account.as_str(), ACCOUNT.into()),
            Self::CheckoutSession(id) => (DueKind::CheckoutSession, id, String::new()),
            Self::Refund(id) => (DueKind::Refund, id, String::new()),
            Self::StripeEvent(id) => (DueKind::StripeEvent, id, String::new()),
            Self::Cleanup(account) => (DueKind::Cleanup, account.as_str(), "cleanup".into()),
        }
    }

    pub(crate) fn key(&self) -> Item {
        let (kind, id, name) = self.parts();
        match kind {
            DueKind::Secret | DueKind::Event | DueKind::Deletion | DueKind::Billing => {
                key([("account_id", id), ("item", &name)])
            }
            DueKind::CheckoutSession | DueKind::Refund => order_key(id),
            DueKind::StripeEvent => key([("event_id", id)]),
            DueKind::Cleanup => key([("account_number", id), ("charge", &name)]),
        }
    }

    pub(crate) fn partition(&self) -> String {
        let (kind, id, _) = self.parts();
        partition(kind, shard_of(id))
    }

    /// A new item of this key, due at `at`.
    pub(crate) fn item(&self, at: Timestamp) -> Item {
        let due = [("due_shard", text(self.partition())), ("due_at", time(at))];
        item::with(self.key(), due)
    }

    fn read(kind: DueKind, row: Attributes<'_>) -> Result<Self, StoreError> {
        let after = |prefix: &str, name: &str| {
            let text = row.text(name)?.strip_prefix(prefix);
            text.map(str::to_owned).ok_or_else(|| row.corrupt())
        };
        Ok(match kind {
            DueKind::Secret => {
                let key = KeyId::new(after(SECRET_PREFIX, "item")?);
                Self::Secret(row.get("account_id")?, key.map_err(|_| row.corrupt())?)
            }
            DueKind::Event => Self::Event(row.get("account_id")?, after(EVENT_PREFIX, "item")?),
            DueKind::Deletion => Self::Deletion(row.get("account_id")?),
            DueKind::Billing if row.text("item")? == ACCOUNT => {
                Self::Billing(row.get("account_id")?)
            }
            DueKind::Billing => return Err(row.corrupt()),
            DueKind::CheckoutSession => {
                Self::CheckoutSession(after(ORDER_PREFIX, "account_number")?)
            }
            DueKind::Refund => Self::Refund(after(ORDER_PREFIX, "account_number")?),
            DueKind::StripeEvent => Self::StripeEvent(row.get("event_id")?),
            DueKind::Cleanup => Self::Cleanup(row.get("account_number")?),
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    pub task: DueTask,
    pub at: Timestamp,
}

#[derive(Debug, Clone)]
pub struct DueIndex {
    pub(crate) db: Db,
}

impl DueIndex {
    /// The tasks of one shard that are due at `now`, oldest first, until `limit` of them could be
    /// read. A row that cannot be read is an error of its own, and blocks no other.
    pub async fn find(
        &self,
        kind: DueKind,
        shard: u8,
        now: Timestamp,
        limit: i32,
    ) -> Result<Vec<Result<Due, StoreError>>, StoreError> {
        let index = (kind.table(&self.db.tables), "due", "due_shard = :shard AND due_at <= :now");
        let read = |row: &Item| {
            let row = Attributes::of("due task", row);
            Ok(Due { task: DueTask::read(kind, row)?, at: row.get("due_at")? })
        };
        due_rows(&self.db, index, partition(kind, shard), now, limit, read).await
    }

    /// Claims a task until `until`: no other tick finds it earlier. False if its due time has
    /// changed since it was found.
    pub async fn postpone(&self, due: &Due, until: Timestamp) -> Result<bool, StoreError> {
        let table = due.task.parts().0.table(&self.db.tables);
        let update = update(table, due.task.key(), "SET due_at = :until")
            .condition_expression("due_at = :due")
            .expression_attribute_values(":until", time(until))
            .expression_attribute_values(":due", time(due.at));
        self.db.write("postpone due task", update).await
    }
}

/// The rows of a partition that are due at `now`, in order, until `limit` of them could be read.
pub(crate) async fn due_rows<T>(
    db: &Database,
    (table, index, condition): (&str, &str, &str),
    shard: String,
    now: Timestamp,
    limit: i32,
    read: impl Fn(&Item) -> Result<T, StoreError>,
) -> Result<Vec<Result<T, StoreError>>, StoreError> {
    let query = db
        .client
        .query()
        .table_name(table)
        .index_name(index)
        .key_condition_expression(condition)
        .expression_attribute_values(":shard", text(shard))
        .expression_attribute_values(":now", time(now));
    let (mut rows, mut from) = (Vec::new(), None);
    let mut readable = 0;
    loop {
        let page = query.clone().limit(limit).set_exclusive_start_key(from);
        let page = Box::pin(page.send()).await;
        let page = page.map_err(|error| StoreError::unavailable("find due tasks", error))?;
        let found: Vec<_> = page.items.unwrap_or_default().iter().map(&read).collect();
        readable += found.iter().filter(|row| row.is_ok()).count();
        rows.extend(found);
        from = page.last_evaluated_key;
        if from.is_none() || i32::try_from(readable).is_ok_and(|readable| readable >= limit) {
            return Ok(rows);
        }
    }
}

fn partition(kind: DueKind, shard: u8) -> String {
    format!("{}#{shard}", kind.name())
}

const SECRET_PREFIX: &str = "secret#";
pub(crate) const EVENT_PREFIX: &str = "event#";
const ORDER_PREFIX: &str = "object#";

/// The key of the order with this Stripe id.
pub(crate) fn order_key(stripe_id: &str) -> Item {
    let name = format!("{ORDER_PREFIX}{stripe_id}");
    key([("account_number", name.as_str()), ("charge", "object")])
}
