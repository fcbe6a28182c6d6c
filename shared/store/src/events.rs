//! What Greta's other systems are to hear of: the outbox.
//!
//! An event is written in the transaction of what it tells of, under an id that follows from that, and
//! stays until somebody says that it was delivered. It is delivered at least once, and with the same id
//! and content each time. It is no part of the account's books and goes with the account.

use std::collections::{BTreeMap, BTreeSet};

use account::add_on::AddOnChange;
use account::{Account, AccountId, AddOnStatus, Credits, KeyId};
use aws_sdk_dynamodb::types::builders::UpdateBuilder;
use aws_sdk_dynamodb::types::{Put, ReturnValue, TransactWriteItem};
use jiff::Timestamp;

use crate::due_index::{DueKind, due_item};
use crate::error::condition_failed;
use crate::item::{self, Item, get_number, get_text, get_time, key, number, text, time};
use crate::transaction;
use crate::{Store, StoreError};

/// What an event tells, by name: texts, and times in RFC 3339. Never a secret, and nothing of a key.
pub type Facts = BTreeMap<String, Option<String>>;

/// Something that Greta's other systems are to hear of, delivered from an outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainEvent {
    /// Deterministic: the same change never makes two events, and no two changes make the same.
    pub id: String,
    /// For example `key.rejected`.
    pub kind: &'static str,
    pub at: Timestamp,
    pub facts: Facts,
}

impl DomainEvent {
    /// OpenRouter does not accept `key` any more, found out at `at`.
    pub fn key_rejected(key: &KeyId, at: Timestamp) -> Self {
        Self {
            id: format!("{key}-rejected-{}", at.as_microsecond()),
            kind: "key.rejected",
            at,
            facts: facts([("key_id", Some(key.to_string()))]),
        }
    }

    /// What the change from `before` to `after` is to others, if it is something. Named by the revision
    /// that the change makes: it is made once.
    pub(crate) fn add_on(before: &Account, after: &Account, at: Timestamp) -> Option<Self> {
        let add_on = &after.profile.add_on;
        let kind_of_change = add_on.change_since(&before.profile.add_on)?;
        let generation = add_on.generation()?.as_str();
        let (kind, name) = match kind_of_change {
            AddOnChange::Activated => ("add_on.activated", "activated"),
            AddOnChange::PastDue => ("add_on.past_due", "past_due"),
            AddOnChange::Suspended => ("add_on.suspended", "suspended"),
            AddOnChange::Ended => ("add_on.ended", "ended"),
        };
        let time_of = |at: Timestamp| Some(at.to_string());
        let paid_through = add_on.paid_through();
        let charge = after.profile.billing.charge.as_ref();
        let more = match kind_of_change {
            AddOnChange::Activated => {
                let goes_on = add_on.status() == AddOnStatus::Active;
                let next = paid_through.filter(|_| goes_on);
                vec![("next_charge_at", next.and_then(time_of))]
            }
            AddOnChange::PastDue => {
                let next = charge.and_then(|charge| charge.attempt_at);
                let ends = charge.map(|charge| charge.grace_ends);
                vec![
                    ("next_attempt_at", next.and_then(time_of)),
                    ("access_until", ends.and_then(time_of)),
                ]
            }
            AddOnChange::Suspended | AddOnChange::Ended => {
                let reason = add_on.reason().map(|reason| reason.as_str().to_owned());
                vec![("reason", reason)]
            }
        };
        let paid_through = ("paid_through", paid_through.and_then(time_of));
        Some(Self {
            id: format!("{generation}-{name}-{}", after.revision),
            kind,
            at,
            facts: facts(more.into_iter().chain([paid_through])),
        })
    }
}

/// The balance of a standard account goes below the minimum by what is taken from it. Whether it does
/// is the transaction's own condition, so that each time it happens is told once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crossing {
    minimum: Credits,
    /// From here on upwards there is enough.
    enough: Credits,
}

impl Crossing {
    /// `None` if nothing is taken, or there is nothing to go below.
    pub(crate) fn by(taken: Credits, minimum: Option<Credits>) -> Option<Self> {
        let minimum = minimum.filter(|minimum| *minimum > Credits::ZERO)?;
        let enough = minimum.checked_add(taken)?;
        (taken > Credits::ZERO).then_some(Self { minimum, enough })
    }

    pub(crate) fn begins_at(self, balance: Credits) -> bool {
        self.minimum <= balance && balance < self.enough
    }

