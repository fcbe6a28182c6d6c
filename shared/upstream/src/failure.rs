//! The meaning of an upstream's errors, in whatever shape they come (contract, section 1).
//!
//! The rule is default deny: only an error that positively says that the key, the money, the rate or
//! the service is the problem may move a call to another payer. Everything else is about the request
//! itself, and sending it elsewhere could bypass a rule that the user made.

use http::StatusCode;
use serde_json::Value;

/// What the caller is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    KeyRejected,
    PaymentRequired,
    RateLimited,
    /// 403 for any other reason: guardrails, moderation, data policy, region.
    Refused,
    ContextLengthExceeded(StatusCode),
    /// Another error of the caller's own.
    RequestRejected(StatusCode),
    /// 3xx, 408, 5xx, or no response.
    Unavailable,
}

/// Does the error say that another payer may make the call?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Elsewhere {
    No,
    Yes,
    /// Only if `GET /key` also rejects the key: it is then a [`Failure::KeyRejected`].
    IfKeyRejected,
}

/// An error as an upstream reported it. Its texts are not for logs.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamError {
    pub failure: Failure,
    pub elsewhere: Elsewhere,
    /// The error object; `null` if there was none to read.
    pub(crate) error: Value,
}

/// Error types that another upstream would not change.
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
    /// A response that is not a success; `None` if it is one.
    pub fn of_response(status: StatusCode, body: &[u8]) -> Option<Self> {
        if status.is_success() {
            return None;
        }
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let report = Report::find(&body).unwrap_or_default();
        Some(report.read(Some(status.as_u16())))
    }

    /// The error that a body with status 200, or an event, reports in place of a response, in the
    /// shape of any of OpenRouter's formats.
    pub fn in_success(body: &Value) -> Option<Self> {
        Some(Report::find(body)?.read(None))
    }

    /// The error of a response that is something else than it should be.
    pub(crate) fn unknown() -> Self {
        Self { failure: Failure::Unavailable, elsewhere: Elsewhere::No, error: Value::Null }
    }
}

/// An error object, and the type beside it.
#[derive(Debug, Default)]
struct Report<'a> {
    error: Option<&'a Value>,
    outer_type: Option<&'a str>,
}

impl<'a> Report<'a> {
    fn find(body: &'a Value) -> Option<Self> {
        let outer_type = text(body, "error_type");
        let kind = text(body, "type").unwrap_or_default();
        let found = |error, outer_type| Some(Self { error, outer_type });
        if let Some(error) = present(body, "error") {
            return found(Some(error), outer_type);
        }
        // The Responses format: a flat error, or a response that failed.
        if kind == "error" {
            return found(Some(body), outer_type);
        }
        let response = body.get("response").unwrap_or(body);
        if kind == "response.failed" || text(response, "status") == Some("failed") {
            return found(present(response, "error"), text(response, "error_type"));
        }
        let choices = body.get("choices").and_then(Value::as_array)?;
        let error = choices.iter().find_map(|choice| present(choice, "error"));
        let failed = |choice: &Value| text(choice, "finish_reason") == Some("error");
        if error.is_some() || choices.iter().any(failed) {
            return found(error, outer_type);
        }
        None
    }

