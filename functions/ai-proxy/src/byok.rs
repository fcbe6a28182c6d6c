//! The OpenRouter path: the user's key, the user's bill, bytes unchanged in both directions.
//!
//! Where a fallback is allowed, the start of a response is read before anything is passed on:
//! OpenRouter sends the head before a provider responds, so a 200 may contain only an error.
//!
//! Architecture invariant: this file does not name `credits`. It only reports whether a failed call
//! may fall back to the default AI.

use std::io;
use std::time::Duration;

use account::Account;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use edge::{ApiError, Code};
use futures_util::{StreamExt as _, stream};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use keyvault::VaultError;
use routing::FallbackCause;
use secrecy::SecretString;
use tokio::time::Instant;
use upstream::{
    Answer, BodyError, ChatError, Failure, FallbackPermission, HasContent, Parsed, UpstreamError,
};

use crate::byok_stream::{Decision, StreamRelay};
use crate::call::Call;
use crate::deps::Deps;
use crate::key_health;

/// Size limit of a response that is collected before it is passed on.
const MAX_COLLECTED: usize = 4 * 1024 * 1024;
/// Size limit of a response that is searched for an error.
const MAX_INSPECTED: usize = 64 * 1024;
/// Time after which a broken connection may have delivered the call.
const MAX_UNDELIVERED_TIME: Duration = Duration::from_secs(1);

/// A call that OpenRouter did not serve.
pub(crate) struct CallFailed {
    /// The cause, if the call may fall back to the default AI.
    pub(crate) fallback_cause: Option<FallbackCause>,
    /// The caller's response, unless the default AI makes the call.
    pub(crate) original: Result<Response, ApiError>,
}

impl CallFailed {
    fn without_fallback(error: ApiError) -> Self {
        Self { fallback_cause: None, original: Err(error) }
    }
}

/// Makes the call with the account's own key. `may_fall_back`: a response that is only an error is
/// reported as a failure, so that the caller can fall back.
pub(crate) async fn respond(
    deps: &Deps,
    account: &Account,
    call: &Call,
    may_fall_back: bool,
) -> Result<Response, CallFailed> {
    let key = deps.user_key(account).await.map_err(|error| CallFailed {
        fallback_cause: Some(FallbackCause::KeyUnavailable),
        original: Err(key_unavailable(error)),
    })?;
    let sent = Instant::now();
    let answer = match deps
        .openrouter
        .chat(&key, call.headers.clone(), call.request.body.clone(), call.kind())
        .await
    {
        Ok(answer) => answer,
        // OpenRouter may have received the call, and may bill it.
        Err(ChatError::TimedOut) => return Err(CallFailed::without_fallback(timed_out())),
        Err(error @ (ChatError::NotSent(_) | ChatError::Lost(_))) => {
            edge::log_error(&error, "could not reach OpenRouter");
            let may_be_billed =
                matches!(error, ChatError::Lost(_)) && sent.elapsed() > MAX_UNDELIVERED_TIME;
            let error = unavailable();
            return Err(CallFailed {
                fallback_cause: Some(FallbackCause::Unavailable),
                original: Err(if may_be_billed { error.without_retry() } else { error }),
            });
        }
    };
    let checker = KeyCheck { deps, account, key: &key };
    if !answer.status().is_success() {
        // Boxed, because it is large and rare.
        return Err(Box::pin(checker.refused(answer)).await);
    }
    if answer.is_event_stream() && !answer.is_encoded() {
        stream(answer, call, &checker, may_fall_back).await
    } else {
        plain(answer, &checker, may_fall_back).await
    }
}

/// Asks OpenRouter about the key after an error.
struct KeyCheck<'a> {
    deps: &'a Deps,
    account: &'a Account,
    key: &'a SecretString,
}

impl KeyCheck<'_> {
    async fn refused(&self, answer: Answer) -> CallFailed {
        let (status, headers) = (answer.status(), answer.all_headers().clone());
        let ids = ids_of(&answer);
        let mut error = answer.error().await;
        tracing::info!(status = status.as_u16(), "OpenRouter refused the call");
        if status == StatusCode::UNAUTHORIZED {
            Box::pin(key_health::confirm_rejection(self.deps, self.account, self.key)).await;
        }
        let fallback_cause = self.cause(&error).await;
        if fallback_cause == Some(FallbackCause::KeyRejected) {
            error.failure = Failure::KeyRejected;
        }
        let now = self.deps.api.clock.now();
        let original = error_for(&error, &headers, now).with_headers(ids);
        CallFailed { fallback_cause, original: Err(original) }
    }

    /// The cause for a fallback, if one is allowed. Asks OpenRouter about the key if only that can
    /// decide.
    async fn cause(&self, error: &UpstreamError) -> Option<FallbackCause> {
        match error.fallback {
            FallbackPermission::Never => None,
            FallbackPermission::IfKeyRejected => {
                let check = key_health::is_rejected(self.deps, self.account, self.key);
                Box::pin(check).await.then_some(FallbackCause::KeyRejected)
            }
            FallbackPermission::Allowed => match error.failure {
                Failure::KeyRejected => Some(FallbackCause::KeyRejected),
                Failure::PaymentRequired => Some(FallbackCause::PaymentRequired),
                Failure::RateLimited => Some(FallbackCause::RateLimited),
                Failure::Unavailable => Some(FallbackCause::Unavailable),
                Failure::Refused
                | Failure::ContextLengthExceeded(_)
                | Failure::RequestRejected(_) => None,
            },
        }
    }
}

