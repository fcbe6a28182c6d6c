//! What the payment provider was asked for, and what became of each payment.
//!
//! What a payment is for is stored before anybody can make it; a payment of anything else counts for
//! nothing. Each has one outcome, written once, in the transaction of what it does to the account.

use account::add_on::{Collection, GenerationId};
use account::{Account, AccountId, AccountNumber, Credits, EntryId, Period, Profile};
use aws_sdk_dynamodb::types::{Put, TransactWriteItem, Update};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::accounts::Effect;
use crate::events::DomainEvent;
use crate::item::{self, Item, get_number, get_text, key, number, text, time};
use crate::transaction::{self, TRIES};
use crate::work::{Work, due_shard};
use crate::{Store, StoreError};

/// Something that can be paid at the provider, as we asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payable {
    /// The provider's id of it: a checkout session or a payment intent.
    pub object: String,
    pub account_number: AccountNumber,
    pub buys: Buys,
    pub amount_cents: u64,
    pub asked_at: Timestamp,
}

/// What is paid for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Buys {
    /// The first period of a generation, which has the payable's name.
    Generation { collection: Collection },
    Period {
        generation: GenerationId,
        period: Period,
    },
    /// `order` is our own name of the purchase, and of its ledger entry.
    Credits { order: EntryId, credits: Credits },
    /// Nothing is paid: a card is given.
    Card,
    /// What the checkout session is for that this object paid.
    Through { session: String },
}

/// What became of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It paid for what it was asked for.
    Counted,
    /// It was not owed, and is to be given back.
    RefundDue,
    /// It was not owed, and is given back.
    Refunded,
    /// It was not owed, and cannot be given back the usual way: somebody has to look.
    RefundFailed,
}

/// News of a payment, taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    pub payable: Payable,
    pub outcome: Outcome,
    /// False if it was heard before.
    pub now: bool,
}

/// Something that could be paid, and for which there is something to do: a page that has closed, or a
/// payment that is to be given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueObject {
    pub object: String,
    pub due: Timestamp,
}

impl Store {
    /// What we asked for under this id of the provider's; with the outcome, if it was paid.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer or the item cannot be read.
    pub async fn payable(
        &self,
        object: &str,
    ) -> Result<Option<(Payable, Option<Outcome>)>, StoreError> {
        let read = self
            .charges_item(payable_key(object), "read payment")
            .await?;
        read.map(|item| payable(object, &item)).transpose()
    }

    /// An item of the charges table, as it is now.
    pub(crate) async fn charges_item(
        &self,
        key: Item,
        operation: &'static str,
    ) -> Result<Option<Item>, StoreError> {
        self.read(operation, &self.tables.charges, key).await
    }

