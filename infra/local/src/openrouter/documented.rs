//! The error bodies in `openrouter-errors.json`, each with its source: OpenRouter's documentation,
//! its OpenAPI document, or a public report.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

/// The user whom OpenRouter names in its errors.
pub(super) const USER_ID: &str = "user_2simulated0000000000000000";
/// Value of `Retry-After` where the documentation gives no number.
const RETRY_AFTER_SECONDS: &str = "7";

#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct DocumentedError {
    pub(super) id: String,
    pub(super) status: u16,
    headers: BTreeMap<String, String>,
    body: Value,
    /// The body is an event of a stream.
    in_stream: bool,
    /// Whether chat calls can get this error, rather than other routes.
    call: bool,
}

static ALL: LazyLock<Vec<DocumentedError>> = LazyLock::new(|| {
    let file = include_str!("../../../../shared/upstream/tests/openrouter-errors.json");
    serde_json::from_str(file).expect("openrouter-errors.json lists errors")
});

/// The errors that a call can get.
pub(super) fn of_calls() -> impl Iterator<Item = &'static DocumentedError> {
    // Some bodies are results of server-side tools, inside a response.
    let is_response = |body: &Value| body["error"].is_object() || body["choices"].is_array();
    ALL.iter().filter(move |error| error.call && is_response(&error.body))
}

pub(super) fn find(id: &str) -> Option<&'static DocumentedError> {
    ALL.iter().find(|error| error.id == id)
}

/// The response with the error of this id, which must exist.
pub(super) fn response(id: &str) -> Response {
    find(id).expect("a documented error").response()
}

impl DocumentedError {
    /// The error as a response with its status.
    pub(super) fn response(&self) -> Response {
        let mut body = self.body.clone();
        if matches!(self.status, 402 | 403 | 429) && body["user_id"].is_null() {
            // Undocumented, but seen in live responses: the paying account.
            body["user_id"] = json!(USER_ID);
        }
        let status = StatusCode::from_u16(self.status).expect("a valid status");
        let mut response = (status, Json(body)).into_response();
        if let Some(documented) = self.headers.get("Retry-After") {
            let seconds =
                if documented.parse::<u32>().is_ok() { documented } else { RETRY_AFTER_SECONDS };
            let seconds = HeaderValue::from_str(seconds).expect("digits");
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
        response
    }

    /// The body of a 200 that contains only this error.
    pub(super) fn body(&self, generation_id: &str) -> Value {
        let mut body = match (self.status, self.in_stream) {
            (200, false) => self.body.clone(),
            _ => json!({"error": self.body["error"]}),
        };
        body["id"] = json!(generation_id);
        body
    }

    /// An event with this error in a stream whose chunks look like `chunk`.
    pub(super) fn event(&self, mut chunk: Value) -> Value {
        let ends = json!([{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]);
        chunk["choices"] = match &self.body["choices"][0] {
            Value::Null => ends,
            choice if self.in_stream => json!([choice]),
            choice => {
                let (delta, reason) = (&choice["message"], &choice["finish_reason"]);
                json!([{"index": 0, "delta": delta, "finish_reason": reason}])
            }
        };
        for member in ["error", "usage"] {
            if let Some(value) = self.body.get(member) {
                chunk[member] = value.clone();
            }
        }
        chunk
    }
}
