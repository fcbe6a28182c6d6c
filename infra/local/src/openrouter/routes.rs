//! OpenRouter's routes.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::behaviour::{self, Behaviour};
use super::completion::Completion;
use super::errors::{self, error, no_key};
use super::generated::{generate, last_text, prompt_tokens};
use super::models::{self, CREATED, DEFAULT_MODEL};
use super::record::{CallOutcome, OpenCall, RecordedCall, Shared, key_sha256};
use super::{generation, key, playback};
use crate::serve;

pub(super) const BASE: &str = "/api/v1";

const X_GENERATION_ID: HeaderName = HeaderName::from_static("x-generation-id");
const MAX_BODY: usize = 64 * 1024 * 1024;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    let api = Router::new()
        .route("/key", get(key::show))
        .route("/models", get(list_models))
        .route("/chat/completions", post(chat))
        .route("/generation", get(generation::show));
    Router::new()
        .nest(BASE, api)
        .fallback(async || error(404, "Not Found", Value::Null))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(shared)
}

#[derive(Deserialize)]
struct ListQuery {
    #[serde(default)]
    offset: usize,
    limit: Option<usize>,
}

async fn list_models(Query(ListQuery { offset, limit }): Query<ListQuery>) -> Json<Value> {
    Json(models::list(offset, limit))
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
    let (model, prices) = model;
    let generated = generate(&parsed, behaviour == Behaviour::Big);
    let completion =
        Completion { generation_id, behaviour, model, prices, prompt_tokens, generated };
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
