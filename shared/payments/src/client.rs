//! Sends requests to Stripe and reads its responses.

use std::sync::Arc;
use std::time::Duration;

use account::AccountNumber;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt as _, Collected, Limited};
use keyvault::Vault;
use reqwest::{Client, RequestBuilder, Response};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tokio::time::timeout;
use url::{Url, form_urlencoded};

use crate::error::{PaymentError, UncertainOutcome};
use crate::ids::{CustomerId, RequestId};
use crate::known;
use crate::rate_limit::RateLimit;
use crate::read;

/// The API version of every call, whatever the Stripe account's default is, so that a change in the
/// Dashboard changes no response. It is the first of the Basil series, whose later versions only
/// add (<https://docs.stripe.com/changelog/basil>), and the oldest in which a session's amount stays
/// in the currency that we asked for. Webhook endpoints have a version of their own:
/// [`Event`](crate::Event) reads older shapes, too.
pub const API_VERSION: &str = "2025-03-31.basil";

/// Maximum size of a response; Stripe's largest objects have about 10 KiB.
pub(crate) const MAX_BODY: usize = 1024 * 1024;
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Time-out of a whole call. A charge waits for the card's issuer: rarely more than ten seconds.
const CALL_TIME: Duration = Duration::from_secs(20);

/// Stripe's API. Cheap to clone.
#[derive(Clone)]
pub struct Stripe {
    http: Client,
    /// Without a trailing slash.
    base: String,
    vault: Vault,
    key_name: String,
    /// `None`: requests do not wait.
    rate_limit: Option<Arc<RateLimit>>,
    pub(crate) call_time: Duration,
}

pub(crate) type Form = Vec<(&'static str, String)>;

pub(crate) enum Decided {
    Done(Value),
    Refused(Refusal),
}

pub(crate) struct Refusal {
    status: StatusCode,
    pub(crate) error: Value,
}

impl Stripe {
    /// `base` is the API's root without its version; `key_name` names the secret with the API key.
    pub fn new(http: Client, base: &Url, vault: Vault, key_name: String) -> Self {
        Self {
            http,
            base: base.as_str().trim_end_matches('/').to_owned(),
            vault,
            key_name,
            rate_limit: None,
            call_time: CALL_TIME,
        }
    }

    /// Sends at most one request per `interval`, counted over all clones. A call that would wait
    /// for more than half a minute is [`PaymentError::RateLimited`].
    #[must_use]
    pub fn with_rate_limit(mut self, interval: Duration) -> Self {
        self.rate_limit = RateLimit::new(interval).map(Arc::new);
        self
    }

    /// Creates a customer; Stripe receives only our account number.
    pub async fn create_customer(
        &self,
        account: &AccountNumber,
        idempotency: &str,
    ) -> Result<CustomerId, PaymentError> {
        let form = vec![("metadata[account]", account.to_string())];
        let created = self.post("/v1/customers", form, Some(idempotency)).await?;
        created.done(|customer| read::id(customer, "id"))
    }

    pub(crate) async fn get<T>(
        &self,
        path: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<T, PaymentError> {
        self.send(self.request(Method::GET, path)).await?.done(read)
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<Decided, PaymentError> {
        self.send(self.request(Method::DELETE, path)).await
    }

    pub(crate) async fn post(
        &self,
        path: &str,
        form: Form,
        idempotency: Option<&str>,
    ) -> Result<Decided, PaymentError> {
        // The serializer is not `Sync`, so it does not live across an await.
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let mut request = self
            .request(Method::POST, path)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(body);
        if let Some(idempotency) = idempotency {
            request = request.header("Idempotency-Key", idempotency);
        }
        self.send(request).await
    }

    /// `path` consists of our own words and checked ids, perhaps with a query of our own.
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.base))
            .header(ACCEPT_ENCODING, "identity")
            .header("Stripe-Version", API_VERSION)
    }

    async fn send(&self, mut request: RequestBuilder) -> Result<Decided, PaymentError> {
        if let Some(rate_limit) = &self.rate_limit {
            rate_limit.wait().await?;
        }
        let key = self.vault.platform_secret(&self.key_name).await?;
        // A key that is no valid header is left out; Stripe then refuses the call.
        if let Ok(mut key) = HeaderValue::try_from(format!("Bearer {}", key.expose_secret())) {
            key.set_sensitive(true);
            request = request.header(AUTHORIZATION, key);
        }
        let call = async { decide(request.send().await?).await };
        let decided = timeout(self.call_time, call)
            .await
            .map_err(|_| PaymentError::Unknown(UncertainOutcome::TimedOut))?;
        if let Err(PaymentError::Unauthorized) = &decided {
            // The key may have been rolled: the next call reads it again.
            self.vault.forget_platform_secret(&self.key_name).await;
        }
        decided
    }
}

