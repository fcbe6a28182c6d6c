//! An answer as a list of steps, and how a behaviour changes them.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::behaviour::Behaviour;
use super::models::Prices;
use super::{Billing, CREATED, CallOutcome, OpenCall};

const PROVIDER: &str = "Simulator";
/// How many bytes the answer of `big` has at least.
const BIG: usize = 2 * 1024 * 1024;
/// How many words of `big` travel in one chunk.
const BIG_CHUNK: usize = 128;
/// No piece of `split` is longer, so that line ends and members are cut too.
const SPLIT_AT: usize = 7;
/// Where an answer that breaks off breaks off: after the comment and two pieces of content.
const BREAK_AFTER: usize = 3;

/// What an answer is made from.
pub(super) struct Answer {
    pub generation_id: String,
    pub model: String,
    pub prices: Prices,
    pub behaviour: Behaviour,
    pub prompt_tokens: u64,
    /// The text, in the pieces that are streamed.
    pieces: Vec<Piece>,
    finish_reason: &'static str,
}

struct Piece {
    text: String,
    words: u64,
}

/// Something that is done with the connection.
enum Step {
    /// `words` of the answer are generated once this is sent.
    Send {
        bytes: Bytes,
        words: u64,
    },
    Pause(Duration),
    Stall,
    Close,
}

impl Answer {
    /// An answer to the last words of the user, of at most `max_tokens` words.
    pub(super) fn new(
        generation_id: String,
        (model, prices): (String, Prices),
        behaviour: Behaviour,
        prompt_tokens: u64,
        said: &str,
        max_tokens: Option<u64>,
    ) -> Self {
        let mut words = words(behaviour, said);
        let most = usize::try_from(max_tokens.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        let finish_reason = if words.len() > most { "length" } else { "stop" };
        words.truncate(most);
        let per_piece = if behaviour == Behaviour::Big {
            BIG_CHUNK
        } else {
            1
        };
        let pieces = words
            .chunks(per_piece)
            .enumerate()
            .map(|(index, words)| Piece {
                text: format!("{}{}", if index == 0 { "" } else { " " }, words.join(" ")),
                words: count(words.len()),
            });
        Self {
            generation_id,
            model,
            prices,
            behaviour,
            prompt_tokens,
            pieces: pieces.collect(),
            finish_reason,
        }
    }

    /// What the call costs once this many words are generated.
    pub(super) fn billing(&self, words: u64) -> Billing {
        let cost = self.prices.cost(self.prompt_tokens, words);
        match self.behaviour {
            Behaviour::ZeroCostByok => Billing::Provider(cost),
            _ => Billing::OpenRouter(cost),
        }
    }

    /// The body of a streamed answer. The call's record follows what is sent.
    pub(super) fn stream(self, call: OpenCall) -> Body {
        let steps = self.stream_steps();
        self.body(steps, call)
    }

    /// The body of an answer in one piece.
    pub(super) fn plain(self, call: OpenCall) -> Body {
        let steps = self.plain_steps();
        self.body(steps, call)
    }

    fn body(self, steps: Vec<Step>, call: OpenCall) -> Body {
        call.progress(0, self.billing(0));
        let played = Played {
            answer: self,
            steps: steps.into_iter().peekable(),
            call,
        };
        Body::from_stream(stream::unfold(played, Played::next))
    }

    fn finish_reason(&self) -> &'static str {
        match self.behaviour {
            Behaviour::MidstreamError | Behaviour::ChoiceError => "error",
            _ => self.finish_reason,
        }
    }

