//! The sparse index of due tasks, which the billing tick works through.

use std::ops::Range;

use account::{AccountId, AccountNumber, KeyId};
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use jiff::Timestamp;

use crate::db::{Database, Db, Tables};
use crate::error::{StoreError, Written};
use crate::item::{self, ACCOUNT, Attributes, Item, account_key, key, text, time};

/// Number of partitions that the tasks of a kind are spread over.
const SHARDS: u8 = 16;

/// All partitions of the index.
pub fn shards() -> Range<u8> {
    0..SHARDS
}

/// The partition in which the tasks of `id` are.
pub fn shard_of(id: &str) -> u8 {
    let sum = id
        .bytes()
        .fold(0_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
    sum % SHARDS
}

/// A kind of task. Each has partitions of its own, so that none waits behind another.
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

/// Something to do once it is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DueTask {
    /// A secret to delete unless it is the account's key.
    Secret { account: AccountId, key: KeyId },
    /// A domain event to deliver.
    Event { account: AccountId, id: String },
    /// A deleted account to scrub.
    Deletion { account: AccountId },
    /// An account whose add-on needs a payment, a look-up or an end.
    Billing { account: AccountId },
    /// A Checkout Session that has closed, and whose outcome is to be looked up.
    CheckoutSession { stripe_id: String },
    /// A payment to refund.
    Refund { stripe_id: String },
    /// An event of Stripe's to apply again.
    StripeEvent { id: String },
    /// A deleted account's open payments to cancel.
    Cleanup { account: AccountNumber },
}

impl DueTask {
    pub fn kind(&self) -> DueKind {
        match self {
            Self::Secret { .. } => DueKind::Secret,
            Self::Event { .. } => DueKind::Event,
            Self::Deletion { .. } => DueKind::Deletion,
            Self::Billing { .. } => DueKind::Billing,
            Self::CheckoutSession { .. } => DueKind::CheckoutSession,
            Self::Refund { .. } => DueKind::Refund,
            Self::StripeEvent { .. } => DueKind::StripeEvent,
            Self::Cleanup { .. } => DueKind::Cleanup,
        }
    }

    /// The key of the task's item.
    pub(crate) fn key(&self) -> Item {
        let of_account = |account: &AccountId, item: &str| {
            key([("account_id", account.as_str()), ("item", item)])
        };
        match self {
            Self::Secret { account, key } => of_account(account, &format!("secret#{key}")),
            Self::Event { account, id } => of_account(account, &format!("{EVENT_PREFIX}{id}")),
            Self::Deletion { account } => of_account(account, "deletion"),
            Self::Billing { account } => account_key(account),
            Self::CheckoutSession { stripe_id } | Self::Refund { stripe_id } => {
                order_key(stripe_id)
            }
            Self::StripeEvent { id } => key([("event_id", id)]),
            Self::Cleanup { account } => {
                key([("account_number", account.as_str()), ("charge", "cleanup")])
            }
        }
    }

    /// The task's partition of the index.
    pub(crate) fn partition(&self) -> String {
        let id = match self {
            Self::Secret { account, .. }
            | Self::Event { account, .. }
            | Self::Deletion { account }
            | Self::Billing { account } => account.as_str(),
            Self::CheckoutSession { stripe_id } | Self::Refund { stripe_id } => stripe_id,
            Self::StripeEvent { id } => id,
            Self::Cleanup { account } => account.as_str(),
        };
        partition(self.kind(), shard_of(id))
    }

    /// A new item of this key, due at `at`.
    pub(crate) fn item(&self, at: Timestamp) -> Item {
        let due = [("due_shard", text(self.partition())), ("due_at", time(at))];
        item::with(self.key(), due)
    }

