//! Sanitizes an upstream's texts and headers for the key's owner. They are never logged.

use std::time::Duration;

use http::HeaderMap;
use http::header::RETRY_AFTER;
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};

use crate::failure::UpstreamError;

/// Length limit of an error's message, in characters.
const MAX_MESSAGE: usize = 2_000;
/// Length limit of a text in an error's metadata, in characters.
const MAX_TEXT: usize = 500;
/// Maximum number of entries of a list or object in an error's metadata.
const MAX_ITEMS: usize = 20;
/// Maximum nesting depth of an error's metadata.
const MAX_DEPTH: usize = 4;
/// The metadata of an error that the key's owner may see. Never `raw` or `flagged_input`, which
/// hold input and a provider's payload, nor anything next to the error (`user_id`).
const SHOWN: [&str; 5] = ["error_type", "provider_name", "availability", "patterns", "reasons"];

impl UpstreamError {
    /// OpenRouter's own message, for the key's owner. Agents act on it.
    pub fn message(&self) -> Option<String> {
        Some(sanitize(self.body.message(), MAX_MESSAGE)).filter(|message| !message.is_empty())
    }

    /// OpenRouter's details about the request, for the key's owner.
    pub fn metadata(&self) -> Map<String, Value> {
        let shown = SHOWN.iter().filter_map(|name| {
            let value = self.body.metadata(name)?;
            Some(((*name).to_owned(), sanitize_value(value, MAX_DEPTH)?))
        });
        shown.collect()
    }

    /// The model's context length and the request's length, in tokens, from the message of a
    /// [`crate::Failure::ContextLengthExceeded`].
    pub fn context_lengths(&self) -> Option<(u64, u64)> {
        let numbers =
            self.body.message().split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok());
        // Numbers in model names are smaller.
        let mut numbers = numbers.filter(|number: &u64| *number >= 1_000);
        let (first, second) = (numbers.next()?, numbers.next()?);
        Some((first.min(second), first.max(second)))
    }

    /// The time that upstream asks to wait, at least one second. One second if it names none.
    pub fn retry_after(&self, headers: &HeaderMap, now: Timestamp) -> Duration {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let inside =
            |name: &str, member: &str| Some(number_or_text(self.body.metadata(name)?.get(member)?));
        let stated = self.body.metadata("retry_after_seconds").map(number_or_text);
        let found = header(RETRY_AFTER.as_str())
            .and_then(|text| seconds(text).or_else(|| until_date(text, now)))
            .or_else(|| header("retry-after-ms").and_then(millis))
            .or_else(|| header("x-ratelimit-reset").and_then(|text| until_millis(text, now)))
            .or_else(|| stated.and_then(|text| seconds(&text)))
            .or_else(|| inside("headers", "Retry-After").and_then(|text| seconds(&text)))
            .or_else(|| inside("availability", "retry_after").and_then(|text| seconds(&text)))
            .or_else(|| {
                let reset = inside("headers", "X-RateLimit-Reset");
                reset.and_then(|text| until_millis(&text, now))
            });
        found.unwrap_or_default().max(Duration::from_secs(1))
    }
}

fn number_or_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Whole or decimal seconds, rounded up.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, part) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    if !part.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let up = u64::from(part.bytes().any(|digit| digit != b'0'));
    Some(Duration::from_secs(whole.parse::<u64>().ok()?.checked_add(up)?))
}

fn millis(text: &str) -> Option<Duration> {
    text.trim().parse().ok().map(Duration::from_millis)
}

fn until_date(text: &str, now: Timestamp) -> Option<Duration> {
    until(jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp(), now)
}

/// `text` is in milliseconds since 1970.
fn until_millis(text: &str, now: Timestamp) -> Option<Duration> {
    until(Timestamp::from_millisecond(text.trim().parse().ok()?).ok()?, now)
}

fn until(time: Timestamp, now: Timestamp) -> Option<Duration> {
    let left: SignedDuration = time.duration_since(now);
    left.try_into().ok()
}

