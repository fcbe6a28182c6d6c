//! Errors of calls to DynamoDB.

use std::error::Error;
use std::fmt::Debug;

use aws_sdk_dynamodb::error::SdkError;

/// A request to the store that failed, or whose outcome is unknown.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// DynamoDB did not respond, or refused for a reason of its own (throttling, access).
    #[error("DynamoDB did not carry out {operation}")]
    Unavailable {
        operation: &'static str,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Concurrent writers changed the same items again and again.
    #[error("{operation} lost against concurrent changes, retries included")]
    Contended { operation: &'static str },
    /// A request of ours that cannot be sent: a bug.
    #[error("a request to DynamoDB is invalid")]
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
        R: Debug + Send + Sync + 'static,
    {
        Self::Unavailable { operation, source: Box::new(source) }
    }

    pub(crate) fn invalid(source: impl Error + Send + Sync + 'static) -> Self {
        Self::Invalid { source: Box::new(source) }
    }

    pub(crate) fn corrupt(what: &'static str) -> Self {
        Self::Corrupt { what, source: None }
    }

    pub(crate) fn unreadable(
        what: &'static str,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self::Corrupt { what, source: Some(Box::new(source)) }
    }
}
