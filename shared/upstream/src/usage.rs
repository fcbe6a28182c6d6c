//! The usage that a response reports. Numbers are parsed from their JSON text, never as floats.

use std::collections::HashMap;
use std::str::FromStr;

use account::price::Usage;
use serde_json::value::RawValue;

use crate::json::MAX_VALUE;

pub(crate) type Fields<'a> = HashMap<String, &'a RawValue>;

/// Parses a `usage` object. A field that is missing or of another type is absent.
pub(crate) fn usage_from_json(json: &str) -> Option<Usage> {
    let is_short = json.len() <= MAX_VALUE;
    let fields: Fields<'_> = is_short.then(|| serde_json::from_str(json).ok())??;
    let details = fields.get("cost_details");
    let details: Fields<'_> =
        details.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    Some(Usage {
        prompt_tokens: number(&fields, "prompt_tokens"),
        completion_tokens: number(&fields, "completion_tokens"),
        cost: number(&fields, "cost"),
        is_byok: is_true(&fields, "is_byok"),
        upstream_inference_cost: number(&details, "upstream_inference_cost"),
    })
}

pub(crate) fn is_true(fields: &Fields<'_>, name: &str) -> bool {
    fields.get(name).is_some_and(|raw| raw.get() == "true")
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
        let usage = r#"{"prompt_tokens":10,"completion_tokens":5,
            "cost":1.425e-05,"cost_details":{"upstream_inference_cost":null}}"#;
        let usage = usage_from_json(usage).unwrap();
        assert_eq!(usage.cost, "0.00001425".parse().ok());
        assert_eq!((usage.upstream_inference_cost, usage.is_byok), (None, false));
        let byok =
            r#"{"cost":0.1,"is_byok":true,"cost_details":{"upstream_inference_cost":0.002}}"#;
        let byok = usage_from_json(byok).unwrap();
        assert_eq!(byok.upstream_inference_cost, "0.002".parse().ok());
        assert!(byok.is_byok);
        let odd = r#"{"prompt_tokens":"10","cost":"free","cost_details":[],"is_byok":1}"#;
        assert_eq!(usage_from_json(odd), Some(Usage::default()));
        for none in ["null", "7", "[", ""] {
            assert_eq!(usage_from_json(none), None);
        }
    }
}
