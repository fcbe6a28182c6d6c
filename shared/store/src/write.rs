//! Writes of single items, alone or together in a transaction.

use std::error::Error;
use std::fmt::Debug;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::builders::{DeleteBuilder, PutBuilder, UpdateBuilder};
use aws_sdk_dynamodb::types::{CancellationReason, Delete, Put, TransactWriteItem, Update};

use crate::db::Database;
use crate::error::StoreError;
use crate::item::Item;
use crate::retry::Retry;

#[derive(Debug, Clone)]
pub(crate) enum Write {
    Put(PutBuilder),
    Update(UpdateBuilder),
    Delete(DeleteBuilder),
}

impl From<PutBuilder> for Write {
    fn from(put: PutBuilder) -> Self {
        Self::Put(put)
    }
}

impl From<UpdateBuilder> for Write {
    fn from(update: UpdateBuilder) -> Self {
        Self::Update(update)
    }
}

impl From<DeleteBuilder> for Write {
    fn from(delete: DeleteBuilder) -> Self {
        Self::Delete(delete)
    }
}

pub(crate) fn put(table: &str, item: Item) -> PutBuilder {
    Put::builder().table_name(table).set_item(Some(item))
}

pub(crate) fn update(table: &str, key: Item, expression: impl Into<String>) -> UpdateBuilder {
    let update = Update::builder().table_name(table).set_key(Some(key));
    update.update_expression(expression)
}

pub(crate) fn delete(table: &str, key: Item) -> DeleteBuilder {
    Delete::builder().table_name(table).set_key(Some(key))
}

impl Write {
    fn build(self) -> Result<TransactWriteItem, StoreError> {
        let item = TransactWriteItem::builder();
        let item = match self {
            Self::Put(put) => item.put(put.build().map_err(StoreError::invalid)?),
            Self::Update(update) => item.update(update.build().map_err(StoreError::invalid)?),
            Self::Delete(delete) => item.delete(delete.build().map_err(StoreError::invalid)?),
        };
        Ok(item.build())
    }
}

#[derive(Debug)]
pub(crate) enum Transacted {
    Done,
    /// A condition did not hold: one reason per item, in order.
    Cancelled(Vec<CancellationReason>),
}

impl Transacted {
    pub(crate) fn succeeded(self) -> bool {
        matches!(self, Self::Done)
    }
}

/// The reason if the condition of the item at `index` failed; with the stored item on request.
pub(crate) fn failed_condition(
    reasons: &[CancellationReason],
    index: usize,
) -> Option<&CancellationReason> {
    let reason = reasons.get(index);
    reason.filter(|reason| reason.code() == Some("ConditionalCheckFailed"))
}

enum Try {
    Done,
    Refused,
    Conflict,
}

impl Try {
    fn of<T, E, R>(
        operation: &'static str,
        sent: Result<T, SdkError<E, R>>,
    ) -> Result<Self, StoreError>
    where
        E: Error + ProvideErrorMetadata + Send + Sync + 'static,
        R: Debug + Send + Sync + 'static,
    {
        let Err(error) = sent else {
            return Ok(Self::Done);
        };
        match error.code() {
            Some("ConditionalCheckFailedException") => Ok(Self::Refused),
            Some("TransactionConflictException") => Ok(Self::Conflict),
            _ => Err(StoreError::unavailable(operation, error)),
        }
    }
}

impl Database {
    /// Writes one item, and waits for transactions on it to end. False if its condition did not
    /// hold, perhaps because an earlier try succeeded and its response was lost.
    pub(crate) async fn write(
        &self,
        operation: &'static str,
        write: impl Into<Write>,
    ) -> Result<bool, StoreError> {
        let write = write.into();
        let mut retry = Retry::new(operation);
        loop {
            // The SDK's futures are large, and those that contain them are moved several times.
            match Box::pin(self.try_write(operation, write.clone())).await? {
                Try::Done => return Ok(true),
                Try::Refused => return Ok(false),
                Try::Conflict => retry.pause().await?,
            }
        }
    }

    async fn try_write(&self, operation: &'static str, write: Write) -> Result<Try, StoreError> {
        match write {
            Write::Put(put) => {
                let put = put.build().map_err(StoreError::invalid)?;
                let sent = self
                    .client
                    .put_item()
                    .table_name(put.table_name)
                    .set_item(Some(put.item))
                    .set_condition_expression(put.condition_expression)
                    .set_expression_attribute_values(put.expression_attribute_values);
                Try::of(operation, sent.send().await)
            }
            Write::Update(update) => {
                let update = update.build().map_err(StoreError::invalid)?;
                let sent = self
                    .client
                    .update_item()
                    .table_name(update.table_name)
                    .set_key(Some(update.key))
                    .update_expression(update.update_expression)
                    .set_condition_expression(update.condition_expression)
                    .set_expression_attribute_names(update.expression_attribute_names)
                    .set_expression_attribute_values(update.expression_attribute_values);
                Try::of(operation, sent.send().await)
            }
            Write::Delete(delete) => {
                let delete = delete.build().map_err(StoreError::invalid)?;
                let sent = self
                    .client
                    .delete_item()
                    .table_name(delete.table_name)
                    .set_key(Some(delete.key))
                    .set_condition_expression(delete.condition_expression)
                    .set_expression_attribute_values(delete.expression_attribute_values);
                Try::of(operation, sent.send().await)
            }
        }
    }

    /// Writes `items` as one transaction; retries after a collision or throttling.
    pub(crate) async fn transact(
        &self,
        operation: &'static str,
        items: Vec<Write>,
    ) -> Result<Transacted, StoreError> {
        let items: Result<Vec<_>, _> = items.into_iter().map(Write::build).collect();
        let transaction = self.client.transact_write_items();
        let transaction = transaction.set_transact_items(Some(items?));
        let mut retry = Retry::new(operation);
        loop {
            let Err(error) = Box::pin(transaction.clone().send()).await else {
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
            let passing =
                ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"];
            if !passing.into_iter().any(code_is) {
                return Err(StoreError::unavailable(operation, error));
            }
            retry.pause().await?;
        }
    }
}
