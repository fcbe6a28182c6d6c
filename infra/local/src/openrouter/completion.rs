//! A simulated completion: its content, its cost, and its JSON.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::behaviour::Behaviour;
use super::errors::USER_ID;
use super::models::{CREATED, Model};

const PROVIDER: &str = "Simulator";
/// The minimum size of the response of `big`, in bytes.
const BIG: usize = 2 * 1024 * 1024;
/// The number of words in a chunk of `big`.
const BIG_CHUNK: usize = 128;

pub(super) struct Completion {
    pub generation_id: String,
    pub behaviour: Behaviour,
    model: String,
    prices: &'static Model,
    prompt_tokens: u64,
    /// The content, in the chunks that are streamed.
    chunks: Vec<String>,
    finish_reason: &'static str,
}

/// An event of a stream, with the number of words generated so far.
pub(super) type StreamEvent = (String, u64);

impl Completion {
    /// A completion that repeats the user's last text, of at most `max_tokens` words.
    pub(super) fn new(
        generation_id: String,
        (model, prices): (String, &'static Model),
        behaviour: Behaviour,
        prompt_tokens: u64,
        echo: &str,
        max_tokens: Option<u64>,
    ) -> Self {
        let is_big = behaviour == Behaviour::Big;
        let mut words: Vec<String> = if is_big {
            vec!["0123456789abcde".to_owned(); BIG.div_ceil(16)]
        } else {
            let text = format!("Simulated answer – naïve but cheerful ✓ – to: {echo}");
            text.split_whitespace().map(str::to_owned).collect()
        };
        let limit = usize::try_from(max_tokens.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        let finish_reason = if words.len() > limit { "length" } else { "stop" };
        words.truncate(limit);
        let chunks = words.chunks(if is_big { BIG_CHUNK } else { 1 });
        let chunks = chunks.enumerate().map(|(index, words)| {
            let space = if index == 0 { "" } else { " " };
            format!("{space}{}", words.join(" "))
        });
        Self {
            generation_id,
            model,
            behaviour,
            prices,
            prompt_tokens,
            chunks: chunks.collect(),
            finish_reason,
        }
    }

    /// OpenRouter's and the upstream provider's charge once this many words are generated.
    pub(super) fn costs(&self, words: u64) -> (String, Option<String>) {
        let cost = self.prices.cost(self.prompt_tokens, words).to_string();
        match self.behaviour {
            Behaviour::ZeroCostByok => ("0".to_owned(), Some(cost)),
            Behaviour::ScientificCost => (scientific(&cost), None),
            _ => (cost, None),
        }
    }

    pub(super) fn finish_reason(&self) -> &'static str {
        match self.behaviour {
            Behaviour::MidstreamError | Behaviour::ChoiceError => "error",
            _ => self.finish_reason,
        }
    }

    pub(super) fn words(&self) -> u64 {
        self.chunks.iter().map(|chunk| words(chunk)).sum()
    }

    /// The events of a stream, as OpenRouter sends them: a comment, the content, the finish, the
    /// usage, `[DONE]`.
    pub(super) fn events(&self) -> Vec<StreamEvent> {
        let mut events = vec![(": OPENROUTER PROCESSING\n\n".to_owned(), 0)];
        let mut generated = 0;
        for chunk in &self.chunks {
            generated += words(chunk);
            let delta = json!({"role": "assistant", "content": chunk});
            events.push((self.event([choice("delta", &delta, None)], None), generated));
        }
        let nothing = json!({"role": "assistant", "content": ""});
        events.push((self.event([self.last_choice("delta", &nothing)], None), generated));
        if let Some(usage) = self.usage() {
            events.push((self.event([], Some(usage)), generated));
        }
        events.push(("data: [DONE]\n\n".to_owned(), generated));
        events
    }

    /// The event of a stream that breaks off with an error.
    pub(super) fn error_event(&self) -> String {
        let nothing = json!({"role": "assistant", "content": ""});
        let mut chunk =
            self.json("chat.completion.chunk", &[choice("delta", &nothing, Some("error"))]);
        chunk["error"] = json!({
            "code": "server_error",
            "message": "Provider disconnected unexpectedly",
        });
        format!("data: {chunk}\n\n")
    }

    fn event<const N: usize>(&self, choices: [Value; N], usage: Option<Usage>) -> String {
        let chunk = with_usage(self.json("chat.completion.chunk", &choices), usage);
        format!("data: {chunk}\n\n")
    }

    /// The body of a response that is not streamed.
    pub(super) fn body(&self) -> String {
        if self.behaviour == Behaviour::MidstreamError {
            return json!({"error": provider_error(), "user_id": USER_ID}).to_string();
        }
        let text = self.chunks.concat();
        let message = json!({"role": "assistant", "content": text, "refusal": null});
        let choice = self.last_choice("message", &message);
        with_usage(self.json("chat.completion", &[choice]), self.usage())
    }

    fn last_choice(&self, member: &str, message: &Value) -> Value {
        let mut choice = choice(member, message, Some(self.finish_reason()));
        if self.behaviour == Behaviour::ChoiceError {
            choice["error"] = provider_error();
        }
        choice
    }

    fn json(&self, object: &str, choices: &[Value]) -> Value {
        json!({
            "id": self.generation_id,
            "provider": PROVIDER,
            "model": self.model,
            "object": object,
            "created": CREATED,
            "choices": choices,
        })
    }

    fn usage(&self) -> Option<Usage> {
        if self.behaviour == Behaviour::NoUsage {
            return None;
        }
        let words = self.words();
        let (cost, inference) = self.costs(words);
        Some(Usage {
            prompt_tokens: self.prompt_tokens,
            completion_tokens: words,
            total_tokens: self.prompt_tokens + words,
            cost: raw(cost),
            is_byok: inference.is_some(),
            prompt_tokens_details: json!({"cached_tokens": 0, "audio_tokens": 0}),
            cost_details: BTreeMap::from([("upstream_inference_cost", raw_or_null(inference))]),
            completion_tokens_details: json!({"reasoning_tokens": 0, "image_tokens": 0}),
        })
    }
}

/// The completion as JSON. Only its usage has decimals, which are written digit by digit.
fn with_usage(completion: Value, usage: Option<Usage>) -> String {
    #[derive(Serialize)]
    struct WithUsage {
        #[serde(flatten)]
        completion: Value,
        #[serde(skip_serializing_if = "Option::is_none")]
        usage: Option<Usage>,
    }
    let whole = serde_json::to_string(&WithUsage { completion, usage });
    whole.expect("completions can be written as JSON")
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    cost: Box<RawValue>,
    is_byok: bool,
    prompt_tokens_details: Value,
    cost_details: BTreeMap<&'static str, Box<RawValue>>,
    completion_tokens_details: Value,
}

fn choice(member: &str, message: &Value, finish_reason: Option<&str>) -> Value {
    json!({
        "index": 0,
        member: message,
        "finish_reason": finish_reason,
        "native_finish_reason": finish_reason,
        "logprobs": null,
    })
}

fn provider_error() -> Value {
    json!({
        "code": 502,
        "message": "Provider returned error",
        "metadata": {"provider_name": PROVIDER, "raw": "upstream connect error"},
    })
}

/// A decimal as a JSON number, digit by digit.
pub(super) fn raw(json: String) -> Box<RawValue> {
    RawValue::from_string(json).expect("decimals are JSON numbers")
}

pub(super) fn raw_or_null(json: Option<String>) -> Box<RawValue> {
    raw(json.unwrap_or_else(|| "null".to_owned()))
}

/// `0.00001425` as `1.425e-05`; zero stays zero.
fn scientific(decimal: &str) -> String {
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
    let digits = format!("{whole}{fraction}");
    let Some(first) = digits.find(|digit| digit != '0') else {
        return "0".to_owned();
    };
    let significant = digits[first..].trim_end_matches('0');
    let (lead, rest) = significant.split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    let (sign, exponent) = match (whole.len() - 1).checked_sub(first) {
        Some(exponent) => ('+', exponent),
        None => ('-', first + 1 - whole.len()),
    };
    format!("{lead}{point}{rest}e{sign}{exponent:02}")
}

fn words(text: &str) -> u64 {
    count(text.split_whitespace().count())
}

pub(super) fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_written_with_an_exponent() {
        let table = [
            ("0.00001425", "1.425e-05"),
            ("0.5", "5e-01"),
            ("12.5", "1.25e+01"),
            ("100", "1e+02"),
            ("0", "0"),
        ];
        for (decimal, expected) in table {
            assert_eq!(scientific(decimal), expected);
        }
    }
}
