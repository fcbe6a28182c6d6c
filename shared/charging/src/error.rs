//! Reasons why a payment was not carried out.

use std::convert::Infallible;

use account::Credits;
use payments::PaymentError;
use store::{PostError, StoreError, UpdateError};

pub(crate) type Result<T, E = ChargingError> = std::result::Result<T, E>;

/// A payment that failed to complete. If it was sent, it is looked up later.
#[derive(Debug, thiserror::Error)]
pub enum ChargingError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the account was deleted in the meantime")]
    Gone,
    #[error("Stripe did not carry out a request")]
    Stripe(#[from] PaymentError),
    #[error("a Stripe id cannot be read")]
    Id(#[from] payments::IdError),
    #[error("a ledger entry cannot be named")]
    Entry(#[from] account::IdError),
    #[error("the URL of a Stripe page cannot be read")]
    Url(#[from] url::ParseError),
    #[error("credits cannot be posted")]
    Posting(#[from] PostError),
    #[error("a recorded event cannot be read or written")]
    Event(#[from] payments::JsonError),
    #[error("the account changes faster than its payment can be carried out")]
    Contended,
}

impl From<UpdateError<Infallible>> for ChargingError {
    fn from(error: UpdateError<Infallible>) -> Self {
        match error {
            UpdateError::NotFound => Self::Gone,
            UpdateError::Store(error) => Self::Store(error),
            UpdateError::Refused(never) => match never {},
        }
    }
}

/// Why nothing can be bought.
#[derive(Debug, thiserror::Error)]
pub enum NotBought {
    #[error("the plan includes OpenRouter")]
    NotNeeded,
    #[error("the add-on is active already")]
    AlreadyActive,
    #[error("fewer than {0} credits are available")]
    InsufficientCredits(Credits),
    #[error("no card is charged")]
    NoCardCharged,
    #[error("it is not known yet whether an earlier payment succeeded")]
    InProgress,
    /// The user never saw the session, so another one can be created.
    #[error("Stripe did not create a Checkout Session")]
    NotCreated(#[source] PaymentError),
    #[error(transparent)]
    Failed(ChargingError),
}

impl<E> From<E> for NotBought
where
    ChargingError: From<E>,
{
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}
