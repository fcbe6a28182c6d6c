//! Looking up a call's cost afterwards: `GET /generation`.

use std::str::FromStr;
use std::time::Duration;

use account::price::Usage;
use http::StatusCode;
use secrecy::SecretString;
use url::form_urlencoded::byte_serialize;

use crate::client::{AskError, Upstream, data_of};
use crate::json::MAX_VALUE;
use crate::usage::{is_true, number};

/// The kind of API that the default AI has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultAiKind {
    /// Reports `usage.cost`, and can look up a generation later.
    OpenRouter,
    /// Reports tokens, and only on request; it has no lookup.
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

impl Upstream {
    /// Looks up the cost of the call `id` within `time`. `None` if upstream does not know the call,
    /// or not yet: OpenRouter's records appear some seconds after a call. An error says nothing
    /// about the call.
    pub async fn generation(
        &self,
        key: &SecretString,
        id: &str,
        time: Duration,
    ) -> Result<Option<Usage>, AskError> {
        let id: String = byte_serialize(id.as_bytes()).collect();
        let path = format!("/generation?id={id}");
        match self.ask(&path, Some(key), time, MAX_VALUE).await {
            Err(AskError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            body => usage_from_generation(&body?).map(Some),
        }
    }
}

/// Every field may be missing. The tokens are the provider's own count, by which it bills.
fn usage_from_generation(body: &[u8]) -> Result<Usage, AskError> {
    let data = data_of(body)?;
    Ok(Usage {
        prompt_tokens: number(&data, "native_tokens_prompt"),
        completion_tokens: number(&data, "native_tokens_completion"),
        cost: number(&data, "total_cost").or_else(|| number(&data, "usage")),
        is_byok: is_true(&data, "is_byok"),
        upstream_inference_cost: number(&data, "upstream_inference_cost"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_states_the_cost_of_its_call() {
        let whole = br#"{"data":{"id":"gen-1","total_cost":1.5e-3,"usage":0.9,
            "upstream_inference_cost":null,"native_tokens_prompt":10,
            "native_tokens_completion":25,"tokens_prompt":1}}"#;
        assert_eq!(
            usage_from_generation(whole).unwrap(),
            Usage {
                prompt_tokens: Some(10),
                completion_tokens: Some(25),
                cost: "0.0015".parse().ok(),
                is_byok: false,
                upstream_inference_cost: None,
            }
        );
        let byok = br#"{"data":{"usage":0,"upstream_inference_cost":0.0012}}"#;
        let byok = usage_from_generation(byok).unwrap();
        assert!(byok.cost.is_some_and(account::Usd::is_zero));
        assert_eq!(byok.upstream_inference_cost, "0.0012".parse().ok());
        assert_eq!(usage_from_generation(br#"{"data":{}}"#).unwrap(), Usage::default());
        for bad in [&b"<html>"[..], b"{}", br#"{"data":null}"#] {
            assert!(usage_from_generation(bad).is_err());
        }
    }
}
