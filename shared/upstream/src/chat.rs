//! The chat call: the head of its response, and the body chunk by chunk.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use reqwest::Response;
use secrecy::SecretString;
use tokio::time::{Instant, timeout, timeout_at};

use crate::client::{BoxError, Upstream};
use crate::failure::UpstreamError;
use crate::json::{MAX_VALUE, is_object_or_array};
use crate::text::{contains_key, generation_id, looks_like_key};

const X_GENERATION_ID: HeaderName = HeaderName::from_static("x-generation-id");
const ERROR_BODY_TIME: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A stream of chunks.
    Streamed,
    /// The whole response is due within the plain time-out. It counts from `since`, when the caller
    /// began to wait, perhaps for another upstream.
    Plain { since: Instant },
}

/// Why no response head arrived.
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
    #[error("the response body broke off")]
    Broken(#[source] BoxError),
    #[error("upstream stopped sending")]
    Idle,
    #[error("the response did not end in time")]
    TimedOut,
}

#[derive(Debug)]
pub struct Answer {
    response: Response,
    /// The headers that may be forwarded.
    headers: HeaderMap,
    idle: Duration,
    /// For a response that is not streamed.
    must_end_by: Instant,
}

/// The start of a body, or all of it.
#[derive(Debug, Default)]
pub struct BodyStart {
    pub chunks: Vec<Bytes>,
    /// The whole body was read.
    pub is_complete: bool,
}

impl BodyStart {
    pub fn len(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The chunks in one piece.
    pub fn bytes(&self) -> Bytes {
        match self.chunks.as_slice() {
            [chunk] => chunk.clone(),
            chunks => chunks.concat().into(),
        }
    }
}

impl Upstream {
    /// Sends a chat call with an unchanged `body` and these `headers` of the caller's, and waits
    /// for the response's head.
    pub async fn chat(
        &self,
        key: &SecretString,
        headers: HeaderMap,
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
            .headers(headers)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, accept)
            .body(body);
        let response = timeout_at(head_by, self.send(request)).await;
        let response = response.map_err(|_| ChatError::TimedOut)??;
        Ok(Answer {
            headers: forwarded_headers(response.headers(), key),
            response,
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
        self.media_type().eq_ignore_ascii_case("text/event-stream")
    }

    pub fn is_json(&self) -> bool {
        self.media_type().eq_ignore_ascii_case("application/json")
    }

    /// Whether upstream compressed the body, although the request forbids it.
    pub fn is_encoded(&self) -> bool {
        let encoding = self.response.headers().get(CONTENT_ENCODING);
        encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
    }

    fn media_type(&self) -> &str {
        let content_type = self.response.headers().get(CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
        content_type.split(';').next().unwrap_or_default().trim()
    }

    /// Upstream's id of the call, for looking up its cost.
    pub fn generation_id(&self) -> Option<String> {
        self.headers.get(X_GENERATION_ID)?.to_str().ok().map(str::to_owned)
    }

    /// The headers that are forwarded to the owner of the key.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// All headers.
    pub fn all_headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// The body's next chunk, unchanged; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        match timeout(self.idle, self.response.chunk()).await {
            Ok(chunk) => {
                let chunk = chunk.map_err(|error| BodyError::Broken(error.without_url().into()));
                chunk.transpose()
            }
            Err(_) => Some(Err(BodyError::Idle)),
        }
    }

    /// The start of a body that is not streamed: up to `max` bytes, plus the rest of the last
    /// chunk.
    pub async fn read_up_to(&mut self, max: usize) -> Result<BodyStart, BodyError> {
        let mut start = BodyStart::default();
        let mut length: usize = 0;
        while length <= max {
            // Silence is allowed: none of the response has reached the caller yet.
            let next = timeout_at(self.must_end_by, self.response.chunk()).await;
            let next = next.map_err(|_| BodyError::TimedOut)?;
            let next = next.map_err(|error| BodyError::Broken(error.without_url().into()))?;
            let Some(chunk) = next else {
                start.is_complete = true;
                break;
            };
            length = length.saturating_add(chunk.len());
            start.chunks.push(chunk);
        }
        Ok(start)
    }

    /// Reads and classifies the error of a response that is not a success.
    pub async fn error(mut self) -> UpstreamError {
        let mut body = BytesMut::new();
        let deadline = Instant::now() + ERROR_BODY_TIME;
        let is_complete = loop {
            match timeout_at(deadline, self.response.chunk()).await {
                Ok(Ok(Some(chunk))) if body.len().saturating_add(chunk.len()) <= MAX_VALUE => {
                    body.extend_from_slice(&chunk);
                }
                Ok(Ok(None)) => break true,
                _ => break false,
            }
        };
        let may_be_json = self.is_json() || is_object_or_array(&body);
        let is_readable = is_complete && !self.is_encoded();
        let body = (is_readable || !may_be_json).then_some(&body[..]);
        UpstreamError::from_response(self.status(), body)
    }
}

/// The response headers that may be forwarded. Headers that contain a key are left out.
fn forwarded_headers(headers: &HeaderMap, key: &SecretString) -> HeaderMap {
    const NAMES: [&str; 5] =
        ["content-type", "content-encoding", "x-generation-id", "retry-after", "request-id"];
    let may_forward = |name: &HeaderName, value: &HeaderValue| {
        let listed = NAMES.contains(&name.as_str()) || name.as_str().starts_with("x-openrouter-");
        listed
            && value.to_str().is_ok_and(|text| {
                let is_id = *name != X_GENERATION_ID || generation_id(text).is_some();
                is_id && !looks_like_key(text) && !contains_key(text.as_bytes(), key)
            })
    };
    let forwarded = headers.iter().filter(|(name, value)| may_forward(name, value));
    forwarded.map(|(name, value)| (name.clone(), value.clone())).collect()
}
