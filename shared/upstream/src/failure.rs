//! Classifies an upstream's errors, whatever their shape (contract, section 1).
//!
//! The rule is default deny: a call may fall back only if the error positively blames the key, the
//! money, the rate or the service. Any other error is about the request itself, and sending that to
//! another payer could bypass a rule that the user set.

use http::StatusCode;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::choices::Choices;
use crate::json::{self, Members, UniqueMembers, member, string};

/// What the caller is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    KeyRejected,
    PaymentRequired,
    RateLimited,
    /// 403 for any other reason: guardrails, moderation, data policy, region.
    Refused,
    ContextLengthExceeded(StatusCode),
    /// Any other error in the caller's request.
    RequestRejected(StatusCode),
    /// 3xx, 408, 5xx, or no response.
    Unavailable,
}

/// Whether the error permits a fallback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FallbackPermission {
    Never,
    Allowed,
    /// Only if `GET /key` also rejects the key: it is then a [`Failure::KeyRejected`].
    IfKeyRejected,
}

/// An upstream's error. Its text must never be logged.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamError {
    pub failure: Failure,
    pub fallback: FallbackPermission,
    pub(crate) body: ErrorBody,
}

/// Error types that blame the request itself.
const ABOUT_THE_REQUEST: [&str; 19] = [
    "context_length_exceeded",
    "max_tokens_exceeded",
    "token_limit_exceeded",
    "string_too_long",
    "permission_denied",
    "invalid_request",
    "invalid_prompt",
    "not_found",
    "precondition_failed",
    "payload_too_large",
    "unprocessable",
    "content_policy_violation",
    "refusal",
    "invalid_image",
    "image_too_large",
    "image_too_small",
    "unsupported_image_format",
    "image_download_failed",
    "image_not_found",
];

impl UpstreamError {
    /// The error of a response that is not a success. A `body` of `None` is JSON that could not be
    /// read in full.
    pub(crate) fn from_response(status: StatusCode, body: Option<&[u8]>) -> Self {
        ErrorBody::from_json(body).read(Some(status.as_u16()))
    }

    /// The error that a 200 body or an event contains instead of a completion, in any of
    /// OpenRouter's formats.
    pub(crate) fn from_ok_body(body: &Members<'_>, choices: Option<&Choices<'_>>) -> Option<Self> {
        Some(ErrorBody::find(body, choices)?.read(None))
    }

    /// The error for a response that is not a completion.
    pub(crate) fn not_a_completion() -> Self {
        ErrorBody::unreadable().read(None)
    }
}

/// An error object, and what stands next to it.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct ErrorBody {
    /// `null` if there is none.
    pub(crate) error: Value,
    outer_type: Option<String>,
    outer_metadata: Value,
    /// Some of it could not be read, so a marker may be missing.
    is_unreadable: bool,
}

impl ErrorBody {
    fn unreadable() -> Self {
        Self { is_unreadable: true, ..Self::default() }
    }

    fn from_json(body: Option<&[u8]>) -> Self {
        let Some(body) = body else {
            return Self::unreadable();
        };
        let Some(members) = UniqueMembers::parse(body) else {
            // Other text has no markers.
            let is_json = json::is_object_or_array(body);
            return if is_json { Self::unreadable() } else { Self::default() };
        };
        let Ok(choices) = Choices::of(&members) else {
            return Self::unreadable();
        };
        Self::find(&members, choices.as_ref()).unwrap_or_else(|| Self::flat(&members))
    }

    fn find(body: &Members<'_>, choices: Option<&Choices<'_>>) -> Option<Self> {
        if let Some(error) = member(body, "error") {
            return Some(Self::new(Some(error), body));
        }
        let kind = string(body, "type").unwrap_or_default();
        // The Responses format: a flat error, or a response that failed.
        if kind == "error" {
            return Some(Self::flat(body));
        }
        let response = member(body, "response");
        let response = response.and_then(|raw| UniqueMembers::parse(raw.get().as_bytes()));
        let response = response.as_ref().unwrap_or(body);
        if kind == "response.failed" || string(response, "status").as_deref() == Some("failed") {
            return Some(Self::new(member(response, "error"), response));
        }
        let choices = choices.filter(|choices| choices.failed)?;
        Some(Self::new(choices.error, body))
    }

