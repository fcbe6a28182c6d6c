//! Transactions, tried again where they only met another one.

use std::time::Duration;

use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::builders::{DeleteBuilder, PutBuilder, UpdateBuilder};
use aws_sdk_dynamodb::types::{CancellationReason, TransactWriteItem};

use crate::{Store, StoreError};

/// How often a write that met another one is tried.
pub(crate) const TRIES: u32 = 12;
const FIRST_PAUSE_MS: u64 = 4;
const LONGEST_PAUSE_MS: u64 = 250;

/// Lets other writers finish: a random time, longer with every `tried`.
pub(crate) async fn pause(tried: u32) {
    let longest = FIRST_PAUSE_MS.saturating_mul(1 << tried.min(16));
    let millis = fastrand::u64(0..=longest.min(LONGEST_PAUSE_MS));
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

/// Some condition of the transaction did not hold: the reasons, one for each item in order.
#[derive(Debug)]
pub(crate) struct Cancelled(Vec<CancellationReason>);

impl Cancelled {
    /// Did the condition of the item at `index` fail? With the item as it stands, if asked for.
    pub(crate) fn condition_failed(&self, index: usize) -> Option<&CancellationReason> {
        self.0
            .get(index)
            .filter(|reason| reason.code() == Some("ConditionalCheckFailed"))
    }
}

impl Store {
    /// Carries `items` out as one transaction. A collision with another transaction, or a throttle,
    /// is waited out with growing, random pauses.
    pub(crate) async fn transact(
        &self,
        operation: &'static str,
        items: Vec<TransactWriteItem>,
    ) -> Result<Result<(), Cancelled>, StoreError> {
        for tried in 0..TRIES {
            let sent = self
                .client
                .transact_write_items()
                .set_transact_items(Some(items.clone()))
                .send()
                .await;
            let Err(error) = sent else {
                return Ok(Ok(()));
            };
            let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) =
                error.as_service_error()
            else {
                return Err(StoreError::unavailable(operation, error));
            };
            let reasons = cancelled.cancellation_reasons();
            let code_is = |code| reasons.iter().any(|reason| reason.code() == Some(code));
            if code_is("ConditionalCheckFailed") {
                return Ok(Err(Cancelled(reasons.to_vec())));
            }
            let passing = [
                "TransactionConflict",
                "ThrottlingError",
                "ProvisionedThroughputExceeded",
            ];
            if !passing.into_iter().any(code_is) {
                return Err(StoreError::unavailable(operation, error));
            }
            pause(tried).await;
        }
        Err(StoreError::Contended { operation })
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
