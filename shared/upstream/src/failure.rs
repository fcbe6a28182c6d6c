//! The meaning of upstream responses that are not a success.

use http::StatusCode;
use serde_json::Value;

/// The contract's kinds of upstream failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// 401, or a 403 that is about the key.
    KeyRejected,
    /// 402, or a 403 because the key's own limit is used up.
    PaymentRequired,
    /// 403 because of the request's content: moderation, guardrails.
    ContentRefused,
    RateLimited,
    /// The caller's own error.
    RequestRejected(StatusCode),
    /// 3xx, 408, 5xx, or no response.
    Unavailable,
}

impl Failure {
    /// Classifies a response; `None` for a success.
    pub fn of(status: StatusCode, body: &[u8]) -> Option<Self> {
        Some(match status.as_u16() {
            200..=299 => return None,
            401 => Self::KeyRejected,
            402 => Self::PaymentRequired,
            403 => of_forbidden(body),
            408 => Self::Unavailable,
            429 => Self::RateLimited,
            400..=499 => Self::RequestRejected(status),
            _ => Self::Unavailable,
        })
    }
}

/// Only the body of a 403 shows its reason.
fn of_forbidden(body: &[u8]) -> Failure {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = body.get("error").unwrap_or(&Value::Null);
    let metadata = error.get("metadata").unwrap_or(&Value::Null);
    let message = error.get("message").and_then(Value::as_str);
    let message = message.unwrap_or_default().to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    let names = |field: &str| metadata.get(field).is_some_and(|value| !value.is_null());
    if names("reasons") || names("flagged_input") || says(&["moderation", "flagged", "guardrail"]) {
        Failure::ContentRefused
    } else if says(&["limit exceeded"]) {
        Failure::PaymentRequired
    } else {
        Failure::KeyRejected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_and_bodies_have_one_meaning_each() {
        use Failure::{
            ContentRefused, KeyRejected, PaymentRequired, RateLimited, RequestRejected, Unavailable,
        };
        let rejected = |status| RequestRejected(StatusCode::from_u16(status).unwrap());
        let message = |text: &str| format!(r#"{{"error":{{"code":403,"message":"{text}"}}}}"#);
        let limit = message("Key limit exceeded (total limit). Manage it at …");
        let reasons = r#"{"error":{"message":"no","metadata":{"reasons":["violence"]}}}"#;
        let flagged = r#"{"error":{"message":"no","metadata":{"flagged_input":"x"}}}"#;
        let table = [
            (200, "", None),
            (302, "", Some(Unavailable)),
            (400, "", Some(rejected(400))),
            (401, "", Some(KeyRejected)),
            (402, "", Some(PaymentRequired)),
            (403, "", Some(KeyRejected)),
            (403, "not json", Some(KeyRejected)),
            (403, &message("Key is disabled"), Some(KeyRejected)),
            (403, &limit, Some(PaymentRequired)),
            (403, reasons, Some(ContentRefused)),
            (403, flagged, Some(ContentRefused)),
            (403, &message("Blocked by Guardrail"), Some(ContentRefused)),
            (404, "", Some(rejected(404))),
            (408, "", Some(Unavailable)),
            (413, "", Some(rejected(413))),
            (422, "", Some(rejected(422))),
            (429, "", Some(RateLimited)),
            (500, "", Some(Unavailable)),
            (524, "", Some(Unavailable)),
            (529, "", Some(Unavailable)),
        ];
        for (status, body, expected) in table {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(Failure::of(status, body.as_bytes()), expected, "{status} {body}");
        }
    }
}