/// The generation id, if it is safe to store and show.
pub(crate) fn generation_id(id: &str) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let is_id = (1..=128).contains(&id.len())
        && id.bytes().all(allowed)
        && !id.starts_with("sk-")
        && !looks_like_key(id);
    is_id.then(|| id.to_owned())
}

/// Whether an upstream echoes its key.
pub fn contains_key(bytes: &[u8], key: &SecretString) -> bool {
    let key = key.expose_secret().as_bytes();
    !key.is_empty() && memchr::memmem::find(bytes, key).is_some()
}

/// `text` without control characters, with keys masked, cut to `max` characters.
pub(crate) fn sanitize(text: &str, max: usize) -> String {
    let visible = text.chars().filter(|c| !is_invisible(*c));
    let plain: String = visible.map(|c| if c.is_control() { ' ' } else { c }).collect();
    mask(plain.trim()).chars().take(max).collect()
}

/// Characters that could hide a key from [`mask`].
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
}

/// Replaces anything that looks like a key.
fn mask(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = find_key(rest) {
        let (before, key) = rest.split_at_checked(at).unwrap_or((rest, ""));
        masked.push_str(before);
        masked.push_str("[key]");
        rest = key.trim_start_matches(is_key_char);
    }
    masked + rest
}

pub(crate) fn looks_like_key(text: &str) -> bool {
    find_key(text).is_some()
}

/// The start of the first word that looks like a key: `sk-` and at least twelve characters.
fn find_key(text: &str) -> Option<usize> {
    let starts = text.match_indices("sk-").map(|(at, _)| at);
    let mut keys = starts.filter(|at| {
        let (before, from) = text.split_at_checked(*at).unwrap_or_default();
        let length = from.chars().take_while(|c| is_key_char(*c)).count();
        let begins = from.starts_with("sk-or-") || !before.ends_with(char::is_alphanumeric);
        begins && length >= 15
    });
    keys.next()
}

fn is_key_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

