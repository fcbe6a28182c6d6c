//! The ledger, its sums of each day, and the account's history of changes that move no credits.

use std::ops::RangeInclusive;

use account::{Account, AccountId, AccountNumber, CallId, Credits, EntryId};
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::accounts::account_item;
use crate::db::{Database, Db};
use crate::error::StoreError;
use crate::history::HistoryEntry;
use crate::item::{self, Attributes, Item, credits_of_micros, key, micros, text, time, time_text};
use crate::retry::Retry;
use crate::write::{Write, put};

/// Maximum number of reads of a page while credits move.
const PAGE_TRIES: u32 = 8;

/// Why credits moved.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    Grant,
    Purchase,
    Call,
    AddOn,
    Refund,
    Reversal,
    Adjustment,
}

impl EntryKind {
    /// The kind's name in items and responses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Grant => "grant",
            Self::Purchase => "purchase",
            Self::Call => "call",
            Self::AddOn => "add_on",
            Self::Refund => "refund",
            Self::Reversal => "reversal",
            Self::Adjustment => "adjustment",
        }
    }
}

/// One movement of credits.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LedgerEntry {
    pub id: EntryId,
    pub at: Timestamp,
    pub kind: EntryKind,
    /// Negative where credits were taken.
    #[serde(deserialize_with = "credits_of_micros")]
    pub amount: Credits,
    pub call_id: Option<CallId>,
    pub note: String,
    pub actor: String,
}

/// Entries with the balance after each, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerPage {
    pub entries: Vec<(LedgerEntry, Credits)>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Cursor>,
}

/// A place between two entries, which stays the same while newer entries are added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The range key of the last entry before the cursor.
    pub entry: String,
    /// The balance after the first entry past the cursor.
    pub balance: Credits,
}

/// The calls of one day, in UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Day {
    pub date: Date,
    pub spent: Credits,
    pub calls: u64,
}

/// A consistent read of the balance's attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct StoredBalance {
    #[serde(deserialize_with = "credits_of_micros")]
    pub(crate) balance: Credits,
    #[serde(deserialize_with = "credits_of_micros")]
    pub(crate) held: Credits,
    #[serde(deserialize_with = "credits_of_micros")]
    pub(crate) available: Credits,
    #[serde(deserialize_with = "credits_of_micros")]
    pub(crate) owed: Credits,
    pub(crate) open_holds: u64,
    pub(crate) entries: u64,
    /// Grows with every movement: while it is unchanged, nothing has moved.
    pub(crate) moves: u64,
}

#[derive(Debug, Clone)]
pub struct Ledger {
    pub(crate) db: Db,
}

impl Ledger {
    /// A page of the ledger, newest first, from `cursor` or from the newest entry. A conditional
    /// write cannot store the balance after an entry, so it is counted back from the current
    /// balance. Reading that before and after the first page makes sure that the two match.
    pub async fn page(
        &self,
        account: &Account,
        cursor: Option<&Cursor>,
        limit: u8,
    ) -> Result<LedgerPage, StoreError> {
        if let Some(cursor) = cursor {
            let found = self.entries(&account.number, Some(&cursor.entry), limit);
            return page_of(found.await?, cursor.balance, limit);
        }
        let mut retry = Retry::at_most(PAGE_TRIES, "read ledger");
        loop {
            let before = stored_balance(&self.db, &account.id).await?;
            let entries = self.entries(&account.number, None, limit).await?;
            let after = stored_balance(&self.db, &account.id).await?;
            if before.entries == after.entries {
                return page_of(entries, before.balance, limit);
            }
            retry.pause().await?;
        }
    }

    /// Credits spent on calls, by day; days without calls are left out.
    pub async fn days(
        &self,
        account: &AccountNumber,
        dates: RangeInclusive<Date>,
    ) -> Result<Vec<Day>, StoreError> {
        let (first, last) = (format!("d#{}", dates.start()), format!("d#{}", dates.end()));
        let query = entries_between(&self.db, account, &first, &last);
        let items = self.db.query("read days", query).await?;
        items.iter().map(read_day).collect()
    }

