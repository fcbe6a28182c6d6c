//! Error responses in OpenRouter's shape.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{LOCATION, RETRY_AFTER};
use serde_json::{Value, json};

use super::behaviour::Behaviour;
use super::record::KeyBehaviour;

/// The user whom OpenRouter names in its errors.
pub(super) const USER_ID: &str = "user_2simulated0000000000000000";

pub(super) fn error(status: u16, message: &str, metadata: Value) -> Response {
    let mut body = json!({
        "error": {"message": message, "code": status},
        "user_id": USER_ID,
    });
    if !metadata.is_null() {
        body["error"]["metadata"] = metadata;
    }
    let status = StatusCode::from_u16(status).expect("a valid status");
    (status, Json(body)).into_response()
}

pub(super) fn no_key() -> Response {
    error(401, "No auth credentials found", Value::Null)
}

/// The error that a key causes in every request.
pub(super) fn of_key(key: KeyBehaviour) -> Option<Response> {
    match key {
        KeyBehaviour::Rejected => Some(rejected()),
        KeyBehaviour::Down => Some(down()),
        _ => None,
    }
}

fn rejected() -> Response {
    error(401, "User not found.", Value::Null)
}

fn down() -> Response {
    error(503, "Service temporarily unavailable", Value::Null)
}

/// The error of a chat call, if any: its key's, else its body's, else the one that its model's name
/// selects.
pub(super) fn of_call(
    key: KeyBehaviour,
    body: &Value,
    model: &str,
    behaviour: Option<Behaviour>,
    echo: &str,
) -> Option<Response> {
    if matches!(key, KeyBehaviour::Rejected | KeyBehaviour::Management) {
        return Some(rejected());
    }
    if !body["messages"].is_array() {
        let message = "Input required: specify \"prompt\" or \"messages\"";
        return Some(error(400, message, Value::Null));
    }
    match (behaviour, key) {
        (Some(Behaviour::Status(status)), _) => Some(of_status(status, model, echo)),
        (Some(Behaviour::KeyLimit), _) | (Some(Behaviour::Ok), KeyBehaviour::Limited) => {
            let message = "Key limit exceeded (total limit). Manage it using \
                           https://openrouter.ai/settings/keys";
            Some(error(403, message, Value::Null))
        }
        (Some(Behaviour::Moderation), _) => Some(moderation(model, echo)),
        (Some(Behaviour::Redirect), _) => {
            Some((StatusCode::FOUND, [(LOCATION, "/api/v1/moved")]).into_response())
        }
        (Some(Behaviour::Ok), KeyBehaviour::Down) => Some(down()),
        _ => None,
    }
}

fn of_status(status: u16, model: &str, echo: &str) -> Response {
    let message = match status {
        401 => return rejected(),
        402 => "Insufficient credits. Add more using https://openrouter.ai/settings/credits",
        403 => "Key is disabled",
        404 => "No endpoints found for this model.",
        408 => "Request timed out",
        413 => "Request Entity Too Large",
        429 => "Rate limit exceeded: limit_rpm",
        503 => "There is no available model provider that meets your routing requirements",
        524 => "Upstream timed out",
        529 => "Provider overloaded",
        _ => "Provider returned error",
    };
    let metadata = match status {
        400 | 422 => provider(&format!("cannot read: {echo}")),
        429 => {
            let limits = json!({"X-RateLimit-Limit": "20", "X-RateLimit-Remaining": "0"});
            let metadata = json!({"headers": limits, "provider_name": "Simulator"});
            return ([(RETRY_AFTER, "7")], error(status, message, metadata)).into_response();
        }
        529 => provider("overloaded_error"),
        _ if message == "Provider returned error" => provider(model),
        _ => Value::Null,
    };
    error(status, message, metadata)
}

fn provider(raw: &str) -> Value {
    json!({"provider_name": "Simulator", "raw": raw})
}

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
