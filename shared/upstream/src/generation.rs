//! What a call did cost, asked for afterwards: `GET /generation`.

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

use account::price::Usage;
use http::{Method, StatusCode};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::timeout;
use url::form_urlencoded::byte_serialize;

use crate::{AskError, Upstream};

/// What the default AI is, beyond its protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultAiKind {
    /// Reports `usage.cost`, and can be asked about a generation later.
    OpenRouter,
    /// Reports tokens, and only where asked to; it has no look-up.
    OpenAi,
}

impl FromStr for DefaultAiKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "openrouter" => Ok(Self::OpenRouter),
            "openai" => Ok(Self::OpenAi),
            _ => Err("is neither `openrouter` nor `openai`".to_owned()),
        }
    }
}

/// Why it is not known what a call did cost.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    #[error("upstream answered {0} when asked about a call")]
    Refused(StatusCode),
    #[error("upstream's answer about a call cannot be read")]
    Unreadable(#[source] serde_json::Error),
    #[error("upstream could not be reached to ask about a call")]
    Unreachable(#[source] AskError),
    #[error("upstream did not say in time what a call did cost")]
    TimedOut,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    data: HashMap<String, &'a RawValue>,
}

impl Upstream {
    /// Asks what the call `id` did cost, for at most `time`. `Ok(None)`: upstream does not know it,
    /// or does not know it yet (OpenRouter's records follow a call by some seconds).
    ///
    /// # Errors
    /// [`GenerationError`] says nothing of the call.
    pub async fn generation(
        &self,
        key: &SecretString,
        id: &str,
        time: Duration,
    ) -> Result<Option<Usage>, GenerationError> {
        let id: String = byte_serialize(id.as_bytes()).collect();
        let path = format!("/generation?id={id}");
        let ask = self.ask(self.request(Method::GET, &path, Some(key)));
        let answer = timeout(time, ask)
            .await
            .map_err(|_| GenerationError::TimedOut)?;
        let (status, body) = answer.map_err(GenerationError::Unreachable)?;
        match status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => {
                let usage = usage_from_generation(&body);
                usage.map(Some).map_err(GenerationError::Unreadable)
            }
            status => Err(GenerationError::Refused(status)),
        }
    }
}

/// Every field may be missing. Tokens are the provider's own count, by which it bills.
fn usage_from_generation(body: &[u8]) -> Result<Usage, serde_json::Error> {
    let data = serde_json::from_slice::<Envelope<'_>>(body)?.data;
    let raw = |name: &str| data.get(name).map(|raw| raw.get());
    let usd = |name: &str| raw(name)?.parse().ok();
    let count = |name: &str| raw(name)?.parse().ok();
    Ok(Usage {
        prompt_tokens: count("native_tokens_prompt"),
        completion_tokens: count("native_tokens_completion"),
        cost: usd("total_cost").or_else(|| usd("usage")),
        upstream_inference_cost: usd("upstream_inference_cost"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_says_what_its_call_did_cost() {
        let whole = br#"{"data":{"id":"gen-1","total_cost":1.5e-3,"usage":0.9,
            "upstream_inference_cost":null,"native_tokens_prompt":10,
            "native_tokens_completion":25,"tokens_prompt":1}}"#;
        assert_eq!(
            usage_from_generation(whole).unwrap(),
            Usage {
                prompt_tokens: Some(10),
                completion_tokens: Some(25),
                cost: "0.0015".parse().ok(),
                upstream_inference_cost: None,
            }
        );
        let byok = br#"{"data":{"usage":0,"upstream_inference_cost":0.0012}}"#;
        let byok = usage_from_generation(byok).unwrap();
        assert!(byok.cost.is_some_and(account::Usd::is_zero));
        assert_eq!(byok.upstream_inference_cost, "0.0012".parse().ok());
        assert_eq!(
            usage_from_generation(br#"{"data":{}}"#).unwrap(),
            Usage::default()
        );
        for bad in [&b"<html>"[..], b"{}", br#"{"data":null}"#] {
            assert!(usage_from_generation(bad).is_err());
        }
    }
}