async fn decide(response: Response) -> Result<Decided, PaymentError> {
    let status = response.status();
    let header = |name| response.headers().get(name)?.to_str().ok();
    let retry_after = header(RETRY_AFTER).and_then(|text| text.trim().parse().ok());
    let retry_after = retry_after.map(Duration::from_secs);
    let request_id = header(REQUEST_ID).and_then(|id| RequestId::new(id).ok());
    let replayed = header(REPLAYED) == Some("true");
    let body = Limited::new(reqwest::Body::from(response), MAX_BODY);
    let body = body.collect().await.map(Collected::to_bytes);
    if status.is_success() {
        let body = body.map_err(UncertainOutcome::Broken)?;
        let content = serde_json::from_slice(&body);
        let content = content.map_err(|error| UncertainOutcome::Unreadable(error.into()))?;
        return Ok(Decided::Done(content));
    }
    let body: Option<Value> = body.ok().and_then(|body| serde_json::from_slice(&body).ok());
    let error = body.and_then(|mut body| body.get_mut("error").map(Value::take));
    let error = error.unwrap_or_default();
    let kind = read::text(&error, "type");
    let (code, param) = (known::code(&error), known::param(&error));
    tracing::info!(
        status = status.as_u16(),
        code,
        param,
        decline_code = known::decline_code(&error),
        stripe_request_id = request_id.as_ref().map(RequestId::as_str),
        "Stripe did not carry out a call"
    );
    match status.as_u16() {
        401 | 403 => Err(PaymentError::Unauthorized),
        429 if code != Some("lock_timeout") => Err(PaymentError::RateLimited { retry_after }),
        // An error in another format is not Stripe's decision on the call.
        400..=499 if kind.is_some() && !is_uncertain(status, kind) => {
            if status == StatusCode::NOT_FOUND || code == Some("resource_missing") {
                Err(PaymentError::Missing { param })
            } else {
                Ok(Decided::Refused(Refusal { status, error }))
            }
        }
        _ => Err(PaymentError::Unknown(UncertainOutcome::Responded { status, code, replayed })),
    }
}

/// Whether this is a 4xx after which the call may have taken place. Another request is at work on
/// the same object or under the same idempotency key (408, 409, 429), something behind Stripe
/// failed (424), or the key was used before with other parameters (`idempotency_error`).
fn is_uncertain(status: StatusCode, kind: Option<&str>) -> bool {
    matches!(status.as_u16(), 408 | 409 | 424 | 429) || kind == Some("idempotency_error")
}

impl Decided {
    /// Reads the result of a call that must not be refused.
    pub(crate) fn done<T>(self, read: impl FnOnce(&Value) -> Option<T>) -> Result<T, PaymentError> {
        match self {
            Self::Done(content) => parse(&content, read),
            Self::Refused(refusal) => Err(refusal.into()),
        }
    }
}

pub(crate) fn parse<T>(
    content: &Value,
    read: impl FnOnce(&Value) -> Option<T>,
) -> Result<T, PaymentError> {
    read(content).ok_or_else(PaymentError::unreadable)
}

impl Refusal {
    pub(crate) fn is(&self, code: &str) -> bool {
        read::text(&self.error, "code") == Some(code)
    }

    /// Whether the issuer, or Stripe in its place, declined the card.
    pub(crate) fn is_decline(&self) -> bool {
        read::text(&self.error, "type") == Some("card_error")
    }
}

impl From<Refusal> for PaymentError {
    fn from(Refusal { status, error }: Refusal) -> Self {
        Self::Refused { status, code: known::code(&error), param: known::param(&error) }
    }
}
