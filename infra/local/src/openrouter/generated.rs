//! What the simulated model generates for a request: reasoning, then text, JSON or a tool call.

use serde_json::{Value, json};
use uuid::Uuid;

use super::schema::example;

/// The minimum size of a `big` response, in bytes.
const BIG: usize = 2 * 1024 * 1024;
/// The number of words in a chunk of `big`.
const BIG_CHUNK: usize = 128;
/// Characters per token in generated JSON.
const JSON_TOKEN: usize = 12;
/// Maximum length of the user's text echoed in responses and errors, in characters.
const MAX_ECHO: usize = 200;
/// Tokens counted for a message part that is not text.
const PART_TOKENS: u64 = 100;

/// A piece of the generated output; a stream sends each piece in its own chunk.
pub(super) struct Piece {
    pub(super) delta: Delta,
    pub(super) tokens: u64,
}

pub(super) enum Delta {
    Reasoning(String),
    Text(String),
    /// The beginning of a tool call.
    Call {
        id: String,
        name: String,
    },
    /// A part of the call's arguments.
    Arguments(String),
}

pub(super) struct Generated {
    pub(super) pieces: Vec<Piece>,
    pub(super) finish_reason: &'static str,
}

/// Generates the output for `request`, within its token limit.
pub(super) fn generate(request: &Value, is_big: bool) -> Generated {
    let echo = last_text(&request["messages"]);
    let mut pieces = reasoning(&request["reasoning"], &request["reasoning_effort"]);
    let mut finish_reason = "stop";
    if is_big {
        let words = vec!["0123456789abcde"; BIG.div_ceil(16)];
        pieces.extend(text(&words, BIG_CHUNK, Delta::Text));
    } else if let Some(tool) = chosen_tool(request) {
        finish_reason = "tool_calls";
        let name = tool["name"].as_str().unwrap_or_default().to_owned();
        let id = format!("call_{}", &Uuid::new_v4().simple().to_string()[..24]);
        pieces.push(Piece { delta: Delta::Call { id, name }, tokens: 1 });
        let no_parameters = json!({"type": "object"});
        let schema = tool.get("parameters").filter(|schema| schema.is_object());
        let arguments = example(schema.unwrap_or(&no_parameters), &echo);
        pieces.extend(json_pieces(&arguments, Delta::Arguments));
    } else if let Some(value) = structured(&request["response_format"], &echo) {
        pieces.extend(json_pieces(&value, Delta::Text));
    } else {
        let answer = format!("Simulated answer – naïve but cheerful ✓ – to: {echo}");
        let words: Vec<_> = answer.split_whitespace().collect();
        pieces.extend(text(&words, 1, Delta::Text));
    }
    let limits = [&request["max_tokens"], &request["max_completion_tokens"]];
    let limit = limits.into_iter().filter_map(Value::as_u64).min();
    Generated { pieces, finish_reason }.within(limit.unwrap_or(u64::MAX))
}

impl Generated {
    fn within(mut self, limit: u64) -> Self {
        let mut generated = 0;
        let is_within = |piece: &&Piece| {
            generated += piece.tokens;
            generated <= limit
        };
        let within = self.pieces.iter().take_while(is_within).count();
        if within < self.pieces.len() {
            self.pieces.truncate(within);
            self.finish_reason = "length";
        }
        self
    }
}

/// A token per four bytes of text, rounded up.
pub(super) fn prompt_tokens(messages: &Value) -> u64 {
    let mut bytes = 0;
    let mut parts = 0;
    for message in messages.as_array().into_iter().flatten() {
        match &message["content"] {
            Value::String(text) => bytes += text.len(),
            Value::Array(content) => {
                for part in content {
                    match part["text"].as_str() {
                        Some(text) => bytes += text.len(),
                        None => parts += PART_TOKENS,
                    }
                }
            }
            _ => {}
        }
    }
    count(bytes.div_ceil(4)) + parts
}

/// The beginning of the last text in the messages.
pub(super) fn last_text(messages: &Value) -> String {
    let last = messages.as_array().and_then(|all| all.last());
    let text = match last.map(|last| &last["content"]) {
        Some(Value::String(text)) => text.as_str(),
        Some(Value::Array(parts)) => {
            let mut texts = parts.iter().rev().filter_map(|part| part["text"].as_str());
            texts.next().unwrap_or_default()
        }
        _ => "",
    };
    text.chars().take(MAX_ECHO).collect()
}

/// Reasoning output, if the request asks for it in any form that OpenRouter accepts.
fn reasoning(config: &Value, effort: &Value) -> Vec<Piece> {
    let effort = config["effort"].as_str().or_else(|| effort.as_str());
    let asked = effort.is_some_and(|effort| effort != "none")
        || config["max_tokens"].is_u64()
        || config["enabled"] == true;
    if !asked {
        return Vec::new();
    }
    let words = ["The", "user", "wants", "an", "answer."];
    let mut pieces = text(&words, 1, Delta::Reasoning);
    if config["exclude"] == true {
        // Hidden, but paid for.
        for piece in &mut pieces {
            piece.delta = Delta::Reasoning(String::new());
        }
    }
    pieces
}

/// The function that the model calls, if any: the one that `tool_choice` names. If a call is
/// required, the first function not called yet, or the last one. Otherwise the first function,
/// unless the last message is a tool's result.
fn chosen_tool(request: &Value) -> Option<&Value> {
    let choice = &request["tool_choice"];
    if choice == "none" {
        return None;
    }
    let tools = request["tools"].as_array()?.iter();
    let functions: Vec<&Value> = tools.map(|tool| &tool["function"]).collect();
    if let Some(name) = choice.pointer("/function/name") {
        return functions.into_iter().find(|function| function["name"] == *name);
    }
    let messages = request["messages"].as_array()?;
    let calls = || messages.iter().filter_map(|message| message["tool_calls"].as_array()).flatten();
    let called = |name: &Value| calls().any(|call| call["function"]["name"] == *name);
    let is_required = choice == "required";
    if !is_required && messages.last()?["role"] == "tool" {
        // The results are there: the model answers.
        return None;
    }
    let new = functions.iter().find(|function| is_required && !called(&function["name"]));
    let usual = if is_required { functions.last() } else { functions.first() };
    new.or(usual).filter(|function| function["name"].is_string()).copied()
}

fn structured(format: &Value, echo: &str) -> Option<Value> {
    match format["type"].as_str()? {
        "json_schema" => Some(example(&format["json_schema"]["schema"], echo)),
        "json_object" => Some(json!({"answer": echo})),
        _ => None,
    }
}

fn text(words: &[&str], words_per_piece: usize, delta: fn(String) -> Delta) -> Vec<Piece> {
    let pieces = words.chunks(words_per_piece).enumerate();
    let pieces = pieces.map(|(index, words)| {
        let space = if index == 0 { "" } else { " " };
        let delta = delta(format!("{space}{}", words.join(" ")));
        Piece { delta, tokens: count(words.len()) }
    });
    pieces.collect()
}

fn json_pieces(value: &Value, delta: fn(String) -> Delta) -> Vec<Piece> {
    let json: Vec<char> = value.to_string().chars().collect();
    let pieces = json.chunks(JSON_TOKEN);
    pieces.map(|part| Piece { delta: delta(part.iter().collect()), tokens: 1 }).collect()
}

pub(super) fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
