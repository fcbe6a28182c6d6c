//! Errors as callers see them.
//!
//! The crates below the functions have their own errors, which know nothing of HTTP; a function
//! maps each to an [`ApiError`] once. The edge layer ([`crate::app`]) writes the body, because it
//! knows the endpoint's format and the request's id.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::{Map, Value, json};

macro_rules! codes {
    ($([$status:ident] $($variant:ident $name:literal $title:literal)+)+) => {
        /// Every error code of the interface (contract, section 3).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $($($variant),+),+
        }

        impl Code {
            #[cfg(test)]
            const ALL: &[Self] = &[$($(Self::$variant),+),+];

            /// The code's name in responses.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($(Self::$variant => $name),+),+
                }
            }

            /// The status that goes with the code, unless [`ApiError::with_status`] gives it
            /// another one.
            pub const fn status(self) -> StatusCode {
                match self {
                    $($(Self::$variant)|+ => StatusCode::$status),+
                }
            }

            /// The `title` of a problem document, the same for each occurrence.
            const fn title(self) -> &'static str {
                match self {
                    $($(Self::$variant => $title),+),+
                }
            }
        }
    };
}

codes! {
    [BAD_REQUEST]
    InvalidJson "invalid_json" "The request body is not JSON"
    InvalidRequest "invalid_request" "The request is not valid"
    UnknownField "unknown_field" "The request has an unknown field"
    InvalidSignature "invalid_signature" "The signature is not valid"
    ModelNotPriced "model_not_priced" "The model has no price in credits"
    UnsupportedOnCredits "unsupported_on_credits" "Not available on credits"
    OpenRouterRequestRejected "openrouter_request_rejected" "OpenRouter rejects the request"
    DefaultAiRequestRejected "default_ai_request_rejected" "The default AI rejects the request"
    ContextLengthExceeded "context_length_exceeded" "The request is too long for the model"
    [UNAUTHORIZED]
    InvalidToken "invalid_token" "The access token is not accepted"
    [PAYMENT_REQUIRED]
    AddOnRequired "add_on_required" "The OpenRouter add-on is required"
    AddOnInactive "add_on_inactive" "The OpenRouter add-on is not active"
    MinimumBalance "minimum_balance" "The credit balance is below the minimum"
    InsufficientCredits "insufficient_credits" "Not enough credits"
    OpenRouterPaymentRequired "openrouter_payment_required" "OpenRouter asks for payment"
    [FORBIDDEN]
    NotOwner "not_owner" "Only an owner may do this"
    OpenRouterKeyRejected "openrouter_key_rejected" "OpenRouter rejects the connected key"
    OpenRouterRequestRefused "openrouter_request_refused" "OpenRouter refuses the content"
    [NOT_FOUND]
    AccountNotFound "account_not_found" "The account is unknown"
    NotFound "not_found" "Not found"
    [METHOD_NOT_ALLOWED]
    MethodNotAllowed "method_not_allowed" "Method not allowed"
    [CONFLICT]
    NotConnected "not_connected" "No key is connected"
    AlwaysUseKeyOn "always_use_key_on" "\"Always use this key\" is on"
    AddOnNotNeeded "add_on_not_needed" "The plan includes OpenRouter"
    AlreadySubscribed "already_subscribed" "The add-on is active already"
    NotSubscribed "not_subscribed" "There is no add-on to cancel"
    PaymentInProgress "payment_in_progress" "A payment is in progress"
    DuplicateCall "duplicate_call" "The call was made already"
    [PAYLOAD_TOO_LARGE]
    BodyTooLarge "body_too_large" "The request body is too large"
    [UNSUPPORTED_MEDIA_TYPE]
    UnsupportedEncoding "unsupported_encoding" "The request body is compressed"
    [UNPROCESSABLE_ENTITY]
    InvalidKeyFormat "invalid_key_format" "This is not an OpenRouter API key"
    KeyRejected "key_rejected" "OpenRouter rejects the key"
    ManagementKey "management_key" "This is a management key"
    [FAILED_DEPENDENCY]
    DefaultAiFailed "default_ai_failed" "The default AI failed"
    [TOO_MANY_REQUESTS]
    TooManyAttempts "too_many_attempts" "Too many attempts"
    TooManyCalls "too_many_calls" "Too many calls at once"
    OpenRouterRateLimited "openrouter_rate_limited" "OpenRouter is rate-limiting calls"
    DefaultAiRateLimited "default_ai_rate_limited" "The default AI is rate-limiting calls"
    [INTERNAL_SERVER_ERROR]
    InternalError "internal_error" "Internal error"
    [BAD_GATEWAY]
    PaymentProviderUnavailable "payment_provider_unavailable" "The payment provider does not answer"
    OpenRouterUnavailable "openrouter_unavailable" "OpenRouter does not answer"
    DefaultAiUnavailable "default_ai_unavailable" "The default AI does not answer"
    UpstreamInterrupted "upstream_interrupted" "The answer was interrupted"
    [SERVICE_UNAVAILABLE]
    IdentityUnavailable "identity_unavailable" "Access tokens cannot be checked now"
    StorageUnavailable "storage_unavailable" "The storage does not answer"
    OpenRouterBusy "openrouter_busy" "OpenRouter is rate-limiting key checks"
    KeyUnavailable "key_unavailable" "The stored key cannot be read now"
    [GATEWAY_TIMEOUT]
    OpenRouterTimeout "openrouter_timeout" "OpenRouter did not answer in time"
}

