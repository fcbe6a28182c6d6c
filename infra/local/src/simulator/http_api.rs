//! OpenRouter's routes.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::routing::{get, post};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use super::answer::{Answer, count, raw};
use super::behaviour::{self, Behaviour};
use super::{
    CREATED, CallOutcome, DEFAULT_MODEL, KEY_PREFIX, KeyBehaviour, OpenCall, RecordedCall, Sim,
    key_sha256, models,
};
use crate::serve::{self, CloseWithoutHead};

/// The path below which OpenRouter's routes are.
pub(super) const BASE: &str = "/api/v1";
/// Where a key's behaviour is set.
pub(super) const KEYS: &str = "/_sim/keys";
/// Whom OpenRouter names in its errors.
pub(super) const USER_ID: &str = "user_2simulated0000000000000000";

const X_GENERATION_ID: HeaderName = HeaderName::from_static("x-generation-id");
const MAX_BODY: usize = 64 * 1024 * 1024;
/// So much of the user's words is repeated in the answer, and in errors that repeat input.
const MAX_ECHO: usize = 200;
/// What a part of a message counts that is no text.
const TOKENS_OF_A_PART: u64 = 100;

pub(super) fn router(sim: Arc<Sim>) -> Router {
    let api = Router::new()
        .route("/key", get(key))
        .route("/models", get(list_models))
        .route("/chat/completions", post(chat))
        .route("/generation", get(generation));
    Router::new()
        .nest(BASE, api)
        .route(KEYS, post(set_key))
        .fallback(async || error(404, "Not Found", Value::Null))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(sim)
}

/// An error in OpenRouter's shape.
fn error(status: u16, message: &str, metadata: Value) -> Response<Body> {
    let mut body = json!({
        "error": {"message": message, "code": status},
        "user_id": USER_ID,
    });
    if !metadata.is_null() {
        body["error"]["metadata"] = metadata;
    }
    let status = StatusCode::from_u16(status).expect("the simulator's statuses exist");
    serve::json(status, &body)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ").filter(|key| !key.is_empty())
}

fn no_key() -> Response<Body> {
    error(401, "No auth credentials found", Value::Null)
}

fn rejected() -> Response<Body> {
    error(401, "User not found.", Value::Null)
}

fn down() -> Response<Body> {
    error(503, "Service temporarily unavailable", Value::Null)
}

async fn key(State(sim): State<Arc<Sim>>, headers: HeaderMap) -> Response<Body> {
    let Some(key) = bearer(&headers) else {
        return no_key();
    };
    sim.inner().key_checks += 1;
    let behaviour = sim.key_behaviour(key);
    match behaviour {
        KeyBehaviour::Rejected => return rejected(),
        KeyBehaviour::Down => return down(),
        KeyBehaviour::Slow => tokio::time::sleep(sim.options.slow_key).await,
        KeyBehaviour::Usable
        | KeyBehaviour::Management
        | KeyBehaviour::Limited
        | KeyBehaviour::Expiring => {}
    }
    let management = behaviour == KeyBehaviour::Management;
    let (usage, remaining) = match behaviour {
        KeyBehaviour::Limited => (json!(20), json!(0)),
        _ => (json!(7.7), json!(12.3)),
    };
    let expires_at = match behaviour {
        KeyBehaviour::Expiring => {
            let in_five_days = edge::Clock::system().now() + SignedDuration::from_hours(5 * 24);
            json!(in_five_days)
        }
        _ => Value::Null,
    };
    let facts = json!({"data": {
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
        "is_management_key": management,
        "is_provisioning_key": management,
        "creator_user_id": USER_ID,
        "expires_at": expires_at,
        "rate_limit": {"requests": -1, "interval": "10s", "note": "This field is deprecated."},
    }});
    serve::json(StatusCode::OK, &facts)
}

/// `sk-or-v1-abc...xyz`
fn label(key: &str) -> String {
    let rest = key.strip_prefix(KEY_PREFIX).unwrap_or(key);
    let first: String = rest.chars().take(3).collect();
    let last = rest
        .char_indices()
        .rev()
        .nth(2)
        .map_or("", |(at, _)| &rest[at..]);
    format!("{KEY_PREFIX}{first}...{last}")
}

async fn list_models() -> Response<Body> {
    serve::json(StatusCode::OK, &models::list())
}

async fn set_key(State(sim): State<Arc<Sim>>, body: Bytes) -> Response<Body> {
    #[derive(Deserialize)]
    struct Wanted {
        key: String,
        state: KeyBehaviour,
    }
    match serde_json::from_slice::<Wanted>(&body) {
        Ok(wanted) => {
            sim.set_key(&wanted.key, wanted.state);
            serve::json(StatusCode::OK, &json!({"ok": true}))
        }
        Err(problem) => error(400, &problem.to_string(), Value::Null),
    }
}

