//! Credits that move without a call: granted, bought, given back, undone, adjusted.

use account::{
    Account, AccountId, AccountNumber, Balance, BalanceError, Credits, EntryId, IdError, Movement,
    Plan, Profile,
};
use aws_sdk_dynamodb::types::builders::UpdateBuilder;
use aws_sdk_dynamodb::types::{Put, TransactWriteItem};
use jiff::Timestamp;

use crate::accounts::{Effect, set_profile};
use crate::balance::MOVES;
use crate::events::{Crossing, DomainEvent};
use crate::item::{self, Item, get_credits, key, micros, text, time};
use crate::ledger::{EntryKind, LedgerEntry};
use crate::transaction::{self, TRIES};
use crate::{PaymentOrder, Store, StoreError};

/// Credits that move without a call.
#[derive(Debug, Clone)]
pub struct Posting<'a> {
    /// Deterministic: the same cause never posts twice. At most 59 characters.
    pub id: &'a EntryId,
    /// Not [`EntryKind::Call`], which only a hold's settlement posts.
    pub kind: EntryKind,
    /// Negative takes credits, and never more than are available: what a reversal cannot take is
    /// owed, anything else is then refused.
    pub amount: Credits,
    pub at: Timestamp,
    /// The reason, in words.
    pub note: &'a str,
    /// Who caused it: a person's or a system's name.
    pub actor: &'a str,
}

/// What a posting moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posted {
    /// `balance` is what the ledger entries sum up to, `owed` what is owed more, or less, than before.
    Now { balance: Credits, owed: Credits },
    /// It was posted before, by this same id.
    Before,
}

/// Why nothing was posted.
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

/// What became of the wish to pay for the add-on with credits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreditPayment {
    /// Now or before.
    Paid,
    /// Nothing was taken: it is not owed.
    NotOwed,
    /// Nothing was taken: fewer credits are available.
    Insufficient,
}

/// A posting that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPosting {
    pub kind: EntryKind,
    /// What was asked for; a reversal may have taken less.
    pub amount: Credits,
    pub at: Timestamp,
}

impl Posting<'_> {
    /// The ledger entries and what they move together.
    fn plan(&self, before: Balance) -> Result<(Movement, Vec<LedgerEntry>), PlanError> {
        let refused = |error| match error {
            BalanceError::Insufficient => PlanError::Refused(PostRefused::Insufficient(before)),
            _ => PlanError::Refused(PostRefused::Amount(self.kind)),
        };
        let negated = self.amount.checked_neg().ok_or(BalanceError::OutOfRange);
        let (movement, own) = match self.kind {
            EntryKind::Grant | EntryKind::Purchase => {
                (before.credit(self.amount).map_err(refused)?, self.amount)
            }
            EntryKind::Reversal => {
                let amount = negated.map_err(refused)?;
                let movement = before.reverse(amount).map_err(refused)?;
                (movement, movement.balance)
            }
            EntryKind::Refund if self.amount.is_negative() => {
                return Err(refused(BalanceError::OutOfRange));
            }
            EntryKind::AddOn if !self.amount.is_negative() => {
                return Err(refused(BalanceError::OutOfRange));
            }
            EntryKind::Refund | EntryKind::AddOn | EntryKind::Adjustment => {
                (before.adjust(self.amount).map_err(refused)?, self.amount)
            }
            EntryKind::Call => return Err(refused(BalanceError::OutOfRange)),
        };
        let mut entries = vec![self.entry(self.id.clone(), self.kind, own, self.note)];
        if movement.balance != own {
            let id = EntryId::new(format!("{}-owed", self.id)).map_err(PlanError::Id)?;
            let taken = movement.owed;
            entries.push(self.entry(id, EntryKind::Reversal, taken, "owed since a reversal"));
        }
        Ok((movement, entries))
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
}

enum PlanError {
    Refused(PostRefused),
    Id(IdError),
}

