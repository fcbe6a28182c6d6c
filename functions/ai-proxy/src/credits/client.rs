//! The client of a streamed response that credits pay for.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// Capacity of the channel to the client, in chunks.
pub(super) const CHANNEL_CAPACITY: usize = 16;
/// Time without reading after which the client counts as stalled.
const READ_TIMEOUT: Duration = Duration::from_mins(2);

/// The chunks that the client reads, followed by an error if any were dropped.
pub(super) fn client_stream(
    receiver: mpsc::Receiver<Bytes>,
    truncated: Arc<AtomicBool>,
    interrupted: Bytes,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    stream::unfold((receiver, truncated, interrupted), async |(mut receiver, truncated, last)| {
        let chunk = match receiver.recv().await {
            Some(chunk) => chunk,
            None if truncated.swap(false, Ordering::Relaxed) => last.clone(),
            None => return None,
        };
        Some((Ok(chunk), (receiver, truncated, last)))
    })
}

/// The sending end of the client's stream. It stays open until the relay is finished, even if the
/// client is gone: when it closes, Lambda freezes the process.
pub(super) struct Client {
    sender: mpsc::Sender<Bytes>,
    /// The events of one upstream chunk; they are sent as one chunk.
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
    pub(super) fn new(
        sender: mpsc::Sender<Bytes>,
        stop_at: Option<Instant>,
        truncated: Arc<AtomicBool>,
    ) -> Self {
        Self { sender, batch: Vec::new(), stop_at, state: ClientState::Reading, truncated }
    }

    pub(super) fn push(&mut self, event: Bytes) {
        self.batch.push(event);
    }

    /// The number of bytes waiting to be sent.
    pub(super) fn unsent(&self) -> usize {
        self.batch.iter().map(Bytes::len).sum()
    }

    pub(super) async fn flush(&mut self) {
        let chunk = match self.batch.as_mut_slice() {
            [] => return,
            [event] => std::mem::take(event),
            events => Bytes::from(events.concat()),
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
        let mut client = Client::new(sender, None, Arc::clone(&truncated));
        let interrupted = Bytes::from_static(b"interrupted");
        for number in 0..=CHANNEL_CAPACITY {
            client.push(Bytes::from(number.to_string()));
            client.flush().await;
        }
        assert_eq!(client.state, ClientState::Stalled);
        client.push(Bytes::from("data: [DONE]\n"));
        client.flush().await;
        drop(client);
        let read: Vec<_> = client_stream(receiver, truncated, interrupted.clone()).collect().await;
        let read: Vec<Bytes> = read.into_iter().map(Result::unwrap).collect();
        let all = (0..CHANNEL_CAPACITY).map(|number| Bytes::from(number.to_string()));
        let all: Vec<Bytes> = all.chain([interrupted]).collect();
        assert_eq!(read, all);
    }
}
