//! Payment orders and each period's charge record. The purpose of a payment is stored before
//! it can be paid; a payment for anything else does not count.

use account::add_on::{Collection, GenerationId};
use account::{AccountNumber, Credits, EntryId, Period};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::db::Database;
use crate::due_index::{DueTask, order_key};
use crate::error::StoreError;
use crate::item::{self, Attributes, Item, key, number, text, time};
use crate::write::{Write, put, update};

pub(crate) const ORDER: &str = "payment order";

/// A payment that is possible at Stripe, as we requested it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentOrder {
    /// Stripe's id of the Checkout Session, PaymentIntent, invoice or subscription.
    pub stripe_id: String,
    pub account_number: AccountNumber,
    pub purchase: Purchase,
    pub amount_cents: u64,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purchase {
    /// The first period of a generation, which is named after the order.
    Generation { collection: Collection },
    /// A later period of a generation.
    Period { generation: GenerationId, period: Period },
    /// `entry` is the purchase's ledger entry.
    Credits { entry: EntryId, credits: Credits },
    /// A card is saved, and nothing is paid.
    Card,
    /// Whatever this Checkout Session is for.
    Via { session: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The payment was owed, and paid for its order.
    Counted,
    /// The payment was not owed, and is to be refunded.
    RefundDue,
    /// The payment was not owed, and is refunded.
    Refunded,
    /// The payment was not owed, and its refund failed: an operator must act.
    RefundFailed,
}

impl PaymentOrder {
    /// The period that the order pays for, if any.
    pub fn period(&self) -> Option<(GenerationId, Period)> {
        match &self.purchase {
            Purchase::Generation { .. } => {
                Some((GenerationId::new(self.stripe_id.as_str()), Period::FIRST))
            }
            Purchase::Period { generation, period } => Some((generation.clone(), *period)),
            Purchase::Credits { .. } | Purchase::Card | Purchase::Via { .. } => None,
        }
    }
}

/// The order as a new item, without a task.
pub(crate) fn order_item(order: &PaymentOrder) -> Result<Item, StoreError> {
    Ok(item::with(
        order_key(&order.stripe_id),
        [
            ("payer", text(order.account_number.as_str())),
            ("buys", item::to_attribute(ORDER, &order.purchase)?),
            ("amount_cents", number(order.amount_cents)),
            ("created_at", time(order.created_at)),
        ],
    ))
}

pub(crate) fn read_order(
    stripe_id: &str,
    item: &Item,
) -> Result<(PaymentOrder, Option<Outcome>), StoreError> {
    let item = Attributes::of(ORDER, item);
    let order = PaymentOrder {
        stripe_id: stripe_id.to_owned(),
        account_number: item.get("payer")?,
        purchase: item.get("buys")?,
        amount_cents: item.get("amount_cents")?,
        created_at: item.get("created_at")?,
    };
    Ok((order, item.optional("outcome")?))
}

/// Stores the item of an order, unless it exists already.
pub(crate) fn put_order(db: &Database, item: Item) -> Write {
    put(&db.tables.charges, item).condition_expression("attribute_not_exists(payer)").into()
}

/// Sets an order's only outcome, and makes a refund due if one is needed.
pub(crate) fn set_outcome(
    db: &Database,
    order: &PaymentOrder,
    outcome: Outcome,
    at: Timestamp,
) -> Result<Write, StoreError> {
    let update = update(&db.tables.charges, order_key(&order.stripe_id), "")
        .condition_expression("attribute_exists(payer) AND attribute_not_exists(outcome)")
        .expression_attribute_values(":outcome", item::to_attribute(ORDER, &outcome)?)
        .expression_attribute_values(":at", time(at));
    let set = "SET outcome = :outcome, heard_at = :at";
    if outcome != Outcome::RefundDue {
        return Ok(update.update_expression(format!("{set} REMOVE due_shard, due_at")).into());
    }
    let shard = DueTask::Refund(order.stripe_id.clone()).partition();
    Ok(update
        .update_expression(format!("{set}, due_shard = :shard, due_at = :at"))
        .expression_attribute_values(":shard", text(shard))
        .into())
}

/// Marks the order's period as paid: one record per generation and period, one payment per record.
pub(crate) fn set_paid(db: &Database, order: &PaymentOrder, at: Timestamp) -> Option<Write> {
    let (generation, period) = order.period()?;
    let update = update(
        &db.tables.charges,
        charge_key(&order.account_number, generation.as_str(), period),
        "SET paid_by = :order, paid_at = :at, amount_cents = :amount",
    )
    .condition_expression("attribute_not_exists(paid_by)")
    .expression_attribute_values(":order", text(&order.stripe_id))
    .expression_attribute_values(":at", time(at))
    .expression_attribute_values(":amount", number(order.amount_cents));
    Some(update.into())
}

/// Marks a period as waived. A payment that arrives nevertheless is recorded as well.
pub(crate) fn set_waived(
    db: &Database,
    account: &AccountNumber,
    generation: &GenerationId,
    period: Period,
    at: Timestamp,
) -> Write {
    // Needs no condition: it overwrites nothing, and the profile's own condition guards it.
    let key = charge_key(account, generation.as_str(), period);
    let expression = "SET waived_at = if_not_exists(waived_at, :at)";
    update(&db.tables.charges, key, expression).expression_attribute_values(":at", time(at)).into()
}

pub(crate) fn charge_key(account: &AccountNumber, generation: &str, period: Period) -> Item {
    let charge = format!("{generation}#{:04}", period.number());
    key([("account_number", account.as_str()), ("charge", &charge)])
}
