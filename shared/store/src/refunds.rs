//! Refunds of payments that were not owed, and reversals of purchases after refunds and disputes.

use account::{Account, Credits, EntryId, ReversalReport, Reversals};
use aws_sdk_dynamodb::types::builders::UpdateBuilder;
use jiff::Timestamp;

use crate::accounts::account_by_number;
use crate::db::Database;
use crate::due_index::order_key;
use crate::error::StoreError;
use crate::item::{self, Attributes, number};
use crate::ledger::{EntryKind, Ledger};
use crate::orders::{ORDER, Outcome, PaymentOrder, Purchase};
use crate::payments::Payments;
use crate::postings::{PostError, Posting};
use crate::retry::Retry;
use crate::write::{Transacted, Write, update};

/// The ledger actor of postings caused by a payment at Stripe.
pub const STRIPE_ACTOR: &str = "stripe";

impl Payments {
    /// Records that a refund was made or failed. A failure is never overwritten.
    pub async fn end_refund(&self, stripe_id: &str, outcome: Outcome) -> Result<(), StoreError> {
        let failed = item::to_attribute(ORDER, &Outcome::RefundFailed)?;
        let expression = "SET outcome = :outcome REMOVE due_shard, due_at";
        let update = update_order(&self.db, stripe_id, expression)
            .condition_expression("attribute_exists(outcome) AND outcome <> :failed")
            .expression_attribute_values(":outcome", item::to_attribute(ORDER, &outcome)?)
            .expression_attribute_values(":failed", failed);
        self.db.write("end refund", update).await.map(drop)
    }

    /// The known refunds and disputes of a payment.
    pub async fn reversals(&self, stripe_id: &str) -> Result<Reversals, StoreError> {
        stored_reversals(&self.db, stripe_id).await
    }
}

impl Ledger {
    /// Merges reports of refunds and disputes into a payment that counted. If it bought credits,
    /// posts the change in the transaction that stores the reports, unless the account was deleted.
    /// Safe to repeat.
    pub async fn apply_reversals(
        &self,
        order: &PaymentOrder,
        reports: &[ReversalReport],
        at: Timestamp,
    ) -> Result<(), PostError> {
        let operation = "apply reversals";
        let mut retry = Retry::new(operation);
        loop {
            let before = stored_reversals(&self.db, &order.stripe_id).await?;
            let mut after = before.clone();
            after.apply(reports, order.amount_cents);
            if after == before {
                return Ok(());
            }
            let mut items = vec![store_reversals(&self.db, order, &before, &after)?];
            if let Purchase::Credits { entry, credits } = &order.purchase {
                let undone = |reversals: &Reversals| {
                    reversals.undone_of(*credits, order.amount_cents).micros()
                };
                let returned = undone(&before).saturating_sub(undone(&after));
                let account = account_by_number(&self.db, &order.account_number).await?;
                if let Some(account) = account.filter(|_| returned != 0) {
                    let entry = EntryId::new(format!("{entry}-back-{}", after.version()));
                    let entry = entry.map_err(StoreError::invalid)?;
                    let returned = Credits::from_micros(returned);
                    items.extend(self.reversal_items(&account, &entry, returned, reports, at)?);
                }
            }
            let written = self.db.transact(operation, items).await;
            if retry.is_done(written.map(Transacted::succeeded)).await? {
                return Ok(());
            }
        }
    }

    /// The posting of `returned` credits, or of a reversal if that is negative.
    fn reversal_items(
        &self,
        account: &Account,
        entry: &EntryId,
        returned: Credits,
        reports: &[ReversalReport],
        at: Timestamp,
    ) -> Result<Vec<Write>, PostError> {
        let is_reversal = returned.is_negative();
        let is_dispute = |report| matches!(report, &ReversalReport::Dispute { .. });
        let posting = Posting {
            id: entry,
            kind: if is_reversal { EntryKind::Reversal } else { EntryKind::Refund },
            amount: returned,
            at,
            note: match (is_reversal, reports.iter().any(is_dispute)) {
                (true, false) => "card payment refunded",
                (true, true) => "card payment disputed",
                (false, false) => "refund of the card payment failed",
                (false, true) => "dispute of the card payment won",
            },
            actor: STRIPE_ACTOR,
        };
        let plan = if is_reversal {
            posting.plan(account.balance)?
        } else {
            posting.undo_reversal(account.balance)?
        };
        let balance_update = self.balance_update(account, &plan)?;
        Ok(self.posting_items(account, &posting, &plan, balance_update)?)
    }
}

async fn stored_reversals(db: &Database, stripe_id: &str) -> Result<Reversals, StoreError> {
    let item = db.charge("read order", order_key(stripe_id)).await?;
    let item = item.ok_or_else(|| StoreError::corrupt(ORDER))?;
    let reversals = Attributes::of(ORDER, &item).optional("reversals")?;
    Ok(reversals.unwrap_or_default())
}

fn store_reversals(
    db: &Database,
    order: &PaymentOrder,
    before: &Reversals,
    after: &Reversals,
) -> Result<Write, StoreError> {
    let update = update_order(db, &order.stripe_id, "SET reversals = :after")
        .expression_attribute_values(":after", item::to_attribute(ORDER, after)?);
    let update = if before.version() == 0 {
        update.condition_expression("attribute_exists(payer) AND attribute_not_exists(reversals)")
    } else {
        update
            .condition_expression("reversals.version = :before")
            .expression_attribute_values(":before", number(before.version()))
    };
    Ok(update.into())
}

fn update_order(db: &Database, stripe_id: &str, expression: &str) -> UpdateBuilder {
    update(&db.tables.charges, order_key(stripe_id), expression)
}
