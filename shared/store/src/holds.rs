//! Credits in motion: hold, settle, release.
//!
//! A hold is resolved exactly once: every end is one transaction on the condition that the hold is
//! still open. What a step moves is [`account::Movement`]'s word; the conditions are here.

use account::hold::{End, FIRST_CHECK, HoldState, LIFE, Resolution, held};
use account::price::{Tariff, TokenPrices};
use account::{
    Account, AccountId, AccountNumber, Balance, CallId, Credits, CreditsPerUsd, EntryId, Movement,
    Plan, Usd,
};
use aws_sdk_dynamodb::types::builders::UpdateBuilder;
use aws_sdk_dynamodb::types::{
    AttributeValue, CancellationReason, Delete, Put,
    ReturnValuesOnConditionCheckFailure as OnFailure, TransactWriteItem, Update,
};
use jiff::{SignedDuration, Timestamp};

use crate::error::{condition_failed, met_transaction};
use crate::events::Crossing;
use crate::item::{
    self, Item, get_credits, get_number, get_text, get_time, key, micros, number, text, time,
};
use crate::ledger::day_key;
use crate::transaction;
use crate::{EntryKind, HistoryEntry, LedgerEntry, Store, StoreError};

const HOLD: &str = "hold";

/// How long a resolved hold is kept: as the proof that its call ended once, and for questions.
pub(crate) const RESOLVED_KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);

/// A hold to be taken.
#[derive(Debug, Clone)]
pub struct NewHold<'a> {
    pub call: &'a CallId,
    pub amount: Credits,
    pub at: Timestamp,
    /// The model that is called, for the ledger.
    pub model: &'a str,
    /// The terms that the call is charged on, whoever settles it.
    pub tariff: Tariff,
    /// SHA-256 of the caller's `Idempotency-Key`, in hex.
    pub idempotency: Option<&'a str>,
    /// `MAX_CONCURRENT_HOLDS`.
    pub max_holds: u32,
}

/// An open hold, in the hands of whoever is to end it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    pub account: AccountId,
    pub account_number: AccountNumber,
    pub call: CallId,
    pub amount: Credits,
    pub model: String,
    pub tariff: Tariff,
    pub idempotency: Option<String>,
    /// Others hear of it if what the call costs takes the balance below this.
    pub low_below: Option<Credits>,
}

/// Why no hold was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldRefused {
    /// The balance as it is now does not cover it.
    Insufficient(Balance),
    /// `MAX_CONCURRENT_HOLDS` are open.
    TooMany,
    /// The idempotency key belongs to a call that is under way or was paid.
    Duplicate,
    /// "Always use this key" was switched on meanwhile: no credit may move.
    AlwaysUseKey,
    /// The account was deleted meanwhile.
    NoAccount,
}

