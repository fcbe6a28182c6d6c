//! Credits in motion: hold, settle, release.
//!
//! A hold is resolved exactly once: every end is one transaction on the condition that the hold is
//! still open. [`account::Movement`] says how each step moves credits; the conditions are here.

use account::hold::{End, HoldState, LIFE, Resolution};
use account::price::Tariff;
use account::{Account, AccountNumber, Balance, CallId, Credits, EntryId, Movement};
use aws_sdk_dynamodb::types::{
    AttributeValue, CancellationReason, ReturnValuesOnConditionCheckFailure as OnFailure,
};
use jiff::{SignedDuration, Timestamp};

use crate::balance::move_credits;
use crate::domain_events::Crossing;
use crate::error::StoreError;
use crate::history::{HistoryEntry, put_history};
use crate::item::{self, Attributes, Item, key, micros, number, text, time};
use crate::ledger::{EntryKind, LedgerEntry, day_key, put_entry};
use crate::open_holds::{
    Hold, Holds, held_by, hold_key, new_hold_item, state_name, state_of, stored_hold,
};
use crate::outbox::put_event;
use crate::write::{Transacted, Write, delete, failed_condition, put, update};

/// Retention of a resolved hold: proof that its call ended once, and an answer to questions.
pub(crate) const RESOLVED_KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);