    fn field(&self, name: &str) -> Option<&'a Value> {
        present(self.error?, name)
    }

    fn metadata(&self, name: &str) -> Option<&'a Value> {
        present(self.field("metadata")?, name)
    }

    fn number(&self) -> Option<u16> {
        let number = self.field("code").or_else(|| self.field("http_status"))?;
        let number = number.as_u64().or_else(|| number.as_str()?.parse().ok())?;
        u16::try_from(number).ok().filter(|number| (300..=599).contains(number))
    }

    fn error_type(&self) -> Option<&'a str> {
        let inner = self.metadata("error_type").or_else(|| self.field("error_type"));
        inner.and_then(Value::as_str).or(self.outer_type)
    }

    fn message(&self) -> &'a str {
        let message = self.field("message").or(self.error);
        message.and_then(Value::as_str).unwrap_or_default()
    }

    /// `status` is that of the response, unless it was a success.
    fn read(&self, status: Option<u16>) -> UpstreamError {
        let number = status.or_else(|| self.number());
        let (failure, elsewhere) = match number {
            Some(401) if status.is_some() => (Failure::KeyRejected, Elsewhere::Yes),
            number => self.meaning(number),
        };
        let elsewhere = if self.forbids(number) { Elsewhere::No } else { elsewhere };
        UpstreamError { failure, elsewhere, error: self.error.cloned().unwrap_or_default() }
    }

    /// Does a marker say that the request's content is the problem?
    fn forbids(&self, number: Option<u16>) -> bool {
        let named = |name: &str| self.metadata(name).is_some();
        let content = ["content_policy_violation", "refusal"];
        (number == Some(403) && named("provider_name"))
            || ["patterns", "reasons", "flagged_input"].into_iter().any(named)
            || self.error_type().is_some_and(|kind| content.contains(&kind))
            || starts_with(self.message(), "request blocked")
    }

    fn meaning(&self, number: Option<u16>) -> (Failure, Elsewhere) {
        use Elsewhere::{IfKeyRejected, No, Yes};
        use Failure::{KeyRejected, PaymentRequired, RateLimited, Refused, Unavailable};
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
            Some(403) if money || names_a_budget(self.message()) => return (PaymentRequired, Yes),
            Some(403) if self.has_marker() => return (Refused, No),
            Some(403) => return (Refused, IfKeyRejected),
            Some(number @ 400..=499) if !matches!(number, 401 | 402 | 408 | 429) => {
                return (self.rejected(number), No);
            }
            _ => {}
        }
        if money {
            return (PaymentRequired, Yes);
        }
        if limit_source == Some("openrouter_in_flight_budget") && matches!(number, None | Some(402))
        {
            return (RateLimited, Yes);
        }
        let by_number = match number {
            Some(401) => (KeyRejected, IfKeyRejected),
            Some(402) => (PaymentRequired, Yes),
            Some(429) => (RateLimited, Yes),
            Some(300..=399 | 408 | 500..=599) => (Unavailable, Yes),
            Some(_) => (Unavailable, No),
            None => self.by_name(),
        };
        match self.error_type() {
            Some("authentication") => (KeyRejected, IfKeyRejected),
            Some("payment_required") => (PaymentRequired, Yes),
            Some("rate_limit_exceeded") => (RateLimited, Yes),
            Some("provider_overloaded" | "provider_unavailable" | "server" | "timeout") => {
                (Unavailable, Yes)
            }
            Some(kind) if ABOUT_THE_REQUEST.contains(&kind) => {
                (number.map_or_else(|| self.rejected(400), |_| by_number.0), No)
            }
            _ => by_number,
        }
    }

    /// By the names that the formats have for errors, in the place of a number or beside it.
    fn by_name(&self) -> (Failure, Elsewhere) {
        let name = self.field("code").filter(|code| code.is_string());
        let name = name.or_else(|| self.field("type")).and_then(Value::as_str);
        match name {
            Some(
                "server_error" | "upstream_error" | "api_error" | "overloaded_error"
                | "timeout_error",
            ) => (Failure::Unavailable, Elsewhere::Yes),
            Some("rate_limit_exceeded" | "rate_limit_error") => {
                (Failure::RateLimited, Elsewhere::Yes)
            }
            Some("billing_error") => (Failure::PaymentRequired, Elsewhere::Yes),
            _ if self.exceeds_context() => (self.rejected(400), Elsewhere::No),
            _ => (Failure::Unavailable, Elsewhere::No),
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

    /// Does a 403 give a reason at all?
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

fn text<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.get(name).and_then(Value::as_str)
}

fn starts_with(message: &str, words: &str) -> bool {
    message.get(..words.len()).is_some_and(|start| start.eq_ignore_ascii_case(words))
}

/// Is this the message of a limit or a budget that is used up? Anchored, because labels that users
/// choose stand in other messages.
fn names_a_budget(message: &str) -> bool {
    let then_a_new_word =
        |rest: &str| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_');
    ["Key limit exceeded", "API key budget limit exceeded"]
        .iter()
        .any(|words| message.strip_prefix(words).is_some_and(then_a_new_word))
        || message.strip_prefix("Workspace ").is_some_and(|rest| {
            ["daily", "weekly", "monthly", "lifetime"].iter().any(|period| {
                rest.strip_prefix(period).is_some_and(|rest| rest.starts_with(" budget of $"))
            })
        })
}

#[cfg(test)]
mod tests;
