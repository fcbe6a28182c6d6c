//! Giving payments back, and taking back the credits that were bought with them.

use aws_sdk_dynamodb::types::Update;
use jiff::Timestamp;

use crate::due_index::DueKind;
use crate::error::condition_failed;
use crate::item::{self, get_number, number};
use crate::payments::{DuePayment, ORDER, Outcome, due_object, payable_key};
use crate::transaction::{self, TRIES};
use crate::{Store, StoreError};

impl Store {
    /// The payments of one shard that are to be given back at `now`, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn due_refunds(
        &self,
        shard: u8,
        now: Timestamp,
        limit: i32,
    ) -> Result<Vec<Result<DuePayment, StoreError>>, StoreError> {
        let table = &self.tables.charges;
        self.due_in(table, DueKind::Refund, shard, now, limit, due_object)
            .await
    }

    /// Puts a payment that could not be given back off to `until`, so that it hides no other.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn put_off_refund(
        &self,
        due: &DuePayment,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        let (table, key) = (&self.tables.charges, payable_key(&due.object));
        self.claim_in(table, key, due.due, until).await.map(drop)
    }

    /// Writes down that a payment was given back, or that this failed. That it failed stands, whoever says
    /// the other afterwards.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer; saying it again is safe.
    pub async fn end_refund(&self, object: &str, outcome: Outcome) -> Result<(), StoreError> {
        let failed = item::to_attribute(ORDER, &Outcome::RefundFailed)?;
        let update = self
            .client
            .update_item()
            .table_name(&self.tables.charges)
            .set_key(Some(payable_key(object)))
            .update_expression("SET outcome = :outcome REMOVE due_shard, due_at")
            .condition_expression("attribute_exists(outcome) AND outcome <> :failed")
            .expression_attribute_values(":outcome", item::to_attribute(ORDER, &outcome)?)
            .expression_attribute_values(":failed", failed);
        match update.send().await {
            Ok(_) => Ok(()),
            Err(error) if condition_failed(&error) => Ok(()),
            Err(error) => Err(StoreError::unavailable("note refund", error)),
        }
    }

    /// Takes on to take back what `upto` cents of a purchase were for: from how many cents on, and up to
    /// how many. A step that somebody took on before is to be finished first. `None` if so many are
    /// taken back already.
    ///
    /// # Errors
    /// [`StoreError`] if the outcome is not known; asking again is safe.
    pub async fn begin_reversal(
        &self,
        object: &str,
        upto: u64,
    ) -> Result<Option<(u64, u64)>, StoreError> {
        for tried in 0..TRIES {
            let read = self
                .charges_item(payable_key(object), "read payment")
                .await?;
            let item = read.ok_or_else(|| StoreError::corrupt(ORDER))?;
            let from = get_number(&item, "end_reversal", ORDER)?;
            if item.contains_key("taking_back") {
                let to = get_number(&item, "taking_back", ORDER)?;
                return Ok(Some((from, to)));
            }
            if upto <= from {
                return Ok(None);
            }
            let update = Update::builder()
                .table_name(&self.tables.charges)
                .set_key(Some(payable_key(object)))
                .update_expression("SET taking_back = :to")
                .condition_expression("end_reversal = :from AND attribute_not_exists(taking_back)")
                .expression_attribute_values(":from", number(from))
                .expression_attribute_values(":to", number(upto));
            let taken = self.transact("take back", vec![transaction::update(update)?]);
            if taken.await?.is_ok() {
                return Ok(Some((from, upto)));
            }
            transaction::pause(tried).await;
        }
        Err(StoreError::Contended {
            operation: "take back",
        })
    }

    /// The step up to `to` cents is finished. Saying it again changes nothing.
    ///
    /// # Errors
    /// [`StoreError`] if the outcome is not known.
    pub async fn end_reversal(&self, object: &str, to: u64) -> Result<(), StoreError> {
        let update = Update::builder()
            .table_name(&self.tables.charges)
            .set_key(Some(payable_key(object)))
            .update_expression("SET end_reversal = :to REMOVE taking_back")
            .condition_expression("taking_back = :to")
            .expression_attribute_values(":to", number(to));
        let update = vec![transaction::update(update)?];
        self.transact("take back", update).await.map(drop)
    }
}
