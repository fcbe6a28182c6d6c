//! The usage that a response reports. Numbers are parsed from their JSON text, never as floats.

use std::collections::HashMap;
use std::str::FromStr;

use account::price::Usage;
use serde_json::value::RawValue;

pub(crate) type Fields<'a> = HashMap<String, &'a RawValue>;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlainAnswer {
    /// The generation's id, if no header named one.
    pub id: Option<String>,
    pub usage: Option<Usage>,
    /// The response is an error despite its status 200.
    pub failed: bool,
}

impl PlainAnswer {
    /// Parses a body; parts that cannot be read are absent.
    pub fn from_json(body: &[u8]) -> Self {
        let fields: Fields<'_> = serde_json::from_slice(body).unwrap_or_default();
        let raw = |name: &str| fields.get(name).map(|raw| raw.get());
        Self {
            id: raw("id").and_then(|id| serde_json::from_str(id).ok()),
            usage: raw("usage").and_then(usage_from_json),
            failed: is_error(raw("error")) || raw("choices").is_some_and(a_choice_failed),
        }
    }
}

fn is_error(member: Option<&str>) -> bool {
    member.is_some_and(|error| error != "null")
}

/// A failure can be reported within a choice.
fn a_choice_failed(choices: &str) -> bool {
    let choices: Vec<Fields<'_>> = serde_json::from_str(choices).unwrap_or_default();
    let mut errors = choices.iter().map(|choice| choice.get("error"));
    errors.any(|error| is_error(error.map(|error| error.get())))
}

/// Parses a `usage` object. A field that is missing or of another type is absent.
pub fn usage_from_json(json: &str) -> Option<Usage> {
    let fields: Fields<'_> = serde_json::from_str(json).ok()?;
    let details = fields.get("cost_details");
    let details: Fields<'_> =
        details.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    Some(Usage {
        prompt_tokens: number(&fields, "prompt_tokens"),
        completion_tokens: number(&fields, "completion_tokens"),
        cost: number(&fields, "cost"),
        upstream_inference_cost: number(&details, "upstream_inference_cost"),
    })
}

/// A number by its JSON text; `None` if it is missing or cannot be read.
pub(crate) fn number<T: FromStr>(fields: &Fields<'_>, name: &str) -> Option<T> {
    fields.get(name)?.get().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_exactly_and_leniently() {
        let body = br#"{"id":"gen-1","usage":{"prompt_tokens":10,"completion_tokens":5,
            "cost":1.425e-05,"cost_details":{"upstream_inference_cost":null}}}"#;
        let usage = PlainAnswer::from_json(body).usage.unwrap();
        assert_eq!(usage.cost, "0.00001425".parse().ok());
        assert_eq!(usage.upstream_inference_cost, None);
        let byok = r#"{"cost":0,"cost_details":{"upstream_inference_cost":0.002}}"#;
        let byok = usage_from_json(byok).unwrap();
        assert_eq!(byok.upstream_inference_cost, "0.002".parse().ok());
        let odd = r#"{"prompt_tokens":"10","cost":"free","cost_details":[]}"#;
        assert_eq!(usage_from_json(odd), Some(Usage::default()));
        for (body, failed) in [
            (r#"{"choices":[{"message":{}}]}"#, false),
            (r#"{"error":null,"choices":[{"error":null}]}"#, false),
            (r#"{"error":{"code":502}}"#, true),
            (r#"{"choices":[{},{"error":{"code":502}}]}"#, true),
        ] {
            assert_eq!(PlainAnswer::from_json(body.as_bytes()).failed, failed, "{body}");
        }
        for none in [&b"{}"[..], br#"{"usage":null}"#, br#"{"usage":7}"#, b"[", b""] {
            assert_eq!(PlainAnswer::from_json(none).usage, None);
        }
    }
}
