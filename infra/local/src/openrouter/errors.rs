//! Error responses in OpenRouter's shape.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::LOCATION;
use serde_json::{Value, json};

use super::behaviour::{Behaviour, ErrorPlace};
use super::documented::{USER_ID, response};
use super::record::KeyBehaviour;

pub(super) fn error(status: u16, message: &str, metadata: Value) -> Response {
    let mut body = json!({"error": {"message": message, "code": status}});
    if !metadata.is_null() {
        body["error"]["metadata"] = metadata;
        body["user_id"] = json!(USER_ID);
    }
    let status = StatusCode::from_u16(status).expect("a valid status");
    (status, Json(body)).into_response()
}

pub(super) fn no_key() -> Response {
    response("obs-401-no-auth-credentials")
}

/// The error that a key causes in every request.
pub(super) fn of_key(key: KeyBehaviour) -> Option<Response> {
    match key {
        KeyBehaviour::Rejected => Some(response("obs-401-user-not-found")),
        KeyBehaviour::Down => Some(response("oas-503")),
        KeyBehaviour::Busy => Some(response("doc-provider-error-429")),
        _ => None,
    }
}

/// The error response to a chat call, if any: for its key, else for its body, else for its model's
/// name.
pub(super) fn of_call(
    key: KeyBehaviour,
    body: &Value,
    model: &str,
    behaviour: Option<Behaviour>,
    echo: &str,
) -> Option<Response> {
    if matches!(key, KeyBehaviour::Rejected | KeyBehaviour::Management) {
        return of_key(KeyBehaviour::Rejected);
    }
    if !body["messages"].is_array() {
        let message = "Input required: specify \"prompt\" or \"messages\"";
        return Some(error(400, message, Value::Null));
    }
    match (behaviour, key) {
        (Some(Behaviour::Error(error, ErrorPlace::AsDocumented)), _) if error.status != 200 => {
            Some(error.response())
        }
        (Some(Behaviour::Ok), KeyBehaviour::Limited) => {
            Some(response("new-403-key-limit-limit-source"))
        }
        (Some(Behaviour::Moderation), _) => Some(moderation(model, echo)),
        (Some(Behaviour::ContextLength), _) => Some(context_length()),
        (Some(Behaviour::Redirect), _) => {
            Some((StatusCode::FOUND, [(LOCATION, "/api/v1/moved")]).into_response())
        }
        (Some(Behaviour::Ok), key) => of_key(key),
        _ => None,
    }
}

/// The type is documented, the message is reported.
fn context_length() -> Response {
    let message = "This endpoint's maximum context length is 128000 tokens. However, you requested \
                   about 200000 tokens (190000 of text input, 10000 in the output). Please reduce \
                   the length of either one, or use the \"middle-out\" transform to compress your \
                   prompt automatically.";
    error(400, message, json!({"error_type": "context_length_exceeded"}))
}

/// The members are documented, the message is not.
fn moderation(model: &str, echo: &str) -> Response {
    let message = format!(
        "{model} requires moderation on Simulator. Your input was flagged for \"violence\". No \
         credits were charged."
    );
    let metadata = json!({
        "reasons": ["violence"],
        "flagged_input": echo,
        "provider_name": "Simulator",
        "model_slug": model,
    });
    error(403, &message, metadata)
}