    fn read(kind: DueKind, row: &Item) -> Result<Self, StoreError> {
        let row = Attributes::of("due task", row);
        let name_after = |name: &str, prefix: &str| {
            let text = row.text(name)?.strip_prefix(prefix);
            text.map(str::to_owned).ok_or_else(|| row.corrupt())
        };
        Ok(match kind {
            DueKind::Secret => Self::Secret {
                account: row.get("account_id")?,
                key: KeyId::new(name_after("item", "secret#")?).map_err(|_| row.corrupt())?,
            },
            DueKind::Event => Self::Event {
                account: row.get("account_id")?,
                id: name_after("item", EVENT_PREFIX)?,
            },
            DueKind::Deletion => Self::Deletion {
                account: row.get("account_id")?,
            },
            DueKind::Billing if row.text("item")? == ACCOUNT => Self::Billing {
                account: row.get("account_id")?,
            },
            DueKind::Billing => return Err(row.corrupt()),
            DueKind::CheckoutSession => Self::CheckoutSession {
                stripe_id: name_after("account_number", ORDER_PREFIX)?,
            },
            DueKind::Refund => Self::Refund {
                stripe_id: name_after("account_number", ORDER_PREFIX)?,
            },
            DueKind::StripeEvent => Self::StripeEvent {
                id: row.get("event_id")?,
            },
            DueKind::Cleanup => Self::Cleanup {
                account: row.get("account_number")?,
            },
        })
    }
}

/// A task with the time at which it is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    pub task: DueTask,
    pub at: Timestamp,
}

/// Finds tasks that are due, and postpones them.
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
        find(&self.db, kind, shard, now, limit).await
    }

    /// Moves a task to `until`, which also claims it: no other tick finds it before then.
    /// `Ok(false)` if it is no longer due as it was, or a transaction is changing its item.
    pub async fn postpone(&self, due: &Due, until: Timestamp) -> Result<bool, StoreError> {
        postpone(&self.db, due, until).await
    }
}

pub(crate) async fn find(
    db: &Database,
    kind: DueKind,
    shard: u8,
    now: Timestamp,
    limit: i32,
) -> Result<Vec<Result<Due, StoreError>>, StoreError> {
    let query = db
        .client
        .query()
        .table_name(kind.table(&db.tables))
        .index_name("due")
        .key_condition_expression("due_shard = :shard AND due_at <= :now")
        .expression_attribute_values(":shard", text(partition(kind, shard)))
        .expression_attribute_values(":now", time(now));
    let read = |row: &Item| {
        Ok(Due {
            task: DueTask::read(kind, row)?,
            at: Attributes::of("due task", row).get("due_at")?,
        })
    };
    readable_rows(query, limit, read).await
}

/// The rows that `query` finds, in order, until `limit` of them could be read.
pub(crate) async fn readable_rows<T>(
    query: QueryFluentBuilder,
    limit: i32,
    read: impl Fn(&Item) -> Result<T, StoreError>,
) -> Result<Vec<Result<T, StoreError>>, StoreError> {
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

pub(crate) async fn postpone(
    db: &Database,
    due: &Due,
    until: Timestamp,
) -> Result<bool, StoreError> {
    let sent = db
        .client
        .update_item()
        .table_name(due.task.kind().table(&db.tables))
        .set_key(Some(due.task.key()))
        .update_expression("SET due_at = :until")
        .condition_expression("due_at = :due")
        .expression_attribute_values(":until", time(until))
        .expression_attribute_values(":due", time(due.at))
        .send();
    Ok(Written::of("postpone due task", Box::pin(sent).await)? == Written::Done)
}

fn partition(kind: DueKind, shard: u8) -> String {
    format!("{}#{shard}", kind.name())
}

pub(crate) const EVENT_PREFIX: &str = "event#";
const ORDER_PREFIX: &str = "object#";

/// The key of the order with this Stripe id.
pub(crate) fn order_key(stripe_id: &str) -> Item {
    let name = format!("{ORDER_PREFIX}{stripe_id}");
    key([("account_number", name.as_str()), ("charge", "object")])
}
