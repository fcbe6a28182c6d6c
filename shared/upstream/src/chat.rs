//! The chat call: its response's head, and its body chunk by chunk.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use reqwest::Response;
use secrecy::SecretString;
use tokio::time::{Instant, timeout, timeout_at};

use crate::client::{BoxError, Upstream, read};

const X_GENERATION_ID: HeaderName = HeaderName::from_static("x-generation-id");
/// Size limit of an error's body that is read to classify the error.
const MAX_ERROR_BODY: usize = 64 * 1024;
/// Size limit of a response that is not streamed, which may hold images as text.
const MAX_PLAIN_BODY: usize = 64 * 1024 * 1024;
const ERROR_BODY_TIME: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A stream of chunks.
    Streamed,
    /// The whole response is due within the plain time-out. It counts from `since`, when the caller
    /// began to wait, perhaps for another upstream.
    Plain { since: Instant },
}

/// Why no response head came.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// There was no connection (DNS, refused, TLS, connect time-out): the call did not arrive.
    #[error("upstream could not be reached")]
    NotSent(#[source] reqwest::Error),
    /// The connection broke before the head: the call may have arrived.
    #[error("the connection to upstream broke before a response")]
    Lost(#[source] reqwest::Error),
    /// No response in time: upstream may still carry out the call, and bill it.
    #[error("upstream did not answer in time")]
    TimedOut,
}

impl From<reqwest::Error> for ChatError {
    fn from(error: reqwest::Error) -> Self {
        let error = error.without_url();
        if error.is_connect() || error.is_builder() {
            Self::NotSent(error)
        } else {
            Self::Lost(error)
        }
    }
}

/// Why a body is incomplete.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection broke, or the body is longer than we read.
    #[error("the response's body could not be read")]
    Broken(#[source] BoxError),
    #[error("upstream fell silent")]
    Idle,
    #[error("the response did not end in time")]
    TimedOut,
}

#[derive(Debug)]
pub struct Answer {
    response: Response,
    idle: Duration,
    /// For a response that is not streamed.
    must_end_by: Instant,
}

impl Upstream {
    /// Sends a chat call with an unchanged `body`, and waits for the response's head.
    pub async fn chat(
        &self,
        key: &SecretString,
        body: Bytes,
        kind: Kind,
    ) -> Result<Answer, ChatError> {
        let now = Instant::now();
        let (accept, head_by, must_end_by) = match kind {
            Kind::Streamed => {
                let head_by = now + self.time_outs.head_stream;
                ("text/event-stream", head_by, now + self.time_outs.plain)
            }
            Kind::Plain { since } => {
                let must_end_by = since + self.time_outs.plain;
                ("application/json", must_end_by, must_end_by)
            }
        };
        let request = self
            .request(Method::POST, "/chat/completions", Some(key))
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, accept)
            .body(body);
        let response = timeout_at(head_by, request.send()).await;
        Ok(Answer {
            response: response.map_err(|_| ChatError::TimedOut)??,
            idle: self.time_outs.idle,
            must_end_by,
        })
    }
}

impl Answer {
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub fn is_event_stream(&self) -> bool {
        let content_type = self.response.headers().get(CONTENT_TYPE);
        content_type
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.trim_start().starts_with("text/event-stream"))
    }

    /// Upstream's id of the call, for looking up its cost.
    pub fn generation_id(&self) -> Option<String> {
        let id = self.response.headers().get(X_GENERATION_ID)?;
        id.to_str().ok().map(str::to_owned)
    }

    /// The headers that are passed on to the caller.
    pub fn headers(&self) -> HeaderMap {
        let allowed = [CONTENT_TYPE, X_GENERATION_ID, RETRY_AFTER];
        let ours = self.response.headers();
        allowed
            .into_iter()
            .filter_map(|name| Some((name.clone(), ours.get(name)?.clone())))
            .collect()
    }

    /// The time that upstream asks to wait, if it is in whole seconds.
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds = self.response.headers().get(RETRY_AFTER)?.to_str().ok()?;
        seconds.trim().parse().ok().map(Duration::from_secs)
    }

    /// The body's next chunk, unchanged; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        match timeout(self.idle, self.response.chunk()).await {
            Ok(piece) => {
                let piece = piece.map_err(|error| BodyError::Broken(error.without_url().into()));
                piece.transpose()
            }
            Err(_) => Some(Err(BodyError::Idle)),
        }
    }

    pub async fn collect(self) -> Result<Bytes, BodyError> {
        let body = read(self.response, MAX_PLAIN_BODY);
        match timeout_at(self.must_end_by, body).await {
            Ok(body) => body.map_err(BodyError::Broken),
            Err(_) => Err(BodyError::TimedOut),
        }
    }

    /// The beginning of an error's body, as far as it arrives.
    pub async fn error_body(mut self) -> Bytes {
        let mut body = BytesMut::new();
        let deadline = Instant::now() + ERROR_BODY_TIME;
        while let Ok(Ok(Some(piece))) = timeout_at(deadline, self.response.chunk()).await {
            body.extend_from_slice(&piece);
            if body.len() >= MAX_ERROR_BODY {
                break;
            }
        }
        body.freeze()
    }
}
