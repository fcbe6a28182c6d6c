//! A simulated completion: its cost, and its JSON.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::behaviour::{Behaviour, ErrorPlace};
use super::generated::{Delta, Generated, Piece};
use super::models::{CREATED, Model};

const PROVIDER: &str = "Simulator";

pub(super) struct Completion {
    pub generation_id: String,
    pub behaviour: Behaviour,
    pub model: String,
    pub prices: &'static Model,
    pub prompt_tokens: u64,
    pub generated: Generated,
}

/// An event of a stream, with the number of tokens generated so far.
pub(super) type StreamEvent = (String, u64);

/// The costs of a call: OpenRouter's charge, the upstream provider's charge to the user's own
/// account there, and the provider's cost of the prompt and of the completion.
pub(super) struct Costs {
    pub(super) total: String,
    pub(super) inference: Option<String>,
    prompt: String,
    completion: String,
}

impl Completion {
    /// The charges once this many tokens are generated.
    pub(super) fn costs(&self, tokens: u64) -> Costs {
        let cost = |prompt, completion| self.prices.cost(prompt, completion).to_string();
        let (total, inference) = match self.behaviour {
            // OpenRouter charges nothing for a response that is only an error.
            Behaviour::Error(_, ErrorPlace::First | ErrorPlace::AsDocumented) => {
                ("0".to_owned(), None)
            }
            Behaviour::ZeroCostByok => ("0".to_owned(), Some(cost(self.prompt_tokens, tokens))),
            Behaviour::ScientificCost => (scientific(&cost(self.prompt_tokens, tokens)), None),
            _ => (cost(self.prompt_tokens, tokens), None),
        };
        let (prompt, completion) = (cost(self.prompt_tokens, 0), cost(0, tokens));
        Costs { total, inference, prompt, completion }
    }

