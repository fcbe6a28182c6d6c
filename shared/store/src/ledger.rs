//! The ledger: append-only entries, read newest first, and the days' sums; and the account's history,
//! which tells of what was done to it without moving credits.

use std::ops::RangeInclusive;

use account::{Account, AccountId, AccountNumber, CallId, Credits, EntryId};
use aws_sdk_dynamodb::types::{Put, TransactWriteItem};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::item::{
    self, ACCOUNT, Item, get_credits, get_number, get_text, key, micros, text, time,
};
use crate::{Store, StoreError, transaction};

/// How often a page is read again because credits moved meanwhile.
const TRIES: usize = 8;

/// Why credits moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
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
    /// The kind's name in items and answers.
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEntry {
    pub id: EntryId,
    pub at: Timestamp,
    pub kind: EntryKind,
    /// Negative where credits were taken.
    pub amount: Credits,
    pub call_id: Option<CallId>,
    pub note: String,
    pub actor: String,
}

/// Something that was done to an account, and by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HistoryEntry {
    /// Unique within the account.
    pub id: String,
    pub at: Timestamp,
    /// A person's or a system's name.
    pub actor: String,
    pub what: String,
}

/// Entries with the balance after each, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerPage {
    pub entries: Vec<(LedgerEntry, Credits)>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Cursor>,
}

/// A place between two entries. It stays where it is while entries come above it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The range key of the last entry before it.
    pub entry: String,
    /// The balance after the first entry behind it.
    pub balance: Credits,
}

/// What was spent on one day, in UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Day {
    pub date: Date,
    pub spent: Credits,
    pub calls: u64,
}

impl Store {
    /// A page of the ledger, newest first, from `cursor` or from the newest entry.
    ///
    /// `balance_after` is not stored (a conditional write cannot know it) but counted back from
    /// the balance, which is read on both sides of the first page to be sure that they belong
    /// together.
    ///
    /// # Errors
    /// [`StoreError::Contended`] if credits move faster than a page can be read.
    pub async fn ledger_page(
        &self,
        account: &Account,
        cursor: Option<&Cursor>,
        limit: u8,
    ) -> Result<LedgerPage, StoreError> {
        if let Some(cursor) = cursor {
            let page = self.entries(&account.number, Some(&cursor.entry), limit);
            return page_of(page.await?, cursor.balance, limit);
        }
        for _ in 0..TRIES {
            let before = self.movements(&account.id).await?;
            let entries = self.entries(&account.number, None, limit).await?;
            let after = self.movements(&account.id).await?;
            if before.entries == after.entries {
                return page_of(entries, before.balance, limit);
            }
        }
        Err(StoreError::Contended {
            operation: "read ledger",
        })
    }

    /// Credits spent on calls, by day; days without calls are left out.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn days(
        &self,
        account: &AccountNumber,
        dates: RangeInclusive<Date>,
    ) -> Result<Vec<Day>, StoreError> {
        let output = self
            .client
            .query()
            .table_name(&self.tables.ledger)
            .key_condition_expression(
                "account_number = :account AND entry BETWEEN :first AND :last",
            )
            .expression_attribute_values(":account", text(account.as_str()))
            .expression_attribute_values(":first", text(format!("d#{}", dates.start())))
            .expression_attribute_values(":last", text(format!("d#{}", dates.end())))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| StoreError::unavailable("read days", error))?;
        let items = output.items.unwrap_or_default();
        items.iter().map(day_from_item).collect()
    }

    /// What was done to the account, newest first, at most `limit` entries.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn history(
        &self,
        account: &AccountNumber,
        limit: i32,
    ) -> Result<Vec<HistoryEntry>, StoreError> {
        const WHAT: &str = "history entry";
        let output = self
            .client
            .query()
            .table_name(&self.tables.ledger)
            .key_condition_expression("account_number = :account AND begins_with(entry, :history)")
            .expression_attribute_values(":account", text(account.as_str()))
            .expression_attribute_values(":history", text("h#"))
            .scan_index_forward(false)
            .consistent_read(true)
            .limit(limit)
            .send()
            .await
            .map_err(|error| StoreError::unavailable("read history", error))?;
        let items = output.items.unwrap_or_default();
        let entries = items.iter().map(|item| {
            Ok(HistoryEntry {
                id: get_text(item, "id", WHAT)?,
                at: item::get_time(item, "at", WHAT)?,
                actor: get_text(item, "actor", WHAT)?,
                what: get_text(item, "what", WHAT)?,
            })
        });
        entries.collect()
    }

    pub(crate) fn new_entry(
        &self,
        account: &AccountNumber,
        entry: &LedgerEntry,
    ) -> Result<TransactWriteItem, StoreError> {
        let put = Put::builder()
            .table_name(&self.tables.ledger)
            .set_item(Some(entry_item(account, entry)))
            .condition_expression("attribute_not_exists(entry)");
        transaction::put(put)
    }

    /// Written again, it is the same: its name has its time and id.
    pub(crate) fn new_history(
        &self,
        account: &AccountNumber,
        entry: &HistoryEntry,
    ) -> Result<TransactWriteItem, StoreError> {
        let name = format!("h#{}#{}", item::time_text(entry.at), entry.id);
        let put = Put::builder()
            .table_name(&self.tables.ledger)
            .set_item(Some(key([
                ("account_number", account.as_str()),
                ("entry", &name),
                ("id", &entry.id),
                ("at", &item::time_text(entry.at)),
                ("actor", &entry.actor),
                ("what", &entry.what),
            ])));
        transaction::put(put)
    }

    /// The balance, and how many entries led to it.
    pub(crate) async fn movements(&self, account: &AccountId) -> Result<Movements, StoreError> {
        const WHAT: &str = "balance";
        let item = self.account_item(account.as_str(), ACCOUNT).await?;
        let item = item.ok_or_else(|| StoreError::corrupt(WHAT))?;
        Ok(Movements {
            balance: get_credits(&item, "balance", WHAT)?,
            held: get_credits(&item, "held", WHAT)?,
            available: get_credits(&item, "available", WHAT)?,
            owed: get_credits(&item, "owed", WHAT)?,
            open_holds: get_number(&item, "open_holds", WHAT)?,
            entries: get_number(&item, "entries", WHAT)?,
            moves: get_number(&item, "moves", WHAT)?,
        })
    }

    async fn entries(
        &self,
        account: &AccountNumber,
        after: Option<&str>,
        limit: u8,
    ) -> Result<Vec<Item>, StoreError> {
        let start =
            after.map(|entry| key([("account_number", account.as_str()), ("entry", entry)]));
        let output = self
            .client
            .query()
            .table_name(&self.tables.ledger)
            .key_condition_expression("account_number = :account AND begins_with(entry, :entries)")
            .expression_attribute_values(":account", text(account.as_str()))
            .expression_attribute_values(":entries", text("e#"))
            .set_exclusive_start_key(start)
            .scan_index_forward(false)
            .consistent_read(true)
            // One more tells whether there are more.
            .limit(i32::from(limit) + 1)
            .send()
            .await
            .map_err(|error| StoreError::unavailable("read ledger", error))?;
        Ok(output.items.unwrap_or_default())
    }
}