/// Converts OpenRouter's error into the caller's. Errors about the request itself carry
/// OpenRouter's own message, which is meant for the key's owner.
pub(crate) fn error_for(
    error: &UpstreamError,
    headers: &HeaderMap,
    now: jiff::Timestamp,
) -> ApiError {
    let about_the_request = |code: Code, otherwise: &'static str| {
        let own = error.message().map(|message| format!("OpenRouter: {message}"));
        let detail = own.map_or(otherwise.into(), std::borrow::Cow::Owned);
        ApiError::new(code, detail).with_metadata(error.metadata())
    };
    match error.failure {
        Failure::KeyRejected => ApiError::new(
            Code::OpenRouterKeyRejected,
            "OpenRouter does not accept the connected key; replace it under Settings, Integrations",
        ),
        Failure::PaymentRequired => ApiError::new(
            Code::OpenRouterPaymentRequired,
            "your OpenRouter account or key has no credit left for this call; add credit or raise \
             the key's limit at OpenRouter",
        ),
        Failure::Refused => about_the_request(
            Code::OpenRouterRequestRefused,
            "OpenRouter refused the request; check its content and your OpenRouter settings",
        ),
        Failure::RateLimited => ApiError::new(
            Code::OpenRouterRateLimited,
            "OpenRouter is rate-limiting your calls; wait and try again",
        )
        .with_retry_after(error.retry_after(headers, now)),
        Failure::ContextLengthExceeded(status) => about_the_request(
            Code::ContextLengthExceeded,
            "the request is longer than the model's context length; shorten it",
        )
        .with_status(status),
        Failure::RequestRejected(status) => {
            let detail = match status.as_u16() {
                404 => "OpenRouter has no such model, or none of its providers may serve it",
                413 => "OpenRouter rejected the request as too large",
                _ => "OpenRouter rejected the request; check its model and parameters",
            };
            about_the_request(Code::OpenRouterRequestRejected, detail).with_status(status)
        }
        Failure::Unavailable => unavailable(),
    }
}

/// The headers that identify a failed call at OpenRouter.
fn ids_of(answer: &Answer) -> HeaderMap {
    let mut headers = answer.headers().clone();
    for name in [CONTENT_TYPE, CONTENT_ENCODING, RETRY_AFTER] {
        headers.remove(name);
    }
    headers
}

pub(crate) fn unavailable() -> ApiError {
    ApiError::new(
        Code::OpenRouterUnavailable,
        "OpenRouter failed or could not be reached; try again",
    )
}

fn timed_out() -> ApiError {
    ApiError::new(
        Code::OpenRouterTimeout,
        "OpenRouter did not respond in time; it may still bill the call",
    )
    .without_retry()
}

pub(crate) fn key_unavailable(error: VaultError) -> ApiError {
    edge::log_error(&error, "could not read the key's secret");
    ApiError::new(
        Code::KeyUnavailable,
        "the connected key cannot be read right now; try again, and reconnect the key if this \
         persists",
    )
}

/// A response that is not streamed. JSON is collected first, so that a truncated body becomes an
/// error.
async fn plain(
    mut answer: Answer,
    check: &KeyCheck<'_>,
    may_fall_back: bool,
) -> Result<Response, CallFailed> {
    let (status, headers) = (answer.status(), answer.headers().clone());
    if !answer.is_json() {
        return Ok((status, headers, resume_body(Vec::new(), Some(answer))).into_response());
    }
    let start = answer.read_up_to(MAX_COLLECTED).await.map_err(|error| {
        edge::log_error(&error, "OpenRouter's response was cut off");
        let error = match error {
            BodyError::TimedOut => timed_out(),
            BodyError::Broken(_) | BodyError::Idle => unavailable().without_retry(),
        };
        CallFailed::without_fallback(error.with_headers(ids_of(&answer)))
    })?;
    let is_readable = start.is_complete && start.len() <= MAX_INSPECTED && !answer.is_encoded();
    let error = (may_fall_back && is_readable).then(|| Parsed::of_body(&start.bytes()));
    let body = resume_body(start.chunks, (!start.is_complete).then_some(answer));
    let response = (status, headers, body).into_response();
    match error {
        Some(Parsed::Error(error, _, HasContent::No)) => {
            Err(CallFailed { fallback_cause: check.cause(&error).await, original: Ok(response) })
        }
        _ => Ok(response),
    }
}

/// A body from the chunks already read, followed by the rest as it arrives. If the rest breaks off,
/// the caller's body does too.
fn resume_body(mut read: Vec<Bytes>, rest: Option<Answer>) -> Body {
    if rest.is_none() && read.len() <= 1 {
        return Body::from(read.pop().unwrap_or_default());
    }
    let rest = stream::unfold(rest, async |answer| {
        let mut answer = answer?;
        match answer.next().await? {
            Ok(chunk) => Some((Ok(chunk), Some(answer))),
            Err(error) => {
                edge::log_error(&error, "OpenRouter's response was cut off");
                Some((Err(io::Error::other("the response was cut off")), None))
            }
        }
    });
    Body::from_stream(stream::iter(read.into_iter().map(Ok)).chain(rest))
}

async fn stream(
    answer: Answer,
    call: &Call,
    check: &KeyCheck<'_>,
    may_fall_back: bool,
) -> Result<Response, CallFailed> {
    let (status, headers) = (answer.status(), answer.headers().clone());
    let mut relay = StreamRelay::new(answer, call, &check.deps.api.clock);
    let decision = if may_fall_back { relay.decide().await } else { Decision::Relay };
    let response = (status, headers, relay.into_body()).into_response();
    match decision {
        Decision::Relay => Ok(response),
        Decision::OnlyAnError(error) => {
            Err(CallFailed { fallback_cause: check.cause(&error).await, original: Ok(response) })
        }
    }
}
