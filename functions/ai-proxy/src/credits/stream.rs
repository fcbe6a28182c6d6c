//! A streamed response that credits pay for.
//!
//! The task that reads upstream owns the hold. It relays events as they arrive, rewritten so that
//! only completions reach the caller: comments and errors are our own. An event with usage but no
//! content is held back until the hold is settled, and then sent with the receipt, followed by
//! `[DONE]`. Lambda freezes the process after the last byte, so all work must be done by then.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use account::Credits;
use account::price::Usage;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use edge::ApiError;
use http::HeaderMap;
use secrecy::SecretString;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use upstream::sse::{Item, Parser};
use upstream::{Answer, Chunk, HasContent, Parsed, UpstreamError};

use super::client::{CHANNEL_CAPACITY, Client, client_stream};
use super::default_ai;
use super::held_call::{FailedCallCost, HeldCall, wait_for_recording};
use crate::body_chunks::{BodyChunks, MAX_UNDECIDED, UNDECIDED_TIME};
use crate::call::Call;
use crate::receipt::Receipt;
use crate::stream_error::ErrorChunk;

/// A keep-alive comment like OpenRouter's.
const COMMENT: &str = ": OPENROUTER PROCESSING\n\n";

/// Relays `answer` to the client, and settles the call before the stream ends. The head waits for
/// the first decisive event, so that an error before it gets its own status.
pub(super) async fn relay(
    held: HeldCall,
    answer: Answer,
    key: Arc<SecretString>,
    call: &Call,
    receipt: &mut Receipt,
) -> Result<Response, ApiError> {
    let status = answer.status();
    let headers = default_ai::headers(&answer, "text/event-stream");
    let (sender, receiver) = mpsc::channel(CHANNEL_CAPACITY);
    let truncated = Arc::new(AtomicBool::new(false));
    let error_chunk = ErrorChunk::new(call, &held.deps.api.clock);
    let recording = answer.generation_id().map(|id| held.record_generation(id));
    let upstream_headers = answer.all_headers().clone();
    let mut chunks = BodyChunks::new(answer, call.deadline);
    let mut relay = Relay {
        client: Client::new(sender, chunks.stop_at(), Arc::clone(&truncated)),
        held,
        key,
        recording,
        parser: Parser::default(),
        upstream_headers,
        error_chunk: error_chunk.clone(),
        content: HasContent::No,
        has_events: false,
        decided: false,
        usage: None,
        usage_event: None,
        withheld: None,
    };
    match relay.read_until_decided(&mut chunks).await {
        Some(end) if !relay.decided => {
            if let Err(failed) = relay.end(end).await {
                if failed.cost == FailedCallCost::Free {
                    receipt.not_charged();
                }
                return Err(failed.error);
            }
            edge::spawn(async move { relay.client.flush().await });
        }
        end => drop(edge::spawn(relay.run(chunks, end))),
    }
    let body = Body::from_stream(client_stream(receiver, truncated, error_chunk.interrupted()));
    Ok((status, headers, body).into_response())
}

/// How a stream ends.
enum StreamEnd {
    Done,
    /// The stream broke off or ended without `[DONE]`.
    CutOff {
        ended_normally: bool,
    },
    /// The default AI reported an error.
    Failed(UpstreamError),
    Unreadable,
}

/// A stream that failed.
struct FailedStream {
    error: ApiError,
    cost: FailedCallCost,
    /// The error event for a client that already has the response head.
    event: Bytes,
}

struct Relay {
    client: Client,
    held: HeldCall,
    /// The platform key, which no event may echo.
    key: Arc<SecretString>,
    /// The task that stores the generation id.
    recording: Option<JoinHandle<()>>,
    parser: Parser,
    upstream_headers: HeaderMap,
    error_chunk: ErrorChunk,
    content: HasContent,
    has_events: bool,
    /// A decisive event was read.
    decided: bool,
    /// The usage with the highest cost.
    usage: Option<Usage>,
    /// The event with that usage.
    usage_event: Option<Bytes>,
    /// The last event, if it has usage and no content.
    withheld: Option<Bytes>,
}

impl Relay {
    /// Reads until the first decisive event. If the stream ends before one, returns how it ended.
    async fn read_until_decided(&mut self, chunks: &mut BodyChunks) -> Option<StreamEnd> {
        let deadline = Instant::now() + UNDECIDED_TIME;
        while self.client.unsent() <= MAX_UNDECIDED {
            let chunk = match timeout_at(deadline, chunks.next()).await {
                Err(_) => break,
                Ok(None) => return Some(self.cut_off(chunks)),
                Ok(Some(chunk)) => chunk,
            };
            let items = self.parser.push(chunk);
            let end = self.relay_items(items);
            if end.is_some() || self.decided {
                return end;
            }
        }
        None
    }

    async fn run(mut self, mut chunks: BodyChunks, mut end: Option<StreamEnd>) {
        let end = loop {
            if let Some(end) = end {
                break end;
            }
            self.client.flush().await;
            end = match chunks.next().await {
                Some(chunk) => {
                    let items = self.parser.push(chunk);
                    self.relay_items(items)
                }
                None => Some(self.cut_off(&chunks)),
            };
        };
        // Boxed, so that an open stream does not reserve the memory that settling needs.
        if let Err(failed) = Box::pin(self.end(end)).await {
            self.client.push(failed.event);
        }
        self.client.flush().await;
        // Reading the response to its end lets the connection be reused.
        chunks.stop_soon();
        while chunks.next().await.is_some() {}
    }

