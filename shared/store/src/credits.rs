//! Credits in motion: hold, settle, release, post.
//!
//! A hold is resolved exactly once: every end is one transaction on the condition that the hold is
//! still open. The steps on the balance are those of [`account::Balance`], as conditional writes.

use account::{Account, AccountId, AccountNumber, Balance, CallId, Credits, EntryId};
use aws_sdk_dynamodb::types::builders::UpdateBuilder;
use aws_sdk_dynamodb::types::{
    AttributeValue, CancellationReason, Delete, Put,
    ReturnValuesOnConditionCheckFailure as OnFailure, TransactWriteItem, Update,
};
use jiff::{SignedDuration, Timestamp};

use crate::accounts::account_key;
use crate::error::{condition_failed, met_transaction};
use crate::item::{self, Item, key, micros, number, text, time};
use crate::ledger::{day_key, entry_item, entry_name};
use crate::transaction::{self, invalid};
use crate::{EntryKind, LedgerEntry, Store, StoreError};

/// An unresolved hold is released after this time, and an idempotency key forgotten.
const HOLD_LIFE: SignedDuration = SignedDuration::from_hours(24);
/// Longer than a function can live: until then the call's own process resolves its hold.
const FIRST_CHECK: SignedDuration = SignedDuration::from_mins(20);
/// How long a resolved hold is kept, for questions.
const RESOLVED_KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);

/// A hold to be taken.
#[derive(Debug, Clone)]
pub struct NewHold<'a> {
    pub call: &'a CallId,
    pub amount: Credits,
    pub at: Timestamp,
    /// The model that is called, for the ledger.
    pub model: &'a str,
    /// SHA-256 of the caller's `Idempotency-Key`, in hex.
    pub idempotency: Option<&'a str>,
    /// `MAX_CONCURRENT_HOLDS`.
    pub max_holds: u32,
}

/// An open hold, in the hands of the call that took it.
#[derive(Debug, Clone)]
pub struct Hold {
    pub account: AccountId,
    pub account_number: AccountNumber,
    pub call: CallId,
    pub amount: Credits,
    pub model: String,
    pub idempotency: Option<String>,
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
}

/// How a hold ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// Ended now, or by an earlier try of this same end whose answer was lost.
    Done(Credits),
    /// Something else ended it first; nothing was moved.
    Already,
}

/// What became of a hold whose outcome was unknown.
enum Fence {
    HoldIsThere,
    HoldCannotCome,
}