    /// Stores what may be paid that changes nothing of the profile.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn ask_for(&self, payable: &Payable) -> Result<(), StoreError> {
        let items = vec![self.new_payable(payable)?];
        // Cancelled only where it is there already.
        self.transact("store payment", items).await.map(drop)
    }

    /// The account of this number; `None` once it is deleted and nothing is left of it.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer or the item cannot be read.
    pub async fn account_of(&self, number: &AccountNumber) -> Result<Option<Account>, StoreError> {
        let Some(item) = self.account_item(number.as_str(), NUMBER).await? else {
            return Ok(None);
        };
        let id = AccountId::new(get_text(&item, "id", NUMBER)?);
        let id = id.map_err(|_| StoreError::corrupt(NUMBER))?;
        let account = self.account(&id).await?;
        Ok(account.filter(|account| account.number == *number))
    }

    /// Takes in that `object` was paid. `judge` says whether it is owed, and changes the profile
    /// accordingly; it is called again if the profile changed meanwhile. Of an account that is gone,
    /// nothing is owed. `None` if we never asked for it.
    ///
    /// # Errors
    /// [`StoreError`] if the outcome is not known; hearing of it again is safe.
    pub async fn hear_payment(
        &self,
        object: &str,
        at: Timestamp,
        mut judge: impl FnMut(&Payable, &mut Profile) -> (bool, Vec<Effect>),
    ) -> Result<Option<Heard>, StoreError> {
        let mut doubted = false;
        for tried in 0..TRIES {
            let Some((payable, known)) = self.payable(object).await? else {
                return Ok(None);
            };
            if let Some(outcome) = known {
                return Ok(Some(Heard {
                    payable,
                    outcome,
                    now: false,
                }));
            }
            let (outcome, items) = match self.account_of(&payable.account_number).await? {
                Some(before) => {
                    let mut after = before.clone();
                    let (mut owed, effects) = judge(&payable, &mut after.profile);
                    // Where the provider collects, it may have collected a period twice.
                    if owed && tried > 0 && self.is_paid_by_another(&payable).await? {
                        (owed, after) = (false, before.clone());
                    }
                    let outcome = if owed {
                        Outcome::Counted
                    } else {
                        Outcome::RefundDue
                    };
                    let mut items = vec![self.ended(&payable, outcome, at)?];
                    if after.profile != before.profile {
                        after.revision += 1;
                        items.push(self.profile_update(&before, &after)?);
                        if let Some(event) = DomainEvent::add_on(&before, &after, at) {
                            items.push(self.effect(&before, Effect::Event(event))?);
                        }
                    }
                    if owed {
                        items.extend(self.paid_by(&payable, at)?);
                    }
                    for effect in effects {
                        items.push(self.effect(&before, effect)?);
                    }
                    (outcome, items)
                }
                None => {
                    let outcome = Outcome::RefundDue;
                    (outcome, vec![self.ended(&payable, outcome, at)?])
                }
            };
            match self.transact("hear of payment", items).await {
                Ok(Ok(())) => {
                    return Ok(Some(Heard {
                        payable,
                        outcome,
                        now: true,
                    }));
                }
                Ok(Err(_)) => transaction::pause(tried).await,
                // What is stored tells whether it took place.
                Err(StoreError::Unavailable { .. }) if !doubted => doubted = true,
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Contended {
            operation: "hear of payment",
        })
    }

    /// Is what it is for paid by another object?
    async fn is_paid_by_another(&self, payable: &Payable) -> Result<bool, StoreError> {
        let Buys::Period { generation, period } = &payable.buys else {
            return Ok(false);
        };
        let key = charge_key(&payable.account_number, generation.as_str(), *period);
        let read = self.charges_item(key, "read charge").await?;
        let paid_by = read.and_then(|item| item.get("paid_by").cloned());
        Ok(paid_by.is_some_and(|paid_by| paid_by != text(&payable.object)))
    }

    /// Writes down what became of a payment that changes no profile. True if it is so by now.
    ///
    /// # Errors
    /// [`StoreError`] if the outcome is not known; ending it again is safe.
    pub async fn end_payment(
        &self,
        payable: &Payable,
        outcome: Outcome,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let items = vec![self.ended(payable, outcome, at)?];
        if self.transact("end payment", items).await?.is_ok() {
            return Ok(true);
        }
        let known = self.payable(&payable.object).await?;
        Ok(known.is_some_and(|(_, known)| known == Some(outcome)))
    }

    pub(crate) fn new_payable(&self, payable: &Payable) -> Result<TransactWriteItem, StoreError> {
        self.put_payable(payable_item(payable)?)
    }

    pub(crate) fn put_payable(&self, item: Item) -> Result<TransactWriteItem, StoreError> {
        let put = Put::builder()
            .table_name(&self.tables.charges)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(payer)");
        transaction::put(put)
    }

    /// A payment's one outcome.
    fn ended(
        &self,
        payable: &Payable,
        outcome: Outcome,
        at: Timestamp,
    ) -> Result<TransactWriteItem, StoreError> {
        let update = Update::builder()
            .table_name(&self.tables.charges)
            .set_key(Some(payable_key(&payable.object)))
            .condition_expression("attribute_exists(payer) AND attribute_not_exists(outcome)")
            .expression_attribute_values(":outcome", item::to_attribute(PAYABLE, &outcome)?)
            .expression_attribute_values(":at", time(at));
        transaction::update(if outcome == Outcome::RefundDue {
            let shard = due_shard(Work::Refund, &payable.object);
            update
                .update_expression(
                    "SET outcome = :outcome, heard_at = :at, due_shard = :shard, due_at = :at",
                )
                .expression_attribute_values(":shard", text(shard))
        } else {
            update.update_expression(
                "SET outcome = :outcome, heard_at = :at REMOVE due_shard, due_at",
            )
        })
    }

    /// The charge record of a period: one for each generation and period, paid by one payment.
    pub(crate) fn paid_by(
        &self,
        payable: &Payable,
        at: Timestamp,
    ) -> Result<Option<TransactWriteItem>, StoreError> {
        let (generation, period) = match &payable.buys {
            Buys::Generation { .. } => (payable.object.as_str(), Period::FIRST),
            Buys::Period { generation, period } => (generation.as_str(), *period),
            Buys::Credits { .. } | Buys::Card | Buys::Through { .. } => return Ok(None),
        };
        let update = Update::builder()
            .table_name(&self.tables.charges)
            .set_key(Some(charge_key(
                &payable.account_number,
                generation,
                period,
            )))
            .update_expression("SET paid_by = :object, paid_at = :at, amount_cents = :amount")
            .condition_expression("attribute_not_exists(paid_by)")
            .expression_attribute_values(":object", text(&payable.object))
            .expression_attribute_values(":at", time(at))
            .expression_attribute_values(":amount", number(payable.amount_cents));
        transaction::update(update).map(Some)
    }

    /// The charge record of a period that was missed. A payment of it that comes all the same is written
    /// beside that.
    pub(crate) fn waived(
        &self,
        account: &AccountNumber,
        generation: &GenerationId,
        period: Period,
        at: Timestamp,
    ) -> Result<TransactWriteItem, StoreError> {
        let update = Update::builder()
            .table_name(&self.tables.charges)
            .set_key(Some(charge_key(account, generation.as_str(), period)))
            // No condition: it takes nothing away, and is written with the profile that says so.
            .update_expression("SET waived_at = if_not_exists(waived_at, :at)")
            .expression_attribute_values(":at", time(at));
        transaction::update(update)
    }

    /// The way from an account's number to the account.
    pub(crate) fn new_number(
        &self,
        account: &AccountNumber,
        id: &AccountId,
    ) -> Result<TransactWriteItem, StoreError> {
        let mut item = number_key(account);
        item.insert("id".to_owned(), text(id.as_str()));
        let put = Put::builder()
            .table_name(&self.tables.accounts)
            .set_item(Some(item));
        transaction::put(put)
    }
}