const INTERNAL_DETAIL: &str =
    "something went wrong on our side; try again, and name the request id if it stays";

/// An error as the caller sees it: code, status, headers, and a detail that says what to do next.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}: {}", .0.code.as_str(), .0.detail)]
pub struct ApiError(Box<Parts>);

#[derive(Debug, Clone)]
struct Parts {
    code: Code,
    status: StatusCode,
    detail: Cow<'static, str>,
    metadata: Map<String, Value>,
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
            metadata: Map::new(),
            headers,
        }))
    }

    /// Logs the error with its causes and hides it behind `internal_error`. Call it once, where
    /// nothing else can handle the error.
    pub fn internal(error: &(dyn Error + 'static)) -> Self {
        log_error(error, "the request failed");
        Self::unexplained()
    }

    /// `internal_error` for a problem that is logged already.
    pub(crate) fn unexplained() -> Self {
        Self::new(Code::InternalError, INTERNAL_DETAIL)
    }

    /// Replaces the code's own status.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }

    /// Adds `Retry-After` in whole seconds, rounded up, at least 1.
    #[must_use]
    pub fn with_retry_after(self, after: Duration) -> Self {
        let part = u64::from(after.subsec_nanos() > 0);
        let seconds = after.as_secs().saturating_add(part).max(1);
        self.with_header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Sets a header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// Adds headers.
    #[must_use]
    pub fn with_headers(mut self, headers: HeaderMap) -> Self {
        self.0.headers.extend(headers);
        self
    }

    /// Tells SDKs not to retry the request, because it may already be billed.
    #[must_use]
    pub fn without_retry(self) -> Self {
        let name = HeaderName::from_static("x-should-retry");
        self.with_header(name, HeaderValue::from_static("false"))
    }

    /// Sets the `metadata` of an AI route's error.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Map<String, Value>) -> Self {
        self.0.metadata = metadata;
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

    /// The error in the form that OpenAI's and OpenRouter's SDKs read: a body, or an SSE event's
    /// data.
    pub fn ai_body(&self) -> Value {
        json!({
            "error": {
                "message": self.0.detail,
                "type": self.0.code.as_str(),
                "code": self.0.status.as_u16(),
                "param": null,
                "metadata": self.0.metadata,
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

impl IntoResponse for ApiError {
    /// Status and headers; the edge layer adds the body.
    fn into_response(self) -> Response {
        let mut response = self.0.status.into_response();
        response.headers_mut().extend(self.0.headers.clone());
        response.extensions_mut().insert(self);
        response
    }
}

/// Logs a handled error with its causes; `what` names what failed. Unhandled errors go to
/// [`ApiError::internal`].
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
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert!(code.status().is_client_error() || code.status().is_server_error(), "{name}");
        }
    }

    #[test]
    fn retry_after_is_whole_seconds_rounded_up() {
        for (millis, header) in [(0, "1"), (1, "1"), (1_000, "1"), (1_001, "2"), (59_999, "60")] {
            let error = ApiError::new(Code::TooManyCalls, "wait");
            let response = error.with_retry_after(Duration::from_millis(millis)).into_response();
            assert_eq!(response.headers()[RETRY_AFTER], header, "{millis}");
        }
    }

    #[test]
    fn a_response_has_the_status_and_the_headers() {
        let response = ApiError::new(Code::OpenRouterRequestRejected, "no")
            .with_status(StatusCode::UNPROCESSABLE_ENTITY)
            .without_retry()
            .into_response();
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(response.headers()["x-should-retry"], "false");
        let response = ApiError::new(Code::InvalidToken, "no").into_response();
        assert_eq!(response.headers()[WWW_AUTHENTICATE], "Bearer");
    }

    #[test]
    fn an_internal_error_is_logged_with_its_causes_and_hidden_from_the_caller() {
        #[derive(Debug, thiserror::Error)]
        #[error("the table is gone")]
        struct Outer(#[source] std::num::ParseIntError);

        let (log, _guard) = Log::capture();
        let error = ApiError::internal(&Outer("x".parse::<u8>().unwrap_err()));
        assert_eq!((error.code(), error.detail()), (Code::InternalError, INTERNAL_DETAIL));
        let [line] = log.lines().try_into().unwrap();
        assert_eq!(line["error"], "the table is gone: invalid digit found in string");
        assert_eq!(line["level"], "ERROR");
    }
}