impl Store {
    /// Takes a hold: balance, hold and idempotency key in one transaction, on the condition that
    /// "Always use this key" is off at that moment.
    ///
    /// # Errors
    /// [`StoreError::Contended`] if it lost against other calls of the account again and again.
    pub async fn hold(
        &self,
        account: &Account,
        new: &NewHold<'_>,
    ) -> Result<Result<Hold, HoldRefused>, StoreError> {
        const ACCOUNT_ITEM: usize = 0;
        const HOLD_ITEM: usize = 1;
        const IDEMPOTENCY_ITEM: usize = 2;
        let hold = Hold {
            account: account.id.clone(),
            account_number: account.number.clone(),
            call: new.call.clone(),
            amount: new.amount,
            model: new.model.to_owned(),
            tariff: new.tariff,
            idempotency: new.idempotency.map(str::to_owned),
            low_below: self
                .low_below
                .filter(|_| account.profile.plan() == Plan::Standard),
        };
        let take = self
            .moves(&account.id, Movement::hold(new.amount), 0)?
            .condition_expression(
                "account_number = :number AND available >= :amount AND open_holds < :max \
                 AND always_use_key = :off",
            )
            .return_values_on_condition_check_failure(OnFailure::AllOld)
            .expression_attribute_values(":number", text(account.number.as_str()))
            .expression_attribute_values(":amount", micros(new.amount))
            .expression_attribute_values(":max", number(new.max_holds))
            .expression_attribute_values(":off", AttributeValue::Bool(false));
        let put = Put::builder()
            .table_name(&self.tables.holds)
            .set_item(Some(hold_item(&hold, new.at)))
            .condition_expression("attribute_not_exists(account_number)")
            .return_values_on_condition_check_failure(OnFailure::AllOld);
        let mut items = vec![transaction::update(take)?, transaction::put(put)?];
        if let Some(hash) = &hold.idempotency {
            items.push(self.idempotency_item(&hold, hash, new.at)?);
        }
        match self.transact("take hold", items).await {
            Ok(Ok(())) => Ok(Ok(hold)),
            Ok(Err(cancelled)) => {
                let in_the_way = cancelled.condition_failed(HOLD_ITEM);
                let in_the_way = in_the_way.and_then(CancellationReason::item);
                // Our own earlier try, whose answer was lost.
                if let Some(amount) = in_the_way.map(held_by).transpose()?.flatten() {
                    return Ok(Ok(Hold { amount, ..hold }));
                }
                if cancelled.condition_failed(IDEMPOTENCY_ITEM).is_some() {
                    return Ok(Err(HoldRefused::Duplicate));
                }
                match cancelled.condition_failed(ACCOUNT_ITEM) {
                    None => Err(StoreError::corrupt("hold")),
                    Some(reason) => refusal(account, reason.item(), new.max_holds).map(Err),
                }
            }
            // The outcome is unknown. Either the hold is there, or it never will be.
            Err(error @ StoreError::Unavailable { .. }) => match self.fence(&hold, new.at).await {
                Ok(Some(amount)) => Ok(Ok(Hold { amount, ..hold })),
                Ok(None) | Err(_) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Is a call with this idempotency key under way, or was it paid?
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn idempotency_key_in_use(
        &self,
        account: &Account,
        hash: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let key = idempotency_key(&account.number, hash);
        let item = self.read("read idempotency key", &self.tables.holds, key);
        match item.await? {
            Some(item) => Ok(item::get_time(&item, "expires_at", "idempotency key")? > now),
            None => Ok(false),
        }
    }

    /// Puts a released hold of nothing in the place of one whose outcome is unknown. A transaction
    /// that is still on its way then fails on its own condition. `Some`: the hold is there, and of
    /// this amount; `None`: it never will be.
    async fn fence(&self, hold: &Hold, at: Timestamp) -> Result<Option<Credits>, StoreError> {
        let kept_until = at.as_second() + RESOLVED_KEPT.as_secs();
        for tried in 0..transaction::TRIES {
            let put = self
                .client
                .put_item()
                .table_name(&self.tables.holds)
                .set_item(Some(hold_key(&hold.account_number, &hold.call)))
                .item("state", text("released"))
                .item("amount", micros(Credits::ZERO))
                .item("charged", micros(Credits::ZERO))
                .item("resolved_at", time(at))
                .item("resolved_by", text("fence"))
                .item("expires_at_epoch", number(kept_until))
                .condition_expression("attribute_not_exists(account_number)")
                .send()
                .await;
            match put {
                Ok(_) => return Ok(None),
                // The hold, or this very fence by a first try whose answer was lost.
                Err(error) if condition_failed(&error) => {
                    let stored = self.stored_hold(&hold.account_number, &hold.call).await?;
                    return Ok(stored.as_ref().map(held_by).transpose()?.flatten());
                }
                // The hold itself, still on its way.
                Err(error) if met_transaction(&error) => transaction::pause(tried).await,
                Err(error) => return Err(StoreError::unavailable("fence hold", error)),
            }
        }
        Err(StoreError::Contended {
            operation: "fence hold",
        })
    }

    /// Stores the provider's id of the call, by which its cost can be looked up later.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn record_generation(&self, hold: &Hold, generation: &str) -> Result<(), StoreError> {
        self.update_open_hold(
            hold,
            "SET generation_id = :value",
            text(generation),
            "record generation",
        )
        .await
    }

    /// Has the sweeper look the call up from `at` on.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn check_hold_at(&self, hold: &Hold, at: Timestamp) -> Result<(), StoreError> {
        self.update_open_hold(
            hold,
            "SET next_check_at = :value",
            time(at),
            "plan hold check",
        )
        .await
    }

    /// Ends the hold, taking `cost` of it, never more than was held: balance, hold, ledger entry and
    /// day in one transaction. Where `why` is given, the account's history tells of it.
    ///
    /// # Errors
    /// [`StoreError`] if the outcome is not known; the hold is then left to the sweeper.
    pub async fn settle(
        &self,
        hold: &Hold,
        cost: Credits,
        at: Timestamp,
        actor: &str,
        why: Option<&HistoryEntry>,
    ) -> Result<Resolution, StoreError> {
        let end = End::Settle(cost).of(hold.amount);
        let charged = end.charged();
        let movement = Movement::end_hold(hold.amount, charged).map_err(StoreError::invalid)?;
        let entry = LedgerEntry {
            id: EntryId::from(&hold.call),
            at,
            kind: EntryKind::Call,
            amount: movement.balance,
            call_id: Some(hold.call.clone()),
            note: hold.model.clone(),
            actor: actor.to_owned(),
        };
        let day = Update::builder()
            .table_name(&self.tables.ledger)
            .set_key(Some(day_key(&hold.account_number, at)))
            .update_expression("ADD spent :charged, calls :one")
            .expression_attribute_values(":charged", micros(charged))
            .expression_attribute_values(":one", number(1));
        let moves = self.moves(&hold.account, movement, 1)?;
        let mut items = vec![
            transaction::update(self.end_of_hold(hold, end, at, actor))?,
            self.new_entry(&hold.account_number, &entry)?,
            transaction::update(day)?,
        ];
        if let Some(why) = why {
            items.push(self.new_history(&hold.account_number, why)?);
        }
        if let Some(crossing) = Crossing::by(charged, hold.low_below) {
            // Few calls cross. A third try, because somebody else may just have crossed instead.
            for crosses in [false, true, false] {
                let moves = crossing.condition(moves.clone(), crosses);
                let mut items = items.clone();
                items.push(transaction::update(moves)?);
                if crosses {
                    let event = crossing.event(hold.call.as_str(), at);
                    items.push(self.new_event(&hold.account, &event, 0)?);
                }
                let resolved = self.resolve(hold, "settle hold", items, end).await?;
                if resolved != Resolution::Already(Some(HoldState::Open)) {
                    return Ok(resolved);
                }
            }
        }
        // The account is deleted, or changes too fast: credits come before what is told of them.
        items.push(transaction::update(moves)?);
        self.resolve(hold, "settle hold", items, end).await
    }

    /// Ends the hold without taking anything, and frees its idempotency key. Where `why` is given, the
    /// account's history tells of it.
    ///
    /// # Errors
    /// [`StoreError`] if the outcome is not known; the hold is then left to the sweeper.
    pub async fn release(
        &self,
        hold: &Hold,
        at: Timestamp,
        actor: &str,
        why: Option<&HistoryEntry>,
    ) -> Result<Resolution, StoreError> {
        let end = End::Release.of(hold.amount);
        let movement =
            Movement::end_hold(hold.amount, Credits::ZERO).map_err(StoreError::invalid)?;
        let mut items = vec![
            transaction::update(self.end_of_hold(hold, end, at, actor))?,
            transaction::update(self.moves(&hold.account, movement, 0)?)?,
        ];
        if let Some(why) = why {
            items.push(self.new_history(&hold.account_number, why)?);
        }
        let without_key = items.clone();
        if let Some(hash) = &hold.idempotency {
            // A key that expired is gone, or belongs to a later call by now.
            let delete = Delete::builder()
                .table_name(&self.tables.holds)
                .set_key(Some(idempotency_key(&hold.account_number, hash)))
                .condition_expression("call_id = :call")
                .expression_attribute_values(":call", text(hold.call.as_str()));
            let delete = delete.build().map_err(StoreError::invalid)?;
            items.push(TransactWriteItem::builder().delete(delete).build());
        }
        let with_key = self.resolve(hold, "release hold", items, end).await?;
        let only_the_key_failed =
            hold.idempotency.is_some() && with_key == Resolution::Already(Some(HoldState::Open));
        if only_the_key_failed {
            self.resolve(hold, "release hold", without_key, end).await
        } else {
            Ok(with_key)
        }
    }

    /// The hold's own end, on the condition that it is still open.
    fn end_of_hold(
        &self,
        hold: &Hold,
        end: HoldState,
        at: Timestamp,
        actor: &str,
    ) -> UpdateBuilder {
        let kept_until = at.as_second() + RESOLVED_KEPT.as_secs();
        Update::builder()
            .table_name(&self.tables.holds)
            .set_key(Some(hold_key(&hold.account_number, &hold.call)))
            .update_expression(
                "SET #state = :state, charged = :charged, resolved_at = :at, \
                 resolved_by = :actor, expires_at_epoch = :kept REMOVE check_shard, next_check_at, account_id",
            )
            .condition_expression("#state = :open")
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":state", text(state_name(end)))
            .expression_attribute_values(":open", text("open"))
            .expression_attribute_values(":charged", micros(end.charged()))
            .expression_attribute_values(":at", time(at))
            .expression_attribute_values(":actor", text(actor))
            .expression_attribute_values(":kept", number(kept_until))
    }

