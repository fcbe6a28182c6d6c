//! A streamed response that credits pay for.
//!
//! The task that reads upstream owns the hold. It passes events on as they come, each rewritten in
//! one form, so that nothing but completions reaches the caller: comments and errors are our own.
//! Only an event without content waits for its receipt, if it has usage; that is sent once the hold
//! is settled, and then `[DONE]`: Lambda freezes the process after the last byte, so all work must be
//! done by then.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use account::Credits;
use account::price::Usage;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use edge::ApiError;
use http::HeaderMap;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use upstream::sse::{Item, Items};
use upstream::{Answer, Chunk, HasContent, Reading, UpstreamError};

use super::client::{CHANNEL_CAPACITY, Client, client_stream};
use super::default_ai;
use super::held_call::{Charge, HeldCall, wait_for_recording};
use crate::body_chunks::BodyChunks;
use crate::call::Call;
use crate::receipt::Receipt;
use crate::stream_error::ErrorChunk;

/// A comment, as OpenRouter sends them, which keeps the connection alive.
const COMMENT: &str = ": OPENROUTER PROCESSING\n\n";
/// Limits of what is held back until the first decisive event.
const MAX_UNDECIDED: usize = 64 * 1024;
const UNDECIDED_TIME: Duration = Duration::from_secs(10);

