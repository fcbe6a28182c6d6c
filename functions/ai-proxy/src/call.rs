//! One chat call: from the request to the payer's path, with a receipt whatever happens.

use std::sync::Arc;

use account::CallId;
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use edge::{ApiError, Code, Deadline};
use http::HeaderMap;
use routing::{Decision, Payer, Reason, Situation};
use tokio::time::Instant;
use tracing::Span;
use upstream::Kind;

use crate::receipt::Receipt;
use crate::request::ChatRequest;
use crate::{Deps, byok, credits, key_health};

/// What a path needs to know of its call.
pub(crate) struct Call {
    pub(crate) id: CallId,
    pub(crate) request: ChatRequest,
    /// SHA-256 of the `Idempotency-Key` header, in hex.
    pub(crate) idempotency: Option<String>,
    /// When the function itself will be stopped.
    pub(crate) deadline: Option<Deadline>,
    pub(crate) started: Instant,
}

impl Call {
    /// How the call's answer is waited for.
    pub(crate) fn kind(&self) -> Kind {
        if self.request.streamed {
            Kind::Streamed
        } else {
            Kind::Plain {
                since: self.started,
            }
        }
    }
}

pub(crate) async fn chat(
    State(deps): State<Arc<Deps>>,
    deadline: Option<Extension<Deadline>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let mut receipt = match new_receipt() {
        Ok(receipt) => receipt,
        Err(error) => return error.into_response(),
    };
    let deadline = deadline.map(|Extension(deadline)| deadline);
    let answered = answer(&deps, &headers, body, deadline, &mut receipt).await;
    with_receipt(answered, receipt)
}

/// A receipt for a new call, whose id is in all log lines from here on.
pub(crate) fn new_receipt() -> Result<Receipt, ApiError> {
    let id = CallId::new(edge::new_id("call")).map_err(|error| ApiError::internal(&error))?;
    Span::current().record("call_id", id.as_str());
    Ok(Receipt::new(id))
}

/// The answer with its receipt; an error that came before routing is its own reason.
pub(crate) fn with_receipt(answered: Result<Response, ApiError>, mut receipt: Receipt) -> Response {
    let mut response = answered.unwrap_or_else(|error| {
        receipt.reason.get_or_insert(error.code().as_str());
        error.into_response()
    });
    receipt.write_to(response.headers_mut());
    let span = Span::current();
    span.record("payer", receipt.payer.as_str());
    span.record("reason", receipt.reason);
    // By it, the call is found in upstream's own list.
    let generation = response.headers().get("x-generation-id");
    span.record("generation_id", generation.and_then(|id| id.to_str().ok()));
    response
}

async fn answer(
    deps: &Deps,
    headers: &HeaderMap,
    body: Body,
    deadline: Option<Deadline>,
    receipt: &mut Receipt,
) -> Result<Response, ApiError> {
    let caller = deps.identity.caller(headers).await?;
    let body = edge::read_body(body, deps.settings.product.http.max_body_bytes).await?;
    let call = Call {
        id: receipt.call.clone(),
        request: ChatRequest::parse(body)?,
        idempotency: credits::idempotency_hash(headers)?,
        deadline,
        started: Instant::now(),
    };
    let account = deps.account(&caller.account).await?;
    let now = deps.clock.now();
    let account = key_health::recheck_if_due(deps, account, now).await;
    let situation = Situation::of(&account, now, &deps.settings.product.policy);
    match routing::decide(situation) {
        Decision::Refuse { reason } => {
            receipt.refused(reason.as_str());
            Err(refusal(reason))
        }
        Decision::GretaCredits { reason } => {
            receipt.routed(Payer::GretaCredits, reason.as_str());
            credits::answer(deps, account, call, credits::Route::Direct, receipt)
                .await
                .map_err(credits::CreditsError::into_error)
        }
        Decision::OpenRouter { reason, fallback } => {
            receipt.routed(Payer::OpenRouter, reason.as_str());
            byok::answer(deps, account, call, fallback, receipt).await
        }
    }
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
