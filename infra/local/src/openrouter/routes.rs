//! OpenRouter's routes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use super::behaviour::{self, Behaviour};
use super::completion::{Completion, count, raw, raw_or_null};
use super::errors::{self, USER_ID, error, no_key};
use super::models::{self, CREATED, DEFAULT_MODEL};
use super::playback;
use super::record::{
    CallOutcome, KEY_PREFIX, KeyBehaviour, OpenCall, RecordedCall, Shared, key_sha256,
};
use crate::serve;
pub(super) const BASE: &str = "/api/v1";

const X_GENERATION_ID: HeaderName = HeaderName::from_static("x-generation-id");
const SLOW_KEY: Duration = Duration::from_secs(30);
const MAX_BODY: usize = 64 * 1024 * 1024;
/// The maximum length of the user's text that responses and errors repeat, in characters.
const MAX_ECHO: usize = 200;
/// The tokens of a message part that is not text.
const PART_TOKENS: u64 = 100;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    let api = Router::new()
        .route("/key", get(key))
        .route("/models", get(list_models))
        .route("/chat/completions", post(chat))
        .route("/generation", get(generation));
    Router::new()
        .nest(BASE, api)
        .fallback(async || error(404, "Not Found", Value::Null))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(shared)
}

async fn key(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let Some(key) = serve::bearer(&headers) else {
        return no_key();
    };
    shared.inner.lock().unwrap().key_checks += 1;
    let behaviour = shared.key_behaviour(key);
    if let Some(error) = errors::of_key(behaviour) {
        return error;
    }
    if behaviour == KeyBehaviour::Slow {
        tokio::time::sleep(SLOW_KEY).await;
    }
    let management = behaviour == KeyBehaviour::Management;
    let (usage, remaining) = match behaviour {
        KeyBehaviour::Limited => (json!(20), json!(0)),
        _ => (json!(7.7), json!(12.3)),
    };
    let expires_at = (behaviour == KeyBehaviour::Expiring)
        .then(|| edge::Clock::system().now() + SignedDuration::from_hours(5 * 24));
    let key = json!({"data": {
        "label": label(key),
        "limit": 20,
        "limit_remaining": remaining,
        "limit_reset": null,
        "include_byok_in_limit": false,
        "usage": usage,
        "usage_daily": 0.5,
        "usage_weekly": 2.5,
        "usage_monthly": usage,
        "byok_usage": 0,
        "byok_usage_daily": 0,
        "byok_usage_weekly": 0,
        "byok_usage_monthly": 0,
        "is_free_tier": false,
        "creator_user_id": USER_ID,
        "rate_limit": {"requests": -1, "interval": "10s", "note": "This field is deprecated."},
        "is_management_key": management,
        "is_provisioning_key": management,
        "expires_at": expires_at,
    }});
    Json(key).into_response()
}

/// `sk-or-v1-abc...xyz`
fn label(key: &str) -> String {
    let rest = key.strip_prefix(KEY_PREFIX).unwrap_or(key);
    let first: String = rest.chars().take(3).collect();
    let last = rest.char_indices().rev().nth(2);
    let last = last.map_or("", |(at, _)| &rest[at..]);
    format!("{KEY_PREFIX}{first}...{last}")
}

async fn list_models() -> Json<Value> {
    Json(models::list())
}

