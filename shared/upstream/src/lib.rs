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

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use reqwest::{Client, RequestBuilder, Response};
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

type BoxError = Box<dyn Error + Send + Sync>;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("upstream could not be reached")]
    Send(#[source] reqwest::Error),
    #[error("upstream's answer could not be read")]
    Read(#[source] BoxError),
}

/// One upstream: OpenRouter for the users' keys, or the default AI. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Upstream {
    http: Client,
    /// Without a slash at its end.
    base: String,
    time_outs: TimeOuts,
    referer: HeaderValue,
}

impl Upstream {
    /// `base` is the API's root, for example `https://openrouter.ai/api/v1`; `referer` is how we
    /// name ourselves there (`PUBLIC_BASE_URL`).
    pub fn new(http: Client, base: &Url, time_outs: TimeOuts, referer: HeaderValue) -> Self {
        Self {
            http,
            base: base.as_str().trim_end_matches('/').to_owned(),
            time_outs,
            referer,
        }
    }

    /// `path` may have a query.
    fn request(&self, method: Method, path: &str, key: Option<&SecretString>) -> RequestBuilder {
        let request = self
            .http
            .request(method, format!("{}{path}", self.base))
            .header(ACCEPT_ENCODING, "identity")
            .header(HTTP_REFERER, self.referer.clone())
            .header(X_OPENROUTER_TITLE, "Greta");
        match key.and_then(bearer) {
            Some(key) => request.header(AUTHORIZATION, key),
            None => request,
        }
    }

    /// Asks a question: the answer's status, and its body; of a refusal, as far as there is one.
    async fn ask(&self, request: RequestBuilder) -> Result<(StatusCode, Bytes), AskError> {
        let response = request.send().await;
        let response = response.map_err(|error| AskError::Send(error.without_url()))?;
        let status = response.status();
        match read(response, MAX_ANSWER).await {
            Ok(body) => Ok((status, body)),
            Err(_) if !status.is_success() => Ok((status, Bytes::new())),
            Err(error) => Err(AskError::Read(error)),
        }
    }
}

/// Reads a whole body of at most `max` bytes.
async fn read(response: Response, max: usize) -> Result<Bytes, BoxError> {
    let body = Limited::new(reqwest::Body::from(response), max);
    Ok(body.collect().await?.to_bytes())
}

/// The key as a header, marked so that no log shows it. One that cannot be a header is left out, and upstream then
/// refuses the call.
fn bearer(key: &SecretString) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", key.expose_secret())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use http_body_util::LengthLimitError;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// An address that answers every request with these bytes and then closes the connection.
    async fn server(response: String) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        edge::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 1024]).await.unwrap();
                stream.write_all(response.as_bytes()).await.unwrap();
            }
        });
        address
    }

    async fn get(address: SocketAddr) -> Response {
        let http = edge::http_client(Duration::from_secs(5)).unwrap();
        let response = http.get(format!("http://{address}/")).send().await;
        response.unwrap()
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit() {
        // With a declared length, and without one.
        for head in ["content-length: 11\r\n", ""] {
            let response = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n{head}\r\n12345678901");
            let address = server(response).await;
            let too_long = read(get(address).await, 10).await.unwrap_err();
            assert!(too_long.is::<LengthLimitError>(), "{too_long:?}");
            assert_eq!(read(get(address).await, 11).await.unwrap(), "12345678901");
        }
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_an_error_without_the_address() {
        let response = "HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n1234";
        let address = server(response.to_owned()).await;
        let broken = read(get(address).await, 11).await.unwrap_err();
        assert!(!broken.is::<LengthLimitError>(), "{broken:?}");
        assert!(
            !format!("{broken:?}").contains(&address.to_string()),
            "{broken:?}"
        );
    }
}