    fn words(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.words).sum()
    }

    fn stream_steps(&self) -> Vec<Step> {
        let mut events = self.events();
        let mut end = None;
        match self.behaviour {
            Behaviour::ResetAfterHead => {
                events.clear();
                end = Some(Step::Close);
            }
            Behaviour::Cut => {
                events.truncate(BREAK_AFTER);
                end = Some(Step::Close);
            }
            Behaviour::CutMidLine => {
                events.truncate(BREAK_AFTER + 1);
                if let Some((last, _)) = events.last_mut() {
                    last.truncate(last.len() / 2);
                }
                end = Some(Step::Close);
            }
            Behaviour::Stall => {
                events.truncate(BREAK_AFTER);
                end = Some(Step::Stall);
            }
            Behaviour::MidstreamError => {
                events.truncate(BREAK_AFTER);
                let words = events.last().map_or(0, |(_, words)| *words);
                events.push((self.failed_chunk(), words));
            }
            Behaviour::NoDone => {
                events.pop();
            }
            Behaviour::Crlf | Behaviour::Split => {
                for (event, _) in &mut events {
                    *event = event.replace('\n', "\r\n");
                }
            }
            _ => {}
        }
        self.steps(events, end)
    }

    fn plain_steps(&self) -> Vec<Step> {
        let words = self.words();
        let body = self.completion();
        let half = body.floor_char_boundary(body.len() / 2);
        let (parts, end) = match self.behaviour {
            Behaviour::ResetAfterHead => (vec![], Some(Step::Close)),
            Behaviour::Cut | Behaviour::CutMidLine => (vec![&body[..half]], Some(Step::Close)),
            Behaviour::Stall => (vec![&body[..half]], Some(Step::Stall)),
            Behaviour::SlowChunks(_) => (vec![&body[..half], &body[half..]], None),
            _ => (vec![body.as_str()], None),
        };
        let parts = parts.into_iter().map(|part| (part.to_owned(), words));
        self.steps(parts.collect(), end)
    }

    /// Each event with the words generated by then, as steps.
    fn steps(&self, events: Vec<(String, u64)>, end: Option<Step>) -> Vec<Step> {
        let mut steps = Vec::new();
        for (event, words) in events {
            if let Behaviour::SlowChunks(pause) = self.behaviour {
                steps.push(Step::Pause(pause));
            }
            let event = Bytes::from(event);
            let pieces = match self.behaviour {
                Behaviour::Split => split(&event),
                _ => vec![event],
            };
            steps.extend(pieces.into_iter().map(|bytes| Step::Send { bytes, words }));
        }
        steps.extend(end);
        steps
    }

    /// The events of a stream as OpenRouter sends them: a comment, the pieces, the end, the usage,
    /// `[DONE]`.
    fn events(&self) -> Vec<(String, u64)> {
        let mut events = vec![(": OPENROUTER PROCESSING\n\n".to_owned(), 0)];
        let mut words = 0;
        for piece in &self.pieces {
            words += piece.words;
            let delta = json!({"role": "assistant", "content": piece.text});
            events.push((self.chunk(vec![choice("delta", &delta, None)], None), words));
        }
        let nothing = json!({"role": "assistant", "content": ""});
        let end = match self.behaviour {
            Behaviour::ChoiceError => failed_choice("delta", &nothing),
            _ => choice("delta", &nothing, Some(self.finish_reason)),
        };
        events.push((self.chunk(vec![end], None), words));
        if let Some(usage) = self.usage() {
            events.push((self.chunk(vec![], Some(usage)), words));
        }
        events.push(("data: [DONE]\n\n".to_owned(), words));
        events
    }

    fn chunk(&self, choices: Vec<Value>, usage: Option<Usage>) -> String {
        event(&Completion {
            id: &self.generation_id,
            provider: PROVIDER,
            model: &self.model,
            object: "chat.completion.chunk",
            created: CREATED,
            error: None,
            choices,
            usage,
        })
    }

    fn failed_chunk(&self) -> String {
        let nothing = json!({"role": "assistant", "content": ""});
        event(&Completion {
            id: &self.generation_id,
            provider: PROVIDER,
            model: &self.model,
            object: "chat.completion.chunk",
            created: CREATED,
            error: Some(json!({
                "code": "server_error",
                "message": "Provider disconnected unexpectedly",
            })),
            choices: vec![choice("delta", &nothing, Some("error"))],
            usage: None,
        })
    }

    fn completion(&self) -> String {
        if self.behaviour == Behaviour::MidstreamError {
            return json!({
                "error": provider_error(),
                "user_id": super::http_api::USER_ID,
            })
            .to_string();
        }
        let text: String = self
            .pieces
            .iter()
            .map(|piece| piece.text.as_str())
            .collect();
        let message = json!({"role": "assistant", "content": text, "refusal": null});
        let choice = match self.behaviour {
            Behaviour::ChoiceError => failed_choice("message", &message),
            _ => choice("message", &message, Some(self.finish_reason)),
        };
        text_of(&Completion {
            id: &self.generation_id,
            provider: PROVIDER,
            model: &self.model,
            object: "chat.completion",
            created: CREATED,
            error: None,
            choices: vec![choice],
            usage: self.usage(),
        })
    }

    fn usage(&self) -> Option<Usage> {
        if self.behaviour == Behaviour::NoUsage {
            return None;
        }
        let words = self.words();
        let (cost, inference) = match self.billing(words) {
            Billing::OpenRouter(cost) => (cost.to_string(), "null".to_owned()),
            Billing::Provider(cost) => ("0".to_owned(), cost.to_string()),
        };
        let cost = match self.behaviour {
            Behaviour::ScientificCost => scientific(&cost),
            _ => cost,
        };
        Some(Usage {
            prompt_tokens: self.prompt_tokens,
            completion_tokens: words,
            total_tokens: self.prompt_tokens + words,
            cost: raw(cost),
            is_byok: self.behaviour == Behaviour::ZeroCostByok,
            prompt_tokens_details: json!({"cached_tokens": 0, "audio_tokens": 0}),
            cost_details: CostDetails {
                upstream_inference_cost: raw(inference),
            },
            completion_tokens_details: json!({"reasoning_tokens": 0, "image_tokens": 0}),
        })
    }
}