/// Relays `answer` to the client, and settles the call before the stream ends. The head waits for
/// the first decisive event: an error before it is returned with its status.
pub(super) async fn relay(
    held: HeldCall,
    answer: Answer,
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
        recording,
        items: Items::default(),
        upstream_headers,
        error_chunk: error_chunk.clone(),
        content: HasContent::No,
        any_event: false,
        decided: false,
        usage: None,
        usage_event: None,
        withheld: None,
    };
    match relay.read_until_decided(&mut chunks).await {
        Some(end) if !relay.decided => {
            if let Err(failed) = relay.end(end).await {
                if failed.charge == Charge::None {
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
enum End {
    Done,
    /// It broke off, or ended without its end event.
    CutOff {
        is_whole: bool,
    },
    /// The default AI reported an error.
    Failed(UpstreamError),
    Unreadable,
}

/// A stream that did not end well.
struct Failed {
    error: ApiError,
    charge: Charge,
    /// The event that tells a client who has the stream's head.
    event: Bytes,
}

struct Relay {
    client: Client,
    held: HeldCall,
    /// The task that stores the generation id.
    recording: Option<JoinHandle<()>>,
    items: Items,
    upstream_headers: HeaderMap,
    error_chunk: ErrorChunk,
    content: HasContent,
    any_event: bool,
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
    /// Reads until the first decisive event. Returns the end of a stream that ends before.
    async fn read_until_decided(&mut self, chunks: &mut BodyChunks) -> Option<End> {
        let deadline = Instant::now() + UNDECIDED_TIME;
        while self.client.unsent() <= MAX_UNDECIDED {
            let chunk = match timeout_at(deadline, chunks.next()).await {
                Err(_) => break,
                Ok(None) => return Some(self.cut_off(chunks)),
                Ok(Some(chunk)) => chunk,
            };
            let items = self.items.push(chunk);
            let end = self.relay_items(items);
            if end.is_some() || self.decided {
                return end;
            }
        }
        None
    }

    async fn run(mut self, mut chunks: BodyChunks, mut end: Option<End>) {
        let end = loop {
            if let Some(end) = end {
                break end;
            }
            self.client.flush().await;
            end = match chunks.next().await {
                Some(chunk) => {
                    let items = self.items.push(chunk);
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
        // A connection whose response was read to its end can be used again.
        chunks.stop_soon();
        while chunks.next().await.is_some() {}
    }

    /// The stream's end, whose last event may lack its own. An event that was cut is left out.
    fn cut_off(&mut self, chunks: &BodyChunks) -> End {
        let mut items = self.items.end();
        items.retain(|item| match item {
            Item::Event(event) => Reading::of_event(event) != Reading::Unreadable,
            Item::Comment | Item::Unreadable => false,
        });
        self.relay_items(items).unwrap_or(End::CutOff { is_whole: chunks.is_whole() })
    }

    /// Returns the stream's end if it is among the items.
    fn relay_items(&mut self, items: Vec<Item>) -> Option<End> {
        for item in items {
            let event = match item {
                Item::Comment => {
                    self.client.push(Bytes::from_static(COMMENT.as_bytes()));
                    continue;
                }
                Item::Unreadable => return Some(End::Unreadable),
                Item::Event(event) => event,
            };
            match Reading::of_event(&event) {
                Reading::Done => return Some(End::Done),
                Reading::Unreadable => return Some(End::Unreadable),
                Reading::Error(error, usage, content) => {
                    self.note(usage, content, None);
                    return Some(End::Failed(error));
                }
                Reading::Chunk(chunk) => {
                    self.decided |= chunk.is_decisive();
                    self.relay_chunk(chunk, event.data);
                }
            }
        }
        None
    }

    fn relay_chunk(&mut self, chunk: Chunk, data: Bytes) {
        self.any_event = true;
        if self.recording.is_none() {
            let id = upstream::id_in(&data);
            self.recording = id.map(|id| self.held.record_generation(id));
        }
        self.send_withheld();
        self.note(chunk.usage, chunk.content, Some(&data));
        if chunk.usage.is_some() && chunk.content == HasContent::No {
            self.withheld = Some(data);
        } else {
            self.client.push(event(&data));
        }
    }

    fn note(&mut self, usage: Option<Usage>, content: HasContent, event: Option<&Bytes>) {
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
    async fn end(&mut self, end: End) -> Result<(), Failed> {
        if let Some(recording) = self.recording.take() {
            wait_for_recording(recording).await;
        }
        let nothing = self.content == HasContent::No && self.usage.is_none();
        let (event, error) = match end {
            End::Done if !nothing => {
                self.settle("stream without usage").await;
                self.client.push(event(b"[DONE]"));
                return Ok(());
            }
            End::CutOff { is_whole } if !nothing || self.any_event || !is_whole => {
                self.settle("stream cut off").await;
                (self.error_chunk.interrupted(), default_ai::failed())
            }
            End::Unreadable => {
                self.settle("unreadable stream").await;
                (self.error_chunk.of(&default_ai::failed()), default_ai::failed())
            }
            End::Done | End::CutOff { .. } => {
                self.held.release().await;
                let error = default_ai::unavailable();
                return Err(Failed {
                    event: self.error_chunk.interrupted(),
                    error,
                    charge: Charge::None,
                });
            }
            End::Failed(error) => {
                tracing::warn!("the default AI failed in its stream");
                if self.held.end_failed(self.usage, self.content).await == Charge::None {
                    let headers = &self.upstream_headers;
                    let error = default_ai::error_for(&self.held.deps, &error, headers).await;
                    let event = self.error_chunk.of(&error);
                    return Err(Failed { event, error, charge: Charge::None });
                }
                self.send_withheld();
                (self.error_chunk.of(&default_ai::failed()), default_ai::failed())
            }
        };
        Err(Failed { event, error, charge: Charge::Possible })
    }

    /// Settles by the usage, or else leaves the hold to the sweeper.
    async fn settle(&mut self, without_usage: &'static str) {
        let charged = self.held.settle_or_leave(self.usage, without_usage).await;
        self.send_receipt(charged);
    }

    /// Sends what is withheld, with the receipt if the call is settled.
    fn send_receipt(&mut self, charged: Option<Credits>) {
        let Some(charged) = charged else { return self.send_withheld() };
        let call = &self.held.hold.call;
        let receipt = json!({"credits_charged": charged, "call_id": call}).to_string();
        let with_receipt = |json: &[u8]| upstream::with_member(json, "greta", &receipt);
        let last = match (self.withheld.take(), self.usage_event.take()) {
            (Some(last), _) => with_receipt(&last),
            // Usage came only together with content.
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

/// An event of our own with these data, on one line: between the parts of JSON, a line end and a
/// space mean the same.
fn event(data: &[u8]) -> Bytes {
    let one_line = |byte: &u8| if *byte == b'\n' { b' ' } else { *byte };
    b"data: ".iter().copied().chain(data.iter().map(one_line)).chain(*b"\n\n").collect()
}
