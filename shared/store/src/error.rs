//! What can go wrong between us and DynamoDB.

use std::error::Error;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

/// A request to the store that came to nothing, or whose outcome is not known.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// DynamoDB did not answer, or refused for a reason of its own (throttling, access).
    #[error("DynamoDB did not carry out {operation}")]
    Unavailable {
        operation: &'static str,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Others changed the same items again and again.
    #[error("{operation} lost against concurrent changes, retries included")]
    Contended { operation: &'static str },
    /// A request of ours that cannot be sent: a bug.
    #[error("a request to DynamoDB was put together wrongly")]
    Invalid {
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// An item does not have the shape that this version writes.
    #[error("the stored {what} cannot be read")]
    Corrupt {
        what: &'static str,
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
}

impl StoreError {
    pub(crate) fn unavailable<E, R>(operation: &'static str, source: SdkError<E, R>) -> Self
    where
        E: Error + Send + Sync + 'static,
        R: std::fmt::Debug + Send + Sync + 'static,
    {
        Self::Unavailable {
            operation,
            source: Box::new(source),
        }
    }

    pub(crate) fn invalid(source: impl Error + Send + Sync + 'static) -> Self {
        Self::Invalid {
            source: Box::new(source),
        }
    }

    pub(crate) fn corrupt(what: &'static str) -> Self {
        Self::Corrupt { what, source: None }
    }

    pub(crate) fn unreadable(
        what: &'static str,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self::Corrupt {
            what,
            source: Some(Box::new(source)),
        }
    }
}

/// Did a single write fail only because a transaction is changing the same item?
pub(crate) fn met_transaction<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    error.code() == Some("TransactionConflictException")
}

/// Did the request fail because its condition did not hold?
pub(crate) fn condition_failed<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    error.code() == Some("ConditionalCheckFailedException")
}