/// An answer as it is being sent.
struct Played {
    answer: Answer,
    steps: std::iter::Peekable<std::vec::IntoIter<Step>>,
    call: OpenCall,
}

impl Played {
    async fn next(mut self) -> Option<(io::Result<Bytes>, Self)> {
        // What was sent before this leaves in a write of its own.
        tokio::task::yield_now().await;
        loop {
            match self.steps.next()? {
                Step::Send { bytes, words } => {
                    self.call.progress(words, self.answer.billing(words));
                    if self.steps.peek().is_none() {
                        // Before the last byte leaves, so that who has read it finds the record.
                        self.call.complete(self.answer.finish_reason());
                    }
                    return Some((Ok(bytes), self));
                }
                Step::Pause(time) => tokio::time::sleep(time).await,
                Step::Stall => match std::future::pending::<Infallible>().await {},
                Step::Close => {
                    self.call.end(CallOutcome::Cut);
                    let closed = io::Error::from(io::ErrorKind::ConnectionAborted);
                    return Some((Err(closed), self));
                }
            }
        }
    }
}

#[derive(Serialize)]
struct Completion<'a> {
    id: &'a str,
    provider: &'a str,
    model: &'a str,
    object: &'a str,
    created: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Value>,
    choices: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    cost: Box<RawValue>,
    is_byok: bool,
    prompt_tokens_details: Value,
    cost_details: CostDetails,
    completion_tokens_details: Value,
}

#[derive(Serialize)]
struct CostDetails {
    upstream_inference_cost: Box<RawValue>,
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

fn failed_choice(member: &str, message: &Value) -> Value {
    let mut choice = choice(member, message, Some("error"));
    choice["error"] = provider_error();
    choice
}

fn provider_error() -> Value {
    json!({
        "code": 502,
        "message": "Provider returned error",
        "metadata": {"provider_name": PROVIDER, "raw": "upstream connect error"},
    })
}

fn event(chunk: &Completion<'_>) -> String {
    format!("data: {}\n\n", text_of(chunk))
}

fn text_of(completion: &Completion<'_>) -> String {
    serde_json::to_string(completion).expect("answers can be written as JSON")
}

/// A decimal as a JSON number, digit by digit.
pub(super) fn raw(json: String) -> Box<RawValue> {
    RawValue::from_string(json).expect("decimals are JSON numbers")
}

fn words(behaviour: Behaviour, said: &str) -> Vec<String> {
    if behaviour == Behaviour::Big {
        let word = "0123456789abcde".to_owned();
        return vec![word; BIG.div_ceil(16)];
    }
    let answer = format!("Simulated answer – naïve but cheerful ✓ – to: {said}");
    answer.split_whitespace().map(str::to_owned).collect()
}

/// Cuts in every character of several bytes, between CR and LF, and every few bytes.
fn split(bytes: &Bytes) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    let mut start = 0;
    for at in 1..bytes.len() {
        let inside_character = bytes[at] & 0b1100_0000 == 0b1000_0000;
        let inside_line_end = bytes[at - 1] == b'\r' && bytes[at] == b'\n';
        if inside_character || inside_line_end || at - start >= SPLIT_AT {
            pieces.push(bytes.slice(start..at));
            start = at;
        }
    }
    pieces.push(bytes.slice(start..));
    pieces
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

    #[test]
    fn pieces_end_inside_characters_and_line_ends() {
        let text = Bytes::from("data: ✓ naïve\r\n\r\n");
        let pieces = split(&text);
        assert_eq!(pieces.concat(), text);
        assert!(
            pieces
                .iter()
                .all(|piece| !piece.is_empty() && piece.len() <= SPLIT_AT)
        );
        assert!(
            pieces
                .iter()
                .any(|piece| std::str::from_utf8(piece).is_err())
        );
        assert!(pieces.iter().any(|piece| piece.ends_with(b"\r")));
    }
}