    /// The account's history, newest first, at most `limit` entries.
    pub async fn history(
        &self,
        account: &AccountNumber,
        limit: i32,
    ) -> Result<Vec<HistoryEntry>, StoreError> {
        let query = entries_between(&self.db, account, "h#", "h#~");
        let items = self.newest("read history", query.limit(limit)).await?;
        let read = |item| item::read("history entry", item);
        items.into_iter().map(read).collect()
    }

    async fn entries(
        &self,
        account: &AccountNumber,
        after: Option<&str>,
        limit: u8,
    ) -> Result<Vec<LedgerEntry>, StoreError> {
        let start =
            after.map(|entry| key([("account_number", account.as_str()), ("entry", entry)]));
        let query = entries_between(&self.db, account, "e#", "e#~")
            .set_exclusive_start_key(start)
            // One more shows whether there is another page.
            .limit(i32::from(limit) + 1);
        let items = self.newest("read ledger", query).await?;
        items.into_iter().map(|item| item::read("ledger entry", item)).collect()
    }

    async fn newest(
        &self,
        operation: &'static str,
        query: QueryFluentBuilder,
    ) -> Result<Vec<Item>, StoreError> {
        let page = Box::pin(query.scan_index_forward(false).send()).await;
        let page = page.map_err(|error| StoreError::unavailable(operation, error))?;
        Ok(page.items.unwrap_or_default())
    }
}

pub(crate) fn put_entry(db: &Database, account: &AccountNumber, entry: &LedgerEntry) -> Write {
    let name = entry_name(entry);
    let mut item = item::with(
        key([("account_number", account.as_str()), ("entry", &name)]),
        [
            ("id", text(entry.id.as_str())),
            ("at", time(entry.at)),
            ("kind", text(entry.kind.as_str())),
            ("amount", micros(entry.amount)),
            ("note", text(&entry.note)),
            ("actor", text(&entry.actor)),
        ],
    );
    if let Some(call) = &entry.call_id {
        item.insert("call_id".to_owned(), text(call.as_str()));
    }
    put(&db.tables.ledger, item).condition_expression("attribute_not_exists(entry)").into()
}

pub(crate) fn entries_between(
    db: &Database,
    account: &AccountNumber,
    from: &str,
    to: &str,
) -> QueryFluentBuilder {
    db.client
        .query()
        .table_name(&db.tables.ledger)
        .key_condition_expression("account_number = :account AND entry BETWEEN :from AND :to")
        .expression_attribute_values(":account", text(account.as_str()))
        .expression_attribute_values(":from", text(from))
        .expression_attribute_values(":to", text(to))
        .consistent_read(true)
}

pub(crate) async fn stored_balance(
    db: &Database,
    account: &AccountId,
) -> Result<StoredBalance, StoreError> {
    let item = account_item(db, account).await?;
    item::read("balance", item.unwrap_or_default())
}

fn page_of(
    found: Vec<LedgerEntry>,
    mut balance: Credits,
    limit: u8,
) -> Result<LedgerPage, StoreError> {
    let limit = usize::from(limit);
    let has_more = found.len() > limit;
    let mut entries = Vec::with_capacity(limit);
    for entry in found.into_iter().take(limit) {
        let before = balance.checked_sub(entry.amount);
        entries.push((entry, balance));
        balance = before.ok_or_else(|| StoreError::corrupt("ledger entry"))?;
    }
    let last = entries.last().filter(|_| has_more);
    let next = last.map(|(entry, _)| Cursor { entry: entry_name(entry), balance });
    Ok(LedgerPage { entries, next })
}

/// An entry's range key: entries sort by time, then by id.
fn entry_name(entry: &LedgerEntry) -> String {
    format!("e#{}#{}", time_text(entry.at), entry.id)
}

pub(crate) fn day_key(account: &AccountNumber, at: Timestamp) -> Item {
    let name = format!("d#{}", at.to_zoned(TimeZone::UTC).date());
    key([("account_number", account.as_str()), ("entry", &name)])
}

pub(crate) fn read_day(item: &Item) -> Result<Day, StoreError> {
    let item = Attributes::of("day", item);
    let date = item.text("entry")?.strip_prefix("d#");
    Ok(Day {
        date: date.and_then(|date| date.parse().ok()).ok_or_else(|| item.corrupt())?,
        spent: item.credits("spent")?,
        calls: item.get("calls")?,
    })
}