    fn new(error: Option<&RawValue>, outer: &Members<'_>) -> Self {
        let value = |raw: Option<&RawValue>| raw.map_or(Some(Value::Null), json::value);
        match (value(error), value(member(outer, "metadata"))) {
            (Some(error), Some(outer_metadata)) => Self {
                error,
                outer_type: string(outer, "error_type"),
                outer_metadata,
                is_unreadable: false,
            },
            _ => Self::unreadable(),
        }
    }

    /// The body itself is the error object.
    fn flat(body: &Members<'_>) -> Self {
        let error = json::object(body);
        Self { is_unreadable: error.is_none(), error: error.unwrap_or_default(), ..Self::default() }
    }

    fn field(&self, name: &str) -> Option<&Value> {
        present(&self.error, name)
    }

    /// A member of the metadata, which is in the error object or next to it, or spread over the
    /// error object.
    pub(crate) fn metadata(&self, name: &str) -> Option<&Value> {
        let inner = self.field("metadata").and_then(|metadata| present(metadata, name));
        inner.or_else(|| self.field(name)).or_else(|| present(&self.outer_metadata, name))
    }

    fn number(&self) -> Option<u16> {
        let number = self.field("code").or_else(|| self.field("http_status"))?;
        let number = number.as_u64().or_else(|| number.as_str()?.parse().ok())?;
        u16::try_from(number).ok().filter(|number| (300..=599).contains(number))
    }

    fn error_type(&self) -> Option<&str> {
        let inner = self.metadata("error_type").and_then(Value::as_str);
        inner.or(self.outer_type.as_deref())
    }

    pub(crate) fn message(&self) -> &str {
        self.field("message").unwrap_or(&self.error).as_str().unwrap_or_default()
    }

    /// `status` is that of the response, unless it was a success.
    fn read(self, status: Option<u16>) -> UpstreamError {
        let number = status.or_else(|| self.number());
        let (failure, fallback) = match number {
            Some(401) if status.is_some() => (Failure::KeyRejected, FallbackPermission::Allowed),
            number => self.classify(number),
        };
        let is_denied = self.is_unreadable || self.blames_content(number);
        let fallback = if is_denied { FallbackPermission::Never } else { fallback };
        UpstreamError { failure, fallback, body: self }
    }

    /// Whether a marker blames the request's content.
    fn blames_content(&self, number: Option<u16>) -> bool {
        let named = |name: &str| self.metadata(name).is_some();
        let content = ["content_policy_violation", "refusal"];
        (number == Some(403) && named("provider_name"))
            || ["patterns", "reasons", "flagged_input"].into_iter().any(named)
            || self.error_type().is_some_and(|kind| content.contains(&kind))
            || starts_with(self.message(), "request blocked")
    }

