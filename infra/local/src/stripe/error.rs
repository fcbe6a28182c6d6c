//! Errors in Stripe's shape.

use serde_json::{Value, json};

/// An error response, and whether it is stored under the idempotency key: only the results of an
/// execution are (<https://docs.stripe.com/api/idempotent_requests>).
#[derive(Debug)]
pub(super) struct ApiError {
    pub(super) status: u16,
    pub(super) error: Value,
    pub(super) is_result: bool,
    /// The connection is closed without a response, and nothing was done.
    pub(super) no_response: bool,
}

impl ApiError {
    /// A code that Stripe does not document.
    pub(super) const UNLISTED: &str = "unlisted_someone_at_example";

    fn new(status: u16, error: Value) -> Self {
        Self { status, error, is_result: false, no_response: false }
    }

    pub(super) fn request(status: u16, code: Option<&str>, message: &str) -> Self {
        let mut error = json!({"type": "invalid_request_error", "message": message});
        if let Some(code) = code {
            error["code"] = json!(code);
        }
        Self::new(status, error)
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.error[name] = value.into();
        self
    }

    pub(super) fn invalid(param: &str, message: &str) -> Self {
        Self::request(400, None, message).with("param", param)
    }

    pub(super) fn missing(param: &str) -> Self {
        let message = format!("Missing required param: {param}.");
        Self::request(400, Some("parameter_missing"), &message).with("param", param)
    }

    pub(super) fn unknown_param(param: &str) -> Self {
        let message = format!("Received unknown parameter: {param}");
        Self::request(400, Some("parameter_unknown"), &message).with("param", param)
    }

    /// The path names a resource that does not exist.
    pub(super) fn no_such(kind: &str, id: &str) -> Self {
        let message = format!("No such {kind}: '{id}'");
        let param = match kind {
            "payment_intent" | "setup_intent" => "intent",
            "checkout.session" => "session",
            "invoice" => "invoice",
            _ => "id",
        };
        Self::request(404, Some("resource_missing"), &message).with("param", param)
    }

    /// A parameter names a resource that does not exist.
    pub(super) fn no_such_value(param: &str, id: &str) -> Self {
        let message = format!("No such {param}: '{id}'");
        Self::request(400, Some("resource_missing"), &message).with("param", param)
    }

    pub(super) fn key_in_use(key: &str) -> Self {
        let message = format!(
            "There is currently another in-progress request using this Idempotent Key: {key}. \
             Please try again later."
        );
        Self::request(409, Some("idempotency_key_in_use"), &message)
    }

    pub(super) fn key_reused(key: &str) -> Self {
        let message = format!(
            "Keys for idempotent requests can only be used with the same parameters they were \
             first used with. Try using a key other than '{key}' if you meant to execute a \
             different request."
        );
        let error = json!({"type": "idempotency_error", "message": message});
        Self::new(400, error)
    }

    /// The resource's state does not allow the request.
    pub(super) fn state(code: Option<&str>, message: &str) -> Self {
        Self { is_result: true, ..Self::request(400, code, message) }
    }

    /// The card was declined.
    pub(super) fn declined(error: Value) -> Self {
        Self { is_result: true, ..Self::new(402, error) }
    }

    /// An injected failure. Stripe stores a 500 under the idempotency key, but not an error of a
    /// request that it did not execute.
    pub(super) fn injected(status: u16) -> Self {
        let kind = match status {
            500.. => "api_error",
            _ => "invalid_request_error",
        };
        let error = json!({
            "type": kind,
            "code": Self::UNLISTED,
            "param": Self::UNLISTED,
            "message": format!("Injected failure: {}", Self::UNLISTED),
        });
        Self { is_result: status == 500, ..Self::new(status, error) }
    }

    pub(super) fn no_response() -> Self {
        Self { no_response: true, ..Self::new(504, Value::Null) }
    }
}
