//! The OpenRouter path: the user's key, the user's bill, bytes unchanged in both directions.
//!
//! Nothing here touches credits. Where the table allows a fallback and OpenRouter did not take the
//! call, [`crate::credits`] takes it, once, before a byte has gone to the caller.

use std::convert::Infallible;
use std::time::Duration;

use account::Account;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use edge::{ApiError, Code};
use futures_util::stream;
use http::StatusCode;
use keyvault::VaultError;
use routing::{Fallback, FallbackCause};
use tracing::{Instrument, Span};
use upstream::sse::Scanner;
use upstream::{Answer, BodyError, ChatError, Failure};

use crate::body_chunks::BodyChunks;
use crate::call::Call;
use crate::receipt::Receipt;
use crate::{Deps, credits, key_health};

pub(crate) async fn answer(
    deps: &Deps,
    account: Account,
    call: Call,
    fallback: Fallback,
    receipt: &mut Receipt,
) -> Result<Response, ApiError> {
    let failed = match try_openrouter(deps, &account, &call).await? {
        Attempt::Answered(answer) => return relay(answer, call).await,
        Attempt::Failed(failed) => failed,
    };
    // The gateway in front of us gives up on a silent call: a second one must still fit.
    let used = call.started.elapsed();
    let in_time = call.request.streamed || used < deps.settings.time_outs.plain / 2;
    let allowed = fallback == Fallback::Allowed
        && in_time
        && failed
            .cause
            .is_some_and(|cause| deps.settings.fallback_causes.allow(cause));
    let Some(cause) = failed.cause.filter(|_| allowed) else {
        return Err(failed.error);
    };
    let mut fallback_receipt = receipt.clone();
    let route = credits::Route::Fallback(cause);
    let answered = credits::answer(deps, account, call, route, &mut fallback_receipt).await;
    match answered {
        // The rules of the credits path forbid the call: what OpenRouter said stands.
        Err(credits::CreditsError::Refused(refused)) => {
            tracing::info!(
                code = refused.code().as_str(),
                "no fallback: credits cannot pay for the call"
            );
            Err(failed.error)
        }
        Err(credits::CreditsError::DefaultAi(error)) => {
            *receipt = fallback_receipt;
            Err(error)
        }
        Ok(response) => {
            *receipt = fallback_receipt;
            Ok(response)
        }
    }
}

enum Attempt {
    /// A 200 head is there, which ends all fallback.
    Answered(Answer),
    Failed(Failed),
}

/// OpenRouter did not take the call, as far as can be known: where the connection was lost before the head, it may
/// have it all the same.
struct Failed {
    /// `None`: the caller's own error, which the default AI would have too.
    cause: Option<FallbackCause>,
    error: ApiError,
}

/// Errors are those after which nothing may be tried any more.
async fn try_openrouter(deps: &Deps, account: &Account, call: &Call) -> Result<Attempt, ApiError> {
    let key = match deps.user_key(account).await {
        Ok(key) => key,
        Err(error) => {
            return Ok(Attempt::Failed(Failed {
                cause: Some(FallbackCause::KeyUnavailable),
                error: key_unavailable(error),
            }));
        }
    };
    let body = call.request.body.clone();
    let (failure, retry_after) = match deps.openrouter.chat(&key, body, call.kind()).await {
        Err(ChatError::TimedOut) => return Err(timed_out()),
        Err(error @ (ChatError::NotSent(_) | ChatError::Lost(_))) => {
            edge::log_error(&error, "OpenRouter cannot be reached");
            (Failure::Unavailable, None)
        }
        Ok(answer) => {
            let (status, retry_after) = (answer.status(), answer.retry_after());
            if status.is_success() {
                return Ok(Attempt::Answered(answer));
            }
            let body = answer.error_body().await;
            tracing::info!(status = status.as_u16(), "OpenRouter refused the call");
            if status == StatusCode::UNAUTHORIZED {
                Box::pin(key_health::confirm_rejection(deps, account, &key)).await;
            }
            let failure = Failure::of(status, &body).unwrap_or(Failure::Unavailable);
            (failure, retry_after)
        }
    };
    Ok(Attempt::Failed(Failed {
        cause: cause_of(failure),
        error: error_of(failure, retry_after),
    }))
}

