//! A streamed response that credits pay for.
//!
//! The task that reads upstream owns the hold. It passes lines on as they come, but withholds the
//! usage chunk until the hold is settled, adds the receipt to it, and only then sends it and
//! `[DONE]`: Lambda freezes the process after the last byte, so all work must be done by then.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use account::price::Usage;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use edge::Deadline;
use futures_util::{Stream, stream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use upstream::Answer;
use upstream::sse::{self, Line, Lines};

use super::held_call::{HeldCall, wait_for_recording};
use crate::body_chunks::BodyChunks;
use crate::stream_error::{default_ai_failed, interrupted};

/// Capacity of the channel to the client, in chunks.
const CHANNEL_CAPACITY: usize = 32;
/// Time without reading after which the client counts as stalled.
const READ_TIMEOUT: Duration = Duration::from_mins(2);

/// Relays `answer` to the client, and settles the call before the stream ends.
pub(super) fn relay(held: HeldCall, answer: Answer, deadline: Option<Deadline>) -> Response {
    let (sender, receiver) = mpsc::channel(CHANNEL_CAPACITY);
    let truncated = Arc::new(AtomicBool::new(false));
    let (status, headers) = (answer.status(), answer.headers());
    let recording = answer.generation_id().map(|id| held.record_generation(id));
    let chunks = BodyChunks::new(answer, deadline);
    let relay = Relay {
        held,
        recording,
        client: Client {
            sender,
            batch: Vec::new(),
            stop_at: chunks.stop_at(),
            state: ClientState::Reading,
            truncated: Arc::clone(&truncated),
        },
        withheld: Vec::new(),
        usage: None,
        is_done: false,
    };
    edge::spawn(relay.run(chunks));
    let body = Body::from_stream(client_stream(receiver, truncated));
    (status, headers, body).into_response()
}

/// The chunks as the client reads them, and an error at their end if some of them were dropped.
fn client_stream(
    receiver: mpsc::Receiver<Bytes>,
    truncated: Arc<AtomicBool>,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    stream::unfold((receiver, truncated), async |(mut receiver, truncated)| {
        let chunk = match receiver.recv().await {
            Some(chunk) => chunk,
            None if truncated.swap(false, Ordering::Relaxed) => interrupted(),
            None => return None,
        };
        Some((Ok(chunk), (receiver, truncated)))
    })
}

struct Relay {
    held: HeldCall,
    /// The task that stores the generation id.
    recording: Option<JoinHandle<()>>,
    client: Client,
    /// The last usage chunk and the lines after it.
    withheld: Vec<Bytes>,
    usage: Option<Usage>,
    /// `[DONE]` was sent, so the hold is settled or left to the sweeper.
    is_done: bool,
}

impl Relay {
    async fn run(mut self, mut chunks: BodyChunks) {
        let mut lines = Lines::default();
        while let Some(chunk) = chunks.next().await {
            let was_done = self.is_done;
            for (line, meaning) in lines.push(chunk) {
                self.relay_line(line, meaning).await;
            }
            if self.is_done && !was_done {
                chunks.stop_soon();
            }
            self.client.flush().await;
        }
        let (rest, meaning) = lines.rest();
        if !rest.is_empty() {
            self.relay_line(rest, meaning).await;
        }
        if !self.is_done {
            self.resolve("stream cut off").await;
            self.client.push(interrupted());
        }
        self.client.flush().await;
    }

    async fn relay_line(&mut self, line: Bytes, meaning: Line) {
        if self.is_done {
            return self.client.push(line);
        }
        match meaning {
            Line::Done => {
                self.resolve("stream without usage").await;
                self.is_done = true;
                self.client.push(line);
            }
            Line::Usage(usage) => {
                self.send_withheld();
                self.usage = Some(usage);
                self.withheld.push(line);
            }
            Line::Error(usage) => {
                self.usage = usage.or(self.usage);
                tracing::warn!("the default AI failed mid-stream");
                self.send_withheld();
                self.client.push(default_ai_failed());
            }
            Line::Other if !self.withheld.is_empty() => self.withheld.push(line),
            Line::Data | Line::TooLong | Line::Other => {
                if self.recording.is_none() && meaning == Line::Data {
                    let id = sse::chunk_id(&line);
                    self.recording = id.map(|id| self.held.record_generation(id));
                }
                self.send_withheld();
                self.client.push(line);
            }
        }
    }

    /// Settles by the usage, or leaves the hold to the sweeper for the reason `without_usage`; then
    /// sends the usage chunk with the receipt.
    async fn resolve(&mut self, without_usage: &'static str) {
        if let Some(recording) = self.recording.take() {
            wait_for_recording(recording).await;
        }
        // Boxed, so that an open stream does not reserve the memory that settling needs.
        let charged = match self.usage {
            Some(usage) => Box::pin(self.held.settle(usage)).await,
            None => {
                Box::pin(self.held.leave_to_sweeper(without_usage)).await;
                None
            }
        };
        if let (Some(charged), Some(chunk)) = (charged, self.withheld.first_mut()) {
            let call = &self.held.hold.call;
            let receipt = serde_json::json!({"credits_charged": charged, "call_id": call});
            if let Some(longer) = sse::with_member(chunk, "greta", &receipt.to_string()) {
                *chunk = longer;
            }
        }
        self.send_withheld();
    }

    fn send_withheld(&mut self) {
        for line in self.withheld.drain(..) {
            self.client.push(line);
        }
    }
}

/// The sending end of the client's stream. It stays open until the relay is finished, even if the
/// client is gone: when it closes, Lambda freezes the process.
struct Client {
    sender: mpsc::Sender<Bytes>,
    /// The lines of one chunk from upstream, which are sent as one chunk.
    batch: Vec<Bytes>,
    /// The time at which the function stops waiting for the client.
    stop_at: Option<Instant>,
    state: ClientState,
    /// Chunks were dropped, so the stream must not look complete.
    truncated: Arc<AtomicBool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientState {
    Reading,
    Stalled,
    Disconnected,
}

impl Client {
    fn push(&mut self, line: Bytes) {
        self.batch.push(line);
    }

    async fn flush(&mut self) {
        let chunk = match self.batch.as_mut_slice() {
            [] => return,
            [line] => std::mem::take(line),
            lines => Bytes::from(lines.concat()),
        };
        self.batch.clear();
        if self.state != ClientState::Reading {
            return;
        }
        let timeout = Instant::now() + READ_TIMEOUT;
        let timeout = self.stop_at.map_or(timeout, |stop_at| stop_at.min(timeout));
        match timeout_at(timeout, self.sender.send(chunk)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => self.stop(ClientState::Disconnected),
            Err(_) => self.stop(ClientState::Stalled),
        }
    }

    fn stop(&mut self, state: ClientState) {
        tracing::info!(?state, "client stopped reading; draining upstream to settle");
        self.truncated.store(true, Ordering::Relaxed);
        self.state = state;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stalled_client_never_sees_a_complete_stream() {
        let (sender, receiver) = mpsc::channel(CHANNEL_CAPACITY);
        let truncated = Arc::new(AtomicBool::new(false));
        let mut client = Client {
            sender,
            batch: Vec::new(),
            stop_at: None,
            state: ClientState::Reading,
            truncated: Arc::clone(&truncated),
        };
        for number in 0..=CHANNEL_CAPACITY {
            client.push(Bytes::from(number.to_string()));
            client.flush().await;
        }
        assert_eq!(client.state, ClientState::Stalled);
        client.push(Bytes::from("data: [DONE]\n"));
        client.flush().await;
        drop(client);
        let read: Vec<_> = client_stream(receiver, truncated).collect().await;
        let read: Vec<Bytes> = read.into_iter().map(Result::unwrap).collect();
        let all = (0..CHANNEL_CAPACITY).map(|number| Bytes::from(number.to_string()));
        let all: Vec<Bytes> = all.chain([interrupted()]).collect();
        assert_eq!(read, all);
    }
}