async fn chat(State(sim): State<Arc<Sim>>, request: Request) -> Response<Body> {
    let (mut head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else {
        return error(413, "Request too large", Value::Null);
    };
    let key = bearer(&head.headers).map(str::to_owned);
    head.headers.remove(AUTHORIZATION);
    let parsed = serde_json::from_slice::<Value>(&body).unwrap_or_default();
    let asked = parsed["model"].as_str().map(str::to_owned);
    let wanted = asked.clone().unwrap_or_else(|| DEFAULT_MODEL.to_owned());
    let found = models::find(&wanted);
    let stream = parsed["stream"] == true;
    let generation_id = format!(
        "gen-{CREATED}-{}",
        &Uuid::new_v4().simple().to_string()[..20]
    );
    let prompt = prompt_tokens(&parsed["messages"]);
    let call = sim.begin(RecordedCall {
        generation_id: generation_id.clone(),
        key_sha256: key.as_deref().map(key_sha256),
        model: asked,
        answering_model: found.as_ref().map_or(wanted.clone(), |(id, _)| id.clone()),
        stream,
        headers: head.headers,
        body,
        prompt_tokens: prompt,
        completion_tokens: 0,
        cost: "0".to_owned(),
        upstream_inference_cost: None,
        finish_reason: None,
        outcome: CallOutcome::Running,
    });

    let said = last_words(&parsed["messages"]);
    let behaviour = behaviour::of_model(&wanted);
    if let Some(refusal) = refusal(&sim, key.as_deref(), &parsed, &wanted, behaviour, &said) {
        let status = refusal.status().as_u16();
        call.end(CallOutcome::Refused(status));
        return refusal;
    }
    let (Some(model), Some(behaviour)) = (found, behaviour) else {
        call.end(CallOutcome::Refused(400));
        return error(
            400,
            &format!("{wanted} is not a valid model ID"),
            Value::Null,
        );
    };
    let limits = [&parsed["max_tokens"], &parsed["max_completion_tokens"]];
    let limit = limits.into_iter().filter_map(Value::as_u64).min();
    let answer = Answer::new(generation_id, model, behaviour, prompt, &said, limit);
    send(answer, call, stream).await
}

/// The answer's head, when it is due, and its body.
async fn send(answer: Answer, call: OpenCall, stream: bool) -> Response<Body> {
    match answer.behaviour {
        Behaviour::SlowHead(delay) => tokio::time::sleep(delay).await,
        Behaviour::HangHead => {
            // Nobody knows whether such a call is billed; this one is, for its prompt.
            call.progress(0, answer.billing(0));
            std::future::pending::<()>().await;
        }
        Behaviour::Reset => {
            call.end(CallOutcome::Cut);
            let mut response = Response::new(Body::empty());
            response.extensions_mut().insert(CloseWithoutHead);
            return response;
        }
        _ => {}
    }
    let id = HeaderValue::from_str(&answer.generation_id).expect("ids are ASCII");
    let mut response = if stream {
        let mut response = Response::new(answer.stream(call));
        let events = HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert(CONTENT_TYPE, events);
        let no_cache = HeaderValue::from_static("no-cache");
        response.headers_mut().insert(CACHE_CONTROL, no_cache);
        response
    } else {
        let mut response = Response::new(answer.plain(call));
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        response
    };
    response.headers_mut().insert(X_GENERATION_ID, id);
    response
}

/// The error that the call is answered with, if it is: of its key first, then of its body, then the
/// one that its model's name asks for.
fn refusal(
    sim: &Sim,
    key: Option<&str>,
    body: &Value,
    model: &str,
    behaviour: Option<Behaviour>,
    said: &str,
) -> Option<Response<Body>> {
    let Some(key) = key else {
        return Some(no_key());
    };
    let key = sim.key_behaviour(key);
    if matches!(key, KeyBehaviour::Rejected | KeyBehaviour::Management) {
        return Some(rejected());
    }
    if !body["messages"].is_array() {
        let message = "Input required: specify \"prompt\" or \"messages\"";
        return Some(error(400, message, Value::Null));
    }
    match (behaviour, key) {
        (Some(Behaviour::Status(status)), _) => Some(asked_for(status, model, said)),
        (Some(Behaviour::KeyLimit), _) | (Some(Behaviour::Ok), KeyBehaviour::Limited) => {
            Some(key_limit())
        }
        (Some(Behaviour::Moderation), _) => Some(moderation(model, said)),
        (Some(Behaviour::Redirect), _) => Some(redirect()),
        (Some(Behaviour::Ok), KeyBehaviour::Down) => Some(down()),
        _ => None,
    }
}

fn asked_for(status: u16, model: &str, said: &str) -> Response<Body> {
    let provider = |raw: &str| json!({"provider_name": "Simulator", "raw": raw});
    let (message, metadata) = match status {
        400 | 422 => (
            "Provider returned error",
            provider(&format!("cannot read: {said}")),
        ),
        401 => return rejected(),
        402 => (
            "Insufficient credits. Add more using https://openrouter.ai/settings/credits",
            Value::Null,
        ),
        403 => ("Key is disabled", Value::Null),
        404 => ("No endpoints found for this model.", Value::Null),
        408 => ("Request timed out", Value::Null),
        413 => ("Request Entity Too Large", Value::Null),
        429 => (
            "Rate limit exceeded: limit_rpm",
            json!({
                "headers": {"X-RateLimit-Limit": "20", "X-RateLimit-Remaining": "0"},
                "provider_name": "Simulator",
            }),
        ),
        503 => (
            "There is no available model provider that meets your routing requirements",
            Value::Null,
        ),
        524 => ("Upstream timed out", Value::Null),
        529 => ("Provider overloaded", provider("overloaded_error")),
        _ => ("Provider returned error", provider(model)),
    };
    let mut response = error(status, message, metadata);
    if status == 429 {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("7"));
    }
    response
}

