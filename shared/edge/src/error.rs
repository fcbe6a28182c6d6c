//! What a caller is told when something goes wrong.
//!
//! Crates below the functions have their own errors, free of HTTP; a function maps each to an
//! [`ApiError`] once. The body is written by the edge layer ([`crate::app`]), which knows the shape
//! of the endpoint and the request's id.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::{Value, json};

macro_rules! codes {
    ($($variant:ident $name:literal $status:ident $openai_type:literal $title:literal)+) => {
        /// Every error code of the interface (contract, section 3).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $($variant),+
        }

        impl Code {
            /// All codes, in the table's order.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The code's name in answers.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }

            /// The status that goes with the code. "Same status" codes have 400 here and get the
            /// upstream's by [`ApiError::with_status`].
            pub const fn status(self) -> StatusCode {
                match self {
                    $(Self::$variant => StatusCode::$status),+
                }
            }

            /// The `title` of a problem body: the same for each occurrence.
            pub const fn title(self) -> &'static str {
                match self {
                    $(Self::$variant => $title),+
                }
            }

            /// The `type` of an error in OpenAI's shape.
            pub const fn openai_type(self) -> &'static str {
                match self {
                    $(Self::$variant => $openai_type),+
                }
            }
        }
    };
}

#[rustfmt::skip]
codes! {
    // The caller, and the request as such.
    InvalidToken              "invalid_token"               UNAUTHORIZED          "authentication_error"  "The access token is not accepted"
    IdentityUnavailable       "identity_unavailable"        SERVICE_UNAVAILABLE   "server_error"          "Access tokens cannot be checked now"
    NotOwner                  "not_owner"                   FORBIDDEN             "permission_error"      "Only an owner may do this"
    AccountNotFound           "account_not_found"           NOT_FOUND             "invalid_request_error" "The account is unknown"
    NotFound                  "not_found"                   NOT_FOUND             "invalid_request_error" "Not found"
    MethodNotAllowed          "method_not_allowed"          METHOD_NOT_ALLOWED    "invalid_request_error" "Method not allowed"
    InternalError             "internal_error"              INTERNAL_SERVER_ERROR "server_error"          "Internal error"
    StorageUnavailable        "storage_unavailable"         SERVICE_UNAVAILABLE   "server_error"          "The storage does not answer"
    BodyTooLarge              "body_too_large"              PAYLOAD_TOO_LARGE     "invalid_request_error" "The request body is too large"
    InvalidJson               "invalid_json"                BAD_REQUEST           "invalid_request_error" "The request body is not JSON"
    InvalidRequest            "invalid_request"             BAD_REQUEST           "invalid_request_error" "The request is not valid"
    UnknownField              "unknown_field"               BAD_REQUEST           "invalid_request_error" "The request has an unknown field"
    InvalidSignature          "invalid_signature"           BAD_REQUEST           "invalid_request_error" "The signature is not valid"

    // The key and the switches.
    InvalidKeyFormat          "invalid_key_format"          UNPROCESSABLE_ENTITY  "invalid_request_error" "This is not an OpenRouter API key"
    KeyRejected               "key_rejected"                UNPROCESSABLE_ENTITY  "invalid_request_error" "OpenRouter rejects the key"
    ManagementKey             "management_key"              UNPROCESSABLE_ENTITY  "invalid_request_error" "This is a management key"
    TooManyAttempts           "too_many_attempts"           TOO_MANY_REQUESTS     "rate_limit_error"      "Too many attempts"
    NotConnected              "not_connected"               CONFLICT              "invalid_request_error" "No key is connected"
    AlwaysUseKeyOn            "always_use_key_on"           CONFLICT              "invalid_request_error" "\"Always use this key\" is on"

    // The add-on.
    AddOnRequired             "add_on_required"             PAYMENT_REQUIRED      "insufficient_quota"    "The OpenRouter add-on is required"
    AddOnInactive             "add_on_inactive"             PAYMENT_REQUIRED      "insufficient_quota"    "The OpenRouter add-on is not active"
    AddOnNotNeeded            "add_on_not_needed"           CONFLICT              "invalid_request_error" "The plan includes OpenRouter"
    AlreadySubscribed         "already_subscribed"          CONFLICT              "invalid_request_error" "The add-on is active already"
    NotSubscribed             "not_subscribed"              CONFLICT              "invalid_request_error" "There is no add-on to cancel"
    PaymentInProgress         "payment_in_progress"         CONFLICT              "invalid_request_error" "A payment is in progress"
    PaymentProviderUnavailable "payment_provider_unavailable" BAD_GATEWAY         "server_error"          "The payment provider does not answer"

    // Credits and calls.
    MinimumBalance            "minimum_balance"             PAYMENT_REQUIRED      "insufficient_quota"    "The credit balance is below the minimum"
    InsufficientCredits       "insufficient_credits"        PAYMENT_REQUIRED      "insufficient_quota"    "Not enough credits"
    ModelNotPriced            "model_not_priced"            BAD_REQUEST           "invalid_request_error" "The model has no price in credits"
    UnsupportedOnCredits      "unsupported_on_credits"      BAD_REQUEST           "invalid_request_error" "Not available on credits"
    DuplicateCall             "duplicate_call"              CONFLICT              "invalid_request_error" "The call was made already"
    TooManyCalls              "too_many_calls"              TOO_MANY_REQUESTS     "rate_limit_error"      "Too many calls at once"
    KeyUnavailable            "key_unavailable"             SERVICE_UNAVAILABLE   "server_error"          "The stored key cannot be read now"

    // Upstream.
    OpenRouterUnavailable     "openrouter_unavailable"      BAD_GATEWAY           "server_error"          "OpenRouter does not answer"
    OpenRouterTimeout         "openrouter_timeout"          GATEWAY_TIMEOUT       "server_error"          "OpenRouter did not answer in time"
    OpenRouterKeyRejected     "openrouter_key_rejected"     FORBIDDEN             "permission_error"      "OpenRouter rejects the connected key"
    OpenRouterPaymentRequired "openrouter_payment_required" PAYMENT_REQUIRED      "insufficient_quota"    "OpenRouter asks for payment"
    OpenRouterRequestRefused  "openrouter_request_refused"  FORBIDDEN             "permission_error"      "OpenRouter refuses the content"
    OpenRouterRateLimited     "openrouter_rate_limited"     TOO_MANY_REQUESTS     "rate_limit_error"      "OpenRouter limits the rate"
    OpenRouterRequestRejected "openrouter_request_rejected" BAD_REQUEST           "invalid_request_error" "OpenRouter rejects the request"
    DefaultAiRateLimited      "default_ai_rate_limited"     TOO_MANY_REQUESTS     "rate_limit_error"      "The default AI limits the rate"
    DefaultAiRequestRejected  "default_ai_request_rejected" BAD_REQUEST           "invalid_request_error" "The default AI rejects the request"
    DefaultAiUnavailable      "default_ai_unavailable"      BAD_GATEWAY           "server_error"          "The default AI does not answer"
    UpstreamInterrupted       "upstream_interrupted"        BAD_GATEWAY           "server_error"          "The answer was interrupted"
}

