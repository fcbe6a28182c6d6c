//! The credits path: hold, call the default AI, settle.
//!
//! From the hold on, the call runs in its own task, which continues if the caller disconnects:
//! it reads the whole response, within the invocation's time, and resolves the hold. A call whose
//! cost stays unknown here (a response cut off, or without usage) is left to the sweeper, with the
//! generation id by which its cost can be looked up.

mod client;
mod credits_request;
mod default_ai;
mod held_call;
mod hold;
mod prompt;
mod stream;

use std::sync::Arc;

use account::Account;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use edge::ApiError;
use http::HeaderMap;
use secrecy::SecretString;
use upstream::{Answer, Chunk, HasContent, Parsed};

use crate::call::Call;
use crate::deps::Deps;
use crate::receipt::Receipt;
use credits_request::CreditsRequest;
use held_call::{FailedCallCost, HeldCall, wait_for_recording};

pub(crate) use default_ai::Route;
pub(crate) use default_ai::platform_key;

/// Size limit of a response that is not streamed.
const MAX_PLAIN: usize = 4 * 1024 * 1024;

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
    let prepared = prepare(deps, account, &call, route, receipt).await;
    let (held, key, body) = prepared
        .inspect_err(|error| receipt.refused(error.code().as_str()))
        .map_err(CreditsError::Refused)?;
    receipt.model = Some(held.hold.model.clone());
    let answer = match deps.api.default_ai.chat(&key, HeaderMap::new(), body, call.kind()).await {
        Ok(answer) if answer.status().is_success() => answer,
        failed => {
            held.release().await;
            receipt.not_charged();
            let error = default_ai::refused(deps, failed).await;
            return Err(CreditsError::DefaultAi(error));
        }
    };
    let response = if answer.is_encoded() {
        // A compressed response cannot be read, so its cost is looked up.
        if let Some(id) = answer.generation_id() {
            wait_for_recording(held.record_generation(id)).await;
        }
        held.leave_to_sweeper("encoded response").await;
        Err(default_ai::failed())
    } else if answer.is_event_stream() {
        stream::relay(held, answer, key, &call, receipt).await
    } else {
        relay_plain(held, answer, &key, receipt).await
    };
    response.map_err(CreditsError::DefaultAi)
}

/// Applies every rule of the credits path, and takes the hold last. Returns the call with its hold,
/// and the key and body for making it.
async fn prepare(
    deps: &Deps,
    account: Account,
    call: &Call,
    route: Route,
    receipt: &mut Receipt,
) -> Result<(HeldCall, Arc<SecretString>, Bytes), ApiError> {
    let request = CreditsRequest::new(&call.request)?;
    receipt.ignored = request.ignored();
    let model = default_ai::model_for(deps, call, route).await?;
    let size = request.size(&model)?;
    let key = platform_key(deps).await?;
    let (held, output_limit) = hold::take(deps, &account, call, &model, size).await?;
    let body = request.body(&model.id, output_limit, deps.settings.default_ai_kind);
    Ok((held, key, body))
}

async fn relay_plain(
    held: HeldCall,
    mut answer: Answer,
    key: &SecretString,
    receipt: &mut Receipt,
) -> Result<Response, ApiError> {
    let generation = answer.generation_id();
    let recording = generation.clone().map(|id| held.record_generation(id));
    let start = answer.read_up_to(MAX_PLAIN).await;
    if let Some(recording) = recording {
        wait_for_recording(recording).await;
    }
    let body = match start {
        Ok(start) if start.is_complete => start.bytes(),
        cut_off => {
            if let Err(error) = cut_off {
                edge::log_error(&error, "the default AI's response was cut off");
            }
            held.leave_to_sweeper("response cut off").await;
            return Err(default_ai::failed());
        }
    };
    if upstream::contains_key(&body, key) {
        held.leave_to_sweeper("response that contains the platform key").await;
        return Err(default_ai::failed());
    }
    if let (None, Some(id)) = (generation, upstream::id_in(&body)) {
        wait_for_recording(held.record_generation(id)).await;
    }
    let headers = answer.all_headers();
    match Parsed::of_body(&body) {
        Parsed::Chunk(Chunk { content: HasContent::No, usage: None, .. }) => {
            Err(release_empty(&held, receipt).await)
        }
        Parsed::Unreadable if body.trim_ascii().is_empty() => {
            Err(release_empty(&held, receipt).await)
        }
        Parsed::Chunk(Chunk { usage, .. }) => {
            receipt.charged = held.settle_or_leave(usage, "response without usage").await;
            Ok((answer.status(), default_ai::headers(&answer, "application/json"), body)
                .into_response())
        }
        Parsed::Error(error, usage, content) => {
            if held.end_failed(usage, content).await == FailedCallCost::Possible {
                return Err(default_ai::failed());
            }
            receipt.not_charged();
            Err(default_ai::error_for(&held.deps, &error, headers).await)
        }
        Parsed::Done | Parsed::Unreadable => {
            held.leave_to_sweeper("unreadable response").await;
            Err(default_ai::failed())
        }
    }
}

async fn release_empty(held: &HeldCall, receipt: &mut Receipt) -> ApiError {
    held.release().await;
    receipt.not_charged();
    default_ai::unavailable()
}