fn key_limit() -> Response<Body> {
    let message =
        "Key limit exceeded (total limit). Manage it using https://openrouter.ai/settings/keys";
    error(403, message, Value::Null)
}

fn moderation(model: &str, said: &str) -> Response<Body> {
    let message = format!(
        "{model} requires moderation on Simulator. Your input was flagged for \"violence\". No credits were charged."
    );
    let metadata = json!({
        "reasons": ["violence"],
        "flagged_input": said,
        "provider_name": "Simulator",
        "model_slug": model,
    });
    error(403, &message, metadata)
}

fn redirect() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::FOUND;
    let elsewhere = HeaderValue::from_static("/api/v1/moved");
    response.headers_mut().insert(LOCATION, elsewhere);
    response
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
                        None => parts += TOKENS_OF_A_PART,
                    }
                }
            }
            _ => {}
        }
    }
    count(bytes.div_ceil(4)) + parts
}

/// The beginning of the last text in the messages.
fn last_words(messages: &Value) -> String {
    let content = messages
        .as_array()
        .and_then(|all| all.last())
        .map(|last| &last["content"]);
    let text = match content {
        Some(Value::String(text)) => text.as_str(),
        Some(Value::Array(parts)) => {
            let mut texts = parts.iter().rev().filter_map(|part| part["text"].as_str());
            texts.next().unwrap_or_default()
        }
        _ => "",
    };
    text.chars().take(MAX_ECHO).collect()
}

async fn generation(
    State(sim): State<Arc<Sim>>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Response<Body> {
    let Some(key) = bearer(&headers) else {
        return no_key();
    };
    sim.inner().generation_checks += 1;
    match sim.key_behaviour(key) {
        KeyBehaviour::Rejected => return rejected(),
        KeyBehaviour::Down => return down(),
        _ => {}
    }
    let key = Some(key_sha256(key));
    let found = {
        let inner = sim.inner();
        let mut calls = inner.calls.iter().filter(|call| call.was_generated());
        let call = calls.find(|call| call.generation_id == asked.id && call.key_sha256 == key);
        call.filter(|_| !inner.generations_hidden)
            .map(Generation::of)
    };
    match found {
        Some(data) => serve::json(StatusCode::OK, &Found { data }),
        None => error(
            404,
            &format!("Generation {} not found", asked.id),
            Value::Null,
        ),
    }
}

#[derive(Deserialize)]
struct Asked {
    id: String,
}

#[derive(Serialize)]
struct Found {
    data: Generation,
}

/// What OpenRouter remembers of a call.
#[derive(Serialize)]
struct Generation {
    id: String,
    model: String,
    streamed: bool,
    created_at: &'static str,
    provider_name: &'static str,
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
    cache_discount: Option<u64>,
}

impl Generation {
    fn of(call: &RecordedCall) -> Self {
        let inference = call.upstream_inference_cost.clone();
        Self {
            id: call.generation_id.clone(),
            model: call.answering_model.clone(),
            streamed: call.stream,
            created_at: "2026-01-01T00:00:00.000Z",
            provider_name: "Simulator",
            finish_reason: call.finish_reason,
            cancelled: call.outcome != CallOutcome::Completed,
            is_byok: inference.is_some(),
            tokens_prompt: call.prompt_tokens,
            tokens_completion: call.completion_tokens,
            native_tokens_prompt: call.prompt_tokens,
            native_tokens_completion: call.completion_tokens,
            total_cost: raw(call.cost.clone()),
            usage: raw(call.cost.clone()),
            upstream_inference_cost: raw(inference.unwrap_or_else(|| "null".to_owned())),
            cache_discount: None,
        }
    }
}