impl Store {
    /// Moves credits without a call: balance, ledger entries and the posting's id in one
    /// transaction. An id that was posted before is not posted again.
    ///
    /// # Errors
    /// [`StoreError`] if the outcome is not known; posting again with the same id is safe.
    pub async fn post(
        &self,
        account: &AccountId,
        posting: &Posting<'_>,
    ) -> Result<Result<Posted, PostRefused>, StoreError> {
        const GUARD_ITEM: usize = 0;
        for tried in 0..TRIES {
            let Some(before) = self.account(account).await? else {
                return Ok(Err(PostRefused::NoAccount));
            };
            let (movement, entries) = match posting.plan(before.balance) {
                Ok(planned) => planned,
                Err(PlanError::Id(error)) => return Err(StoreError::invalid(error)),
                Err(PlanError::Refused(refused)) => {
                    // Perhaps for want of the credits that it took the first time.
                    let known = self.posting(&before.number, posting.id).await?;
                    return Ok(known.map_or(Err(refused), |known| posting.again(&known)));
                }
            };
            let least = Credits::from_micros(movement.balance.micros().min(0).saturating_neg());
            let moves = self
                .moves(account, movement, entries.len())?
                .condition_expression(
                    "account_number = :number AND attribute_exists(profile) \
                     AND available >= :least AND owed = :owed_before",
                )
                .expression_attribute_values(":number", text(before.number.as_str()))
                .expression_attribute_values(":least", micros(least))
                .expression_attribute_values(":owed_before", micros(before.balance.owed()));
            let items = self.posted(&before, posting, &movement, &entries, moves)?;
            let mut was_unanswered = false;
            let unknown = match self.transact("post credits", items).await {
                Ok(Ok(())) => {
                    return Ok(Ok(Posted::Now {
                        balance: movement.balance,
                        owed: movement.owed,
                    }));
                }
                Ok(Err(cancelled)) if cancelled.condition_failed(GUARD_ITEM).is_none() => {
                    // The balance is another one by now.
                    transaction::pause(tried).await;
                    continue;
                }
                Ok(Err(_)) => StoreError::corrupt("posting"),
                Err(error @ StoreError::Unavailable { .. }) => {
                    was_unanswered = true;
                    error
                }
                Err(error) => return Err(error),
            };
            // Posted before, or now with the answer lost: what is stored tells.
            let known = self.posting(&before.number, posting.id).await?;
            return match known {
                None => Err(unknown),
                Some(known) => Ok(posting.again(&known).map(|again| {
                    if was_unanswered && known.at == posting.at {
                        Posted::Now {
                            balance: movement.balance,
                            owed: movement.owed,
                        }
                    } else {
                        again
                    }
                })),
            };
        }
        Err(StoreError::Contended {
            operation: "post credits",
        })
    }

    /// A posting's transaction: its id first, then the balance, by `moves`, and the ledger.
    fn posted(
        &self,
        before: &Account,
        posting: &Posting<'_>,
        movement: &Movement,
        entries: &[LedgerEntry],
        moves: UpdateBuilder,
    ) -> Result<Vec<TransactWriteItem>, StoreError> {
        let guard = Put::builder()
            .table_name(&self.tables.ledger)
            .set_item(Some(guard_item(&before.number, posting)))
            .condition_expression("attribute_not_exists(entry)");
        let mut items = vec![transaction::put(guard)?];
        let taken = movement.balance.checked_neg().unwrap_or(Credits::ZERO);
        let minimum = self
            .low_below
            .filter(|_| before.profile.plan() == Plan::Standard);
        match Crossing::by(taken, minimum) {
            Some(crossing) => {
                let crosses = crossing.begins_at(before.balance.balance());
                items.push(transaction::update(crossing.condition(moves, crosses))?);
                if crosses {
                    let cause = format!("{}-{}", before.id, posting.id);
                    let event = crossing.event(&cause, posting.at);
                    items.push(self.new_event(&before.id, &event, 0)?);
                }
            }
            None => items.push(transaction::update(moves)?),
        }
        for entry in entries {
            items.push(self.new_entry(&before.number, entry)?);
        }
        Ok(items)
    }