async fn chat(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (mut head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else {
        return error(413, "Request too large", Value::Null);
    };
    let key = serve::bearer(&head.headers).map(str::to_owned);
    head.headers.remove(AUTHORIZATION);
    let parsed = serde_json::from_slice::<Value>(&body).unwrap_or_default();
    let named = parsed["model"].as_str().map(str::to_owned);
    let model = named.clone().unwrap_or_else(|| DEFAULT_MODEL.to_owned());
    let found = models::find(&model);
    let stream = parsed["stream"] == true;
    let id = Uuid::new_v4().simple().to_string();
    let generation_id = format!("gen-{CREATED}-{}", &id[..20]);
    let prompt_tokens = prompt_tokens(&parsed["messages"]);
    let call = shared.begin(RecordedCall {
        generation_id: generation_id.clone(),
        key_sha256: key.as_deref().map(key_sha256),
        model: named,
        stream,
        headers: head.headers,
        body,
        prompt_tokens,
        cost: "0".to_owned(),
        ..RecordedCall::default()
    });

    let echo = last_text(&parsed["messages"]);
    let behaviour = behaviour::of_model(&model);
    let refusal = match key {
        None => Some(no_key()),
        Some(key) => {
            let key = shared.key_behaviour(&key);
            errors::of_call(key, &parsed, &model, behaviour, &echo)
        }
    };
    if let Some(refusal) = refusal {
        call.end(CallOutcome::Refused(refusal.status().as_u16()));
        return refusal;
    }
    let (Some(model), Some(behaviour)) = (found, behaviour) else {
        call.end(CallOutcome::Refused(400));
        let message = format!("{model} is not a valid model ID");
        return error(400, &message, Value::Null);
    };
    let limits = [&parsed["max_tokens"], &parsed["max_completion_tokens"]];
    let limit = limits.into_iter().filter_map(Value::as_u64).min();
    let completion = Completion::new(generation_id, model, behaviour, prompt_tokens, &echo, limit);
    respond(completion, call, stream).await
}

/// The response; its head may be late.
async fn respond(completion: Completion, call: OpenCall, stream: bool) -> Response {
    match completion.behaviour {
        Behaviour::SlowHead(delay) => tokio::time::sleep(delay).await,
        Behaviour::HangHead => {
            // OpenRouter may or may not bill such a call; this one is billed for its prompt.
            call.progress(0, completion.costs(0));
            std::future::pending::<()>().await;
        }
        Behaviour::Reset => {
            call.end(CallOutcome::Cut);
            return serve::close_without_head();
        }
        _ => {}
    }
    let id = HeaderValue::from_str(&completion.generation_id).expect("ids are ASCII");
    let content_type = if stream { "text/event-stream" } else { "application/json" };
    let body: Body = playback::body(completion, stream, call);
    let head = [(CONTENT_TYPE, HeaderValue::from_static(content_type)), (X_GENERATION_ID, id)];
    let cache = stream.then_some([(CACHE_CONTROL, "no-cache")]);
    (head, cache.map(axum::response::AppendHeaders), body).into_response()
}

/// A token per four bytes of text, rounded up.
fn prompt_tokens(messages: &Value) -> u64 {
    let mut bytes = 0;
    let mut parts = 0;
    for message in messages.as_array().into_iter().flatten() {
        match &message["content"] {
            Value::String(text) => bytes += text.len(),
            Value::Array(content) => {
                for part in content {
                    match part["text"].as_str() {
                        Some(text) => bytes += text.len(),
                        None => parts += PART_TOKENS,
                    }
                }
            }
            _ => {}
        }
    }
    count(bytes.div_ceil(4)) + parts
}

/// The beginning of the last text in the messages.
fn last_text(messages: &Value) -> String {
    let last = messages.as_array().and_then(|all| all.last());
    let text = match last.map(|last| &last["content"]) {
        Some(Value::String(text)) => text.as_str(),
        Some(Value::Array(parts)) => {
            let mut texts = parts.iter().rev().filter_map(|part| part["text"].as_str());
            texts.next().unwrap_or_default()
        }
        _ => "",
    };
    text.chars().take(MAX_ECHO).collect()
}

#[derive(Deserialize)]
struct GenerationQuery {
    id: String,
}

async fn generation(
    State(shared): State<Arc<Shared>>,
    Query(GenerationQuery { id }): Query<GenerationQuery>,
    headers: HeaderMap,
) -> Response {
    let Some(key) = serve::bearer(&headers) else {
        return no_key();
    };
    shared.inner.lock().unwrap().generation_checks += 1;
    if let Some(error) = errors::of_key(shared.key_behaviour(key)) {
        return error;
    }
    let key = Some(key_sha256(key));
    let is_hidden = shared.inner.lock().unwrap().generations_hidden;
    let calls = shared.calls.borrow();
    let mut calls = calls.iter().filter(|call| call.was_generated());
    let found = calls.find(|call| call.generation_id == id && call.key_sha256 == key);
    match found.filter(|_| !is_hidden) {
        Some(call) => {
            let inference = call.upstream_inference_cost.clone();
            let data = Generation {
                id,
                model: call.model.clone().unwrap_or_else(|| DEFAULT_MODEL.to_owned()),
                streamed: call.stream,
                created_at: "2026-01-01T00:00:00.000Z",
                provider_name: "Simulator",
                cache_discount: None,
                finish_reason: call.finish_reason,
                cancelled: call.outcome != CallOutcome::Completed,
                is_byok: inference.is_some(),
                tokens_prompt: call.prompt_tokens,
                tokens_completion: call.completion_tokens,
                native_tokens_prompt: call.prompt_tokens,
                native_tokens_completion: call.completion_tokens,
                total_cost: raw(call.cost.clone()),
                usage: raw(call.cost.clone()),
                upstream_inference_cost: raw_or_null(inference),
            };
            Json(BTreeMap::from([("data", data)])).into_response()
        }
        None => error(404, &format!("Generation {id} not found"), Value::Null),
    }
}

/// OpenRouter's record of a call.
#[derive(Serialize)]
struct Generation {
    id: String,
    model: String,
    streamed: bool,
    created_at: &'static str,
    provider_name: &'static str,
    cache_discount: Option<u64>,
    finish_reason: Option<&'static str>,
    cancelled: bool,
    is_byok: bool,
    tokens_prompt: u64,
    tokens_completion: u64,
    native_tokens_prompt: u64,
    native_tokens_completion: u64,
    total_cost: Box<RawValue>,
    usage: Box<RawValue>,
    upstream_inference_cost: Box<RawValue>,
}
