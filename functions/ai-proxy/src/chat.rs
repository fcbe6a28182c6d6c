//! `POST /v1/chat/completions`: read the call, decide who pays, and respond with a receipt.

use std::sync::Arc;

use account::Account;
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use edge::{ApiError, Code, Deadline};
use http::HeaderMap;
use routing::{Decision, Fallback, FallbackCause, Payer, Reason, Situation};
use tokio::time::Instant;

use crate::call::{Call, forwarded_headers, idempotency_hash};
use crate::credits::{CreditsError, Route};
use crate::deps::Deps;
use crate::receipt::Receipt;
use crate::request::ChatRequest;
use crate::{byok, credits, key_health};

/// A chat completion request of OpenAI's API; other members are passed on.
#[cfg(feature = "openapi")]
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "the body's schema; ChatRequest reads it")]
pub(crate) struct ChatCompletionRequest {
    #[schema(min_items = 1)]
    messages: Vec<serde_json::Value>,
    #[schema(required = false)]
    model: String,
    #[schema(required = false)]
    stream: bool,
}

/// Makes a chat completion, in the format of OpenAI's API.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/v1/chat/completions", tag = "ai", operation_id = "create_chat_completion",
    params(
        ("idempotency-key" = Option<String>, Header, description = "Makes a retry on credits safe"),
    ),
    request_body = ChatCompletionRequest,
    responses(
        (status = 200, description = "The completion, as OpenAI's API returns it",
         content((serde_json::Value = "application/json"), (String = "text/event-stream"))),
        edge::openapi::AiErrors,
    ),
))]
pub(crate) async fn create(
    State(deps): State<Arc<Deps>>,
    deadline: Option<Extension<Deadline>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let mut receipt = match Receipt::for_new_call() {
        Ok(receipt) => receipt,
        Err(error) => return error.into_response(),
    };
    let deadline = deadline.map(|Extension(deadline)| deadline);
    let result = route(&deps, &headers, body, deadline, &mut receipt).await;
    receipt.attach_to(result)
}

async fn route(
    deps: &Deps,
    headers: &HeaderMap,
    body: Body,
    deadline: Option<Deadline>,
    receipt: &mut Receipt,
) -> Result<Response, ApiError> {
    let caller = deps.api.identity.ai_caller(headers).await?;
    edge::refuse_compressed(headers)?;
    let body = edge::read_body(body, deps.api.settings.http.max_body_bytes).await?;
    let call = Call {
        id: receipt.call.clone(),
        request: ChatRequest::parse(body)?,
        headers: forwarded_headers(headers),
        idempotency: idempotency_hash(headers)?,
        deadline,
        started: Instant::now(),
    };
    let account = deps.api.account(&caller.account).await?;
    let now = deps.api.clock.now();
    let account = key_health::recheck_if_due(deps, account, now).await;
    let situation = Situation::of(&account, now, &deps.api.settings.policy);
    match routing::decide(situation) {
        Decision::Refuse { reason } => {
            receipt.refused(reason.as_str());
            Err(refusal(reason))
        }
        Decision::GretaCredits { reason } => {
            receipt.routed(Payer::GretaCredits, reason.as_str());
            let result = credits::respond(deps, account, call, Route::Direct, receipt).await;
            result.map_err(CreditsError::into_inner)
        }
        Decision::OpenRouter { reason, fallback } => {
            receipt.routed(Payer::OpenRouter, reason.as_str());
            byok_or_fallback(deps, account, call, fallback, receipt).await
        }
    }
}

async fn byok_or_fallback(
    deps: &Deps,
    account: Account,
    call: Call,
    fallback: Fallback,
    receipt: &mut Receipt,
) -> Result<Response, ApiError> {
    let causes = &deps.settings.fallback_causes;
    let may_fall_back = |cause: &FallbackCause| routing::may_fall_back(fallback, *cause, causes);
    let can_fall_back = FallbackCause::ALL.iter().any(may_fall_back);
    let failed = match byok::respond(deps, &account, &call, can_fall_back).await {
        Ok(response) => return Ok(response),
        Err(failed) => failed,
    };
    let cause = failed.fallback_cause.filter(may_fall_back);
    let Some(cause) = cause.filter(|_| leaves_time_for_another(deps, &call)) else {
        return failed.original;
    };
    let mut fallback_receipt = receipt.clone();
    fallback_receipt.routed(Payer::GretaCredits, cause.reason());
    let route = Route::Fallback;
    let result = credits::respond(deps, account, call, route, &mut fallback_receipt).await;
    if let Err(CreditsError::Refused(refused)) = result {
        let code = refused.code().as_str();
        tracing::info!(code, "no fallback: credits cannot pay for the call");
        return failed.original;
    }
    *receipt = fallback_receipt;
    result.map_err(CreditsError::into_inner)
}

/// API Gateway gives up on a silent connection, so a second plain call must still fit.
fn leaves_time_for_another(deps: &Deps, call: &Call) -> bool {
    call.request.streamed || call.started.elapsed() < deps.api.settings.time_outs.plain / 2
}

fn refusal(reason: Reason) -> ApiError {
    match reason {
        Reason::MinimumBalance => ApiError::new(
            Code::MinimumBalance,
            "your credit balance is below the minimum that OpenRouter calls need; buy credits, or \
             ask your plan's owner to",
        ),
        _ => ApiError::new(
            Code::AddOnInactive,
            "the OpenRouter add-on is not active; renew it, or switch \"Always use this key\" off \
             to use Greta credits",
        ),
    }
}
