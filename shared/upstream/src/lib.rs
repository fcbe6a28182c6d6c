//! The client for OpenRouter and for the default AI, which speak the same protocol: key check,
//! model list, chat relay, generation look-up.
//!
//! - [`Upstream`] makes the requests. No total time-out ever covers a stream; connecting, waiting
//!   for the head and waiting for the next bytes each have their own.
//! - [`sse`] reads answers by the line, on the side of a relay that does not wait for it.
//! - [`Failure`] is what an answer that is not 200 means, in the contract's terms.
//! - [`PriceBook`] is the default AI's price list, cached.
//!
//! Architecture invariant: only an allow-list of headers travels, in either direction, and nothing
//! of an upstream error's text is passed on (it may hold input or facts about the account).

mod chat;
mod failure;
mod generation;
mod key;
mod models;
pub mod sse;
mod usage;

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION};
use http::request::Builder;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use http_client::{HttpClient, ReadError, SendError, read};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

pub use chat::{Answer, BodyError, ChatError, Kind, Stream};
pub use failure::Failure;
pub use generation::{DefaultAiKind, GenerationError};
pub use key::{KeyCheckError, KeyFacts};
pub use models::{ModelsError, PriceBook};
pub use usage::{PlainAnswer, usage_from_json};

/// How long to wait for what (`UPSTREAM_*_MS`).
#[derive(Debug, Clone, Copy)]
pub struct TimeOuts {
    /// Set in the HTTP client.
    pub connect: Duration,
    /// For the head of a streamed answer.
    pub head_stream: Duration,
    /// For a whole answer that is not streamed: nothing of it reaches the caller before its end, and
    /// the gateway in front of us gives up on a silent connection.
    pub plain: Duration,
    /// Between two pieces of a stream.
    pub idle: Duration,
}

impl TimeOuts {
    /// For a function that only asks short questions.
    pub const fn for_questions(connect: Duration) -> Self {
        let short = Duration::from_secs(30);
        Self {
            connect,
            head_stream: short,
            plain: short,
            idle: short,
        }
    }
}

/// The most that is read of an answer to a question; the longest, a list of models, has less than 1 MB.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

const HTTP_REFERER: HeaderName = HeaderName::from_static("http-referer");
const X_OPENROUTER_TITLE: HeaderName = HeaderName::from_static("x-openrouter-title");

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("upstream could not be reached")]
    Send(#[from] SendError),
    #[error("upstream's answer could not be read")]
    Read(#[from] ReadError<hyper::Error>),
}

/// One upstream: OpenRouter for the users' keys, or the default AI. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Upstream {
    http: HttpClient,
    /// Without a slash at its end.
    base: String,
    time_outs: TimeOuts,
    referer: HeaderValue,
}

impl Upstream {
    /// `base` is the API's root, for example `https://openrouter.ai/api/v1`; `referer` is how we
    /// name ourselves there (`PUBLIC_BASE_URL`).
    pub fn new(http: HttpClient, base: &Url, time_outs: TimeOuts, referer: HeaderValue) -> Self {
        Self {
            http,
            base: base.as_str().trim_end_matches('/').to_owned(),
            time_outs,
            referer,
        }
    }

    /// `path` may have a query.
    fn request(&self, method: Method, path: &str, key: Option<&SecretString>) -> Builder {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        if let Some(headers) = request.headers_mut() {
            headers.reserve(8);
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            headers.insert(HTTP_REFERER, self.referer.clone());
            headers.insert(X_OPENROUTER_TITLE, HeaderValue::from_static("Greta"));
            headers.extend(key.and_then(bearer).map(|key| (AUTHORIZATION, key)));
        }
        request
    }

    /// Asks a question: the answer's status, and its body; of a refusal, as far as there is one.
    async fn ask(&self, request: Builder) -> Result<(StatusCode, Bytes), AskError> {
        let request = request.body(Bytes::new()).map_err(SendError::from)?;
        let answer = self.http.send(request).await?;
        let status = answer.status();
        match read(answer.into_body(), MAX_ANSWER).await {
            Ok(body) => Ok((status, body)),
            Err(_) if !status.is_success() => Ok((status, Bytes::new())),
            Err(error) => Err(error.into()),
        }
    }
}

/// The key as a header, marked so that no log shows it. One that cannot be a header is left out, and upstream then
/// refuses the call.
fn bearer(key: &SecretString) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", key.expose_secret())).ok()?;
    value.set_sensitive(true);
    Some(value)
}
