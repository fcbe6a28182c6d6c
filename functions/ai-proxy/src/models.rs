//! `GET /v1/models`: the model list of whoever pays for the next call.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use edge::{ApiError, Code};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use routing::{Payer, Situation};
use upstream::{DefaultAiKind, Failure, ModelsError};

use crate::call::{new_receipt, with_receipt};
use crate::credits;
use crate::receipt::Receipt;
use crate::{Deps, byok};

pub(crate) async fn list(State(deps): State<Arc<Deps>>, headers: HeaderMap) -> Response {
    let mut receipt = match new_receipt() {
        Ok(receipt) => receipt,
        Err(error) => return error.into_response(),
    };
    let answered = answer(&deps, &headers, &mut receipt).await;
    with_receipt(answered, receipt)
}

async fn answer(
    deps: &Deps,
    headers: &HeaderMap,
    receipt: &mut Receipt,
) -> Result<Response, ApiError> {
    let caller = deps.identity.caller(headers).await?;
    let account = deps.account(&caller.account).await?;
    let product = &deps.settings.product;
    let situation = Situation::of(&account, deps.clock.now(), &product.policy);
    let cheapest = deps
        .prices
        .cheapest_call(&product.default_ai_model, product.rate);
    let cheapest = cheapest.await;
    let covered = cheapest.is_some_and(|cheapest| account.balance.available() >= cheapest);
    let (payer, reason) = routing::next_call(routing::decide(situation), covered);
    receipt.routed(payer, reason);
    let list = match payer {
        Payer::OpenRouter => {
            let key = deps.user_key(&account).await;
            let key = key.map_err(byok::key_unavailable)?;
            let list = deps.openrouter.models(Some(&key)).await;
            list.map_err(|error| from_openrouter(&error))?
        }
        Payer::GretaCredits | Payer::None => default_list(deps).await?,
    };
    let mut response = Response::new(Body::from(list));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    Ok(response)
}

/// OpenRouter's own list is public; another default AI wants its key.
async fn default_list(deps: &Deps) -> Result<Bytes, ApiError> {
    let key = match deps.settings.default_ai_kind {
        DefaultAiKind::OpenRouter => None,
        DefaultAiKind::OpenAi => Some(credits::platform_key(deps).await?),
    };
    let list = deps.default_ai.models(key.as_deref()).await;
    list.map_err(|error| {
        edge::log_error(&error, "no model list from the default AI");
        ApiError::new(
            Code::DefaultAiUnavailable,
            "the model list cannot be read at the moment; try again",
        )
    })
}

fn from_openrouter(error: &ModelsError) -> ApiError {
    edge::log_error(error, "no model list from OpenRouter");
    let failure = match error {
        ModelsError::Refused { failure, .. } => *failure,
        ModelsError::Unreachable(_) => Failure::Unavailable,
    };
    byok::error_of(failure, None)
}
