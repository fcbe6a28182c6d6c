//! Credits that move without a call: granted, bought, refunded, reversed, adjusted.

use account::{
    Account, AccountId, AccountNumber, Balance, BalanceError, Credits, EntryId, Movement, Profile,
};
use aws_sdk_dynamodb::types::builders::UpdateBuilder;
use jiff::Timestamp;
use serde::Deserialize;

use crate::accounts::{get_account, with_profile};
use crate::balance::{MOVE, move_credits};
use crate::domain_events::Crossing;
use crate::error::StoreError;
use crate::item::{self, Item, credits_of_micros, key, micros, text, time};
use crate::ledger::{EntryKind, Ledger, LedgerEntry, put_entry};
use crate::orders::{PaymentOrder, set_paid};
use crate::outbox::{put_add_on_event, put_event};
use crate::retry::Retry;
use crate::write::{Transacted, Write, failed_condition, put};

/// Credits that move without a call.
#[derive(Debug, Clone)]
pub struct Posting<'a> {
    /// Deterministic: the same cause never posts twice. At most 59 characters.
    pub id: &'a EntryId,
    /// Not [`EntryKind::Call`], which only a hold's settlement posts.
    pub kind: EntryKind,
    /// A negative amount takes credits, and never more than are available: what a reversal cannot
    /// take is owed, and any other kind is refused.
    pub amount: Credits,
    pub at: Timestamp,
    /// The reason, in words.
    pub note: &'a str,
    /// The name of the person or system that caused it.
    pub actor: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posted {
    /// `balance` is the sum of the new ledger entries, `owed` the change of the amount owed.
    Now { balance: Credits, owed: Credits },
    /// The posting was made before, under the same id.
    Before,
}