/// Credits that move without a call.
#[derive(Debug, Clone)]
pub struct Posting<'a> {
    /// Deterministic: the same cause never posts twice.
    pub id: &'a EntryId,
    pub kind: EntryKind,
    /// Negative takes credits; never more than are available.
    pub amount: Credits,
    pub at: Timestamp,
    pub note: &'a str,
    /// Who caused it: a person's or a system's name.
    pub actor: &'a str,
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
            idempotency: new.idempotency.map(str::to_owned),
        };
        let take = self
            .account_update(&account.id)
            .update_expression(
                "SET available = available - :amount, held = held + :amount, \
                 open_holds = open_holds + :one",
            )
            .condition_expression(
                "available >= :amount AND open_holds < :max AND profile.always_use_key = :off",
            )
            .return_values_on_condition_check_failure(OnFailure::AllOld)
            .expression_attribute_values(":amount", micros(new.amount))
            .expression_attribute_values(":one", number(1))
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
            // Our own earlier try, whose answer was lost.
            Ok(Err(cancelled))
                if cancelled
                    .condition_failed(HOLD_ITEM)
                    .and_then(CancellationReason::item)
                    .is_some_and(is_open) =>
            {
                Ok(Ok(hold))
            }
            Ok(Err(cancelled)) if cancelled.condition_failed(IDEMPOTENCY_ITEM).is_some() => {
                Ok(Err(HoldRefused::Duplicate))
            }
            Ok(Err(cancelled)) => match cancelled.condition_failed(ACCOUNT_ITEM) {
                None => Err(StoreError::corrupt("hold")),
                Some(reason) => {
                    let item = reason
                        .item()
                        .ok_or_else(|| StoreError::corrupt("balance"))?;
                    let balance = item::get_balance(item)?;
                    Ok(Err(if item::always_use_key(item) {
                        HoldRefused::AlwaysUseKey
                    } else if balance.open_holds() >= new.max_holds {
                        HoldRefused::TooMany
                    } else {
                        HoldRefused::Insufficient(balance)
                    }))
                }
            },
            // The outcome is unknown. Either the hold is there, or it never will be.
            Err(error @ StoreError::Unavailable { .. }) => match self.fence(&hold, new.at).await {
                Ok(Fence::HoldIsThere) => Ok(Ok(hold)),
                Ok(Fence::HoldCannotCome) | Err(_) => Err(error),
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
        let read = self
            .client
            .get_item()
            .table_name(&self.tables.holds)
            .set_key(Some(idempotency_key(&account.number, hash)))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| StoreError::unavailable("read idempotency key", error))?;
        match read.item {
            Some(item) => Ok(item::get_time(&item, "expires_at", "idempotency key")? > now),
            None => Ok(false),
        }
    }

    /// Puts a released hold of nothing in the place of one whose outcome is unknown. A transaction
    /// that is still on its way then fails on its own condition.
    async fn fence(&self, hold: &Hold, at: Timestamp) -> Result<Fence, StoreError> {
        let kept_until = at.as_second() + RESOLVED_KEPT.as_secs();
        let put = self
            .client
            .put_item()
            .table_name(&self.tables.holds)
            .set_item(Some(hold_key(hold)))
            .item("state", text("released"))
            .item("amount", micros(Credits::ZERO))
            .item("charged", micros(Credits::ZERO))
            .item("resolved_at", time(at))
            .item("expires_at_epoch", number(kept_until))
            .condition_expression("attribute_not_exists(account_number)")
            .send()
            .await;
        match put {
            Ok(_) => Ok(Fence::HoldCannotCome),
            // The hold, or this very fence by a first try whose answer was lost.
            Err(error) if condition_failed(&error) => {
                let stored = self.stored_hold(hold).await?;
                Ok(if stored.as_ref().is_some_and(is_open) {
                    Fence::HoldIsThere
                } else {
                    Fence::HoldCannotCome
                })
            }
            Err(error) => Err(StoreError::unavailable("fence hold", error)),
        }
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
    /// day in one transaction.
    ///
    /// # Errors
    /// [`StoreError`] if the outcome is not known; the hold is then left to the sweeper.
    pub async fn settle(
        &self,
        hold: &Hold,
        cost: Credits,
        at: Timestamp,
    ) -> Result<Resolution, StoreError> {
        let charged = cost.min(hold.amount);
        let amount = Credits::from_micros(-charged.micros());
        let entry = LedgerEntry {
            id: EntryId::from(&hold.call),
            at,
            kind: EntryKind::Call,
            amount,
            call_id: Some(hold.call.clone()),
            note: hold.model.clone(),
            actor: "ai-proxy".to_owned(),
        };
        let ends = self
            .account_update(&hold.account)
            .update_expression(
                "SET balance = balance - :charged, held = held - :held, \
                 available = available + :rest, open_holds = open_holds - :one, \
                 entries = entries + :one",
            )
            .expression_attribute_values(":charged", micros(charged))
            .expression_attribute_values(":held", micros(hold.amount))
            .expression_attribute_values(":rest", number(hold.amount.micros() - charged.micros()))
            .expression_attribute_values(":one", number(1));
        let day = Update::builder()
            .table_name(&self.tables.ledger)
            .set_key(Some(day_key(&hold.account_number, at)))
            .update_expression("ADD spent :charged, calls :one")
            .expression_attribute_values(":charged", micros(charged))
            .expression_attribute_values(":one", number(1));
        let items = vec![
            transaction::update(self.end_of_hold(hold, "settled", charged, at))?,
            transaction::update(ends)?,
            self.new_entry(&hold.account_number, &entry)?,
            transaction::update(day)?,
        ];
        self.resolve(hold, "settle hold", items, "settled", charged)
            .await
    }

    /// Ends the hold without taking anything, and frees its idempotency key.
    ///
    /// # Errors
    /// [`StoreError`] if the outcome is not known; the hold is then left to the sweeper.
    pub async fn release(&self, hold: &Hold, at: Timestamp) -> Result<Resolution, StoreError> {
        let gives_back = self
            .account_update(&hold.account)
            .update_expression(
                "SET held = held - :held, available = available + :held, \
                 open_holds = open_holds - :one",
            )
            .expression_attribute_values(":held", micros(hold.amount))
            .expression_attribute_values(":one", number(1));
        let mut items = vec![
            transaction::update(self.end_of_hold(hold, "released", Credits::ZERO, at))?,
            transaction::update(gives_back)?,
        ];
        let without_key = items.clone();
        if let Some(hash) = &hold.idempotency {
            // A key that expired may belong to a later call by now.
            let delete = Delete::builder()
                .table_name(&self.tables.holds)
                .set_key(Some(idempotency_key(&hold.account_number, hash)))
                .condition_expression("call_id = :call OR attribute_not_exists(account_number)")
                .expression_attribute_values(":call", text(hold.call.as_str()));
            let delete = delete.build().map_err(invalid)?;
            items.push(TransactWriteItem::builder().delete(delete).build());
        }
        let with_key = self
            .resolve(hold, "release hold", items, "released", Credits::ZERO)
            .await?;
        if with_key == Resolution::Already && hold.idempotency.is_some() {
            self.resolve(hold, "release hold", without_key, "released", Credits::ZERO)
                .await
        } else {
            Ok(with_key)
        }
    }

    /// Moves credits without a call. `Ok(false)` if fewer are available than it would take.
    /// An id that was posted before is not posted again.
    ///
    /// # Errors
    /// [`StoreError`] if the outcome is not known; posting again with the same id is safe.
    pub async fn post(&self, account: &Account, posting: &Posting<'_>) -> Result<bool, StoreError> {
        const GUARD_ITEM: usize = 0;
        let entry = LedgerEntry {
            id: posting.id.clone(),
            at: posting.at,
            kind: posting.kind,
            amount: posting.amount,
            call_id: None,
            note: posting.note.to_owned(),
            actor: posting.actor.to_owned(),
        };
        let guard_name = format!("id#{}", posting.id);
        let guard = Put::builder()
            .table_name(&self.tables.ledger)
            .set_item(Some(key([
                ("account_number", account.number.as_str()),
                ("entry", &guard_name),
            ])))
            .condition_expression("attribute_not_exists(entry)");
        let least = Credits::from_micros(posting.amount.micros().min(0).saturating_neg());
        let moves = self
            .account_update(&account.id)
            .update_expression(
                "SET balance = balance + :amount, available = available + :amount, \
                 entries = entries + :one",
            )
            .condition_expression("available >= :least")
            .expression_attribute_values(":amount", micros(posting.amount))
            .expression_attribute_values(":least", micros(least))
            .expression_attribute_values(":one", number(1));
        let items = vec![
            transaction::put(guard)?,
            transaction::update(moves)?,
            self.new_entry(&account.number, &entry)?,
        ];
        let outcome = self.transact("post credits", items).await?;
        Ok(match outcome {
            Ok(()) => true,
            Err(cancelled) => cancelled.condition_failed(GUARD_ITEM).is_some(),
        })
    }

    fn account_update(&self, id: &AccountId) -> UpdateBuilder {
        Update::builder()
            .table_name(&self.tables.accounts)
            .set_key(Some(account_key(id)))
    }

    /// The hold's own end, on the condition that it is still open.
    fn end_of_hold(
        &self,
        hold: &Hold,
        state: &str,
        charged: Credits,
        at: Timestamp,
    ) -> UpdateBuilder {
        let kept_until = at.as_second() + RESOLVED_KEPT.as_secs();
        Update::builder()
            .table_name(&self.tables.holds)
            .set_key(Some(hold_key(hold)))
            .update_expression(
                "SET #state = :state, charged = :charged, resolved_at = :at, \
                 expires_at_epoch = :kept REMOVE check_shard, next_check_at, account_id",
            )
            .condition_expression("#state = :open")
            .return_values_on_condition_check_failure(OnFailure::AllOld)
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":state", text(state))
            .expression_attribute_values(":open", text("open"))
            .expression_attribute_values(":charged", micros(charged))
            .expression_attribute_values(":at", time(at))
            .expression_attribute_values(":kept", number(kept_until))
    }

    fn new_entry(
        &self,
        account: &AccountNumber,
        entry: &LedgerEntry,
    ) -> Result<TransactWriteItem, StoreError> {
        let put = Put::builder()
            .table_name(&self.tables.ledger)
            .set_item(Some(entry_item(account, entry, &entry_name(entry))))
            .condition_expression("attribute_not_exists(entry)");
        transaction::put(put)
    }

    /// Carries out an end of `hold`, whose own item is the first of `items`.
    async fn resolve(
        &self,
        hold: &Hold,
        operation: &'static str,
        items: Vec<TransactWriteItem>,
        state: &str,
        charged: Credits,
    ) -> Result<Resolution, StoreError> {
        const HOLD_ITEM: usize = 0;
        let ended_like_this = |item: Option<&Item>| {
            item.is_some_and(|item| {
                item.get("state") == Some(&text(state))
                    && item.get("charged") == Some(&micros(charged))
            })
        };
        let (stored, otherwise) = match self.transact(operation, items).await {
            Ok(Ok(())) => return Ok(Resolution::Done(charged)),
            Ok(Err(cancelled)) => {
                let reason = cancelled.condition_failed(HOLD_ITEM);
                let item = reason.and_then(|reason| reason.item().cloned());
                (item, Ok(Resolution::Already))
            }
            // The outcome is unknown: the hold itself tells.
            Err(error @ StoreError::Unavailable { .. }) => {
                (self.stored_hold(hold).await.ok().flatten(), Err(error))
            }
            Err(error) => (None, Err(error)),
        };
        if ended_like_this(stored.as_ref()) {
            Ok(Resolution::Done(charged))
        } else {
            otherwise
        }
    }

    async fn stored_hold(&self, hold: &Hold) -> Result<Option<Item>, StoreError> {
        self.client
            .get_item()
            .table_name(&self.tables.holds)
            .set_key(Some(hold_key(hold)))
            .consistent_read(true)
            .send()
            .await
            .map(|output| output.item)
            .map_err(|error| StoreError::unavailable("read hold", error))
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
                .set_key(Some(hold_key(hold)))
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
        let expires = at + HOLD_LIFE;
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

/// Is the stored hold open?
fn is_open(item: &Item) -> bool {
    item.get("state") == Some(&text("open"))
}

fn hold_key(hold: &Hold) -> Item {
    key([
        ("account_number", hold.account_number.as_str()),
        ("hold", hold.call.as_str()),
    ])
}

fn idempotency_key(account: &AccountNumber, hash: &str) -> Item {
    let name = format!("idem#{hash}");
    key([("account_number", account.as_str()), ("hold", &name)])
}

fn hold_item(hold: &Hold, at: Timestamp) -> Item {
    let mut item = hold_key(hold);
    let shard = item::shard_of(hold.call.as_str()).to_string();
    let attributes = [
        ("state", text("open")),
        // Needed to find the balance; removed at the hold's end.
        ("account_id", text(hold.account.as_str())),
        ("amount", micros(hold.amount)),
        ("model", text(&hold.model)),
        ("created_at", time(at)),
        ("expires_at", time(at + HOLD_LIFE)),
        ("check_shard", text(shard)),
        ("next_check_at", time(at + FIRST_CHECK)),
    ];
    for (name, value) in attributes {
        item.insert(name.to_owned(), value);
    }
    if let Some(hash) = &hold.idempotency {
        item.insert("idempotency".to_owned(), text(hash));
    }
    item
}
