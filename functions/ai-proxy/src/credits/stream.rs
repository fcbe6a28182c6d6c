//! A streamed answer that credits pay for.
//!
//! The task that reads upstream owns the hold. It passes lines on as they come, but keeps the usage
//! chunk back until the hold is settled, adds the receipt to it, and only then lets it and `[DONE]`
//! go: when the last bytes are out, nothing is left to do.

use std::convert::Infallible;
use std::time::Duration;

use account::Credits;
use account::price::Usage;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use edge::{ApiError, Code, Deadline};
use futures_util::stream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{timeout, timeout_at};
use upstream::Answer;
use upstream::sse::{self, Line, Lines};

use super::{HeldCall, recorded};
use crate::byok::interrupted;

/// Pieces that wait for a slow reader.
const WAITING: usize = 32;
/// A reader that takes nothing for so long counts as gone.
const READER_PATIENCE: Duration = Duration::from_mins(2);
/// After `[DONE]` a stream is over; what still belongs to it comes at once.
const AFTER_DONE: Duration = Duration::from_millis(500);

/// Passes `answer` on, and settles `held` before its end.
pub(super) fn relay(held: HeldCall, answer: Answer, deadline: Option<Deadline>) -> Response {
    let (sender, receiver) = mpsc::channel(WAITING);
    let (status, headers) = (answer.status(), answer.headers());
    let recording = answer.generation_id().map(|id| held.record_generation(id));
    let relay = Relay {
        held,
        recording,
        reader: Reader {
            sender: Some(sender),
            waiting: Vec::new(),
        },
        kept: Vec::new(),
        usage: None,
        state: State::Open,
    };
    edge::spawn(relay.run(answer, deadline));
    let pieces = stream::unfold(receiver, |mut receiver| async move {
        let piece = receiver.recv().await?;
        Some((Ok::<_, Infallible>(piece), receiver))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
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
    async fn run(mut self, mut answer: Answer, deadline: Option<Deadline>) {
        let mut lines = Lines::default();
        while let Some(piece) = self.next(&mut answer, deadline).await {
            for line in lines.push(piece) {
                self.line(line).await;
            }
            self.reader.flush().await;
        }
        let rest = lines.rest();
        if !rest.is_empty() {
            self.line(rest).await;
        }
        if self.state == State::Open {
            self.resolve("stream broke off").await;
            self.reader.add(interrupted());
        }
        self.reader.flush().await;
    }

    async fn next(&self, answer: &mut Answer, deadline: Option<Deadline>) -> Option<Bytes> {
        let piece = match (&self.state, deadline) {
            (State::Done, _) => timeout(AFTER_DONE, answer.next()).await.ok()?,
            (State::Open, Some(deadline)) => {
                timeout_at(deadline.stop_at(), answer.next()).await.ok()?
            }
            (State::Open, None) => answer.next().await,
        };
        piece?
            .inspect_err(|error| edge::log_error(error, "the stream broke"))
            .ok()
    }

    async fn line(&mut self, line: Bytes) {
        if self.state == State::Done {
            return self.reader.add(line);
        }
        match Line::of(&line) {
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
            Line::Error => {
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
    /// chunk on, with the receipt.
    async fn resolve(&mut self, without_usage: &'static str) {
        self.reader.flush().await;
        if let Some(recording) = self.recording.take() {
            recorded(recording).await;
        }
        let charged = match self.usage {
            Some(usage) => self.held.settle(usage).await,
            None => {
                self.held.leave_to_sweeper(without_usage).await;
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

/// The caller's end of the stream. Once it is gone, sending to it does nothing.
struct Reader {
    sender: Option<mpsc::Sender<Bytes>>,
    /// Lines of one piece of upstream's stream, which leave as one piece too.
    waiting: Vec<Bytes>,
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
        let Some(sender) = &self.sender else { return };
        let sent = timeout(READER_PATIENCE, sender.send(piece)).await;
        if !matches!(sent, Ok(Ok(()))) {
            tracing::info!("the reader is gone; reading on to settle");
            self.sender = None;
        }
    }
}