fn cause_of(failure: Failure) -> Option<FallbackCause> {
    match failure {
        Failure::KeyRejected => Some(FallbackCause::KeyRejected),
        Failure::PaymentRequired => Some(FallbackCause::PaymentRequired),
        Failure::RateLimited => Some(FallbackCause::RateLimited),
        Failure::Unavailable => Some(FallbackCause::Unavailable),
        Failure::ContentRefused | Failure::RequestRejected(_) => None,
    }
}

/// Nothing of OpenRouter's own text is passed on: it may echo input or tell of the account.
pub(crate) fn error_of(failure: Failure, retry_after: Option<Duration>) -> ApiError {
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
        Failure::RateLimited => {
            let error = ApiError::new(
                Code::OpenRouterRateLimited,
                "OpenRouter limits the rate of your calls; wait and try again",
            );
            error.with_retry_after(retry_after.unwrap_or(Duration::from_secs(1)))
        }
        Failure::RequestRejected(status) => {
            let what = match status.as_u16() {
                404 => "OpenRouter knows no such model, or none of its providers may serve it",
                413 => "OpenRouter finds the request too large",
                _ => "OpenRouter finds the request invalid; check its model and parameters",
            };
            ApiError::new(Code::OpenRouterRequestRejected, what).with_status(status)
        }
        Failure::Unavailable => unavailable(),
    }
}

fn unavailable() -> ApiError {
    ApiError::new(
        Code::OpenRouterUnavailable,
        "OpenRouter cannot be reached or failed; try again",
    )
}

fn timed_out() -> ApiError {
    ApiError::new(
        Code::OpenRouterTimeout,
        "OpenRouter did not answer in time; it may still bill the call",
    )
}

pub(crate) fn key_unavailable(error: VaultError) -> ApiError {
    edge::log_error(&error, "the key's secret cannot be read");
    ApiError::new(
        Code::KeyUnavailable,
        "the connected key cannot be read at the moment; try again, and reconnect the key if it \
         stays like this",
    )
}

async fn relay(answer: Answer, call: Call) -> Result<Response, ApiError> {
    let (status, headers) = (answer.status(), answer.headers());
    let body = if answer.is_event_stream() {
        stream_body(answer, &call)
    } else {
        let collected = answer.collect().await;
        Body::from(collected.map_err(|error| {
            edge::log_error(&error, "OpenRouter's answer broke off");
            match error {
                BodyError::TimedOut => timed_out(),
                BodyError::Broken(_) | BodyError::Idle => unavailable(),
            }
        })?)
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// The stream's bytes as they come, read only as fast as the caller takes them. When the caller
/// goes, the connection to OpenRouter is dropped with the body, and OpenRouter stops billing.
fn stream_body(answer: Answer, call: &Call) -> Body {
    let relay = Relay {
        pieces: BodyChunks::of(answer, call.deadline),
        scanner: Scanner::default(),
        over: false,
    };
    // The body outlives the handler; its logs name the call all the same.
    let span = Span::current();
    Body::from_stream(stream::unfold(relay, move |relay| {
        relay.step().instrument(span.clone())
    }))
}

struct Relay {
    pieces: BodyChunks,
    scanner: Scanner,
    over: bool,
}

impl Relay {
    async fn step(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if self.over {
            return None;
        }
        if let Some(piece) = self.pieces.next().await {
            let was_done = self.scanner.done;
            self.scanner.feed(piece.clone());
            if self.scanner.done && !was_done {
                self.pieces.done();
            }
            return Some((Ok(piece), self));
        }
        self.over = true;
        self.scanner.end();
        tracing::info!(
            complete = self.scanner.done,
            failed = self.scanner.failed,
            usage = ?self.scanner.usage,
            "stream ended"
        );
        let end = (!self.scanner.done).then(interrupted)?;
        Some((Ok(end), self))
    }
}

/// What ends a stream that was cut, so that it never looks complete.
pub(crate) fn interrupted() -> Bytes {
    let error = ApiError::new(
        Code::UpstreamInterrupted,
        "the answer broke off before its end",
    );
    Bytes::from(format!("\n\ndata: {}\n\n", error.openai_body()))
}
