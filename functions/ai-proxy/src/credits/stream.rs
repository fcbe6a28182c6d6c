//! A streamed answer that credits pay for.
//!
//! The task that reads upstream owns the hold. It passes lines on as they come, but keeps the usage
//! chunk back until the hold is settled, adds the receipt to it, and only then lets it and `[DONE]`
//! go: when the last bytes are out, nothing is left to do.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use account::Credits;
use account::price::Usage;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use edge::{ApiError, Code, Deadline};
use futures_util::{Stream, stream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use upstream::Answer;
use upstream::sse::{self, Line, Lines};

use super::{HeldCall, recorded};
use crate::body_chunks::BodyChunks;
use crate::byok::interrupted;

/// Chunks buffered for a slow reader.
const WAITING: usize = 32;
/// A reader that takes nothing for so long counts as gone.
const READER_PATIENCE: Duration = Duration::from_mins(2);

/// Passes `answer` on, and settles `held` before its end.
pub(super) fn relay(held: HeldCall, answer: Answer, deadline: Option<Deadline>) -> Response {
    let (sender, receiver) = mpsc::channel(WAITING);
    let missed = Arc::new(AtomicBool::new(false));
    let (status, headers) = (answer.status(), answer.headers());
    let recording = answer.generation_id().map(|id| held.record_generation(id));
    let pieces = BodyChunks::of(answer, deadline);
    let relay = Relay {
        held,
        recording,
        reader: Reader {
            sender,
            waiting: Vec::new(),
            patience_ends: pieces.stop_at(),
            state: Attention::Reading,
            missed: Arc::clone(&missed),
        },
        kept: Vec::new(),
        usage: None,
        state: State::Open,
    };
    edge::spawn(relay.run(pieces));
    let mut response = Response::new(Body::from_stream(as_read(receiver, missed)));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// What the caller reads: the pieces, and at their end that some were missed, if they were.
fn as_read(
    receiver: mpsc::Receiver<Bytes>,
    missed: Arc<AtomicBool>,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    stream::unfold((receiver, missed), |(mut receiver, missed)| async move {
        let piece = match receiver.recv().await {
            Some(piece) => piece,
            None if missed.swap(false, Ordering::Relaxed) => interrupted(),
            None => return None,
        };
        Some((Ok(piece), (receiver, missed)))
    })
}

struct Relay {
    held: HeldCall,
    /// The generation id on its way to the store.
    recording: Option<JoinHandle<()>>,
    reader: Reader,
    /// The last usage chunk and what followed it, not yet passed on.
    kept: Vec<Bytes>,
    usage: Option<Usage>,
    state: State,
}

#[derive(PartialEq, Eq)]
enum State {
    Open,
    /// `[DONE]` was passed on; the hold is resolved or left to the sweeper.
    Done,
}

impl Relay {
    async fn run(mut self, mut pieces: BodyChunks) {
        let mut lines = Lines::default();
        while let Some(piece) = pieces.next().await {
            let was_open = self.state == State::Open;
            for (line, meaning) in lines.push(piece) {
                self.line(line, meaning).await;
            }
            if was_open && self.state == State::Done {
                pieces.done();
            }
            self.reader.flush().await;
        }
        let (rest, meaning) = lines.rest();
        if !rest.is_empty() {
            self.line(rest, meaning).await;
        }
        if self.state == State::Open {
            self.resolve("stream broke off").await;
            self.reader.add(interrupted());
        }
        self.reader.flush().await;
    }

    async fn line(&mut self, line: Bytes, meaning: Line) {
        if self.state == State::Done {
            return self.reader.add(line);
        }
        match meaning {
            Line::Done => {
                self.resolve("stream without usage").await;
                self.state = State::Done;
                self.reader.add(line);
            }
            Line::Usage(usage) => {
                self.pass_on_kept();
                self.usage = Some(usage);
                self.kept.push(line);
            }
            Line::Error(usage) => {
                self.usage = usage.or(self.usage);
                tracing::warn!("the default AI failed in mid-stream");
                self.pass_on_kept();
                self.reader.add(failed());
            }
            Line::Other if !self.kept.is_empty() => self.kept.push(line),
            kind => {
                if self.recording.is_none() && kind == Line::Data {
                    let id = sse::chunk_id(&line);
                    self.recording = id.map(|id| self.held.record_generation(id));
                }
                self.pass_on_kept();
                self.reader.add(line);
            }
        }
    }

    /// Settles by the usage that arrived, or leaves the hold to the sweeper; then passes the usage
    /// chunk on, with the receipt. What that takes is allocated only then, not while the stream is open.
    async fn resolve(&mut self, without_usage: &'static str) {
        if let Some(recording) = self.recording.take() {
            recorded(recording).await;
        }
        let charged = match self.usage {
            Some(usage) => Box::pin(self.held.settle(usage)).await,
            None => {
                Box::pin(self.held.leave_to_sweeper(without_usage)).await;
                None
            }
        };
        let receipt = charged.map(|charged| self.receipt(charged));
        if let (Some(receipt), Some(chunk)) = (receipt, self.kept.first_mut())
            && let Some(with_receipt) = sse::with_member(chunk, "greta", &receipt)
        {
            *chunk = with_receipt;
        }
        self.pass_on_kept();
    }

    fn receipt(&self, charged: Credits) -> String {
        let call = &self.held.hold.call;
        serde_json::json!({"credits_charged": charged, "call_id": call}).to_string()
    }

    fn pass_on_kept(&mut self) {
        for line in self.kept.drain(..) {
            self.reader.add(line);
        }
    }
}

/// The default AI's error in mid-stream, without its text, which is for the platform.
fn failed() -> Bytes {
    let error = ApiError::new(
        Code::DefaultAiUnavailable,
        "Greta's AI failed in the middle of the answer",
    );
    Bytes::from(format!("data: {}\n", error.openai_body()))
}

/// The caller's end of the stream. It stays open until the relay is through, whether anybody reads
/// or not: when it closes, Lambda freezes the process.
struct Reader {
    sender: mpsc::Sender<Bytes>,
    /// Lines of one piece of upstream's stream, which leave as one piece too.
    waiting: Vec<Bytes>,
    /// The function's own end.
    patience_ends: Option<Instant>,
    state: Attention,
    /// It missed something, and must not take what it has for the whole.
    missed: Arc<AtomicBool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attention {
    Reading,
    /// Took nothing for too long, and gets nothing more but the end.
    Stalled,
    Gone,
}

impl Reader {
    fn add(&mut self, line: Bytes) {
        self.waiting.push(line);
    }

    async fn flush(&mut self) {
        let piece = match self.waiting.as_mut_slice() {
            [] => return,
            [line] => std::mem::take(line),
            lines => Bytes::from(lines.concat()),
        };
        self.waiting.clear();
        if self.state != Attention::Reading {
            return;
        }
        let patience = Instant::now() + READER_PATIENCE;
        let patience = self.patience_ends.map_or(patience, |end| end.min(patience));
        match timeout_at(patience, self.sender.send(piece)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => self.lost(Attention::Gone),
            Err(_) => self.lost(Attention::Stalled),
        }
    }

    fn lost(&mut self, state: Attention) {
        tracing::info!(?state, "nobody takes the answer; reading on to settle");
        self.missed.store(true, Ordering::Relaxed);
        self.state = state;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_took_nothing_for_too_long_does_not_see_a_good_end() {
        let (sender, receiver) = mpsc::channel(WAITING);
        let missed = Arc::new(AtomicBool::new(false));
        let mut reader = Reader {
            sender,
            waiting: Vec::new(),
            patience_ends: None,
            state: Attention::Reading,
            missed: Arc::clone(&missed),
        };
        for number in 0..=WAITING {
            reader.add(Bytes::from(number.to_string()));
            reader.flush().await;
        }
        assert_eq!(reader.state, Attention::Stalled);
        reader.add(Bytes::from("data: [DONE]\n"));
        reader.flush().await;
        drop(reader);
        let read: Vec<_> = as_read(receiver, missed).collect().await;
        let read: Vec<Bytes> = read.into_iter().map(Result::unwrap).collect();
        let all = (0..WAITING).map(|number| Bytes::from(number.to_string()));
        let all: Vec<Bytes> = all.chain([interrupted()]).collect();
        assert_eq!(read, all);
    }
}