#[derive(Debug, thiserror::Error)]
pub enum PostError {
    #[error(transparent)]
    Refused(#[from] PostRefused),
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PostRefused {
    #[error("fewer credits are available than it takes")]
    Insufficient(Balance),
    #[error("the account does not exist, or was deleted")]
    NoAccount,
    #[error("another posting of the account has this id")]
    IdTaken,
    #[error("a {0:?} of this amount cannot be posted")]
    Amount(EntryKind),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreditPayment {
    /// Now or before.
    Paid,
    /// Nothing was taken: the add-on is not owed.
    NotOwed,
    /// Nothing was taken: too few credits are available.
    Insufficient,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct StoredPosting {
    pub kind: EntryKind,
    /// The requested amount; a reversal may have taken less.
    #[serde(deserialize_with = "credits_of_micros")]
    pub amount: Credits,
    pub at: Timestamp,
}

/// How a posting changes a known balance.
pub(crate) struct Plan {
    movement: Movement,
    entries: Vec<LedgerEntry>,
}

impl Plan {
    /// The minimum available credits for this plan.
    fn needed(&self) -> Credits {
        Credits::from_micros(self.movement.balance.micros().min(0).saturating_neg())
    }

    /// The largest balance that the plan can be added to without overflow.
    fn room(&self) -> Credits {
        Credits::from_micros(i64::MAX.saturating_sub(self.movement.balance.micros().max(0)))
    }
}

impl Posting<'_> {
    pub(crate) fn plan(&self, before: Balance) -> Result<Plan, PostError> {
        let refused = |error| self.refused(error, before);
        let out_of_range = || refused(BalanceError::OutOfRange);
        let (movement, own) = match self.kind {
            EntryKind::Grant | EntryKind::Purchase => {
                (before.credit(self.amount).map_err(refused)?, self.amount)
            }
            EntryKind::Reversal => {
                let amount = self.amount.checked_neg().ok_or_else(out_of_range)?;
                let movement = before.reverse(amount).map_err(refused)?;
                (movement, movement.balance)
            }
            EntryKind::Refund if self.amount.is_negative() => return Err(out_of_range().into()),
            EntryKind::AddOn if !self.amount.is_negative() => return Err(out_of_range().into()),
            EntryKind::Refund | EntryKind::AddOn | EntryKind::Adjustment => {
                (before.adjust(self.amount).map_err(refused)?, self.amount)
            }
            EntryKind::Call => return Err(out_of_range().into()),
        };
        let mut entries = vec![self.entry(self.id.clone(), self.kind, own, self.note)];
        if movement.balance != own {
            let id = EntryId::new(format!("{}-owed", self.id)).map_err(StoreError::invalid)?;
            let taken = movement.owed;
            entries.push(self.entry(id, EntryKind::Reversal, taken, "owed since a reversal"));
        }
        Ok(Plan { movement, entries })
    }

    /// The plan of a refund that returns what a reversal took.
    pub(crate) fn undo_reversal(&self, before: Balance) -> Result<Plan, PostError> {
        let movement = before.undo_reversal(self.amount);
        let movement = movement.map_err(|error| self.refused(error, before))?;
        let entry = self.entry(self.id.clone(), self.kind, movement.balance, self.note);
        Ok(Plan { movement, entries: vec![entry] })
    }

    fn refused(&self, error: BalanceError, before: Balance) -> PostRefused {
        match error {
            BalanceError::Insufficient => PostRefused::Insufficient(before),
            _ => PostRefused::Amount(self.kind),
        }
    }

    fn entry(&self, id: EntryId, kind: EntryKind, amount: Credits, note: &str) -> LedgerEntry {
        LedgerEntry {
            id,
            at: self.at,
            kind,
            amount,
            call_id: None,
            note: note.to_owned(),
            actor: self.actor.to_owned(),
        }
    }

    /// The outcome if a posting with the same id is stored, either this one or another.
    fn again(&self, stored: &StoredPosting) -> Result<Posted, PostRefused> {
        if stored.kind == self.kind && stored.amount == self.amount {
            Ok(Posted::Before)
        } else {
            Err(PostRefused::IdTaken)
        }
    }
}

impl Ledger {
    /// Writes balance, ledger entries and id in one transaction. Posting the same again is safe.
    pub async fn post(
        &self,
        account: &AccountId,
        posting: &Posting<'_>,
    ) -> Result<Posted, PostError> {
        const ID_ITEM: usize = 0;
        let operation = "post credits";
        let mut retry = Retry::new(operation);
        loop {
            let Some(before) = get_account(&self.db, account).await? else {
                return Err(PostRefused::NoAccount.into());
            };
            let plan = match posting.plan(before.balance) {
                Err(PostError::Refused(refused)) => {
                    // An earlier try may have taken these credits.
                    let stored = self.posting(&before.number, posting.id).await?;
                    return Ok(posting.again(&stored.ok_or(refused)?)?);
                }
                plan => plan?,
            };
            let balance_update = self.balance_update(&before, &plan)?;
            let now = Posted::Now { balance: plan.movement.balance, owed: plan.movement.owed };
            let items = self.posting_items(&before, posting, &plan, balance_update)?;
            let (was_unknown, error) = match self.db.transact(operation, items).await {
                Ok(Transacted::Done) => return Ok(now),
                Ok(Transacted::Cancelled(reasons))
                    if failed_condition(&reasons, ID_ITEM).is_none() =>
                {
                    // The balance was changed in the meantime.
                    retry.pause().await?;
                    continue;
                }
                Ok(Transacted::Cancelled(_)) => (false, StoreError::corrupt("posting")),
                Err(error @ StoreError::Unavailable { .. }) => (true, error),
                Err(error) => return Err(error.into()),
            };
            // Posted before, or just now with a lost response: read what is stored.
            let stored = self.posting(&before.number, posting.id).await?;
            let stored = stored.ok_or(error)?;
            let again = posting.again(&stored)?;
            return Ok(if was_unknown && stored.at == posting.at { now } else { again });
        }
    }

    /// The update of the balance, conditional on the plan still fitting.
    pub(crate) fn balance_update(
        &self,
        before: &Account,
        plan: &Plan,
    ) -> Result<UpdateBuilder, StoreError> {
        let balance_update = move_credits(&self.db, &before.id, plan.movement, plan.entries.len())?;
        Ok(balance_update
            .condition_expression(
                "account_number = :number AND attribute_exists(profile) \
                 AND available >= :needed AND balance <= :room AND owed = :owed_before",
            )
            .expression_attribute_values(":number", text(before.number.as_str()))
            .expression_attribute_values(":needed", micros(plan.needed()))
            .expression_attribute_values(":room", micros(plan.room()))
            .expression_attribute_values(":owed_before", micros(before.balance.owed())))
    }

    /// A posting's transaction: first its id, then `balance_update` and the ledger entries.
    pub(crate) fn posting_items(
        &self,
        before: &Account,
        posting: &Posting<'_>,
        plan: &Plan,
        balance_update: UpdateBuilder,
    ) -> Result<Vec<Write>, StoreError> {
        let id = item::with(
            posting_key(&before.number, posting.id),
            [
                ("kind", text(posting.kind.as_str())),
                ("amount", micros(posting.amount)),
                ("at", time(posting.at)),
                ("actor", text(posting.actor)),
            ],
        );
        let id =
            put(&self.db.tables.ledger, id).condition_expression("attribute_not_exists(entry)");
        let mut items = vec![id.into()];
        let taken = plan.movement.balance.checked_neg().unwrap_or(Credits::ZERO);
        match Crossing::by(taken, self.db.low_below(before.profile.plan())) {
            Some(crossing) => {
                let crosses = crossing.begins_at(before.balance.balance());
                items.push(crossing.condition(balance_update, crosses).into());
                if crosses {
                    let cause = format!("{}-{}", before.id, posting.id);
                    let event = crossing.event(&cause, posting.at);
                    items.push(put_event(&self.db, &before.id, &event, 0)?);
                }
            }
            None => items.push(balance_update.into()),
        }
        for entry in &plan.entries {
            items.push(put_entry(&self.db, &before.number, entry));
        }
        Ok(items)
    }

    /// Pays for the add-on with credits: the posting and the period that it pays for in one
    /// transaction. `judge` changes the profile if the payment is owed; it is called again if the
    /// profile has changed meanwhile. Paying again under the same id is safe.
    pub async fn pay_add_on(
        &self,
        account: &AccountId,
        posting: &Posting<'_>,
        order: &PaymentOrder,
        mut judge: impl FnMut(&mut Profile) -> bool,
    ) -> Result<CreditPayment, StoreError> {
        let operation = "pay add-on";
        let mut retry = Retry::new(operation);
        loop {
            let Some(before) = get_account(&self.db, account).await? else {
                return Ok(CreditPayment::NotOwed);
            };
            let mut after = before.clone();
            after.revision += 1;
            if before.number != order.account_number || !judge(&mut after.profile) {
                // Our own first try may have paid it.
                let stored = self.posting(&order.account_number, posting.id).await?;
                return Ok(stored.map_or(CreditPayment::NotOwed, |_| CreditPayment::Paid));
            }
            let plan = match posting.plan(before.balance) {
                Ok(plan) => plan,
                Err(PostError::Refused(PostRefused::Insufficient(_))) => {
                    return Ok(CreditPayment::Insufficient);
                }
                Err(PostError::Refused(refused)) => return Err(StoreError::invalid(refused)),
                Err(PostError::Store(error)) => return Err(error),
            };
            let balance_update =
                move_credits(&self.db, account, plan.movement, plan.entries.len())?
                    .condition_expression(
                        "account_number = :number AND revision = :before AND available >= :needed",
                    )
                    .expression_attribute_values(":number", text(before.number.as_str()))
                    .expression_attribute_values(":needed", micros(plan.needed()));
            let balance_update =
                with_profile(balance_update, &format!("{MOVE}, "), &before, &after)?;
            let mut items = self.posting_items(&before, posting, &plan, balance_update)?;
            items.extend(set_paid(&self.db, order, posting.at));
            items.extend(put_add_on_event(&self.db, &before, &after, posting.at)?);
            let written = self.db.transact(operation, items).await;
            if retry.is_done(written.map(Transacted::succeeded)).await? {
                return Ok(CreditPayment::Paid);
            }
        }
    }

    pub async fn posting(
        &self,
        account: &AccountNumber,
        id: &EntryId,
    ) -> Result<Option<StoredPosting>, StoreError> {
        let table = &self.db.tables.ledger;
        let item = self.db.get("read posting", table, posting_key(account, id));
        let item = item.await?;
        item.map(|item| item::read("posting", item)).transpose()
    }
}

fn posting_key(account: &AccountNumber, id: &EntryId) -> Item {
    let name = format!("id#{id}");
    key([("account_number", account.as_str()), ("entry", &name)])
}
