//! Errors in the provider's shape.

use serde_json::{Value, json};

/// An error and whether it is the result of an execution: only results are kept under an
/// idempotency key (<https://docs.stripe.com/api/idempotent_requests>).
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) error: Value,
    pub(super) is_result: bool,
}

impl Refusal {
    fn before(status: u16, error: Value) -> Self {
        Self {
            status,
            error,
            is_result: false,
        }
    }

    fn request(status: u16, code: Option<&str>, message: &str) -> Self {
        let mut error = json!({"type": "invalid_request_error", "message": message});
        if let Some(code) = code {
            error["code"] = json!(code);
        }
        Self::before(status, error)
    }

    fn about(mut self, parameter: &str) -> Self {
        self.error["param"] = json!(parameter);
        self
    }

    pub(super) fn invalid(parameter: &str, message: &str) -> Self {
        Self::request(400, None, message).about(parameter)
    }

    pub(super) fn missing(parameter: &str) -> Self {
        let message = format!("Missing required param: {parameter}.");
        Self::request(400, Some("parameter_missing"), &message).about(parameter)
    }

    pub(super) fn unknown_parameter(parameter: &str) -> Self {
        let message = format!("Received unknown parameter: {parameter}");
        Self::request(400, Some("parameter_unknown"), &message).about(parameter)
    }

    /// What the path names does not exist.
    pub(super) fn no_such(what: &str, id: &str) -> Self {
        let message = format!("No such {what}: '{id}'");
        Self::request(404, Some("resource_missing"), &message).about("id")
    }

    /// What a parameter names does not exist.
    pub(super) fn no_such_value(parameter: &str, id: &str) -> Self {
        let message = format!("No such {parameter}: '{id}'");
        Self::request(400, Some("resource_missing"), &message).about(parameter)
    }

    pub(super) fn no_route(method: &str, path: &str) -> Self {
        let message = format!("Unrecognized request URL ({method}: {path}).");
        Self::request(404, None, &message)
    }

    pub(super) fn no_key() -> Self {
        Self::request(401, None, "You did not provide an API key.")
    }

    pub(super) fn wrong_key() -> Self {
        Self::request(401, None, "Invalid API Key provided.")
    }

    pub(super) fn too_many() -> Self {
        Self::request(429, Some("rate_limit"), "Request rate limit exceeded.")
    }

    pub(super) fn key_in_use(key: &str) -> Self {
        let message = format!(
            "There is currently another in-progress request using this Idempotent Key: {key}. Please try again later."
        );
        Self::request(409, Some("idempotency_key_in_use"), &message)
    }

    pub(super) fn other_parameters(key: &str) -> Self {
        let message = format!(
            "Keys for idempotent requests can only be used with the same parameters they were first used with. Try using a key other than '{key}' if you meant to execute a different request."
        );
        let error = json!({"type": "idempotency_error", "message": message});
        Self::before(400, error)
    }

    /// The object is not in a state for that.
    pub(super) fn state(code: Option<&str>, message: &str) -> Self {
        Self {
            is_result: true,
            ..Self::request(400, code, message)
        }
    }

    /// The card was declined.
    pub(super) fn declined(error: Value) -> Self {
        Self {
            is_result: true,
            ..Self::before(402, error)
        }
    }

    pub(super) fn with(mut self, name: &str, value: Value) -> Self {
        self.error[name] = value;
        self
    }
}