    /// Ends a stream that stopped without `[DONE]`. Relays a last event that lacks only its blank
    /// line, and drops one that was cut off.
    fn cut_off(&mut self, chunks: &BodyChunks) -> StreamEnd {
        let mut items = self.parser.end();
        items.retain(|item| match item {
            Item::Event(event) => Parsed::of_event(event) != Parsed::Unreadable,
            Item::Comment | Item::Unreadable => false,
        });
        self.relay_items(items)
            .unwrap_or(StreamEnd::CutOff { ended_normally: chunks.ended_normally() })
    }

    /// Returns the stream's end if it is among the items.
    fn relay_items(&mut self, items: Vec<Item>) -> Option<StreamEnd> {
        for item in items {
            let event = match item {
                Item::Comment => {
                    self.client.push(Bytes::from_static(COMMENT.as_bytes()));
                    continue;
                }
                Item::Unreadable => return Some(StreamEnd::Unreadable),
                Item::Event(event) => event,
            };
            if upstream::contains_key(&event.data, &self.key) {
                return Some(StreamEnd::Unreadable);
            }
            match Parsed::of_event(&event) {
                Parsed::Done => return Some(StreamEnd::Done),
                Parsed::Unreadable => return Some(StreamEnd::Unreadable),
                Parsed::Error(error, usage, content) => {
                    self.record(usage, content, None);
                    return Some(StreamEnd::Failed(error));
                }
                Parsed::Chunk(chunk) => {
                    self.decided |= chunk.is_decisive();
                    self.relay_chunk(chunk, event.data);
                }
            }
        }
        None
    }

    fn relay_chunk(&mut self, chunk: Chunk, data: Bytes) {
        self.has_events = true;
        if self.recording.is_none() {
            let id = upstream::id_in(&data);
            self.recording = id.map(|id| self.held.record_generation(id));
        }
        self.send_withheld();
        self.record(chunk.usage, chunk.content, Some(&data));
        if chunk.usage.is_some() && chunk.content == HasContent::No {
            self.withheld = Some(data);
        } else {
            self.client.push(event(&data));
        }
    }

    fn record(&mut self, usage: Option<Usage>, content: HasContent, event: Option<&Bytes>) {
        if content == HasContent::Yes {
            self.content = HasContent::Yes;
        }
        let cost = |usage: &Usage| self.held.hold.tariff.cost(usage);
        if let Some(usage) = usage
            && self.usage.is_none_or(|known| cost(&usage) >= cost(&known))
        {
            self.usage = Some(usage);
            self.usage_event = event.cloned().or(self.usage_event.take());
        }
    }

    fn send_withheld(&mut self) {
        if let Some(data) = self.withheld.take() {
            self.client.push(event(&data));
        }
    }

    /// Resolves the hold. After a complete stream, sends the receipt and the end event.
    async fn end(&mut self, end: StreamEnd) -> Result<(), FailedStream> {
        if let Some(recording) = self.recording.take() {
            wait_for_recording(recording).await;
        }
        let nothing = self.content == HasContent::No && self.usage.is_none();
        let (event, error) = match end {
            StreamEnd::Done if !nothing => {
                self.settle("stream without usage").await;
                self.client.push(event(b"[DONE]"));
                return Ok(());
            }
            StreamEnd::CutOff { ended_normally }
                if !nothing || self.has_events || !ended_normally =>
            {
                self.settle("stream cut off").await;
                (self.error_chunk.interrupted(), default_ai::failed())
            }
            StreamEnd::Unreadable => {
                self.settle("unreadable stream").await;
                (self.error_chunk.of(&default_ai::failed()), default_ai::failed())
            }
            StreamEnd::Done | StreamEnd::CutOff { .. } => {
                self.held.release().await;
                let error = default_ai::unavailable();
                return Err(FailedStream {
                    event: self.error_chunk.interrupted(),
                    error,
                    cost: FailedCallCost::Free,
                });
            }
            StreamEnd::Failed(error) => {
                tracing::warn!("the default AI's stream reported an error");
                if self.held.end_failed(self.usage, self.content).await == FailedCallCost::Free {
                    let headers = &self.upstream_headers;
                    let error = default_ai::error_for(&self.held.deps, &error, headers).await;
                    let event = self.error_chunk.of(&error);
                    return Err(FailedStream { event, error, cost: FailedCallCost::Free });
                }
                self.send_withheld();
                (self.error_chunk.of(&default_ai::failed()), default_ai::failed())
            }
        };
        Err(FailedStream { event, error, cost: FailedCallCost::Possible })
    }

    /// Settles the hold or leaves it to the sweeper, and sends what was withheld.
    async fn settle(&mut self, reason: &'static str) {
        let charged = self.held.settle_or_leave(self.usage, reason).await;
        self.send_receipt(charged);
    }

    /// Sends the withheld event, with the receipt if the call is settled.
    fn send_receipt(&mut self, charged: Option<Credits>) {
        let Some(charged) = charged else { return self.send_withheld() };
        let call = &self.held.hold.call;
        let receipt = json!({"credits_charged": charged, "call_id": call}).to_string();
        let with_receipt = |json: &[u8]| upstream::with_member(json, "greta", &receipt);
        let last = match (self.withheld.take(), self.usage_event.take()) {
            (Some(last), _) => with_receipt(&last),
            // Usage arrived only with content, and was sent already: repeat it without choices.
            (None, Some(usage)) => {
                upstream::without_choices(&usage).and_then(|ours| with_receipt(ours.as_bytes()))
            }
            (None, None) => None,
        };
        if let Some(last) = last {
            self.client.push(event(&last));
        }
    }
}

/// An event with this JSON on one line. Line feeds become spaces, which JSON treats alike.
fn event(data: &[u8]) -> Bytes {
    let one_line = |byte: &u8| if *byte == b'\n' { b' ' } else { *byte };
    b"data: ".iter().copied().chain(data.iter().map(one_line)).chain(*b"\n\n").collect()
}
