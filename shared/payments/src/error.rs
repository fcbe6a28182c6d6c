//! Errors of calls to Stripe.

use std::error::Error;
use std::time::Duration;

use http::StatusCode;
use keyvault::VaultError;

use crate::json::JsonError;

/// Why a call has no result. The variants distinguish whether Stripe may have carried out the call,
/// which is what prevents double charges. For a look-up, each variant means only that there is no
/// result.
#[derive(Debug, thiserror::Error)]
pub enum PaymentError {
    #[error("Stripe's API key cannot be read; nothing was sent")]
    Key(#[from] VaultError),
    /// No connection was made (DNS, refused, TLS, connect time-out): the call did not arrive.
    #[error("Stripe could not be reached; nothing was sent")]
    NotSent(#[source] reqwest::Error),
    /// The call may have taken place. Look up the object, or repeat the call with the same
    /// idempotency key; never use another key.
    #[error("it is not known whether Stripe carried out the call")]
    Unknown(#[from] UncertainOutcome),
    /// Not carried out: Stripe returned 429, which it does before it looks at a request
    /// (<https://docs.stripe.com/error-low-level>), or the rate limit of this process was reached.
    #[error("Stripe limits our requests; repeat the call later")]
    RateLimited { retry_after: Option<Duration> },
    /// 401 or 403: our key is wrong, or may not do this.
    #[error("Stripe does not accept our API key for this call")]
    Unauthorized,
    /// The object of the call, or the one that `param` names, does not exist for our key.
    #[error("a resource does not exist at Stripe (parameter: {param:?})")]
    Missing { param: Option<&'static str> },
    /// Any other 4xx: not carried out. Repeated with the same idempotency key, the call gets the
    /// same response for a day or longer.
    #[error("Stripe refused the call: {status}, code {code:?}, parameter {param:?}")]
    Refused { status: StatusCode, code: Option<&'static str>, param: Option<&'static str> },
}

/// Why it is not known whether a call took place.
#[derive(Debug, thiserror::Error)]
pub enum UncertainOutcome {
    /// The connection broke after something may have been sent.
    #[error("the call was sent, and no response came")]
    Lost(#[source] reqwest::Error),
    #[error("the call was sent, and the response did not come in time")]
    TimedOut,
    #[error("the call was sent, and the response broke off")]
    Broken(#[source] Box<dyn Error + Send + Sync>),
    #[error("the response is not usable: {0}")]
    Unreadable(JsonError),
    #[error("the response does not contain the expected object")]
    Unexpected,
    /// A 5xx; a conflict with another request (409, or 429 with `lock_timeout`); an idempotency key
    /// that was used before for something else; or a response that is not Stripe's.
    #[error("Stripe responded with {status}, code {code:?}")]
    Responded {
        status: StatusCode,
        code: Option<&'static str>,
        /// Stripe replayed its first response under the idempotency key.
        replayed: bool,
    },
    /// Stripe refused the call because of the object's state, and that state is not known.
    #[error("the object could not be looked up afterwards")]
    NotLookedUp(#[source] Box<PaymentError>),
}

impl From<reqwest::Error> for PaymentError {
    fn from(error: reqwest::Error) -> Self {
        let error = error.without_url();
        if error.is_connect() || error.is_builder() {
            Self::NotSent(error)
        } else {
            Self::Unknown(UncertainOutcome::Lost(error))
        }
    }
}

impl PaymentError {
    /// Whether the same call, with the same idempotency key, is in progress elsewhere. If repeated,
    /// it gets the other call's response.
    pub fn is_in_progress(&self) -> bool {
        matches!(
            self,
            Self::Unknown(UncertainOutcome::Responded { code: Some("idempotency_key_in_use"), .. })
        )
    }

    /// Whether Stripe responded with a failure. No result of the call was shown to the user, so it
    /// is safe to create another.
    pub fn is_failure_response(&self) -> bool {
        matches!(
            self,
            Self::Missing { .. }
                | Self::Refused { .. }
                | Self::Unknown(UncertainOutcome::Responded { .. })
        ) && !self.is_in_progress()
    }

    /// Whether this idempotency key is spent: Stripe only replays a failure under it, or refuses
    /// it. Only a call with another key can succeed.
    pub fn is_idempotency_key_spent(&self) -> bool {
        let Self::Unknown(UncertainOutcome::Responded { status, code, replayed }) = self else {
            return false;
        };
        (*replayed && status.is_server_error()) || *code == Some("idempotency_error")
    }

    /// Whether the object named by this parameter is missing.
    pub fn is_missing(&self, name: &str) -> bool {
        matches!(self, Self::Missing { param: Some(param) } if *param == name)
    }

    /// For a look-up that follows a call: its error says nothing about the call.
    pub(crate) fn after_a_call(self) -> Self {
        Self::Unknown(UncertainOutcome::NotLookedUp(Box::new(self)))
    }

    /// For a successful response that does not contain the expected object.
    pub(crate) fn unreadable() -> Self {
        Self::Unknown(UncertainOutcome::Unexpected)
    }
}
