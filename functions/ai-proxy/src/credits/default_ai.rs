//! The default AI: its platform key, its models, and what its errors mean to the caller.

use std::sync::Arc;

use account::price::PricedModel;
use edge::{ApiError, Code};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use secrecy::SecretString;
use upstream::{Answer, ChatError, Failure, FallbackPermission, UpstreamError};

use crate::call::Call;
use crate::deps::Deps;

/// Why a call is paid for in credits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    Direct,
    Fallback,
}

/// The caller's model if it has a price. A fallback uses the default model instead of an unpriced
/// one.
pub(super) async fn model_for(
    deps: &Deps,
    call: &Call,
    route: Route,
) -> Result<PricedModel, ApiError> {
    let default = &deps.api.settings.default_ai_model;
    let requested = call.request.model.as_ref().unwrap_or(default);
    let mut priced = deps.api.prices.model(requested).await;
    if priced.is_none() && route == Route::Fallback {
        priced = deps.api.prices.model(default).await;
    }
    priced.ok_or_else(|| {
        if requested == default {
            tracing::error!("the default AI's model list has no price for DEFAULT_AI_MODEL");
            return unavailable();
        }
        ApiError::new(
            Code::ModelNotPriced,
            "Greta has no price for this model, so credits cannot pay for it; choose one of \
             GET /v1/models, or use your OpenRouter key",
        )
    })
}

pub(crate) async fn platform_key(deps: &Deps) -> Result<Arc<SecretString>, ApiError> {
    let name = &deps.settings.default_ai_secret;
    deps.vault.platform_secret(name).await.map_err(|error| {
        edge::log_error(&error, "could not read the default AI's key");
        unavailable()
    })
}

/// The caller's error for a call that was refused or that got no response.
pub(super) async fn refused(deps: &Deps, failed: Result<Answer, ChatError>) -> ApiError {
    let answer = match failed {
        Ok(answer) => answer,
        Err(error) => {
            edge::log_error(&error, "could not reach the default AI");
            return unavailable();
        }
    };
    let (status, headers) = (answer.status(), answer.all_headers().clone());
    tracing::warn!(status = status.as_u16(), "the default AI refused the call");
    error_for(deps, &answer.error().await, &headers).await
}

/// Converts the default AI's error into the caller's, without any of its text.
pub(super) async fn error_for(deps: &Deps, error: &UpstreamError, headers: &HeaderMap) -> ApiError {
    match error.failure {
        Failure::RateLimited => ApiError::new(
            Code::DefaultAiRateLimited,
            "Greta's AI is rate-limiting calls; wait and try again",
        )
        .with_retry_after(error.retry_after(headers, deps.api.clock.now())),
        Failure::ContextLengthExceeded(status) => {
            let detail = match error.context_lengths() {
                Some((most, asked)) => format!(
                    "this model's maximum context length is {most} tokens, and the request needs \
                     {asked}; shorten it"
                ),
                None => "the request is longer than the model's maximum context length; shorten it"
                    .to_owned(),
            };
            ApiError::new(Code::ContextLengthExceeded, detail).with_status(status)
        }
        Failure::RequestRejected(status) => request_rejected(status),
        Failure::Refused if error.fallback == FallbackPermission::Never => {
            request_rejected(StatusCode::FORBIDDEN)
        }
        // A 403 without a reason may mean that the platform key is rejected.
        Failure::KeyRejected | Failure::Refused => {
            let name = &deps.settings.default_ai_secret;
            deps.vault.forget_platform_secret(name).await;
            unavailable()
        }
        Failure::PaymentRequired | Failure::Unavailable => unavailable(),
    }
}

fn request_rejected(status: StatusCode) -> ApiError {
    ApiError::new(
        Code::DefaultAiRequestRejected,
        "Greta's AI refused the request; check its content, model and parameters",
    )
    .with_status(status)
}

/// The error for a call that has no usable response and may be charged.
pub(super) fn failed() -> ApiError {
    ApiError::new(
        Code::DefaultAiFailed,
        "Greta's AI failed in the middle of the call; what it generated so far may be charged",
    )
    .without_retry()
}

pub(super) fn unavailable() -> ApiError {
    ApiError::new(
        Code::DefaultAiUnavailable,
        "Greta's AI failed or could not be reached; try again",
    )
}

/// The headers of a response; of the default AI's own, only the generation id is passed on.
pub(super) fn headers(answer: &Answer, content_type: &'static str) -> HeaderMap {
    let mut headers =
        HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
    let id = answer.generation_id().and_then(|id| HeaderValue::try_from(id).ok());
    headers.extend(id.map(|id| (HeaderName::from_static("x-generation-id"), id)));
    headers
}
