//! The pieces of a streamed answer, as far as there is time for them.

use std::time::Duration;

use bytes::Bytes;
use edge::Deadline;
use tokio::time::{Instant, timeout_at};
use upstream::{Answer, Stream};

/// After `[DONE]` a stream is over; what still belongs to it comes at once.
const AFTER_DONE: Duration = Duration::from_millis(500);

/// Reads a stream until it ends, breaks off, or its time is up.
pub(crate) struct BodyChunks {
    stream: Stream,
    stop_at: Option<Instant>,
}

impl BodyChunks {
    pub(crate) fn of(answer: Answer, deadline: Option<Deadline>) -> Self {
        Self {
            stream: answer.into_stream(),
            stop_at: deadline.map(Deadline::stop_at),
        }
    }

    /// When reading stops at the latest.
    pub(crate) fn stop_at(&self) -> Option<Instant> {
        self.stop_at
    }

    /// The next piece; `None` at the stream's end, be it a good or a bad one.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        let next = self.stream.next();
        let piece = match self.stop_at {
            Some(stop_at) => timeout_at(stop_at, next).await.ok()?,
            None => next.await,
        };
        piece?
            .inspect_err(|error| edge::log_error(error, "the stream broke"))
            .ok()
    }

    /// `[DONE]` was read.
    pub(crate) fn done(&mut self) {
        let soon = Instant::now() + AFTER_DONE;
        self.stop_at = Some(self.stop_at.map_or(soon, |stop_at| stop_at.min(soon)));
    }
}
