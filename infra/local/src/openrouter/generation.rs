//! `GET /generation`: OpenRouter's record of a call, for the key that made it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::completion::{raw, raw_or_null};
use super::documented;
use super::errors::{self, no_key};
use super::models::DEFAULT_MODEL;
use super::record::{CallOutcome, RecordedCall, Shared, key_sha256};
use crate::serve;

#[derive(Deserialize)]
pub(super) struct GenerationQuery {
    id: String,
}

pub(super) async fn show(
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
        Some(call) => Json(BTreeMap::from([("data", generation(call))])).into_response(),
        None => documented::response("obs-404-generation-not-yet"),
    }
}

/// Members that are `null` for a simple chat call.
const NULL: [&str; 19] = [
    "upstream_id",
    "request_id",
    "response_cache_source_id",
    "provider_responses",
    "router",
    "preset_id",
    "service_tier",
    "moderation_latency",
    "cache_discount",
    "num_media_prompt",
    "num_media_completion",
    "num_input_audio_prompt",
    "num_search_results",
    "num_fetches",
    "web_search_engine",
    "app_id",
    "external_user",
    "session_id",
    "workspace_id",
];

#[derive(Serialize)]
struct Generation {
    total_cost: Box<RawValue>,
    usage: Box<RawValue>,
    upstream_inference_cost: Box<RawValue>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

fn generation(call: &RecordedCall) -> Generation {
    let header = |name| call.headers.get(name).and_then(|value| value.to_str().ok());
    let model = call.model.as_deref().unwrap_or(DEFAULT_MODEL);
    let null = NULL.map(|member| (member.to_owned(), Value::Null));
    let mut rest = Map::from_iter(null);
    let known = json!({
        "id": call.generation_id,
        "model": model,
        "provider_name": "Simulator",
        "api_type": "completions",
        "data_region": "global",
        "streamed": call.stream,
        "created_at": "2026-01-01T00:00:00.000Z",
        "latency": 1,
        "generation_time": 1,
        "cancelled": call.outcome != CallOutcome::Completed,
        "finish_reason": call.finish_reason,
        "native_finish_reason": call.finish_reason,
        "is_byok": call.upstream_inference_cost.is_some(),
        "tokens_prompt": call.prompt_tokens,
        "tokens_completion": call.completion_tokens,
        "native_tokens_prompt": call.prompt_tokens,
        "native_tokens_completion": call.completion_tokens,
        "native_tokens_completion_images": 0,
        "native_tokens_reasoning": 0,
        "native_tokens_cached": 0,
        "origin": header("http-referer").unwrap_or_default(),
        "http_referer": header("http-referer"),
        "user_agent": header("user-agent"),
    });
    rest.extend(known.as_object().cloned().unwrap_or_default());
    Generation {
        total_cost: raw(call.cost.clone()),
        usage: raw(call.cost.clone()),
        upstream_inference_cost: raw_or_null(call.upstream_inference_cost.clone()),
        rest,
    }
}
