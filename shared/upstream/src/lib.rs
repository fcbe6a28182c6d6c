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

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use http::header::AUTHORIZATION;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

pub use chat::{Answer, BodyError, ChatError, Kind};
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

/// The body of an answer to a question. One that is too long is cut off, and then cannot be read.
async fn read(mut answer: reqwest::Response) -> Result<Bytes, reqwest::Error> {
    let mut body = BytesMut::new();
    while let Some(mut piece) = answer.chunk().await? {
        piece.truncate(MAX_ANSWER.saturating_sub(body.len()));
        body.extend_from_slice(&piece);
        if body.len() == MAX_ANSWER {
            break;
        }
    }
    Ok(body.freeze())
}

/// One upstream: OpenRouter for the users' keys, or the default AI. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Upstream {
    http: reqwest::Client,
    base: Url,
    time_outs: TimeOuts,
    referer: HeaderValue,
}

impl Upstream {
    /// `base` is the API's root, for example `https://openrouter.ai/api/v1`; `referer` is how we
    /// name ourselves there (`PUBLIC_BASE_URL`). `http` follows no redirect and sends nothing twice.
    pub fn new(
        http: reqwest::Client,
        base: Url,
        time_outs: TimeOuts,
        referer: HeaderValue,
    ) -> Self {
        Self {
            http,
            base,
            time_outs,
            referer,
        }
    }

    fn request(&self, method: http::Method, path: &str) -> reqwest::RequestBuilder {
        self.request_to(method, self.url(path))
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url
    }

    fn request_to(&self, method: http::Method, url: Url) -> reqwest::RequestBuilder {
        self.http
            .request(method, url)
            .header(http::header::ACCEPT_ENCODING, "identity")
            .header("HTTP-Referer", self.referer.clone())
            .header("X-OpenRouter-Title", "Greta")
    }
}

trait WithKey {
    /// Adds the key, marked so that no log shows it. A key that cannot be a header is left out, and
    /// upstream then refuses the call.
    fn with_key(self, key: &SecretString) -> Self;
}

impl WithKey for reqwest::RequestBuilder {
    fn with_key(self, key: &SecretString) -> Self {
        match HeaderValue::try_from(format!("Bearer {}", key.expose_secret())) {
            Ok(mut value) => {
                value.set_sensitive(true);
                self.header(AUTHORIZATION, value)
            }
            Err(_) => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_answer_fills_the_memory() {
        for (sent, kept) in [
            (10, 10),
            (MAX_ANSWER, MAX_ANSWER),
            (MAX_ANSWER + 10, MAX_ANSWER),
        ] {
            let answer = http::Response::new(vec![b'x'; sent]);
            let body = read(reqwest::Response::from(answer)).await.unwrap();
            assert_eq!(body.len(), kept);
        }
    }
}
