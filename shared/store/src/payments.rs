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
use crate::due_index::{DueKind, due_shard};
use crate::events::DomainEvent;
use crate::item::{self, Item, get_number, get_text, key, number, text, time};
use crate::transaction::{self, TRIES};
use crate::{Store, StoreError};

/// Something that can be paid at the provider, as we asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentOrder {
    /// The provider's id of it: a checkout session or a payment intent.
    pub object: String,
    pub account_number: AccountNumber,
    pub buys: Purchase,
    pub amount_cents: u64,
    pub created_at: Timestamp,
}

/// What is paid for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purchase {
    /// The first period of a generation, which has the order's name.
    Generation { collection: Collection },
    Period {
        generation: GenerationId,
        period: Period,
    },
    /// `order` is our own name of the purchase, and of its ledger entry.
    Credits { entry: EntryId, credits: Credits },
    /// Nothing is paid: a card is given.
    Card,
    /// What the checkout session is for that this object paid.
    Via { session: String },
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

/// A payment update that has been applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    pub order: PaymentOrder,
    pub outcome: Outcome,
    /// False if it was heard before.
    pub now: bool,
}

/// Something that could be paid, and for which there is something to do: a page that has closed, or a
/// payment that is to be given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DuePayment {
    pub object: String,
    pub due: Timestamp,
}