    pub(super) fn finish_reason(&self) -> &'static str {
        match self.behaviour {
            Behaviour::Error(..) | Behaviour::ChoiceError => "error",
            _ => self.generated.finish_reason,
        }
    }

    pub(super) fn tokens(&self) -> u64 {
        tokens(&self.generated.pieces)
    }

    /// Tokens in a complete response that is not streamed.
    pub(super) fn tokens_of_body(&self) -> u64 {
        if matches!(self.behaviour, Behaviour::Error(..)) { 0 } else { self.tokens() }
    }

    /// The events of a stream, as OpenRouter sends them: a comment, the content, the finish, the
    /// usage, `[DONE]`.
    pub(super) fn events(&self) -> Vec<StreamEvent> {
        let mut events = vec![(": OPENROUTER PROCESSING\n\n".to_owned(), 0)];
        let mut generated = 0;
        for piece in &self.generated.pieces {
            generated += piece.tokens;
            let choice = choice("delta", &delta(&piece.delta), None);
            events.push((self.event(&[choice], None), generated));
        }
        let last = [self.last_choice("delta", &json!({"role": "assistant", "content": ""}))];
        events.push((self.event(&last, None), generated));
        if let Some(usage) = self.usage() {
            let choices = if self.behaviour == Behaviour::UsageApart { &[][..] } else { &last };
            events.push((self.event(choices, Some(usage)), generated));
        }
        events.push(("data: [DONE]\n\n".to_owned(), generated));
        events
    }

    /// The error event of a stream that consists of, or ends with, an error.
    pub(super) fn error_event(&self) -> Option<String> {
        let Behaviour::Error(error, _) = self.behaviour else {
            return None;
        };
        Some(format!("data: {}\n\n", error.event(self.json("chat.completion.chunk", &[]))))
    }

    fn event(&self, choices: &[Value], usage: Option<Usage>) -> String {
        let chunk = with_usage(self.json("chat.completion.chunk", choices), usage);
        format!("data: {chunk}\n\n")
    }

    /// The body of a response that is not streamed.
    pub(super) fn body(&self) -> String {
        if let Behaviour::Error(error, _) = self.behaviour {
            return error.body(&self.generation_id).to_string();
        }
        let choice = self.last_choice("message", &self.message());
        let mut body = self.json("chat.completion", &[choice]);
        body["system_fingerprint"] = Value::Null;
        with_usage(body, self.usage())
    }

    fn message(&self) -> Value {
        let (mut reasoning, mut text, mut call) = (String::new(), String::new(), None);
        for piece in &self.generated.pieces {
            match &piece.delta {
                Delta::Reasoning(part) => reasoning.push_str(part),
                Delta::Text(part) => text.push_str(part),
                Delta::Call { id, name } => call = Some((id, name, String::new())),
                Delta::Arguments(part) => {
                    if let Some((_, _, arguments)) = &mut call {
                        arguments.push_str(part);
                    }
                }
            }
        }
        let mut message = json!({
            "role": "assistant",
            "content": text,
            "refusal": null,
            "reasoning": null,
        });
        if !reasoning.is_empty() {
            message["reasoning_details"] = reasoning_details(&reasoning);
            message["reasoning"] = json!(reasoning);
        }
        if let Some((id, name, arguments)) = call {
            let function = json!({"name": name, "arguments": arguments});
            message["content"] = Value::Null;
            message["tool_calls"] =
                json!([{"id": id, "index": 0, "type": "function", "function": function}]);
        }
        message
    }

    fn last_choice(&self, member: &str, message: &Value) -> Value {
        let mut choice = choice(member, message, Some(self.finish_reason()));
        if self.behaviour == Behaviour::ChoiceError {
            choice["error"] = json!({
                "code": 502,
                "message": "Provider returned error",
                "metadata": {"provider_name": PROVIDER, "raw": "upstream connect error"},
            });
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
        let tokens = self.tokens();
        let costs = self.costs(tokens);
        let is_reasoning = |piece: &&Piece| matches!(piece.delta, Delta::Reasoning(_));
        let pieces = self.generated.pieces.iter();
        let reasoning: u64 = pieces.filter(is_reasoning).map(|piece| piece.tokens).sum();
        Some(Usage {
            prompt_tokens: self.prompt_tokens,
            completion_tokens: tokens,
            total_tokens: self.prompt_tokens + tokens,
            cost: raw(costs.total),
            is_byok: costs.inference.is_some(),
            prompt_tokens_details: json!({
                "cached_tokens": 0,
                "cache_write_tokens": 0,
                "audio_tokens": 0,
                "video_tokens": 0,
            }),
            cost_details: BTreeMap::from([
                ("upstream_inference_cost", raw_or_null(costs.inference)),
                ("upstream_inference_prompt_cost", raw(costs.prompt)),
                ("upstream_inference_completions_cost", raw(costs.completion)),
            ]),
            completion_tokens_details: json!({
                "reasoning_tokens": reasoning,
                "audio_tokens": 0,
                "image_tokens": 0,
            }),
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

fn delta(piece: &Delta) -> Value {
    let mut delta = json!({"role": "assistant", "content": ""});
    match piece {
        Delta::Text(text) => delta["content"] = json!(text),
        Delta::Reasoning(text) if text.is_empty() => {}
        Delta::Reasoning(text) => {
            delta["reasoning"] = json!(text);
            delta["reasoning_details"] = reasoning_details(text);
        }
        Delta::Call { id, name } => {
            let function = json!({"name": name, "arguments": ""});
            delta["content"] = Value::Null;
            delta["tool_calls"] =
                json!([{"index": 0, "id": id, "type": "function", "function": function}]);
        }
        Delta::Arguments(part) => {
            let function = json!({"arguments": part});
            delta["content"] = Value::Null;
            delta["tool_calls"] = json!([{"index": 0, "type": "function", "function": function}]);
        }
    }
    delta
}

fn reasoning_details(text: &str) -> Value {
    json!([{"type": "reasoning.text", "text": text, "format": "unknown", "index": 0}])
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

fn tokens(pieces: &[Piece]) -> u64 {
    pieces.iter().map(|piece| piece.tokens).sum()
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