fn sanitize_value(value: &Value, depth: usize) -> Option<Value> {
    let depth = depth.checked_sub(1)?;
    Some(match value {
        Value::Null => return None,
        Value::Bool(_) | Value::Number(_) => value.clone(),
        Value::String(text) => Value::String(sanitize(text, MAX_TEXT)),
        Value::Array(items) => {
            items.iter().take(MAX_ITEMS).filter_map(|item| sanitize_value(item, depth)).collect()
        }
        Value::Object(members) => Value::Object(
            members
                .iter()
                .take(MAX_ITEMS)
                .filter_map(|(name, value)| {
                    Some((sanitize(name, 64), sanitize_value(value, depth)?))
                })
                .collect(),
        ),
    })
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use serde_json::json;

    use super::*;

    fn error(error: Value) -> UpstreamError {
        let body = json!({"error": error, "user_id": "user_7"}).to_string();
        UpstreamError::from_response(StatusCode::BAD_REQUEST, Some(body.as_bytes()))
    }

    #[test]
    fn the_message_is_sanitized() {
        let key = "sk-or-v1-0123456789abcdef0123";
        let hidden = "sk-or-v1-01234\u{200b}56789abcdef0123";
        for (message, shown) in [
            ("Invalid model".to_owned(), "Invalid model"),
            (format!("key {key} and ({key})."), "key [key] and ([key])."),
            (format!("Invalid key\n{key}"), "Invalid key [key]"),
            (format!("key{key}"), "key[key]"),
            (format!("a {hidden}!\r\n\u{7}"), "a [key]!"),
            ("the risk-assessment-model-of-today".to_owned(), "the risk-assessment-model-of-today"),
        ] {
            assert_eq!(error(json!({"message": message})).message().as_deref(), Some(shown));
        }
        let long = error(json!({"message": "ü".repeat(5_000)})).message().unwrap();
        assert_eq!(long.chars().count(), MAX_MESSAGE);
        assert_eq!(error(json!({"message": ""})).message(), None);
        assert_eq!(error(json!("gone")).message().as_deref(), Some("gone"));
    }

    #[test]
    fn the_metadata_has_only_allowed_members() {
        let key = "sk-or-v1-0123456789abcdef0123";
        let metadata = error(json!({
            "message": "no",
            "availability": {"code": "no_endpoints", "deep": [[[["too deep"]]]]},
            "metadata": {
                "error_type": "not_found", "provider_name": "OpenAI", "patterns": [key, "x"],
                "raw": "secret", "flagged_input": "secret", "file_annotations": ["secret"],
            },
        }))
        .metadata();
        assert_eq!(
            Value::Object(metadata),
            json!({
                "error_type": "not_found", "provider_name": "OpenAI", "patterns": ["[key]", "x"],
                "availability": {"code": "no_endpoints", "deep": [[[]]]},
            })
        );
    }

    type Headers<'a> = &'a [(&'static str, &'a str)];

    #[test]
    fn retry_after_is_read_from_headers_and_body() {
        let now: Timestamp = "2026-04-30T12:00:00Z".parse().unwrap();
        let in_a_minute = (now.as_millisecond() + 60_000).to_string();
        let date = "Thu, 30 Apr 2026 12:01:00 GMT";
        let none = json!({});
        let table: [(Headers<'_>, Value, u64); 17] = [
            (&[("retry-after", "40")], none.clone(), 40),
            (&[("retry-after", "1.2")], none.clone(), 2),
            (&[("retry-after", date)], none.clone(), 60),
            (&[("retry-after", "Thu, 30 Apr 2026 11:01:00 GMT")], none.clone(), 1),
            (&[("retry-after", "-5")], none.clone(), 1),
            (&[("retry-after", "0")], none.clone(), 1),
            (&[("retry-after", "soon")], none.clone(), 1),
            (&[("retry-after", "soon"), ("retry-after-ms", "2500")], none.clone(), 2),
            (&[("x-ratelimit-reset", &in_a_minute)], none.clone(), 60),
            (&[("x-ratelimit-reset", "1")], none.clone(), 1),
            (&[], json!({"metadata": {"retry_after_seconds": 7}}), 7),
            (&[], json!({"metadata": {"headers": {"Retry-After": "8"}}}), 8),
            (&[], json!({"metadata": {"headers": {"X-RateLimit-Reset": in_a_minute}}}), 60),
            (&[], json!({"availability": {"retry_after": 9}}), 9),
            (&[("retry-after", "3")], json!({"metadata": {"retry_after_seconds": 7}}), 3),
            (&[], json!({"metadata": {"retry_after_seconds": -7}}), 1),
            (&[], none, 1),
        ];
        for (headers, body, seconds) in table {
            let header = |(name, value): &(&'static str, &str)| {
                (http::HeaderName::from_static(name), value.parse().unwrap())
            };
            let headers: HeaderMap = headers.iter().map(header).collect();
            let wait = error(body.clone()).retry_after(&headers, now);
            assert_eq!(wait.as_secs(), seconds, "{headers:?} {body}");
        }
    }

    #[test]
    fn context_lengths_are_read_from_the_message() {
        for message in [
            "This endpoint's maximum context length is 128000 tokens. However, you requested about \
             150000 tokens (149000 of text input, 1000 in the output).",
            "gpt-4: prompt is too long: 150000 tokens > 128000 maximum",
        ] {
            let lengths = error(json!({"message": message})).context_lengths();
            assert_eq!(lengths, Some((128_000, 150_000)), "{message}");
        }
        assert_eq!(error(json!({"message": "too long"})).context_lengths(), None);
    }

    #[test]
    fn unsafe_generation_ids_are_refused() {
        for (id, good) in [
            ("gen-1770000000-AbC_9", true),
            ("", false),
            ("gen 1", false),
            ("gen-1\n", false),
            ("sk-or-v1-0123456789abcdef", false),
            ("gen-sk-or-v1-0123456789abcdef", false),
        ] {
            assert_eq!(generation_id(id).is_some(), good, "{id}");
        }
        assert!(generation_id(&"a".repeat(128)).is_some());
        assert!(generation_id(&"a".repeat(129)).is_none());
    }
}
