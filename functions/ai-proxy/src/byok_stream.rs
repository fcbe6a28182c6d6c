//! A stream from OpenRouter: its bytes as they arrive, read only as fast as the caller reads.
//!
//! When the caller disconnects, the connection to OpenRouter is dropped too, and OpenRouter stops
//! billing.

use std::convert::Infallible;

use account::price::Usage;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use edge::Clock;
use futures_util::stream;
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument, Span};
use upstream::sse::{Item, Parser, WholeLines};
use upstream::{Answer, HasContent, Parsed, UpstreamError};

use crate::body_chunks::{BodyChunks, MAX_UNDECIDED, UNDECIDED_TIME};
use crate::call::Call;
use crate::stream_error::ErrorChunk;

/// Whether the start of a stream allows a fallback.
pub(crate) enum Decision {
    /// The call is under way, or the limits were reached before anything was decisive.
    Relay,
    /// The first decisive event is an error.
    OnlyAnError(UpstreamError),
}

pub(crate) struct StreamRelay {
    chunks: BodyChunks,
    parser: Parser,
    lines: WholeLines,
    /// The bytes that were read before the decision; they are sent first.
    undecided: Bytes,
    /// Something was received.
    has_begun: bool,
    state: StreamState,
    /// Everything was sent.
    is_sent: bool,
    error_chunk: ErrorChunk,
}

#[derive(Debug, Default)]
struct StreamState {
    is_done: bool,
    /// OpenRouter reported an error, after which it sends nothing more.
    has_failed: bool,
    usage: Option<Usage>,
}

impl StreamRelay {
    pub(crate) fn new(answer: Answer, call: &Call, clock: &Clock) -> Self {
        Self {
            chunks: BodyChunks::new(answer, call.deadline),
            parser: Parser::default(),
            lines: WholeLines::default(),
            undecided: Bytes::new(),
            has_begun: false,
            state: StreamState::default(),
            is_sent: false,
            error_chunk: ErrorChunk::new(call, clock),
        }
    }

    /// Reads until the first decisive event.
    pub(crate) async fn decide(&mut self) -> Decision {
        let deadline = Instant::now() + UNDECIDED_TIME;
        let mut undecided = BytesMut::new();
        let mut decision = None;
        while decision.is_none() && undecided.len() <= MAX_UNDECIDED {
            let Ok(Some(chunk)) = timeout_at(deadline, self.chunks.next()).await else { break };
            self.has_begun = true;
            let items = self.parser.push(chunk.clone());
            let mut events = self.parse_events(items).into_iter();
            decision = events.find_map(|event| match event {
                Parsed::Error(error, _, HasContent::No) => Some(Decision::OnlyAnError(error)),
                Parsed::Chunk(chunk) if !chunk.is_decisive() => None,
                _ => Some(Decision::Relay),
            });
            undecided.extend_from_slice(&self.lines.push(chunk));
        }
        self.undecided = undecided.freeze();
        decision.unwrap_or(Decision::Relay)
    }

    /// Parses the events among `items`, and records what they say about the stream's end.
    fn parse_events(&mut self, items: Vec<Item>) -> Vec<Parsed> {
        let events = items.into_iter().filter_map(|item| match item {
            Item::Event(event) => Some(Parsed::of_event(&event)),
            Item::Comment | Item::Unreadable => None,
        });
        let events: Vec<_> = events.collect();
        for event in &events {
            match event {
                Parsed::Done if self.state.is_done => {}
                Parsed::Done => {
                    self.state.is_done = true;
                    self.chunks.stop_soon();
                }
                Parsed::Error(_, usage, _) => {
                    self.state.has_failed = true;
                    self.state.usage = usage.or(self.state.usage);
                }
                Parsed::Chunk(chunk) => self.state.usage = chunk.usage.or(self.state.usage),
                Parsed::Unreadable => {}
            }
        }
        events
    }

    pub(crate) fn into_body(self) -> Body {
        // The body outlives the handler, but its log lines still need the call id.
        let span = Span::current();
        Body::from_stream(stream::unfold(self, move |relay| relay.next().instrument(span.clone())))
    }

    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if self.is_sent {
            return None;
        }
        if !self.undecided.is_empty() {
            return Some((Ok(std::mem::take(&mut self.undecided)), self));
        }
        while let Some(chunk) = self.chunks.next().await {
            self.has_begun = true;
            let mut items = self.parser.push(chunk.clone());
            items.retain(may_end_the_stream);
            self.parse_events(items);
            let lines = self.lines.push(chunk);
            if !lines.is_empty() {
                return Some((Ok(lines), self));
            }
        }
        self.is_sent = true;
        let mut rest = self.parser.end();
        rest.retain(may_end_the_stream);
        self.parse_events(rest);
        tracing::info!(
            complete = self.state.is_done,
            failed = self.state.has_failed,
            usage = ?self.state.usage,
            "stream ended"
        );
        let ended_normally = self.chunks.ended_normally();
        let last = if self.state.is_done || ended_normally && self.state.has_failed {
            self.lines.rest()
        } else if self.state.has_failed || ended_normally && !self.has_begun {
            // The caller has the error, or the stream was empty.
            Bytes::new()
        } else {
            self.error_chunk.interrupted()
        };
        Some((Ok(last), self))
    }
}

/// Only events that can matter for the stream's end are parsed.
fn may_end_the_stream(item: &Item) -> bool {
    let Item::Event(event) = item else { return false };
    let mentions = |text: &str| memchr::memmem::find(&event.data, text.as_bytes()).is_some();
    mentions("[DONE]") || mentions("\"usage\"") || mentions("\"error\"")
}
