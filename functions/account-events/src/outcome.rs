//! The outcomes of applying an event.

use account::IdError;
use serde::Serialize;
use store::StoreError;

use crate::event::Malformed;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Created,
    /// The account has another plan now.
    Changed,
    /// The account already had this plan.
    Unchanged,
    /// An event with a higher version was applied before.
    Late,
    Deleted,
}

/// Why an event was not applied. Sending it again is always safe.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("calls from before the account's deletion are still in progress; try again later")]
    CallsInProgress,
    #[error("the account kept changing; try again")]
    Contended,
    #[error("the account could not be read or written; try again")]
    Store(#[from] StoreError),
    #[error("could not make an account number")]
    Number(#[from] IdError),
}
