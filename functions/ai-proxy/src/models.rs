//! `GET /v1/models`: the model list of the payer of the next call.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use edge::{ApiError, Code};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use routing::{Payer, Situation};
use upstream::{AskError, DefaultAiKind};

use crate::deps::Deps;
use crate::receipt::Receipt;
use crate::{byok, credits};

/// Lists the models that the next call can use.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/v1/models", tag = "ai", operation_id = "list_models",
    responses(
        (status = 200, description = "The payer's models, as OpenRouter lists them",
         body = serde_json::Value),
        edge::openapi::AiErrors,
    ),
))]
pub(crate) async fn list(
    State(deps): State<Arc<Deps>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let mut receipt = match Receipt::for_new_call() {
        Ok(receipt) => receipt,
        Err(error) => return error.into_response(),
    };
    let result = models(&deps, &headers, query.as_deref(), &mut receipt).await;
    receipt.attach_to(result.map(|list| {
        let headers = [(CONTENT_TYPE, "application/json")];
        (headers, Body::from(list)).into_response()
    }))
}

async fn models(
    deps: &Deps,
    headers: &HeaderMap,
    query: Option<&str>,
    receipt: &mut Receipt,
) -> Result<Bytes, ApiError> {
    let caller = deps.api.identity.ai_caller(headers).await?;
    let account = deps.api.account(&caller.account).await?;
    let settings = &deps.api.settings;
    let situation = Situation::of(&account, deps.api.clock.now(), &settings.policy);
    let prices = &deps.api.prices;
    let cheapest = prices.cheapest_call(&settings.default_ai_model, settings.rate);
    let available = account.balance.available();
    let covered = cheapest.await.is_some_and(|cheapest| available >= cheapest);
    let (payer, reason) = routing::next_call(routing::decide(situation), covered);
    receipt.routed(payer, reason);
    match payer {
        Payer::OpenRouter => {
            let key = deps.user_key(&account).await;
            let key = key.map_err(byok::key_unavailable)?;
            let list = deps.openrouter.models(Some(&key), query).await;
            list.map_err(|error| openrouter_error(deps, &error))
        }
        Payer::GretaCredits | Payer::None => default_ai_models(deps, query).await,
    }
}

/// OpenRouter's model list is public; another default AI asks for its key.
async fn default_ai_models(deps: &Deps, query: Option<&str>) -> Result<Bytes, ApiError> {
    let key = match deps.settings.default_ai_kind {
        DefaultAiKind::OpenRouter => None,
        DefaultAiKind::OpenAi => Some(credits::platform_key(deps).await?),
    };
    let unreadable = || {
        ApiError::new(
            Code::DefaultAiUnavailable,
            "the model list cannot be read right now; try again",
        )
    };
    let list = deps.api.default_ai.models(key.as_deref(), query).await.map_err(|error| {
        edge::log_error(&error, "could not list the default AI's models");
        unreadable()
    })?;
    if key.is_some_and(|key| upstream::contains_key(&list, &key)) {
        tracing::error!("the default AI's model list contains the platform key");
        return Err(unreadable());
    }
    Ok(list)
}

fn openrouter_error(deps: &Deps, error: &AskError) -> ApiError {
    edge::log_error(error, "could not list OpenRouter's models");
    match error {
        AskError::Refused { headers, error, .. } => {
            byok::error_for(error, headers, deps.api.clock.now())
        }
        _ => byok::unavailable(),
    }
}