    /// Pays for the add-on with credits: the posting and what it pays for in one transaction. `judge`
    /// changes the profile if the payment is owed; it is called again if the profile changed meanwhile.
    ///
    /// # Errors
    /// [`StoreError`] if the outcome is not known; paying again under the same id is safe.
    pub async fn pay_add_on(
        &self,
        account: &AccountId,
        posting: &Posting<'_>,
        order: &PaymentOrder,
        mut judge: impl FnMut(&mut Profile) -> bool,
    ) -> Result<CreditPayment, StoreError> {
        let mut doubted = false;
        for tried in 0..TRIES {
            let Some(before) = self.account(account).await? else {
                return Ok(CreditPayment::NotOwed);
            };
            let mut after = before.clone();
            after.revision += 1;
            if before.number != order.account_number || !judge(&mut after.profile) {
                // Perhaps by our own first try.
                let known = self.posting(&order.account_number, posting.id).await?;
                return Ok(known.map_or(CreditPayment::NotOwed, |_| CreditPayment::Paid));
            }
            let (movement, entries) = match posting.plan(before.balance) {
                Ok(planned) => planned,
                Err(PlanError::Id(error)) => return Err(StoreError::invalid(error)),
                Err(PlanError::Refused(PostRefused::Insufficient(_))) => {
                    return Ok(CreditPayment::Insufficient);
                }
                Err(PlanError::Refused(refused)) => return Err(StoreError::invalid(refused)),
            };
            let least = Credits::from_micros(movement.balance.micros().min(0).saturating_neg());
            let moves = self
                .moves(account, movement, entries.len())?
                .condition_expression(
                    "account_number = :number AND revision = :before AND available >= :least",
                )
                .expression_attribute_values(":number", text(before.number.as_str()))
                .expression_attribute_values(":least", micros(least));
            let moves = set_profile(moves, &format!("{MOVES}, "), &before, &after)?;
            let mut items = self.posted(&before, posting, &movement, &entries, moves)?;
            items.extend(self.paid_by(order, posting.at)?);
            if let Some(event) = DomainEvent::add_on(&before, &after, posting.at) {
                items.push(self.effect(&before, Effect::Event(event))?);
            }
            match self.transact("pay add-on", items).await {
                Ok(Ok(())) => return Ok(CreditPayment::Paid),
                Ok(Err(_)) => transaction::pause(tried).await,
                // What is stored tells whether it took place.
                Err(StoreError::Unavailable { .. }) if !doubted => doubted = true,
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Contended {
            operation: "pay add-on",
        })
    }

    /// The posting of this id, if there was one.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn posting(
        &self,
        account: &AccountNumber,
        id: &EntryId,
    ) -> Result<Option<StoredPosting>, StoreError> {
        const WHAT: &str = "posting";
        let key = guard_key(account, id);
        let item = self.read("read posting", &self.tables.ledger, key);
        let Some(item) = item.await? else {
            return Ok(None);
        };
        let kind = item.get("kind").cloned();
        let kind = kind.ok_or_else(|| StoreError::corrupt(WHAT))?;
        Ok(Some(StoredPosting {
            kind: item::from_attribute(WHAT, kind)?,
            amount: get_credits(&item, "amount", WHAT)?,
            at: item::get_time(&item, "at", WHAT)?,
        }))
    }
}

impl Posting<'_> {
    /// The id was posted before: by this very posting, or by another one?
    fn again(&self, known: &StoredPosting) -> Result<Posted, PostRefused> {
        if known.kind == self.kind && known.amount == self.amount {
            Ok(Posted::Before)
        } else {
            Err(PostRefused::IdTaken)
        }
    }
}

fn guard_key(account: &AccountNumber, id: &EntryId) -> Item {
    let name = format!("id#{id}");
    key([("account_number", account.as_str()), ("entry", &name)])
}

fn guard_item(account: &AccountNumber, posting: &Posting<'_>) -> Item {
    let mut item = guard_key(account, posting.id);
    item.insert("kind".to_owned(), text(posting.kind.as_str()));
    item.insert("amount".to_owned(), micros(posting.amount));
    item.insert("at".to_owned(), time(posting.at));
    item.insert("actor".to_owned(), text(posting.actor));
    item
}