pub(crate) const PAYABLE: &str = "payment";
/// The range key of the item that leads from an account's number to the account.
const NUMBER: &str = "number";

pub(crate) fn number_key(account: &AccountNumber) -> Item {
    key([("account_id", account.as_str()), ("item", NUMBER)])
}

pub(crate) fn payable_key(object: &str) -> Item {
    let object = format!("object#{object}");
    key([("account_number", object.as_str()), ("charge", "object")])
}

pub(crate) fn payable_item(payable: &Payable) -> Result<Item, StoreError> {
    let mut item = payable_key(&payable.object);
    let attributes = [
        ("payer", text(payable.account_number.as_str())),
        ("buys", item::to_attribute(PAYABLE, &payable.buys)?),
        ("amount_cents", number(payable.amount_cents)),
        ("asked_at", time(payable.asked_at)),
        ("taken_back", number(0)),
    ];
    item.extend(attributes.map(|(name, value)| (name.to_owned(), value)));
    Ok(item)
}

fn charge_key(account: &AccountNumber, generation: &str, period: Period) -> Item {
    let charge = format!("{generation}#{:04}", period.number());
    key([("account_number", account.as_str()), ("charge", &charge)])
}

fn payable(object: &str, item: &Item) -> Result<(Payable, Option<Outcome>), StoreError> {
    let corrupt = || StoreError::corrupt(PAYABLE);
    let number = AccountNumber::new(get_text(item, "payer", PAYABLE)?);
    let buys = item.get("buys").cloned().ok_or_else(corrupt)?;
    let outcome = item.get("outcome").cloned();
    let outcome = outcome.map(|outcome| item::from_attribute(PAYABLE, outcome));
    let payable = Payable {
        object: object.to_owned(),
        account_number: number.map_err(|_| corrupt())?,
        buys: item::from_attribute(PAYABLE, buys)?,
        amount_cents: get_number(item, "amount_cents", PAYABLE)?,
        asked_at: item::get_time(item, "asked_at", PAYABLE)?,
    };
    Ok((payable, outcome.transpose()?))
}

/// One that is due, from the row of the index.
pub(crate) fn due_object(item: &Item) -> Result<DueObject, StoreError> {
    const WHAT: &str = "due object";
    let name = get_text(item, "account_number", WHAT)?;
    let object = name.strip_prefix("object#");
    Ok(DueObject {
        object: object.ok_or_else(|| StoreError::corrupt(WHAT))?.to_owned(),
        due: item::get_time(item, "due_at", WHAT)?,
    })
}
