//! Checking a key with OpenRouter: `GET /key` (never `/models`, which needs no key).

use std::time::Duration;

use account::{KeyLimits, Usd};
use jiff::Timestamp;
use secrecy::SecretString;

use crate::client::{AskError, Upstream, data_of};
use crate::json::MAX_VALUE;
use crate::text::sanitize;

/// Length limit of a label, in characters.
const MAX_LABEL: usize = 100;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyFacts {
    pub label: String,
    pub limits: KeyLimits,
    /// Management keys manage other keys and cannot make calls.
    pub is_management: bool,
}

impl Upstream {
    /// Asks OpenRouter about `key`, within `time`. No error but [`AskError::is_unauthorized`] says
    /// anything about the key.
    pub async fn check_key(
        &self,
        key: &SecretString,
        time: Duration,
    ) -> Result<KeyFacts, AskError> {
        let body = self.ask("/key", Some(key), time, MAX_VALUE).await?;
        facts_from_json(&body)
    }
}

/// Every field may be missing, or have another type than today.
fn facts_from_json(body: &[u8]) -> Result<KeyFacts, AskError> {
    let data = data_of(body)?;
    let raw = |name: &str| data.get(name).map(|raw| raw.get());
    let text = |name: &str| serde_json::from_str::<String>(raw(name)?).ok();
    let is_true = |name: &str| raw(name) == Some("true");
    Ok(KeyFacts {
        label: sanitize(&text("label").unwrap_or_default(), MAX_LABEL),
        limits: KeyLimits {
            limit_usd: raw("limit").and_then(dollars),
            limit_remaining_usd: raw("limit_remaining").and_then(dollars),
            // Parsed as a time, because arbitrary text must not be stored or shown.
            expires_at: text("expires_at")
                .and_then(|time| Some(time.parse::<Timestamp>().ok()?.to_string())),
        },
        is_management: is_true("is_management_key") || is_true("is_provisioning_key"),
    })
}

/// A JSON number as a plain decimal; below zero, the limit is used up.
fn dollars(number: &str) -> Option<String> {
    match number.parse::<Usd>() {
        Ok(usd) => Some(usd.to_string()),
        Err(account::DecimalError::Negative) => Some("0".to_owned()),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_facts_are_left_out() {
        let full = br#"{"data":{"label":"sk-or-v1-abc...xyz","limit":20,"limit_remaining":12.3,
            "is_management_key":true,"expires_at":"2027-01-01T00:00:00Z","usage":7.7}}"#;
        let facts = facts_from_json(full).unwrap();
        assert_eq!(
            facts,
            KeyFacts {
                label: "sk-or-v1-abc...xyz".to_owned(),
                limits: KeyLimits {
                    limit_usd: Some("20".to_owned()),
                    limit_remaining_usd: Some("12.3".to_owned()),
                    expires_at: Some("2027-01-01T00:00:00Z".to_owned()),
                },
                is_management: true,
            }
        );
        let odd = br#"{"data":{"label":null,"limit":null,"limit_remaining":-0.5,
            "expires_at":"sk-or-v1-0123456789abcdef"}}"#;
        let limits = facts_from_json(odd).unwrap().limits;
        assert_eq!(limits.limit_remaining_usd.as_deref(), Some("0"));
        assert_eq!((limits.limit_usd, limits.expires_at), (None, None));
        assert!(facts_from_json(b"<html>").is_err());
    }
}
