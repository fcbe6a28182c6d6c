//! The chat call: its head, and its body piece by piece.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use http_client::{ReadError, SendError, next, read};
use hyper::body::Incoming;
use secrecy::SecretString;
use tokio::time::{Instant, timeout, timeout_at};

use crate::Upstream;

const X_GENERATION_ID: HeaderName = HeaderName::from_static("x-generation-id");
/// An error's body is read up to here to see what it is about.
const MAX_ERROR_BODY: usize = 64 * 1024;
/// The longest answer that is not streamed; images travel in it as text.
const MAX_PLAIN_BODY: usize = 64 * 1024 * 1024;
const ERROR_BODY_TIME: Duration = Duration::from_secs(5);

/// What kind of answer the caller asked for.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Streamed,
    /// The whole answer is due within the plain time-out, counted from `since`: when the caller
    /// began to wait, perhaps on another upstream.
    Plain {
        since: Instant,
    },
}

/// Why there is no head.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// Not connected, or the connection was lost before the head: upstream does not answer the call, though it may
    /// have had it where it was lost.
    #[error("upstream could not be reached")]
    Unavailable(#[source] SendError),
    /// No answer in time: upstream may have taken the call, and may bill it.
    #[error("upstream did not answer in time")]
    TimedOut,
}

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the connection to upstream broke")]
    Broken(#[source] hyper::Error),
    #[error("upstream fell silent")]
    Idle,
    #[error("the answer did not end in time")]
    TimedOut,
    #[error("the answer is longer than {MAX_PLAIN_BODY} bytes")]
    TooLong,
}

/// An answer whose head has arrived.
#[derive(Debug)]
pub struct Answer {
    response: Response<Incoming>,
    idle: Duration,
    /// For an answer that is not streamed.
    must_end_by: Instant,
}

impl Upstream {
    /// Sends a chat call whose `body` travels unchanged, and waits for the head.
    ///
    /// # Errors
    /// [`ChatError`] if no head came.
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
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(ACCEPT, HeaderValue::from_static(accept))
            .body(body)
            .map_err(|error| ChatError::Unavailable(error.into()))?;
        match timeout_at(head_by, self.http.send(request)).await {
            Ok(Ok(response)) => Ok(Answer {
                response,
                idle: self.time_outs.idle,
                must_end_by,
            }),
            Ok(Err(error)) => Err(ChatError::Unavailable(error)),
            Err(_) => Err(ChatError::TimedOut),
        }
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

    /// Upstream's id of the call, by which its cost can be looked up.
    pub fn generation_id(&self) -> Option<String> {
        let id = self.response.headers().get(X_GENERATION_ID)?;
        id.to_str().ok().map(str::to_owned)
    }

    /// The headers that may travel to the caller.
    pub fn headers(&self) -> HeaderMap {
        let allowed = [CONTENT_TYPE, X_GENERATION_ID, RETRY_AFTER];
        let ours = self.response.headers();
        allowed
            .into_iter()
            .filter_map(|name| Some((name.clone(), ours.get(name)?.clone())))
            .collect()
    }

    /// How long upstream asks to wait; `None` if it says so in no whole number of seconds.
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds = self.response.headers().get(RETRY_AFTER)?.to_str().ok()?;
        seconds.trim().parse().ok().map(Duration::from_secs)
    }

    /// The body piece by piece. The head is let go of: it keeps the whole buffer that it was read into.
    pub fn into_stream(self) -> Stream {
        Stream {
            body: self.response.into_body(),
            idle: self.idle,
        }
    }

    /// The whole body of an answer that is not streamed.
    ///
    /// # Errors
    /// [`BodyError`] if it broke off, did not end in time or is too long.
    pub async fn collect(self) -> Result<Bytes, BodyError> {
        let body = read(self.response.into_body(), MAX_PLAIN_BODY);
        match timeout_at(self.must_end_by, body).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(ReadError::Broken(error))) => Err(BodyError::Broken(error)),
            Ok(Err(ReadError::TooLong(_))) => Err(BodyError::TooLong),
            Err(_) => Err(BodyError::TimedOut),
        }
    }

    /// The beginning of an error's body; whatever arrived, where it broke off.
    pub async fn error_body(mut self) -> Bytes {
        let mut body = BytesMut::new();
        let deadline = Instant::now() + ERROR_BODY_TIME;
        while let Ok(Some(Ok(piece))) = timeout_at(deadline, next(self.response.body_mut())).await {
            body.extend_from_slice(&piece);
            if body.len() >= MAX_ERROR_BODY {
                break;
            }
        }
        body.freeze()
    }
}

/// The body of an answer, piece by piece.
#[derive(Debug)]
pub struct Stream {
    body: Incoming,
    idle: Duration,
}

impl Stream {
    /// The next piece of the body, as it came; `None` at its end.
    ///
    /// # Errors
    /// [`BodyError`] if the body broke off.
    pub async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        match timeout(self.idle, next(&mut self.body)).await {
            Ok(piece) => piece.map(|piece| piece.map_err(BodyError::Broken)),
            Err(_) => Some(Err(BodyError::Idle)),
        }
    }
}
