//! The client for the payment provider, Stripe: signatures, events to facts, API calls.
//!
//! - [`signature`] tells whether Stripe sent an event.
//! - [`Event`] is what an event says, in any API version's shape; what we do not use is
//!   [`Notice::Other`].
//! - [`Stripe`] makes the calls. [`PaymentError`] tells apart what did not arrive, what was refused
//!   and what may have taken place.
//!
//! Architecture invariant: nothing is retried here, and no state is kept but that a key was refused; a
//! call is sent at most once, under the idempotency key that the caller gives it. No personal data is
//! sent, and nothing of Stripe's messages is kept or logged (they may hold input).

mod checkout;
mod decline;
mod error;
mod event;
mod ids;
mod intent;
mod invoice;
mod read;
pub mod signature;
mod subscription;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use account::AccountNumber;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt as _, Collected, Limited};
use reqwest::{Client, RequestBuilder, Response};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::time::timeout;
use url::{Url, form_urlencoded};

pub use checkout::{Checkout, CheckoutStatus, Mode, NewCheckout, Price, Purpose};
pub use decline::Decline;
pub use error::{PaymentError, UncertainOutcome};
pub use event::{CheckoutChange, DisputeState, Event, EventError, Notice};
pub use ids::{
    Cents, CustomerId, DisputeId, EventId, IdError, IntentId, InvoiceId, PaymentMethodId,
    SessionId, SetupIntentId, SubscriptionId,
};
pub use intent::{Intent, IntentStatus, NewIntent, Refund};
pub use invoice::{Invoice, InvoiceStatus};
pub use subscription::{Subscription, SubscriptionStatus};

/// The API version that every call asks for, whatever the Stripe account's default is, so that a
/// change in the Dashboard changes no answer. It is the first of the Basil series, whose later
/// versions only add (<https://docs.stripe.com/changelog/basil>), and the oldest in which periods
/// are told by subscription item and a session's amount stays in the currency that we asked.
/// Webhook endpoints have a version of their own: [`Event`] reads older shapes, too.
pub const API_VERSION: &str = "2025-03-31.basil";

/// The only currency that we ask for.
const CURRENCY: &str = "usd";
/// Stripe's largest objects have some 10 KiB.
const MAX_BODY: usize = 1024 * 1024;
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// How long a whole call is waited for, connecting included. A charge waits for the card's issuer:
/// seconds, seldom more than ten.
const CALL_TIME: Duration = Duration::from_secs(20);

/// Stripe's API. Cheap to clone. Each call takes our secret key, which may be rolled at any time.
#[derive(Debug, Clone)]
pub struct Stripe {
    http: Client,
    /// Without a slash at its end.
    base: String,
    call_time: Duration,
    /// Of all clones.
    key_refused: Arc<AtomicBool>,
}

type Form = Vec<(&'static str, String)>;

/// An answer that leaves no doubt.
enum Answer {
    Done(Value),
    Refused(Refusal),
}

struct Refusal {
    status: StatusCode,
    /// The answer's `error`.
    error: Value,
}

impl Stripe {
    /// `base` is the API's root without its version, `https://api.stripe.com`.
    pub fn new(http: Client, base: &Url) -> Self {
        Self {
            http,
            base: base.as_str().trim_end_matches('/').to_owned(),
            call_time: CALL_TIME,
            key_refused: Arc::default(),
        }
    }

    /// Was a key refused since this was last asked? Then it may have been rolled, and is to be read anew.
    pub fn take_key_refusal(&self) -> bool {
        self.key_refused.swap(false, Ordering::Relaxed)
    }

    /// Makes a payer at Stripe that is known to it by our account number only.
    ///
    /// # Errors
    /// [`PaymentError`].
    pub async fn create_customer(
        &self,
        key: &SecretString,
        account: &AccountNumber,
        idempotency: &str,
    ) -> Result<CustomerId, PaymentError> {
        let form = vec![("metadata[account]", account.to_string())];
        let made = self.post(key, "/v1/customers", form, Some(idempotency));
        let made = made.await?.done()?;
        read::id(&made, "id").ok_or_else(PaymentError::unreadable)
    }

    async fn get(&self, key: &SecretString, path: &str) -> Result<Answer, PaymentError> {
        self.send(key, self.request(Method::GET, path)).await
    }

    async fn delete(&self, key: &SecretString, path: &str) -> Result<Answer, PaymentError> {
        self.send(key, self.request(Method::DELETE, path)).await
    }

    async fn post(
        &self,
        key: &SecretString,
        path: &str,
        form: Form,
        idempotency: Option<&str>,
    ) -> Result<Answer, PaymentError> {
        // The serializer cannot be kept while others work.
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        let mut request = self
            .request(Method::POST, path)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(body);
        if let Some(idempotency) = idempotency {
            request = request.header("Idempotency-Key", idempotency);
        }
        self.send(key, request).await
    }

    /// `path` is made of our own words and checked ids, perhaps with a query of our own.
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.base))
            .header(ACCEPT_ENCODING, "identity")
            .header("Stripe-Version", API_VERSION)
    }

    async fn send(
        &self,
        key: &SecretString,
        mut request: RequestBuilder,
    ) -> Result<Answer, PaymentError> {
        // A key that cannot be a header is left out, and Stripe then refuses the call.
        if let Ok(mut key) = HeaderValue::try_from(format!("Bearer {}", key.expose_secret())) {
            key.set_sensitive(true);
            request = request.header(AUTHORIZATION, key);
        }
        let call = async { answer(request.send().await?).await };
        let answer = timeout(self.call_time, call)
            .await
            .map_err(|_| PaymentError::Unknown(UncertainOutcome::TimedOut))?;
        if let Err(PaymentError::Unauthorized) = &answer {
            self.key_refused.store(true, Ordering::Relaxed);
        }
        answer
    }
}

