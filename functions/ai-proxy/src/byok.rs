//! The OpenRouter path: the user's key, the user's bill, bytes unchanged in both directions.
//!
//! Architecture invariant: this file does not name `credits`. It only reports whether a failed call
//! may be made elsewhere.

use std::convert::Infallible;
use std::time::Duration;

use account::Account;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use edge::{ApiError, Code};
use futures_util::stream;
use http::StatusCode;
use keyvault::VaultError;
use routing::FallbackCause;
use secrecy::SecretString;
use tracing::{Instrument, Span};
use upstream::sse::Scanner;
use upstream::{Answer, BodyError, ChatError, Failure};

use crate::body_chunks::BodyChunks;
use crate::call::Call;
use crate::deps::Deps;
use crate::key_health;
use crate::stream_error::interrupted;

/// A call without a response from OpenRouter to pass on.
pub(crate) struct CallFailed {
    /// Set if the default AI may make the call instead. If the connection was lost before the
    /// response head, OpenRouter may still have received the call.
    pub(crate) fallback_cause: Option<FallbackCause>,
    /// The caller's response, unless the default AI makes the call.
    pub(crate) error: ApiError,
}

impl CallFailed {
    fn for_good(error: ApiError) -> Self {
        Self { fallback_cause: None, error }
    }

    fn of(failure: Failure, retry_after: Option<Duration>) -> Self {
        let fallback_cause = match failure {
            Failure::KeyRejected => Some(FallbackCause::KeyRejected),
            Failure::PaymentRequired => Some(FallbackCause::PaymentRequired),
            Failure::RateLimited => Some(FallbackCause::RateLimited),
            Failure::Unavailable => Some(FallbackCause::Unavailable),
            Failure::ContentRefused | Failure::RequestRejected(_) => None,
        };
        Self { fallback_cause, error: error_for(failure, retry_after) }
    }
}

/// Makes the call with the account's own key.
pub(crate) async fn respond(
    deps: &Deps,
    account: &Account,
    call: &Call,
) -> Result<Response, CallFailed> {
    let key = deps.user_key(account).await.map_err(|error| CallFailed {
        fallback_cause: Some(FallbackCause::KeyUnavailable),
        error: key_unavailable(error),
    })?;
    let body = call.request.body.clone();
    match deps.openrouter.chat(&key, body, call.kind()).await {
        Ok(answer) if answer.status().is_success() => relay(answer, call).await,
        Ok(answer) => Err(refused(deps, account, &key, answer).await),
        // OpenRouter may have received the call, and may bill it.
        Err(ChatError::TimedOut) => Err(CallFailed::for_good(timed_out())),
        Err(error @ (ChatError::NotSent(_) | ChatError::Lost(_))) => {
            edge::log_error(&error, "could not reach OpenRouter");
            Err(CallFailed::of(Failure::Unavailable, None))
        }
    }
}

async fn refused(deps: &Deps, account: &Account, key: &SecretString, answer: Answer) -> CallFailed {
    let (status, retry_after) = (answer.status(), answer.retry_after());
    let body = answer.error_body().await;
    tracing::info!(status = status.as_u16(), "OpenRouter refused the call");
    if status == StatusCode::UNAUTHORIZED {
        Box::pin(key_health::confirm_rejection(deps, account, key)).await;
    }
    let failure = Failure::of(status, &body).unwrap_or(Failure::Unavailable);
    CallFailed::of(failure, retry_after)
}

/// OpenRouter's own text is not passed on: it may echo the input or describe the account.
pub(crate) fn error_for(failure: Failure, retry_after: Option<Duration>) -> ApiError {
    match failure {
        Failure::KeyRejected => ApiError::new(
            Code::OpenRouterKeyRejected,
            "OpenRouter does not accept the connected key; replace it under Settings, Integrations",
        ),
        Failure::PaymentRequired => ApiError::new(
            Code::OpenRouterPaymentRequired,
            "your OpenRouter account or key has no credit left for this call; add credit or raise \
             the key's limit at OpenRouter",
        ),
        Failure::ContentRefused => ApiError::new(
            Code::OpenRouterRequestRefused,
            "OpenRouter refused the request because of its content",
        ),
        Failure::RateLimited => ApiError::new(
            Code::OpenRouterRateLimited,
            "OpenRouter limits the rate of your calls; wait and try again",
        )
        .with_retry_after(retry_after.unwrap_or(Duration::from_secs(1))),
        Failure::RequestRejected(status) => {
            let detail = match status.as_u16() {
                404 => "OpenRouter has no such model, or none of its providers may serve it",
                413 => "OpenRouter rejected the request as too large",
                _ => "OpenRouter rejected the request; check its model and parameters",
            };
            ApiError::new(Code::OpenRouterRequestRejected, detail).with_status(status)
        }
        Failure::Unavailable => unavailable(),
    }
}

fn unavailable() -> ApiError {
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
}

pub(crate) fn key_unavailable(error: VaultError) -> ApiError {
    edge::log_error(&error, "could not read the key's secret");
    ApiError::new(
        Code::KeyUnavailable,
        "the connected key cannot be read at the moment; try again, and reconnect the key if this \
         persists",
    )
}

async fn relay(answer: Answer, call: &Call) -> Result<Response, CallFailed> {
    let (status, headers) = (answer.status(), answer.headers());
    let body = if answer.is_event_stream() {
        stream_body(answer, call)
    } else {
        let collected = answer.collect().await;
        Body::from(collected.map_err(|error| {
            edge::log_error(&error, "OpenRouter's response was cut off");
            CallFailed::for_good(match error {
                BodyError::TimedOut => timed_out(),
                BodyError::Broken(_) | BodyError::Idle => unavailable(),
            })
        })?)
    };
    Ok((status, headers, body).into_response())
}

/// The stream's bytes as they come, read only as fast as the caller reads. When the caller
/// disconnects, the connection to OpenRouter is dropped too, and OpenRouter stops billing.
fn stream_body(answer: Answer, call: &Call) -> Body {
    let relay = Relay {
        chunks: BodyChunks::new(answer, call.deadline),
        scanner: Scanner::default(),
        ended: false,
    };
    // The body outlives the handler, but its log lines still need the call id.
    let span = Span::current();
    Body::from_stream(stream::unfold(relay, move |relay| relay.next().instrument(span.clone())))
}

struct Relay {
    chunks: BodyChunks,
    scanner: Scanner,
    ended: bool,
}

impl Relay {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if self.ended {
            return None;
        }
        if let Some(chunk) = self.chunks.next().await {
            let was_done = self.scanner.done;
            self.scanner.feed(chunk.clone());
            if self.scanner.done && !was_done {
                self.chunks.stop_soon();
            }
            return Some((Ok(chunk), self));
        }
        self.ended = true;
        self.scanner.end();
        tracing::info!(
            complete = self.scanner.done,
            failed = self.scanner.failed,
            usage = ?self.scanner.usage,
            "stream ended"
        );
        (!self.scanner.done).then(|| (Ok(interrupted()), self))
    }
}