impl Store {
    /// What we asked for under this id of the provider's; with the outcome, if it was paid.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer or the item cannot be read.
    pub async fn order(
        &self,
        object: &str,
    ) -> Result<Option<(PaymentOrder, Option<Outcome>)>, StoreError> {
        let read = self
            .charges_item(payable_key(object), "read payment")
            .await?;
        read.map(|item| order(object, &item)).transpose()
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
    pub async fn ask_for(&self, order: &PaymentOrder) -> Result<(), StoreError> {
        let items = vec![self.new_payable(order)?];
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
    pub async fn apply_payment(
        &self,
        object: &str,
        at: Timestamp,
        mut judge: impl FnMut(&PaymentOrder, &mut Profile) -> (bool, Vec<Effect>),
    ) -> Result<Option<Applied>, StoreError> {
        let mut doubted = false;
        for tried in 0..TRIES {
            let Some((order, known)) = self.order(object).await? else {
                return Ok(None);
            };
            if let Some(outcome) = known {
                return Ok(Some(Applied {
                    order,
                    outcome,
                    now: false,
                }));
            }
            let (outcome, items) = match self.account_of(&order.account_number).await? {
                Some(before) => {
                    let mut after = before.clone();
                    let (mut owed, effects) = judge(&order, &mut after.profile);
                    // Where the provider collects, it may have collected a period twice.
                    if owed && tried > 0 && self.is_paid_by_another(&order).await? {
                        (owed, after) = (false, before.clone());
                    }
                    let outcome = if owed {
                        Outcome::Counted
                    } else {
                        Outcome::RefundDue
                    };
                    let mut items = vec![self.ended(&order, outcome, at)?];
                    if after.profile != before.profile {
                        after.revision += 1;
                        items.push(self.profile_update(&before, &after)?);
                        if let Some(event) = DomainEvent::add_on(&before, &after, at) {
                            items.push(self.effect(&before, Effect::Event(event))?);
                        }
                    }
                    if owed {
                        items.extend(self.paid_by(&order, at)?);
                    }
                    for effect in effects {
                        items.push(self.effect(&before, effect)?);
                    }
                    (outcome, items)
                }
                None => {
                    let outcome = Outcome::RefundDue;
                    (outcome, vec![self.ended(&order, outcome, at)?])
                }
            };
            match self.transact("apply payment", items).await {
                Ok(Ok(())) => {
                    return Ok(Some(Applied {
                        order,
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
            operation: "apply payment",
        })
    }

    /// Is what it is for paid by another object?
    async fn is_paid_by_another(&self, order: &PaymentOrder) -> Result<bool, StoreError> {
        let Purchase::Period { generation, period } = &order.buys else {
            return Ok(false);
        };
        let key = charge_key(&order.account_number, generation.as_str(), *period);
        let read = self.charges_item(key, "read charge").await?;
        let paid_by = read.and_then(|item| item.get("paid_by").cloned());
        Ok(paid_by.is_some_and(|paid_by| paid_by != text(&order.object)))
    }

    /// Writes down what became of a payment that changes no profile. True if it is so by now.
    ///
    /// # Errors
    /// [`StoreError`] if the outcome is not known; ending it again is safe.
    pub async fn end_payment(
        &self,
        order: &PaymentOrder,
        outcome: Outcome,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let items = vec![self.ended(order, outcome, at)?];
        if self.transact("end payment", items).await?.is_ok() {
            return Ok(true);
        }
        let known = self.order(&order.object).await?;
        Ok(known.is_some_and(|(_, known)| known == Some(outcome)))
    }

    pub(crate) fn new_payable(
        &self,
        order: &PaymentOrder,
    ) -> Result<TransactWriteItem, StoreError> {
        self.put_payable(payable_item(order)?)
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
        order: &PaymentOrder,
        outcome: Outcome,
        at: Timestamp,
    ) -> Result<TransactWriteItem, StoreError> {
        let update = Update::builder()
            .table_name(&self.tables.charges)
            .set_key(Some(payable_key(&order.object)))
            .condition_expression("attribute_exists(payer) AND attribute_not_exists(outcome)")
            .expression_attribute_values(":outcome", item::to_attribute(ORDER, &outcome)?)
            .expression_attribute_values(":at", time(at));
        transaction::update(if outcome == Outcome::RefundDue {
            let shard = due_shard(DueKind::Refund, &order.object);
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
        order: &PaymentOrder,
        at: Timestamp,
    ) -> Result<Option<TransactWriteItem>, StoreError> {
        let (generation, period) = match &order.buys {
            Purchase::Generation { .. } => (order.object.as_str(), Period::FIRST),
            Purchase::Period { generation, period } => (generation.as_str(), *period),
            Purchase::Credits { .. } | Purchase::Card | Purchase::Via { .. } => return Ok(None),
        };
        let update = Update::builder()
            .table_name(&self.tables.charges)
            .set_key(Some(charge_key(&order.account_number, generation, period)))
            .update_expression("SET paid_by = :object, paid_at = :at, amount_cents = :amount")
            .condition_expression("attribute_not_exists(paid_by)")
            .expression_attribute_values(":object", text(&order.object))
            .expression_attribute_values(":at", time(at))
            .expression_attribute_values(":amount", number(order.amount_cents));
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

pub(crate) const ORDER: &str = "payment";
/// The range key of the item that leads from an account's number to the account.
const NUMBER: &str = "number";

pub(crate) fn number_key(account: &AccountNumber) -> Item {
    key([("account_id", account.as_str()), ("item", NUMBER)])
}

pub(crate) fn payable_key(object: &str) -> Item {
    let object = format!("object#{object}");
    key([("account_number", object.as_str()), ("charge", "object")])
}

pub(crate) fn payable_item(order: &PaymentOrder) -> Result<Item, StoreError> {
    let mut item = payable_key(&order.object);
    let attributes = [
        ("payer", text(order.account_number.as_str())),
        ("buys", item::to_attribute(ORDER, &order.buys)?),
        ("amount_cents", number(order.amount_cents)),
        ("created_at", time(order.created_at)),
        ("end_reversal", number(0)),
    ];
    item.extend(attributes.map(|(name, value)| (name.to_owned(), value)));
    Ok(item)
}

fn charge_key(account: &AccountNumber, generation: &str, period: Period) -> Item {
    let charge = format!("{generation}#{:04}", period.number());
    key([("account_number", account.as_str()), ("charge", &charge)])
}

fn order(object: &str, item: &Item) -> Result<(PaymentOrder, Option<Outcome>), StoreError> {
    let corrupt = || StoreError::corrupt(ORDER);
    let number = AccountNumber::new(get_text(item, "payer", ORDER)?);
    let buys = item.get("buys").cloned().ok_or_else(corrupt)?;
    let outcome = item.get("outcome").cloned();
    let outcome = outcome.map(|outcome| item::from_attribute(ORDER, outcome));
    let order = PaymentOrder {
        object: object.to_owned(),
        account_number: number.map_err(|_| corrupt())?,
        buys: item::from_attribute(ORDER, buys)?,
        amount_cents: get_number(item, "amount_cents", ORDER)?,
        created_at: item::get_time(item, "created_at", ORDER)?,
    };
    Ok((order, outcome.transpose()?))
}

/// One that is due, from the row of the index.
pub(crate) fn due_object(item: &Item) -> Result<DuePayment, StoreError> {
    const WHAT: &str = "due object";
    let name = get_text(item, "account_number", WHAT)?;
    let object = name.strip_prefix("object#");
    Ok(DuePayment {
        object: object.ok_or_else(|| StoreError::corrupt(WHAT))?.to_owned(),
        due: item::get_time(item, "due_at", WHAT)?,
    })
}
