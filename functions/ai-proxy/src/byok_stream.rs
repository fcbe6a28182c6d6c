//! A stream from OpenRouter: its bytes as they come, read only as fast as the caller reads.
//!
//! When the caller disconnects, the connection to OpenRouter is dropped too, and OpenRouter stops
//! billing.

use std::convert::Infallible;
use std::time::Duration;

use account::price::Usage;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use edge::Clock;
use futures_util::stream;
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument, Span};
use upstream::sse::{Item, Items, WholeLines};
use upstream::{Answer, HasContent, Reading, UpstreamError};

use crate::body_chunks::BodyChunks;
use crate::call::Call;
use crate::stream_error::ErrorChunk;

/// Limits of what is held back until the first decisive event.
const MAX_UNDECIDED: usize = 64 * 1024;
const UNDECIDED_TIME: Duration = Duration::from_secs(10);

/// What the beginning of a stream shows.
pub(crate) enum Decision {
    /// The call takes place, or it is too late to tell.
    Passed,
    /// The first decisive event is an error.
    OnlyAnError(UpstreamError),
}

pub(crate) struct StreamRelay {
    chunks: BodyChunks,
    items: Items,
    lines: WholeLines,
    /// What was read before the decision, and is sent first.
    begun: Bytes,
    /// Something was received.
    has_begun: bool,
    end: End,
    /// Everything was sent.
    is_sent: bool,
    error_chunk: ErrorChunk,
}

#[derive(Debug, Default)]
struct End {
    is_done: bool,
    /// OpenRouter reported an error, after which it sends nothing more.
    has_failed: bool,
    usage: Option<Usage>,
}

impl StreamRelay {
    pub(crate) fn new(answer: Answer, call: &Call, clock: &Clock) -> Self {
        Self {
            chunks: BodyChunks::new(answer, call.deadline),
            items: Items::default(),
            lines: WholeLines::default(),
            begun: Bytes::new(),
            has_begun: false,
            end: End::default(),
            is_sent: false,
            error_chunk: ErrorChunk::new(call, clock),
        }
    }

    /// Reads until the first decisive event.
    pub(crate) async fn decide(&mut self) -> Decision {
        let deadline = Instant::now() + UNDECIDED_TIME;
        let mut begun = BytesMut::new();
        let mut decision = None;
        while decision.is_none() && begun.len() <= MAX_UNDECIDED {
            let Ok(Some(chunk)) = timeout_at(deadline, self.chunks.next()).await else { break };
            self.has_begun = true;
            let items = self.items.push(chunk.clone());
            let mut readings = self.note(items).into_iter();
            decision = readings.find_map(|reading| match reading {
                Reading::Error(error, _, HasContent::No) => Some(Decision::OnlyAnError(error)),
                Reading::Chunk(chunk) if !chunk.is_decisive() => None,
                _ => Some(Decision::Passed),
            });
            begun.extend_from_slice(&self.lines.push(chunk));
        }
        self.begun = begun.freeze();
        decision.unwrap_or(Decision::Passed)
    }

    /// What the items say; remembers how the stream ends.
    fn note(&mut self, items: Vec<Item>) -> Vec<Reading> {
        let events = items.into_iter().filter_map(|item| match item {
            Item::Event(event) => Some(Reading::of_event(&event)),
            Item::Comment | Item::Unreadable => None,
        });
        let readings: Vec<_> = events.collect();
        for reading in &readings {
            match reading {
                Reading::Done => self.end.is_done = true,
                Reading::Error(_, usage, _) => {
                    self.end.has_failed = true;
                    self.end.usage = usage.or(self.end.usage);
                }
                Reading::Chunk(chunk) => self.end.usage = chunk.usage.or(self.end.usage),
                Reading::Unreadable => {}
            }
        }
        readings
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
        if !self.begun.is_empty() {
            return Some((Ok(std::mem::take(&mut self.begun)), self));
        }
        while let Some(chunk) = self.chunks.next().await {
            self.has_begun = true;
            let was_done = self.end.is_done;
            let mut items = self.items.push(chunk.clone());
            items.retain(may_end_the_stream);
            self.note(items);
            if self.end.is_done && !was_done {
                self.chunks.stop_soon();
            }
            let lines = self.lines.push(chunk);
            if !lines.is_empty() {
                return Some((Ok(lines), self));
            }
        }
        self.is_sent = true;
        let mut rest = self.items.end();
        rest.retain(may_end_the_stream);
        self.note(rest);
        tracing::info!(
            complete = self.end.is_done,
            failed = self.end.has_failed,
            usage = ?self.end.usage,
            "stream ended"
        );
        let is_empty = !self.has_begun && self.chunks.is_whole();
        let last = if self.end.is_done || self.end.has_failed || is_empty {
            self.lines.rest()
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