    /// Has `update` take place only if the balance goes below the minimum by it, or only if not.
    pub(crate) fn condition(self, update: UpdateBuilder, crosses: bool) -> UpdateBuilder {
        let own = if crosses {
            "(attribute_exists(profile) AND balance >= :minimum AND balance < :enough)"
        } else {
            "(balance < :minimum OR balance >= :enough)"
        };
        let condition = match update.get_condition_expression() {
            Some(before) => format!("{before} AND {own}"),
            None => own.to_owned(),
        };
        update
            .condition_expression(condition)
            .expression_attribute_values(":minimum", item::micros(self.minimum))
            .expression_attribute_values(":enough", item::micros(self.enough))
    }

    /// What is then told. `cause` is the name of what took the credits.
    pub(crate) fn event(self, cause: &str, at: Timestamp) -> DomainEvent {
        DomainEvent {
            id: format!("{cause}-credits-low"),
            kind: "credits.low",
            at,
            facts: facts([("minimum", Some(self.minimum.to_string()))]),
        }
    }
}

fn facts(facts: impl IntoIterator<Item = (&'static str, Option<String>)>) -> Facts {
    let named = facts.into_iter();
    named.map(|(name, fact)| (name.to_owned(), fact)).collect()
}

/// An event that waits in the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    pub account: AccountId,
    pub id: String,
    pub kind: String,
    pub at: Timestamp,
    pub facts: Facts,
    /// How often it was taken on.
    pub tries: u32,
    /// Nobody takes it on before.
    pub due: Timestamp,
    /// The account's revision: of events of one time, which came first.
    revision: u64,
}

impl Store {
    /// Puts an event of the account into the outbox. `revision` is the one that the change makes; 0
    /// where it changes no profile.
    pub(crate) fn new_event(
        &self,
        account: &AccountId,
        event: &DomainEvent,
        revision: u64,
    ) -> Result<TransactWriteItem, StoreError> {
        let mut item = due_item(
            event_key(account, &event.id),
            DueKind::Event,
            account,
            event.at,
        );
        item.insert("kind".to_owned(), text(event.kind));
        item.insert("at".to_owned(), time(event.at));
        item.insert("revision".to_owned(), number(revision));
        item.insert("facts".to_owned(), item::to_attribute(WHAT, &event.facts)?);
        let put = Put::builder()
            .table_name(&self.tables.accounts)
            .set_item(Some(item));
        transaction::put(put)
    }