/// What Stripe's answer says of the call.
async fn answer(response: Response) -> Result<Answer, PaymentError> {
    let status = response.status();
    let header = |name| response.headers().get(name)?.to_str().ok();
    let retry_after = header(RETRY_AFTER).and_then(|text| text.trim().parse().ok());
    let retry_after = retry_after.map(Duration::from_secs);
    let request_id = header(REQUEST_ID).map(str::to_owned);
    let body = Limited::new(reqwest::Body::from(response), MAX_BODY);
    let body = body.collect().await.map(Collected::to_bytes);
    if status.is_success() {
        let body = body.map_err(|error| PaymentError::Unknown(UncertainOutcome::Broken(error)))?;
        let object = serde_json::from_slice(&body);
        let object =
            object.map_err(|error| PaymentError::Unknown(UncertainOutcome::Unreadable(error)))?;
        return Ok(Answer::Done(object));
    }
    let body: Option<Value> = body
        .ok()
        .and_then(|body| serde_json::from_slice(&body).ok());
    let error = body.and_then(|mut body| body.get_mut("error").map(Value::take));
    let error = error.unwrap_or_default();
    let field = |name| read::text(&error, name);
    let kind = field("type");
    let code = field("code").or(kind);
    tracing::info!(
        status = status.as_u16(),
        code,
        param = field("param"),
        decline_code = field("decline_code"),
        request_id,
        "Stripe did not carry out a call"
    );
    match status.as_u16() {
        401 | 403 => Err(PaymentError::Unauthorized),
        429 if code != Some("lock_timeout") => Err(PaymentError::RateLimited { retry_after }),
        // An error that is not of Stripe's form is not its word on the call.
        400..=499 if kind.is_some() && !is_doubtful(status, kind) => {
            let is_missing = status == StatusCode::NOT_FOUND || code == Some("resource_missing");
            if is_missing {
                let param = read::owned(&error, "param");
                Err(PaymentError::Missing { param })
            } else {
                Ok(Answer::Refused(Refusal { status, error }))
            }
        }
        _ => Err(PaymentError::Unknown(UncertainOutcome::Answered {
            status,
            code: code.map(str::to_owned),
        })),
    }
}

/// A 4xx that does not say that nothing took place: another request is at the same object or under
/// the same idempotency key (408, 409, 429), something beyond Stripe failed (424), or the key was
/// used before with other parameters (`idempotency_error`).
/// Sources: <https://docs.stripe.com/api/errors>, <https://docs.stripe.com/rate-limits>.
fn is_doubtful(status: StatusCode, kind: Option<&str>) -> bool {
    matches!(status.as_u16(), 408 | 409 | 424 | 429) || kind == Some("idempotency_error")
}

impl Answer {
    fn done(self) -> Result<Value, PaymentError> {
        match self {
            Self::Done(object) => Ok(object),
            Self::Refused(refusal) => Err(refusal.into()),
        }
    }
}

impl Refusal {
    fn is(&self, code: &str) -> bool {
        read::text(&self.error, "code") == Some(code)
    }

    /// The issuer, or Stripe in its place, declined the card.
    fn is_decline(&self) -> bool {
        self.status == StatusCode::PAYMENT_REQUIRED
            || read::text(&self.error, "type") == Some("card_error")
    }
}

impl From<Refusal> for PaymentError {
    fn from(Refusal { status, error }: Refusal) -> Self {
        Self::Refused {
            status,
            code: read::owned(&error, "code").or_else(|| read::owned(&error, "type")),
            param: read::owned(&error, "param"),
        }
    }
}

#[cfg(test)]
mod tests;