    fn classify(&self, number: Option<u16>) -> (Failure, FallbackPermission) {
        use Failure::{KeyRejected, PaymentRequired, RateLimited, Refused, Unavailable};
        use FallbackPermission::{Allowed, IfKeyRejected, Never};
        let limit_source = self.metadata("limit_source").and_then(Value::as_str);
        let money = matches!(
            limit_source,
            Some(
                "openrouter_credits"
                    | "openrouter_key_limit"
                    | "openrouter_workspace_budget"
                    | "openrouter_guardrail_budget"
            )
        );
        match number {
            Some(403) if money || reports_exhausted_budget(self.message()) => {
                return (PaymentRequired, Allowed);
            }
            Some(403) if self.has_marker() => return (Refused, Never),
            Some(403) => return (Refused, IfKeyRejected),
            Some(number @ 400..=499) if !matches!(number, 401 | 402 | 408 | 429) => {
                return (self.rejected(number), Never);
            }
            _ => {}
        }
        if money {
            return (PaymentRequired, Allowed);
        }
        if limit_source == Some("openrouter_in_flight_budget") && matches!(number, None | Some(402))
        {
            return (RateLimited, Allowed);
        }
        let by_number = match number {
            Some(401) => (KeyRejected, IfKeyRejected),
            Some(402) => (PaymentRequired, Allowed),
            Some(429) => (RateLimited, Allowed),
            Some(300..=399 | 408 | 500..=599) => (Unavailable, Allowed),
            Some(_) => (Unavailable, Never),
            None => self.by_name(),
        };
        match self.error_type() {
            Some("authentication") => (KeyRejected, IfKeyRejected),
            Some("payment_required") => (PaymentRequired, Allowed),
            Some("rate_limit_exceeded") => (RateLimited, Allowed),
            Some("provider_overloaded" | "provider_unavailable" | "server" | "timeout") => {
                (Unavailable, Allowed)
            }
            Some(kind) if ABOUT_THE_REQUEST.contains(&kind) => {
                (number.map_or_else(|| self.rejected(400), |_| by_number.0), Never)
            }
            _ => by_number,
        }
    }

    /// Classifies by the error's name, which some formats use instead of a number.
    fn by_name(&self) -> (Failure, FallbackPermission) {
        let name = self.field("code").filter(|code| code.is_string());
        let name = name.or_else(|| self.field("type")).and_then(Value::as_str);
        match name {
            Some(
                "server_error" | "upstream_error" | "api_error" | "overloaded_error"
                | "timeout_error",
            ) => (Failure::Unavailable, FallbackPermission::Allowed),
            Some("rate_limit_exceeded" | "rate_limit_error") => {
                (Failure::RateLimited, FallbackPermission::Allowed)
            }
            Some("billing_error") => (Failure::PaymentRequired, FallbackPermission::Allowed),
            _ if self.exceeds_context() => (self.rejected(400), FallbackPermission::Never),
            _ => (Failure::Unavailable, FallbackPermission::Never),
        }
    }

    fn rejected(&self, number: u16) -> Failure {
        let status = StatusCode::from_u16(number).unwrap_or(StatusCode::BAD_REQUEST);
        if self.exceeds_context() {
            Failure::ContextLengthExceeded(status)
        } else {
            Failure::RequestRejected(status)
        }
    }

    fn exceeds_context(&self) -> bool {
        let code = self.field("code").and_then(Value::as_str);
        self.error_type().or(code) == Some("context_length_exceeded")
            || self.message().contains("maximum context length")
            || self.message().starts_with("prompt is too long")
    }

    /// Whether a 403 gives any reason.
    fn has_marker(&self) -> bool {
        let named = |name: &str| self.metadata(name).is_some();
        self.error_type().is_some()
            || ["limit_source", "provider_name", "patterns", "reasons", "flagged_input"]
                .into_iter()
                .any(named)
            || self.field("availability").is_some()
            || starts_with(self.message(), "request blocked")
    }
}

fn present<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    object.get(name).filter(|value| !value.is_null())
}

fn starts_with(message: &str, words: &str) -> bool {
    message.get(..words.len()).is_some_and(|start| start.eq_ignore_ascii_case(words))
}

/// Whether this message reports an exhausted limit or budget. Matched at the start only, because
/// other messages quote labels that users choose.
fn reports_exhausted_budget(message: &str) -> bool {
    let ends_at_word =
        |rest: &str| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_');
    ["Key limit exceeded", "API key budget limit exceeded"]
        .iter()
        .any(|words| message.strip_prefix(words).is_some_and(ends_at_word))
        || message.strip_prefix("Workspace ").is_some_and(|rest| {
            ["daily", "weekly", "monthly", "lifetime"].iter().any(|period| {
                rest.strip_prefix(period).is_some_and(|rest| rest.starts_with(" budget of $"))
            })
        })
}

#[cfg(test)]
mod tests;