    /// The accounts of one shard of which events are due at `now`: those of at most `limit` rows that
    /// can be read. A row that cannot be read is an error of its own.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn accounts_with_due_events(
        &self,
        shard: u8,
        now: Timestamp,
        limit: i32,
    ) -> Result<(BTreeSet<AccountId>, Vec<StoreError>), StoreError> {
        let table = &self.tables.accounts;
        let rows = self
            .due_in(table, DueKind::Event, shard, now, limit, |row| {
                let account = AccountId::new(get_text(row, "account_id", WHAT)?);
                account.map_err(|_| StoreError::corrupt(WHAT))
            })
            .await?;
        let (mut accounts, mut errors) = (BTreeSet::new(), Vec::new());
        for row in rows {
            match row {
                Ok(account) => drop(accounts.insert(account)),
                Err(error) => errors.push(error),
            }
        }
        Ok((accounts, errors))
    }

    /// The account's events that wait, in the order in which they came to be; those that cannot be read
    /// apart. One that cannot be read is put off to `later`, where it is due at `now`.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn events_of(
        &self,
        account: &AccountId,
        now: Timestamp,
        later: Timestamp,
    ) -> Result<(Vec<StoredEvent>, Vec<StoreError>), StoreError> {
        let (mut events, mut errors) = (Vec::new(), Vec::new());
        for row in self.event_rows(account).await? {
            match stored_event(account, &row) {
                Ok(event) => events.push(event),
                Err(error) => {
                    let due = row.get("due_at").and_then(|due| due.as_s().ok());
                    if due.is_some_and(|due| *due <= item::time_text(now)) {
                        self.put_off_row(row_key(&row), later).await?;
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

    /// All rows of the account's outbox.
    pub(crate) async fn event_rows(&self, account: &AccountId) -> Result<Vec<Item>, StoreError> {
        let (mut rows, mut from) = (Vec::new(), None);
        loop {
            let page = self
                .client
                .query()
                .table_name(&self.tables.accounts)
                .key_condition_expression("account_id = :id AND begins_with(#item, :event)")
                .expression_attribute_names("#item", "item")
                .expression_attribute_values(":id", text(account.as_str()))
                .expression_attribute_values(":event", text(PREFIX))
                .consistent_read(true)
                .set_exclusive_start_key(from)
                .send()
                .await
                .map_err(|error| StoreError::unavailable("read events", error))?;
            rows.extend(page.items.unwrap_or_default());
            from = page.last_evaluated_key;
            if from.is_none() {
                return Ok(rows);
            }
        }
    }

    /// Takes an event on for delivery: nobody else does before `until`. `None` if somebody else was
    /// faster.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn claim_event(
        &self,
        event: &StoredEvent,
        until: Timestamp,
    ) -> Result<Option<StoredEvent>, StoreError> {
        let claimed = self
            .client
            .update_item()
            .table_name(&self.tables.accounts)
            .set_key(Some(event_key(&event.account, &event.id)))
            .update_expression("SET due_at = :until ADD tries :one")
            .condition_expression("due_at = :due")
            .expression_attribute_values(":until", time(until))
            .expression_attribute_values(":due", time(event.due))
            .expression_attribute_values(":one", number(1))
            .return_values(ReturnValue::AllNew)
            .send()
            .await;
        match claimed {
            Ok(output) => {
                let row = output.attributes.unwrap_or_default();
                stored_event(&event.account, &row).map(Some)
            }
            Err(error) if condition_failed(&error) => Ok(None),
            Err(error) => Err(StoreError::unavailable("claim event", error)),
        }
    }

    /// The event was not delivered, or waits for one before it: it is taken on again from `until` on,
    /// unless somebody else took it on meanwhile.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn put_off_event(
        &self,
        event: &StoredEvent,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        let key = event_key(&event.account, &event.id);
        self.claim(key, event.due, until).await.map(drop)
    }

    async fn put_off_row(&self, key: Item, until: Timestamp) -> Result<(), StoreError> {
        let put_off = self
            .client
            .update_item()
            .table_name(&self.tables.accounts)
            .set_key(Some(key))
            .update_expression("SET due_at = :until")
            .condition_expression("attribute_exists(due_at)")
            .expression_attribute_values(":until", time(until))
            .send()
            .await;
        match put_off {
            Ok(_) => Ok(()),
            Err(error) if condition_failed(&error) => Ok(()),
            Err(error) => Err(StoreError::unavailable("put event off", error)),
        }
    }

    /// The event was delivered.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer; it is then delivered again.
    pub async fn event_delivered(&self, event: &StoredEvent) -> Result<(), StoreError> {
        self.remove_row(event_key(&event.account, &event.id)).await
    }

    pub(crate) async fn remove_row(&self, key: Item) -> Result<(), StoreError> {
        self.client
            .delete_item()
            .table_name(&self.tables.accounts)
            .set_key(Some(key))
            .send()
            .await
            .map(drop)
            .map_err(|error| StoreError::unavailable("remove event", error))
    }
}

const WHAT: &str = "event";
const PREFIX: &str = "event#";

fn event_key(account: &AccountId, id: &str) -> Item {
    let name = format!("{PREFIX}{id}");
    key([("account_id", account.as_str()), ("item", &name)])
}

/// The key of a row that may hold anything else.
pub(crate) fn row_key(row: &Item) -> Item {
    let names = ["account_id", "item"].into_iter();
    let parts = names.filter_map(|name| Some((name.to_owned(), row.get(name)?.clone())));
    parts.collect()
}

fn stored_event(account: &AccountId, row: &Item) -> Result<StoredEvent, StoreError> {
    let corrupt = || StoreError::corrupt(WHAT);
    let name = get_text(row, "item", WHAT)?;
    let tries = match row.get("tries") {
        Some(_) => get_number(row, "tries", WHAT)?,
        None => 0,
    };
    let facts = row.get("facts").cloned().ok_or_else(corrupt)?;
    Ok(StoredEvent {
        account: account.clone(),
        id: name.strip_prefix(PREFIX).ok_or_else(corrupt)?.to_owned(),
        kind: get_text(row, "kind", WHAT)?,
        at: get_time(row, "at", WHAT)?,
        facts: item::from_attribute(WHAT, facts)?,
        tries,
        due: get_time(row, "due_at", WHAT)?,
        revision: get_number(row, "revision", WHAT)?,
    })
}