    /// Carries out an end of `hold`, whose own item is the first of `items`.
    async fn resolve(
        &self,
        hold: &Hold,
        operation: &'static str,
        items: Vec<TransactWriteItem>,
        end: HoldState,
    ) -> Result<Resolution, StoreError> {
        match self.transact(operation, items).await {
            Ok(Ok(())) => Ok(Resolution::Done(end)),
            // It had ended, or another condition failed.
            Ok(Err(_)) => {
                let stored = self.stored_state(hold).await?;
                Ok(Resolution::of_refused(end, stored))
            }
            Err(error @ StoreError::Unavailable { .. }) => {
                let stored = self.stored_state(hold).await.ok().flatten();
                Resolution::of_unanswered(end, stored).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    async fn stored_state(&self, hold: &Hold) -> Result<Option<HoldState>, StoreError> {
        let stored = self.stored_hold(&hold.account_number, &hold.call).await?;
        stored.as_ref().map(state_of).transpose()
    }

    pub(crate) async fn stored_hold(
        &self,
        account: &AccountNumber,
        call: &CallId,
    ) -> Result<Option<Item>, StoreError> {
        self.read("read hold", &self.tables.holds, hold_key(account, call))
            .await
    }

    async fn update_open_hold(
        &self,
        hold: &Hold,
        expression: &str,
        value: AttributeValue,
        operation: &'static str,
    ) -> Result<(), StoreError> {
        for tried in 0..transaction::TRIES {
            let sent = self
                .client
                .update_item()
                .table_name(&self.tables.holds)
                .set_key(Some(hold_key(&hold.account_number, &hold.call)))
                .update_expression(expression)
                .condition_expression("#state = :open")
                .expression_attribute_names("#state", "state")
                .expression_attribute_values(":open", text("open"))
                .expression_attribute_values(":value", value.clone())
                .send()
                .await;
            match sent {
                Ok(_) => return Ok(()),
                // Resolved meanwhile: nothing is left to note.
                Err(error) if condition_failed(&error) => return Ok(()),
                Err(error) if met_transaction(&error) => transaction::pause(tried).await,
                Err(error) => return Err(StoreError::unavailable(operation, error)),
            }
        }
        Err(StoreError::Contended { operation })
    }

    fn idempotency_item(
        &self,
        hold: &Hold,
        hash: &str,
        at: Timestamp,
    ) -> Result<TransactWriteItem, StoreError> {
        let expires = at + LIFE;
        let mut item = idempotency_key(&hold.account_number, hash);
        item.insert("call_id".to_owned(), text(hold.call.as_str()));
        item.insert("expires_at".to_owned(), time(expires));
        item.insert("expires_at_epoch".to_owned(), number(expires.as_second()));
        let put = Put::builder()
            .table_name(&self.tables.holds)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(account_number) OR expires_at <= :now")
            .expression_attribute_values(":now", time(at));
        transaction::put(put)
    }
}

/// What the call holds by the item that is stored under its own id.
fn held_by(item: &Item) -> Result<Option<Credits>, StoreError> {
    Ok(held(state_of(item)?, get_credits(item, "amount", HOLD)?))
}

const fn state_name(state: HoldState) -> &'static str {
    match state {
        HoldState::Open => "open",
        HoldState::Settled(_) => "settled",
        HoldState::Released => "released",
    }
}

pub(crate) fn state_of(item: &Item) -> Result<HoldState, StoreError> {
    match get_text(item, "state", HOLD)?.as_str() {
        "open" => Ok(HoldState::Open),
        "settled" => Ok(HoldState::Settled(get_credits(item, "charged", HOLD)?)),
        "released" => Ok(HoldState::Released),
        _ => Err(StoreError::corrupt(HOLD)),
    }
}

/// Why an account in this state cannot take another hold.
fn refusal(
    account: &Account,
    item: Option<&Item>,
    max_holds: u32,
) -> Result<HoldRefused, StoreError> {
    // Another one may have been made under the same id.
    let number = text(account.number.as_str());
    let is_the_account =
        |item: &&Item| item.contains_key("profile") && item.get("account_number") == Some(&number);
    let Some(item) = item.filter(is_the_account) else {
        return Ok(HoldRefused::NoAccount);
    };
    let balance = item::get_balance(item)?;
    Ok(if item::always_use_key(item) {
        HoldRefused::AlwaysUseKey
    } else if balance.open_holds() >= max_holds {
        HoldRefused::TooMany
    } else {
        HoldRefused::Insufficient(balance)
    })
}

pub(crate) fn hold_key(account: &AccountNumber, call: &CallId) -> Item {
    key([
        ("account_number", account.as_str()),
        ("hold", call.as_str()),
    ])
}

fn idempotency_key(account: &AccountNumber, hash: &str) -> Item {
    let name = format!("idem#{hash}");
    key([("account_number", account.as_str()), ("hold", &name)])
}

fn hold_item(hold: &Hold, at: Timestamp) -> Item {
    let mut item = hold_key(&hold.account_number, &hold.call);
    let shard = item::shard_of(hold.call.as_str()).to_string();
    let Tariff { prices, rate } = hold.tariff;
    let attributes = [
        ("state", text("open")),
        // Needed to find the balance; removed at the hold's end.
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
    ];
    for (name, value) in attributes {
        item.insert(name.to_owned(), value);
    }
    if let Some(minimum) = hold.low_below {
        item.insert("low_below".to_owned(), micros(minimum));
    }
    if let Some(hash) = &hold.idempotency {
        item.insert("idempotency".to_owned(), text(hash));
    }
    item
}

/// A stored hold that is still open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenHold {
    pub hold: Hold,
    pub created_at: Timestamp,
    pub next_check_at: Timestamp,
    pub expires_at: Timestamp,
    /// The provider's id of the call, once it was stored.
    pub generation_id: Option<String>,
}

/// Reads the item of an open hold.
pub(crate) fn open_hold(item: &Item) -> Result<OpenHold, StoreError> {
    let corrupt = || StoreError::corrupt(HOLD);
    let required = |name: &str| get_text(item, name, HOLD);
    let optional = |name: &str| match item.get(name) {
        Some(_) => required(name).map(Some),
        None => Ok(None),
    };
    let price = |name: &str| required(name)?.parse::<Usd>().map_err(|_| corrupt());
    let rate = CreditsPerUsd::new(get_number(item, "credits_per_usd", HOLD)?);
    Ok(OpenHold {
        hold: Hold {
            account: AccountId::new(required("account_id")?).map_err(|_| corrupt())?,
            account_number: AccountNumber::new(required("account_number")?)
                .map_err(|_| corrupt())?,
            call: CallId::new(required("hold")?).map_err(|_| corrupt())?,
            amount: get_credits(item, "amount", HOLD)?,
            model: required("model")?,
            tariff: Tariff {
                prices: TokenPrices {
                    input: price("input_price")?,
                    output: price("output_price")?,
                },
                rate: rate.ok_or_else(corrupt)?,
            },
            idempotency: optional("idempotency")?,
            low_below: match item.get("low_below") {
                Some(_) => Some(get_credits(item, "low_below", HOLD)?),
                None => None,
            },
        },
        created_at: get_time(item, "created_at", HOLD)?,
        next_check_at: get_time(item, "next_check_at", HOLD)?,
        expires_at: get_time(item, "expires_at", HOLD)?,
        generation_id: optional("generation_id")?,
    })
}
