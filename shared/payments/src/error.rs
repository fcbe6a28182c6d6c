//! What is known of a call that did not succeed.

use std::error::Error;
use std::time::Duration;

use http::StatusCode;

/// Why a call has no result, told apart by whether it may have taken place at Stripe. On this rests
/// that nobody is charged twice.
///
/// Of a call that only asks, every variant says no more than that there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum PaymentError {
    /// No connection was made (DNS, refused, TLS, connect time-out): the call did not arrive, and
    /// may be made again.
    #[error("Stripe could not be reached; nothing was sent")]
    NotSent(#[source] reqwest::Error),
    /// The call may have taken place. Look up its object, or make the same call with the same
    /// idempotency key; never make it with another key.
    #[error("it is not known whether Stripe carried out the call")]
    Unknown(#[source] UncertainOutcome),
    /// 429: not carried out, because Stripe limits requests before it looks at them.
    /// Source: <https://docs.stripe.com/error-low-level>.
    #[error("Stripe limits our requests; make the call again later")]
    RateLimited { retry_after: Option<Duration> },
    /// 401 or 403: our key is wrong, or may not do this.
    #[error("Stripe does not accept our key for this call")]
    Unauthorized,
    /// What the call is about, or what `param` names, does not exist for our key.
    #[error("Stripe knows no such object (parameter: {param:?})")]
    Missing { param: Option<String> },
    /// Any other 4xx: not carried out. Made again with the same idempotency key it gets the same
    /// answer for a day or longer.
    #[error("Stripe refused the call: {status}, code {code:?}, parameter {param:?}")]
    Refused {
        status: StatusCode,
        code: Option<String>,
        param: Option<String>,
    },
}

/// Why it is not known whether a call took place.
#[derive(Debug, thiserror::Error)]
pub enum UncertainOutcome {
    /// The connection broke after something may have been sent.
    #[error("the call was sent, and no answer came")]
    Lost(#[source] reqwest::Error),
    #[error("the call was sent, and no whole answer came in time")]
    TimedOut,
    #[error("the call was sent, and no whole answer came")]
    Broken(#[source] Box<dyn Error + Send + Sync>),
    #[error("the answer cannot be read")]
    Unreadable(#[source] serde_json::Error),
    /// A 5xx; a conflict with another request (409, or 429 with `lock_timeout`); an idempotency key
    /// that was used before for something else; or an answer that is not Stripe's.
    #[error("Stripe answered {status}, code {code:?}")]
    Answered {
        status: StatusCode,
        code: Option<String>,
    },
    /// Stripe refused the call for the state that the object is in, and that state is not known.
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
    /// The same call, of the same idempotency key, is being carried out for somebody else. Made again, it gets that
    /// one's answer once there is one.
    pub fn is_under_way(&self) -> bool {
        matches!(
            self,
            Self::Unknown(UncertainOutcome::Answered { code: Some(code), .. }) if code == "idempotency_key_in_use"
        )
    }

    /// For a look-up that follows a call: whatever it says, it does not say it of the call.
    pub(crate) fn after_a_call(self) -> Self {
        Self::Unknown(UncertainOutcome::NotLookedUp(Box::new(self)))
    }

    /// An answer of success that is not what was asked for.
    pub(crate) fn unreadable() -> Self {
        let error = <serde_json::Error as serde::de::Error>::missing_field("id");
        Self::Unknown(UncertainOutcome::Unreadable(error))
    }
}
