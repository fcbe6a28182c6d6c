//! Transactions, and trying a write again after it met another one.

use std::time::Duration;

use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::builders::{DeleteBuilder, PutBuilder, UpdateBuilder};
use aws_sdk_dynamodb::types::{CancellationReason, TransactWriteItem};

use crate::db::Database;
use crate::error::StoreError;

/// Maximum number of tries of a write that meets other writes.
pub(crate) const TRIES: u32 = 12;
const FIRST_PAUSE_MS: u64 = 4;
const LONGEST_PAUSE_MS: u64 = 250;

/// Lets other writers finish: a random time that grows with every try.
pub(crate) async fn pause(tried: u32) {
    let longest = FIRST_PAUSE_MS.saturating_mul(1 << tried.min(16));
    let millis = fastrand::u64(0..=longest.min(LONGEST_PAUSE_MS));
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

/// Counts the tries of a write that starts over with a read.
#[derive(Debug)]
pub(crate) struct Retry {
    operation: &'static str,
    max: u32,
    tried: u32,
    was_unknown: bool,
}

impl Retry {
    pub(crate) fn new(operation: &'static str) -> Self {
        Self::at_most(TRIES, operation)
    }

    pub(crate) fn at_most(max: u32, operation: &'static str) -> Self {
        Self {
            operation,
            max,
            tried: 0,
            was_unknown: false,
        }
    }

    pub(crate) fn is_first_try(&self) -> bool {
        self.tried == 0
    }

    fn count(&mut self) -> Result<u32, StoreError> {
        let tried = self.tried;
        self.tried += 1;
        if self.tried < self.max {
            return Ok(tried);
        }
        let operation = self.operation;
        Err(StoreError::Contended { operation })
    }

    /// Pauses before the next try; [`StoreError::Contended`] if this was the last one.
    pub(crate) async fn pause(&mut self) -> Result<(), StoreError> {
        pause(self.count()?).await;
        Ok(())
    }

    /// Is the write done? If not, the caller reads and tries again: after a conflict, and once after
    /// an unknown outcome, which the read then reveals.
    pub(crate) async fn is_done(
        &mut self,
        written: Result<bool, StoreError>,
    ) -> Result<bool, StoreError> {
        match written {
            Ok(true) => return Ok(true),
            Ok(false) => self.pause().await?,
            Err(error @ StoreError::Unavailable { .. }) if !self.was_unknown => {
                tracing::warn!(%error, "unknown outcome of a write; reading what is stored");
                self.was_unknown = true;
                self.count()?;
            }
            Err(error) => return Err(error),
        }
        Ok(false)
    }
}

/// The outcome of a transaction.
#[derive(Debug)]
pub(crate) enum Transacted {
    Done,
    /// Some condition did not hold: the reasons, one for each item in order.
    Cancelled(Vec<CancellationReason>),
}

impl Transacted {
    pub(crate) fn is_done(self) -> bool {
        matches!(self, Self::Done)
    }
}

/// The reason why the condition of the item at `index` failed, if it did; with the stored item if
/// that was requested.
pub(crate) fn failed_condition(
    reasons: &[CancellationReason],
    index: usize,
) -> Option<&CancellationReason> {
    let reason = reasons.get(index);
    reason.filter(|reason| reason.code() == Some("ConditionalCheckFailed"))
}

impl Database {
    /// Writes `items` as one transaction, and tries again after a collision with another transaction
    /// or a throttle.
    pub(crate) async fn transact(
        &self,
        operation: &'static str,
        items: Vec<TransactWriteItem>,
    ) -> Result<Transacted, StoreError> {
        let mut retry = Retry::new(operation);
        loop {
            let sent = self
                .client
                .transact_write_items()
                .set_transact_items(Some(items.clone()))
                .send();
            let Err(error) = Box::pin(sent).await else {
                return Ok(Transacted::Done);
            };
            let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) =
                error.as_service_error()
            else {
                return Err(StoreError::unavailable(operation, error));
            };
            let reasons = cancelled.cancellation_reasons();
            let code_is = |code| reasons.iter().any(|reason| reason.code() == Some(code));
            if code_is("ConditionalCheckFailed") {
                return Ok(Transacted::Cancelled(reasons.to_vec()));
            }
            let passing = [
                "TransactionConflict",
                "ThrottlingError",
                "ProvisionedThroughputExceeded",
            ];
            if !passing.into_iter().any(code_is) {
                return Err(StoreError::unavailable(operation, error));
            }
            retry.pause().await?;
        }
    }
}

pub(crate) fn update(update: UpdateBuilder) -> Result<TransactWriteItem, StoreError> {
    let update = update.build().map_err(StoreError::invalid)?;
    Ok(TransactWriteItem::builder().update(update).build())
}

pub(crate) fn put(put: PutBuilder) -> Result<TransactWriteItem, StoreError> {
    let put = put.build().map_err(StoreError::invalid)?;
    Ok(TransactWriteItem::builder().put(put).build())
}

pub(crate) fn delete(delete: DeleteBuilder) -> Result<TransactWriteItem, StoreError> {
    let delete = delete.build().map_err(StoreError::invalid)?;
    Ok(TransactWriteItem::builder().delete(delete).build())
}