#[derive(Debug, Clone)]
pub struct NewHold<'a> {
    pub call: &'a CallId,
    pub amount: Credits,
    pub at: Timestamp,
    /// The model that is called, for the ledger.
    pub model: &'a str,
    /// The terms of the call's charge, for its settlement by the sweeper.
    pub tariff: Tariff,
    /// SHA-256 of the caller's `Idempotency-Key`, in hex.
    pub idempotency: Option<&'a str>,
    pub max_holds: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldOutcome {
    Taken(Hold),
    /// The current balance does not cover the hold.
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

impl HoldOutcome {
    pub fn taken(self) -> Option<Hold> {
        match self {
            Self::Taken(hold) => Some(hold),
            _ => None,
        }
    }
}

impl Holds {
    /// Takes a hold: balance, hold and idempotency key in one transaction, on the condition that
    /// "Always use this key" is off at that moment.
    pub async fn take(
        &self,
        account: &Account,
        new: &NewHold<'_>,
    ) -> Result<HoldOutcome, StoreError> {
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
            low_below: self.db.low_below(account.profile.plan()),
        };
        let items = self.take_items(&hold, new)?;
        match self.db.transact("take hold", items).await {
            Ok(Transacted::Done) => Ok(HoldOutcome::Taken(hold)),
            Ok(Transacted::Cancelled(reasons)) => {
                let stored = failed_condition(&reasons, HOLD_ITEM);
                let stored = stored.and_then(CancellationReason::item);
                // An earlier try of ours whose response was lost.
                if let Some(amount) = stored.map(held_by).transpose()?.flatten() {
                    return Ok(HoldOutcome::Taken(Hold { amount, ..hold }));
                }
                if failed_condition(&reasons, IDEMPOTENCY_ITEM).is_some() {
                    return Ok(HoldOutcome::Duplicate);
                }
                match failed_condition(&reasons, ACCOUNT_ITEM) {
                    None => Err(StoreError::corrupt("hold")),
                    Some(reason) => refusal(account, reason.item(), new.max_holds),
                }
            }
            // The outcome is unknown. After the fence, the hold exists or never will.
            Err(error @ StoreError::Unavailable { .. }) => match self.fence(&hold, new.at).await {
                Ok(Some(amount)) => Ok(HoldOutcome::Taken(Hold { amount, ..hold })),
                Ok(None) | Err(_) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    fn take_items(&self, hold: &Hold, new: &NewHold<'_>) -> Result<Vec<Write>, StoreError> {
        let table = &self.db.tables.holds;
        let moves = move_credits(&self.db, &hold.account, Movement::hold(hold.amount), 0)?
            .condition_expression(
                "account_number = :number AND available >= :amount AND open_holds < :max \
                 AND always_use_key = :off",
            )
            .return_values_on_condition_check_failure(OnFailure::AllOld)
            .expression_attribute_values(":number", text(hold.account_number.as_str()))
            .expression_attribute_values(":amount", micros(hold.amount))
            .expression_attribute_values(":max", number(new.max_holds))
            .expression_attribute_values(":off", AttributeValue::Bool(false));
        let put_hold = put(table, new_hold_item(hold, new.at))
            .condition_expression("attribute_not_exists(account_number)")
            .return_values_on_condition_check_failure(OnFailure::AllOld);
        let mut items = vec![moves.into(), put_hold.into()];
        if let Some(hash) = &hold.idempotency {
            let expires = new.at + LIFE;
            let put_key = put(table, idempotency_key(&hold.account_number, hash))
                .item("call_id", text(hold.call.as_str()))
                .item("expires_at", time(expires))
                .item("expires_at_epoch", number(expires.as_second()))
                .condition_expression("attribute_not_exists(account_number) OR expires_at <= :now")
                .expression_attribute_values(":now", time(new.at));
            items.push(put_key.into());
        }
        Ok(items)
    }

    /// Whether this idempotency key belongs to a call that is under way or was paid.
    pub async fn idempotency_key_in_use(
        &self,
        account: &Account,
        hash: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let (table, what) = (&self.db.tables.holds, "idempotency key");
        let key = idempotency_key(&account.number, hash);
        match self.db.get("read idempotency key", table, key).await? {
            Some(item) => Ok(Attributes::of(what, &item).get::<Timestamp>("expires_at")? > now),
            None => Ok(false),
        }
    }

    /// Puts a released hold of zero credits in the place of one whose outcome is unknown, so that a
    /// transaction still on its way fails on its own condition. Returns the amount of the hold if
    /// it is there, and `None` if it never will be.
    async fn fence(&self, hold: &Hold, at: Timestamp) -> Result<Option<Credits>, StoreError> {
        let key = hold_key(&hold.account_number, &hold.call);
        let fence = put(&self.db.tables.holds, key)
            .item("state", text("released"))
            .item("amount", micros(Credits::ZERO))
            .item("charged", micros(Credits::ZERO))
            .item("resolved_at", time(at))
            .item("resolved_by", text("fence"))
            .item("expires_at_epoch", number(kept_until(at)))
            .condition_expression("attribute_not_exists(account_number)");
        if self.db.write("fence hold", fence).await? {
            return Ok(None);
        }
        // The hold, or this very fence by a first try whose response was lost.
        let stored = stored_hold(&self.db, &hold.account_number, &hold.call).await?;
        Ok(stored.as_ref().map(held_by).transpose()?.flatten())
    }

    /// Stores the default AI's id of the call, by which its cost can be looked up later.
    pub async fn record_generation(&self, hold: &Hold, generation: &str) -> Result<(), StoreError> {
        self.update_open(hold, "SET generation_id = :value", text(generation)).await
    }

    /// Lets the sweeper look the call up from `at` on.
    pub async fn check_at(&self, hold: &Hold, at: Timestamp) -> Result<(), StoreError> {
        self.update_open(hold, "SET next_check_at = :value", time(at)).await
    }

    /// Updates a hold unless it is resolved.
    async fn update_open(
        &self,
        hold: &Hold,
        expression: &str,
        value: AttributeValue,
    ) -> Result<(), StoreError> {
        let key = hold_key(&hold.account_number, &hold.call);
        let update = update(&self.db.tables.holds, key, expression)
            .condition_expression("#state = :open")
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":open", text("open"))
            .expression_attribute_values(":value", value);
        self.db.write("update hold", update).await.map(drop)
    }

    /// Ends the hold and charges `cost`, at most the amount held: balance, hold, ledger entry and
    /// day in one transaction, with `why` in the account's history if given. After an unknown
    /// outcome, the sweeper ends the hold.
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
        let day = day_key(&hold.account_number, at);
        let day = update(&self.db.tables.ledger, day, "ADD spent :charged, calls :one")
            .expression_attribute_values(":charged", micros(charged))
            .expression_attribute_values(":one", number(1));
        let moves = move_credits(&self.db, &hold.account, movement, 1)?;
        let mut items = vec![
            self.end_of(hold, end, at, actor),
            put_entry(&self.db, &hold.account_number, &entry),
            day.into(),
        ];
        items.extend(why.map(|why| put_history(&self.db, &hold.account_number, why)));
        if let Some(crossing) = Crossing::by(charged, hold.low_below) {
            // Few calls cross the minimum. The third try follows another call that crossed it.
            for crosses in [false, true, false] {
                let mut items = items.clone();
                items.push(crossing.condition(moves.clone(), crosses).into());
                if crosses {
                    let event = crossing.event(hold.call.as_str(), at);
                    items.push(put_event(&self.db, &hold.account, &event, 0)?);
                }
                let resolved = self.resolve(hold, "settle hold", items, end).await?;
                if resolved != Resolution::Already(Some(HoldState::Open)) {
                    return Ok(resolved);
                }
            }
        }
        // The account is deleted, or changes too fast: credits matter more than their event.
        items.push(moves.into());
        self.resolve(hold, "settle hold", items, end).await
    }

    /// Like [`Holds::settle`] without a charge; frees the idempotency key.
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
        let moves = move_credits(&self.db, &hold.account, movement, 0)?;
        let mut items = vec![self.end_of(hold, end, at, actor), moves.into()];
        items.extend(why.map(|why| put_history(&self.db, &hold.account_number, why)));
        if let Some(hash) = &hold.idempotency {
            let key = idempotency_key(&hold.account_number, hash);
            // A key that expired is gone, or belongs to a later call by now.
            let free_key = delete(&self.db.tables.holds, key)
                .condition_expression("call_id = :call")
                .expression_attribute_values(":call", text(hold.call.as_str()));
            let mut items = items.clone();
            items.push(free_key.into());
            let resolved = self.resolve(hold, "release hold", items, end).await?;
            if resolved != Resolution::Already(Some(HoldState::Open)) {
                return Ok(resolved);
            }
        }
        self.resolve(hold, "release hold", items, end).await
    }

    /// The update that ends the hold, on the condition that it is still open.
    fn end_of(&self, hold: &Hold, end: HoldState, at: Timestamp, actor: &str) -> Write {
        let key = hold_key(&hold.account_number, &hold.call);
        let expression = "SET #state = :state, charged = :charged, resolved_at = :at, \
                          resolved_by = :actor, expires_at_epoch = :kept \
                          REMOVE check_shard, next_check_at, account_id";
        update(&self.db.tables.holds, key, expression)
            .condition_expression("#state = :open")
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":state", text(state_name(end)))
            .expression_attribute_values(":open", text("open"))
            .expression_attribute_values(":charged", micros(end.charged()))
            .expression_attribute_values(":at", time(at))
            .expression_attribute_values(":actor", text(actor))
            .expression_attribute_values(":kept", number(kept_until(at)))
            .into()
    }

    /// Carries out an end of `hold`, whose own item is the first of `items`.
    async fn resolve(
        &self,
        hold: &Hold,
        operation: &'static str,
        items: Vec<Write>,
        end: HoldState,
    ) -> Result<Resolution, StoreError> {
        match self.db.transact(operation, items).await {
            Ok(Transacted::Done) => Ok(Resolution::Done(end)),
            // The hold had ended, or another condition failed.
            Ok(Transacted::Cancelled(_)) => {
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
        let stored = stored_hold(&self.db, &hold.account_number, &hold.call).await?;
        stored.as_ref().map(state_of).transpose()
    }
}

/// Why an account in this state cannot take another hold.
fn refusal(
    account: &Account,
    item: Option<&Item>,
    max_holds: u32,
) -> Result<HoldOutcome, StoreError> {
    // Another account may have been created under the same id.
    let number = text(account.number.as_str());
    let is_the_account =
        |item: &&Item| item.contains_key("profile") && item.get("account_number") == Some(&number);
    let Some(item) = item.filter(is_the_account) else {
        return Ok(HoldOutcome::NoAccount);
    };
    let balance = item::balance(item)?;
    Ok(if item.get("always_use_key") == Some(&AttributeValue::Bool(true)) {
        HoldOutcome::AlwaysUseKey
    } else if balance.open_holds() >= max_holds {
        HoldOutcome::TooMany
    } else {
        HoldOutcome::Insufficient(balance)
    })
}

/// When DynamoDB removes a hold resolved at `at`, in seconds since 1970.
fn kept_until(at: Timestamp) -> i64 {
    at.as_second() + RESOLVED_KEPT.as_secs()
}

fn idempotency_key(account: &AccountNumber, hash: &str) -> Item {
    let name = format!("idem#{hash}");
    key([("account_number", account.as_str()), ("hold", &name)])
}
