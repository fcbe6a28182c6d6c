//! The default AI: its platform key, its models, and what its errors mean to the caller.

use std::sync::Arc;
use std::time::Duration;

use account::price::PricedModel;
use edge::{ApiError, Code};
use http::StatusCode;
use secrecy::SecretString;
use upstream::{Answer, ChatError, Failure};

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
pub(super) async fn error_for(deps: &Deps, failed: Result<Answer, ChatError>) -> ApiError {
    let answer = match failed {
        Ok(answer) => answer,
        Err(error) => {
            edge::log_error(&error, "could not reach the default AI");
            return unavailable();
        }
    };
    let (status, retry_after) = (answer.status(), answer.retry_after());
    let body = answer.error_body().await;
    tracing::warn!(status = status.as_u16(), "the default AI refused the call");
    match Failure::of(status, &body).unwrap_or(Failure::Unavailable) {
        Failure::RateLimited => ApiError::new(
            Code::DefaultAiRateLimited,
            "Greta's AI limits the rate of calls; wait and try again",
        )
        .with_retry_after(retry_after.unwrap_or(Duration::from_secs(1))),
        Failure::RequestRejected(status) => request_rejected(status),
        Failure::ContentRefused => request_rejected(StatusCode::FORBIDDEN),
        Failure::KeyRejected => {
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

pub(super) fn unavailable() -> ApiError {
    ApiError::new(
        Code::DefaultAiUnavailable,
        "Greta's AI failed or could not be reached; try again",
    )
}
