//! The credits path: hold, call the default AI, settle.
//!
//! From the hold on, the call runs in its own task, which continues if the caller disconnects:
//! it reads the whole response, within the invocation's time, and resolves the hold. A call whose
//! cost stays unknown here (a response cut off, or without usage) is left to the sweeper, with the
//! generation id by which its cost can be looked up.

mod credits_request;
mod default_ai;
mod held_call;
mod hold;
mod prompt;
mod stream;

use std::sync::Arc;

use account::Account;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use edge::ApiError;
use secrecy::SecretString;
use upstream::{Answer, PlainAnswer};

use crate::call::Call;
use crate::deps::Deps;
use crate::receipt::Receipt;
use credits_request::CreditsRequest;
use held_call::{HeldCall, wait_for_recording};

pub(crate) use default_ai::Route;
pub(crate) use default_ai::platform_key;

/// Why a call on credits has no response from the default AI.
#[derive(Debug)]
pub(crate) enum CreditsError {
    /// A rule forbids the call; the default AI was not called.
    Refused(ApiError),
    /// The default AI refused the call or failed.
    DefaultAi(ApiError),
}

impl CreditsError {
    pub(crate) fn into_inner(self) -> ApiError {
        match self {
            Self::Refused(error) | Self::DefaultAi(error) => error,
        }
    }
}

/// Makes the call on the default AI, paid for in credits.
pub(crate) async fn respond(
    deps: &Deps,
    account: Account,
    call: Call,
    route: Route,
    receipt: &mut Receipt,
) -> Result<Response, CreditsError> {
    let (deps, mut task_receipt) = (deps.clone(), receipt.clone());
    let task = edge::spawn(async move {
        // Boxed, because its 17 kB would be moved four times before it runs.
        let call = Box::pin(hold_and_call(&deps, account, call, route, &mut task_receipt));
        (call.await, task_receipt)
    });
    let (result, task_receipt) =
        task.await.map_err(|error| CreditsError::DefaultAi(ApiError::internal(&error)))?;
    *receipt = task_receipt;
    result
}

async fn hold_and_call(
    deps: &Deps,
    account: Account,
    call: Call,
    route: Route,
    receipt: &mut Receipt,
) -> Result<Response, CreditsError> {
    let prepared = prepare(deps, account, &call, route).await;
    let (held, key, body) = prepared
        .inspect_err(|error| receipt.refused(error.code().as_str()))
        .map_err(CreditsError::Refused)?;
    receipt.model = Some(held.hold.model.clone());
    let answer = match deps.api.default_ai.chat(&key, body, call.kind()).await {
        Ok(answer) if answer.status().is_success() => answer,
        failed => {
            held.release().await;
            let error = default_ai::error_for(deps, failed).await;
            return Err(CreditsError::DefaultAi(error));
        }
    };
    if answer.is_event_stream() {
        return Ok(stream::relay(held, answer, call.deadline));
    }
    let response = relay_plain(held, answer, receipt).await;
    response.map_err(CreditsError::DefaultAi)
}

/// Applies every rule of the credits path, and takes the hold last. Returns the call with its hold,
/// and the key and body for making it.
async fn prepare(
    deps: &Deps,
    account: Account,
    call: &Call,
    route: Route,
) -> Result<(HeldCall, Arc<SecretString>, Bytes), ApiError> {
    let request = CreditsRequest::new(&call.request)?;
    let model = default_ai::model_for(deps, call, route).await?;
    let size = request.size(&model)?;
    let key = platform_key(deps).await?;
    let (held, output_limit) = hold::take(deps, &account, call, &model, size).await?;
    let body = request.body(&model.id, output_limit, deps.settings.default_ai_kind);
    Ok((held, key, body))
}

async fn relay_plain(
    held: HeldCall,
    answer: Answer,
    receipt: &mut Receipt,
) -> Result<Response, ApiError> {
    let (status, headers) = (answer.status(), answer.headers());
    let generation = answer.generation_id();
    let recording = generation.clone().map(|id| held.record_generation(id));
    let collected = answer.collect().await;
    if let Some(recording) = recording {
        wait_for_recording(recording).await;
    }
    let body = match collected {
        Ok(body) => body,
        Err(error) => {
            edge::log_error(&error, "the default AI's response was cut off");
            held.leave_to_sweeper("response cut off").await;
            return Err(default_ai::unavailable());
        }
    };
    let PlainAnswer { id, usage, failed } = PlainAnswer::from_json(&body);
    receipt.charged = match usage {
        Some(usage) => held.settle(usage).await,
        None => {
            if let (None, Some(id)) = (generation, id) {
                wait_for_recording(held.record_generation(id)).await;
            }
            held.leave_to_sweeper("response without usage").await;
            None
        }
    };
    if failed {
        // The error's own text is not for the caller.
        return Err(default_ai::unavailable());
    }
    Ok((status, headers, Body::from(body)).into_response())
}