/// A consistent look at the balance's attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Movements {
    pub(crate) balance: Credits,
    pub(crate) held: Credits,
    pub(crate) available: Credits,
    pub(crate) owed: Credits,
    pub(crate) open_holds: u64,
    pub(crate) entries: u64,
    /// Grows with every movement: where it is the same, nothing has moved.
    pub(crate) moves: u64,
}

fn page_of(found: Vec<Item>, mut balance: Credits, limit: u8) -> Result<LedgerPage, StoreError> {
    let limit = usize::from(limit);
    let mut entries = Vec::with_capacity(limit);
    for item in found.iter().take(limit) {
        let entry = entry_from_item(item)?;
        let before = balance.checked_sub(entry.amount);
        entries.push((entry, balance));
        balance = before.ok_or_else(|| StoreError::corrupt("ledger entry"))?;
    }
    let last = entries.last().filter(|_| found.len() > limit);
    let next = last.map(|(entry, _)| Cursor {
        entry: entry_name(entry),
        balance,
    });
    Ok(LedgerPage { entries, next })
}

/// An entry's range key: entries sort by time, then by id.
fn entry_name(entry: &LedgerEntry) -> String {
    format!("e#{}#{}", item::time_text(entry.at), entry.id)
}

fn entry_item(account: &AccountNumber, entry: &LedgerEntry) -> Item {
    let name = entry_name(entry);
    let mut item = key([("account_number", account.as_str()), ("entry", &name)]);
    let mut set = |name: &str, value| item.insert(name.to_owned(), value);
    set("id", text(entry.id.as_str()));
    set("at", time(entry.at));
    set("kind", text(entry.kind.as_str()));
    set("amount", micros(entry.amount));
    set("note", text(&entry.note));
    set("actor", text(&entry.actor));
    if let Some(call) = &entry.call_id {
        set("call_id", text(call.as_str()));
    }
    item
}

pub(crate) fn entry_from_item(item: &Item) -> Result<LedgerEntry, StoreError> {
    const WHAT: &str = "ledger entry";
    let corrupt = || StoreError::corrupt(WHAT);
    let id = EntryId::new(get_text(item, "id", WHAT)?).map_err(|_| corrupt())?;
    let kind = item.get("kind").cloned().ok_or_else(corrupt)?;
    let call_id = match item.get("call_id") {
        Some(_) => Some(CallId::new(get_text(item, "call_id", WHAT)?).map_err(|_| corrupt())?),
        None => None,
    };
    Ok(LedgerEntry {
        id,
        at: item::get_time(item, "at", WHAT)?,
        kind: item::from_attribute(WHAT, kind)?,
        amount: get_credits(item, "amount", WHAT)?,
        call_id,
        note: get_text(item, "note", WHAT)?,
        actor: get_text(item, "actor", WHAT)?,
    })
}

pub(crate) fn day_key(account: &AccountNumber, at: Timestamp) -> Item {
    let name = format!("d#{}", at.to_zoned(TimeZone::UTC).date());
    key([("account_number", account.as_str()), ("entry", &name)])
}

pub(crate) fn day_from_item(item: &Item) -> Result<Day, StoreError> {
    const WHAT: &str = "day";
    let name = get_text(item, "entry", WHAT)?;
    let date = name.strip_prefix("d#").and_then(|date| date.parse().ok());
    Ok(Day {
        date: date.ok_or_else(|| StoreError::corrupt(WHAT))?,
        spent: get_credits(item, "spent", WHAT)?,
        calls: get_number(item, "calls", WHAT)?,
    })
}