const INTERNAL_DETAIL: &str =
    "something went wrong on our side; try again, and name the request id if it stays";

/// An error as the caller sees it: code, status, a detail that says what to do next, headers.
#[derive(Debug, Clone)]
pub struct ApiError(Box<Parts>);

#[derive(Debug, Clone)]
struct Parts {
    code: Code,
    status: StatusCode,
    detail: Cow<'static, str>,
    headers: HeaderMap,
}

impl ApiError {
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        let mut headers = HeaderMap::new();
        if code == Code::InvalidToken {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Self(Box::new(Parts {
            code,
            status: code.status(),
            detail: detail.into(),
            headers,
        }))
    }

    /// Answers `internal_error`, and logs the error with its causes: call it once, where the error
    /// stops being handled.
    pub fn internal(error: &(dyn Error + 'static)) -> Self {
        log_error(error, "the request failed");
        Self::unexplained()
    }

    /// `internal_error` for something that was logged already.
    pub(crate) fn unexplained() -> Self {
        Self::new(Code::InternalError, INTERNAL_DETAIL)
    }

    /// Replaces the code's own status.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }

    /// Adds `Retry-After`, in whole seconds, rounded up, at least 1.
    #[must_use]
    pub fn with_retry_after(self, after: Duration) -> Self {
        let part = u64::from(after.subsec_nanos() > 0);
        let seconds = after.as_secs().saturating_add(part).max(1);
        self.with_header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Adds a header, or replaces one of the same name.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    pub fn code(&self) -> Code {
        self.0.code
    }

    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The error in OpenAI's shape, as a body or as the data of an SSE event.
    pub fn openai_body(&self) -> Value {
        json!({
            "error": {
                "message": self.0.detail,
                "type": self.0.code.openai_type(),
                "code": self.0.code.as_str(),
                "param": null,
            }
        })
    }

    /// The error as a problem document (RFC 9457).
    pub(crate) fn problem_body(&self, request_id: &str) -> Value {
        json!({
            "type": format!("https://greta.example/problems/{}", self.0.code.as_str()),
            "title": self.0.code.title(),
            "status": self.0.status.as_u16(),
            "detail": self.0.detail,
            "code": self.0.code.as_str(),
            "request_id": request_id,
        })
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.code.as_str(), self.0.detail)
    }
}

impl Error for ApiError {}

impl IntoResponse for ApiError {
    /// Status and headers; the body follows at the edge.
    fn into_response(self) -> Response {
        let mut response = self.0.status.into_response();
        response.headers_mut().extend(self.0.headers.clone());
        response.extensions_mut().insert(self);
        response
    }
}

/// Logs an error with its causes; `what` says what could not be done because of it. For errors that
/// are handled, and so never become an answer; the others go to [`ApiError::internal`].
pub fn log_error(error: &(dyn Error + 'static), what: &str) {
    tracing::error!(error = %Chain(error), "{what}");
}

/// An error and its causes on one line.
struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::telemetry::tests::Log;

    #[test]
    fn codes_are_distinct_and_lower_case() {
        let names: HashSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            let name = code.as_str();
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{name}"
            );
            assert!(
                code.status().is_client_error() || code.status().is_server_error(),
                "{name}"
            );
            assert_eq!(
                code.openai_type() == "server_error",
                code.status().is_server_error(),
                "{name}"
            );
        }
    }

    #[test]
    fn retry_after_is_whole_seconds_rounded_up() {
        for (millis, header) in [
            (0, "1"),
            (1, "1"),
            (1_000, "1"),
            (1_001, "2"),
            (59_999, "60"),
        ] {
            let error = ApiError::new(Code::TooManyCalls, "wait");
            let response = error
                .with_retry_after(Duration::from_millis(millis))
                .into_response();
            assert_eq!(response.headers()[RETRY_AFTER], header, "{millis}");
        }
    }

    #[test]
    fn a_response_has_the_status_and_the_headers() {
        let response = ApiError::new(Code::OpenRouterRequestRejected, "no")
            .with_status(StatusCode::UNPROCESSABLE_ENTITY)
            .with_header(
                HeaderName::from_static("x-should-retry"),
                HeaderValue::from_static("false"),
            )
            .into_response();
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(response.headers()["x-should-retry"], "false");
        let response = ApiError::new(Code::InvalidToken, "no").into_response();
        assert_eq!(response.headers()[WWW_AUTHENTICATE], "Bearer");
    }

    #[test]
    fn an_internal_error_is_logged_with_its_causes_and_not_told() {
        #[derive(Debug, thiserror::Error)]
        #[error("the table is gone")]
        struct Outer(#[source] std::num::ParseIntError);

        let (log, _guard) = Log::capture();
        let error = ApiError::internal(&Outer("x".parse::<u8>().unwrap_err()));
        assert_eq!(
            (error.code(), error.detail()),
            (Code::InternalError, INTERNAL_DETAIL)
        );
        let [line] = log.lines().try_into().unwrap();
        assert_eq!(
            line["error"],
            "the table is gone: invalid digit found in string"
        );
        assert_eq!(line["level"], "ERROR");
    }
}
