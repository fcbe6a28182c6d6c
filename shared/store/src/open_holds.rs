//! Holds as they are stored: find them, list them, and claim those whose check is due.

use account::hold::{FIRST_CHECK, HoldState, LIFE, held, next_check};
use account::price::{Tariff, TokenPrices};
use account::{AccountId, AccountNumber, CallId, Credits, CreditsPerUsd, Usd};
use jiff::Timestamp;
use serde::Deserialize;

use crate::db::{Database, Db};
use crate::due_index::{due_rows, shard_of};
use crate::error::StoreError;
use crate::item::{self, Attributes, Item, key, micros, number, text, time};
use crate::write::update;

const HOLD: &str = "hold";
/// Texts that sort before and after the ids of all calls, whatever their form.
pub(crate) const FIRST_HOLD: &str = "-";
pub(crate) const LAST_HOLD: &str = "~";

/// An open hold, as its call ends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    pub account: AccountId,
    pub account_number: AccountNumber,
    pub call: CallId,
    pub amount: Credits,
    pub model: String,
    pub tariff: Tariff,
    pub idempotency: Option<String>,
    /// `credits.low` is published if the call's cost takes the balance below this.
    pub low_below: Option<Credits>,
}

/// An open hold with everything stored about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenHold {
    pub hold: Hold,
    pub created_at: Timestamp,
    pub next_check_at: Timestamp,
    pub expires_at: Timestamp,
    /// The default AI's id for the call, once it is known.
    pub generation_id: Option<String>,
    /// The first time that the default AI had no record of the call.
    pub no_record_since: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredHold {
    Open(Box<OpenHold>),
    Ended {
        state: HoldState,
        at: Timestamp,
        /// The name of the process or person that ended it.
        by: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DueHold {
    pub account_number: AccountNumber,
    #[serde(rename = "hold")]
    pub call: CallId,
    #[serde(rename = "next_check_at")]
    pub due: Timestamp,
}

#[derive(Debug, Clone)]
pub struct Holds {
    pub(crate) db: Db,
}

impl Holds {
    pub async fn open(&self, account: &AccountNumber) -> Result<Vec<OpenHold>, StoreError> {
        let mut open = Vec::new();
        for item in holds_between(&self.db, account, FIRST_HOLD, LAST_HOLD).await? {
            if state_of(&item)? == HoldState::Open {
                open.push(open_hold(&item)?);
            }
        }
        Ok(open)
    }

    pub async fn find(
        &self,
        account: &AccountNumber,
        call: &CallId,
    ) -> Result<Option<StoredHold>, StoreError> {
        let Some(item) = stored_hold(&self.db, account, call).await? else {
            return Ok(None);
        };
        let ended = Attributes::of(HOLD, &item);
        Ok(Some(match state_of(&item)? {
            HoldState::Open => StoredHold::Open(Box::new(open_hold(&item)?)),
            state => StoredHold::Ended {
                state,
                at: ended.get("resolved_at")?,
                by: ended.get("resolved_by")?,
            },
        }))
    }

    /// The open holds of one shard whose check is due at `now`, oldest first, until `limit` of them
    /// could be read. A row that cannot be read is an error of its own.
    pub async fn due(
        &self,
        shard: u8,
        now: Timestamp,
        limit: i32,
    ) -> Result<Vec<Result<DueHold, StoreError>>, StoreError> {
        let condition = "check_shard = :shard AND next_check_at <= :now";
        let index = (self.db.tables.holds.as_str(), "next_check", condition);
        let read = |row: &Item| item::read("due hold", row.clone());
        due_rows(&self.db, index, shard.to_string(), now, limit, read).await
    }

    /// Claims a due hold by postponing its check. `None` if it has ended, or another claim won.
    pub async fn claim(
        &self,
        due: &DueHold,
        now: Timestamp,
    ) -> Result<Option<OpenHold>, StoreError> {
        let stored = stored_hold(&self.db, &due.account_number, &due.call).await?;
        let Some(item) = stored else {
            return Ok(None);
        };
        if state_of(&item)? != HoldState::Open {
            return Ok(None);
        }
        let mut open = open_hold(&item)?;
        open.next_check_at = next_check(open.created_at, open.expires_at, now);
        let key = hold_key(&due.account_number, &due.call);
        let update = update(&self.db.tables.holds, key, "SET next_check_at = :next")
            // Ending a hold removes `next_check_at`.
            .condition_expression("next_check_at = :due")
            .expression_attribute_values(":next", time(open.next_check_at))
            .expression_attribute_values(":due", time(due.due));
        let claimed = self.db.write("claim hold", update).await?;
        Ok(claimed.then_some(open))
    }

    /// Stores `now` as the first time that the default AI had no record of the call, unless one is
    /// stored.
    pub async fn note_no_record(&self, hold: &Hold, now: Timestamp) -> Result<(), StoreError> {
        let key = hold_key(&hold.account_number, &hold.call);
        let update = update(&self.db.tables.holds, key, "SET no_record_since = :now")
            // Ending a hold removes `next_check_at`.
            .condition_expression(
                "attribute_exists(next_check_at) AND attribute_not_exists(no_record_since)",
            )
            .expression_attribute_values(":now", time(now));
        self.db.write("note missing record", update).await.map(drop)
    }
}

pub(crate) async fn stored_hold(
    db: &Database,
    account: &AccountNumber,
    call: &CallId,
) -> Result<Option<Item>, StoreError> {
    let table = &db.tables.holds;
    db.get("read hold", table, hold_key(account, call)).await
}

pub(crate) async fn holds_between(
    db: &Database,
    account: &AccountNumber,
    from: &str,
    to: &str,
) -> Result<Vec<Item>, StoreError> {
    let query = db
        .client
        .query()
        .table_name(&db.tables.holds)
        .key_condition_expression("account_number = :account AND #hold BETWEEN :from AND :to")
        .filter_expression("attribute_exists(#state)")
        .expression_attribute_names("#hold", "hold")
        .expression_attribute_names("#state", "state")
        .expression_attribute_values(":account", text(account.as_str()))
        .expression_attribute_values(":from", text(from))
        .expression_attribute_values(":to", text(to))
        .consistent_read(true);
    db.query("list holds", query).await
}

pub(crate) fn hold_key(account: &AccountNumber, call: &CallId) -> Item {
    key([("account_number", account.as_str()), ("hold", call.as_str())])
}

pub(crate) const fn state_name(state: HoldState) -> &'static str {
    match state {
        HoldState::Open => "open",
        HoldState::Settled(_) => "settled",
        HoldState::Released => "released",
    }
}

pub(crate) fn state_of(item: &Item) -> Result<HoldState, StoreError> {
    let item = Attributes::of(HOLD, item);
    match item.text("state")? {
        "open" => Ok(HoldState::Open),
        "settled" => Ok(HoldState::Settled(item.credits("charged")?)),
        "released" => Ok(HoldState::Released),
        _ => Err(item.corrupt()),
    }
}

/// The amount that a call holds, given the item stored under its id.
pub(crate) fn held_by(item: &Item) -> Result<Option<Credits>, StoreError> {
    Ok(held(state_of(item)?, Attributes::of(HOLD, item).credits("amount")?))
}

pub(crate) fn new_hold_item(hold: &Hold, at: Timestamp) -> Item {
    let shard = shard_of(hold.call.as_str()).to_string();
    let Tariff { prices, rate } = hold.tariff;
    let mut item = item::with(
        hold_key(&hold.account_number, &hold.call),
        [
            ("state", text("open")),
            // Leads to the balance; removed when the hold ends.
            ("account_id", text(hold.account.as_str())),
            ("amount", micros(hold.amount)),
            ("model", text(&hold.model)),
            ("input_price", text(prices.input.to_string())),
            ("output_price", text(prices.output.to_string())),
            ("credits_per_usd", number(rate.get())),
            ("created_at", time(at)),
            ("expires_at", time(at + LIFE)),
            ("check_shard", text(shard)),
            ("next_check_at", time(at + FIRST_CHECK)),
        ],
    );
    if let Some(minimum) = hold.low_below {
        item.insert("low_below".to_owned(), micros(minimum));
    }
    if let Some(hash) = &hold.idempotency {
        item.insert("idempotency".to_owned(), text(hash));
    }
    item
}

pub(crate) fn open_hold(item: &Item) -> Result<OpenHold, StoreError> {
    let item = Attributes::of(HOLD, item);
    let price = |name: &str| {
        let price = item.text(name)?.parse::<Usd>();
        price.map_err(|_| item.corrupt())
    };
    let rate = CreditsPerUsd::new(item.get("credits_per_usd")?);
    let low_below = item.optional("low_below")?;
    Ok(OpenHold {
        hold: Hold {
            account: item.get("account_id")?,
            account_number: item.get("account_number")?,
            call: item.get("hold")?,
            amount: item.credits("amount")?,
            model: item.get("model")?,
            tariff: Tariff {
                prices: TokenPrices {
                    input: price("input_price")?,
                    output: price("output_price")?,
                },
                rate: rate.ok_or_else(|| item.corrupt())?,
            },
            idempotency: item.optional("idempotency")?,
            low_below: low_below.map(Credits::from_micros),
        },
        created_at: item.get("created_at")?,
        next_check_at: item.get("next_check_at")?,
        expires_at: item.get("expires_at")?,
        generation_id: item.optional("generation_id")?,
        no_record_since: item.optional("no_record_since")?,
    })
}
