//! Refunds of payments that were not owed, and reversals of purchased credits.

use aws_sdk_dynamodb::types::builders::UpdateBuilder;

use crate::due_index::order_key;
use crate::error::StoreError;
use crate::item::{self, Attributes, number};
use crate::orders::{ORDER, Outcome};
use crate::payments::Payments;
use crate::retry::Retry;
use crate::write::update;

/// A step of a reversal, in cents of the purchase's price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReversalStep {
    pub from: u64,
    pub to: u64,
}

impl Payments {
    /// Records that a refund was made or failed. A failure is never overwritten.
    pub async fn end_refund(&self, stripe_id: &str, outcome: Outcome) -> Result<(), StoreError> {
        let failed = item::to_attribute(ORDER, &Outcome::RefundFailed)?;
        let expression = "SET outcome = :outcome REMOVE due_shard, due_at";
        let update = self
            .update(stripe_id, expression)
            .condition_expression("attribute_exists(outcome) AND outcome <> :failed")
            .expression_attribute_values(":outcome", item::to_attribute(ORDER, &outcome)?)
            .expression_attribute_values(":failed", failed);
        self.db.write("end refund", update).await.map(drop)
    }

    /// Begins to reverse a purchase up to `to` cents of its price. If another process has begun a
    /// step, that step has to be finished first and is returned instead. `None` if that much is
    /// reversed already. Beginning again is safe.
    pub async fn begin_reversal(
        &self,
        stripe_id: &str,
        to: u64,
    ) -> Result<Option<ReversalStep>, StoreError> {
        let mut retry = Retry::new("begin reversal");
        loop {
            let item = self.item(stripe_id).await?;
            let item = item.ok_or_else(|| StoreError::corrupt(ORDER))?;
            let item = Attributes::of(ORDER, &item);
            let from = item.get("reversed_cents")?;
            if let Some(to) = item.optional("reversing_cents")? {
                return Ok(Some(ReversalStep { from, to }));
            }
            if to <= from {
                return Ok(None);
            }
            let update = self
                .update(stripe_id, "SET reversing_cents = :to")
                .condition_expression(
                    "reversed_cents = :from AND attribute_not_exists(reversing_cents)",
                )
                .expression_attribute_values(":from", number(from))
                .expression_attribute_values(":to", number(to));
            let items = vec![update.into()];
            if self.db.transact("begin reversal", items).await?.succeeded() {
                return Ok(Some(ReversalStep { from, to }));
            }
            retry.pause().await?;
        }
    }

    /// Ends the step up to `to` cents. Ending it again changes nothing.
    pub async fn end_reversal(&self, stripe_id: &str, to: u64) -> Result<(), StoreError> {
        let expression = "SET reversed_cents = :to REMOVE reversing_cents";
        let update = self
            .update(stripe_id, expression)
            .condition_expression("reversing_cents = :to")
            .expression_attribute_values(":to", number(to));
        let items = vec![update.into()];
        self.db.transact("end reversal", items).await.map(drop)
    }

    fn update(&self, stripe_id: &str, expression: &str) -> UpdateBuilder {
        update(&self.db.tables.charges, order_key(stripe_id), expression)
    }
}
