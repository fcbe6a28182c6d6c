//! The chunks of a streamed response, read until the invocation's time is nearly up.

use std::time::Duration;

use bytes::Bytes;
use edge::Deadline;
use tokio::time::{Instant, timeout_at};
use upstream::Answer;

/// Size limit of what is held back until the first decisive event.
pub(crate) const MAX_UNDECIDED: usize = 64 * 1024;
/// Time limit for holding back a stream until the first decisive event.
pub(crate) const UNDECIDED_TIME: Duration = Duration::from_secs(10);
/// Maximum time that a stream stays open after `[DONE]`.
const AFTER_DONE: Duration = Duration::from_millis(500);

pub(crate) struct BodyChunks {
    answer: Answer,
    stop_at: Option<Instant>,
    /// The stream ended normally.
    ended_normally: bool,
}

impl BodyChunks {
    pub(crate) fn new(answer: Answer, deadline: Option<Deadline>) -> Self {
        Self { answer, stop_at: deadline.map(Deadline::stop_at), ended_normally: false }
    }

    /// The time at which reading stops, even if the stream goes on.
    pub(crate) fn stop_at(&self) -> Option<Instant> {
        self.stop_at
    }

    /// The next chunk, or `None` at the end of the stream, however it ended.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        let next = self.answer.next();
        let chunk = match self.stop_at {
            Some(stop_at) => timeout_at(stop_at, next).await.ok()?,
            None => next.await,
        };
        self.ended_normally = chunk.is_none();
        chunk?.inspect_err(|error| edge::log_error(error, "upstream's stream was cut off")).ok()
    }

    /// After the last chunk: whether the stream ended normally.
    pub(crate) fn ended_normally(&self) -> bool {
        self.ended_normally
    }

    /// Call this after `[DONE]`, to wait only for the last bytes.
    pub(crate) fn stop_soon(&mut self) {
        let soon = Instant::now() + AFTER_DONE;
        self.stop_at = Some(self.stop_at.map_or(soon, |stop_at| stop_at.min(soon)));
    }
}
