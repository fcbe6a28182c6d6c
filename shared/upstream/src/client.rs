//! The HTTP side of an upstream: requests with its headers, and short questions.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use reqwest::{Client, RequestBuilder, Response};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::time::timeout;
use url::Url;

use crate::failure::UpstreamError;
use crate::json::MAX_VALUE;
use crate::resend::ResendingClient;
use crate::usage::Fields;

/// Time-outs (`UPSTREAM_*_MS`). No total time-out ever covers a stream.
#[derive(Debug, Clone, Copy)]
pub struct TimeOuts {
    /// Applied by the HTTP client.
    pub connect: Duration,
    /// For the head of a streamed response.
    pub head_stream: Duration,
    /// For a whole response that is not streamed: none of it reaches the caller before it is
    /// complete, and the gateway in front of us gives up on a silent connection.
    pub plain: Duration,
    /// Between two chunks of a stream.
    pub idle: Duration,
}

impl TimeOuts {
    /// For a function that only asks short questions.
    pub const fn for_questions(connect: Duration) -> Self {
        let short = Duration::from_secs(30);
        Self { connect, head_stream: short, plain: short, idle: short }
    }
}

const HTTP_REFERER: HeaderName = HeaderName::from_static("http-referer");
const X_OPENROUTER_TITLE: HeaderName = HeaderName::from_static("x-openrouter-title");

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("upstream responded with {status}")]
    Refused { status: StatusCode, headers: Box<HeaderMap>, error: Box<UpstreamError> },
    /// Without the parser's message, because it quotes the text.
    #[error("upstream's response does not have the expected form")]
    Unreadable,
    #[error("upstream could not be reached")]
    Send(#[source] reqwest::Error),
    #[error("upstream's response could not be read")]
    Read(#[source] BoxError),
    #[error("upstream did not respond in time")]
    TimedOut,
}

impl AskError {
    pub fn is_rate_limited(&self) -> bool {
        matches!(self, Self::Refused { status: StatusCode::TOO_MANY_REQUESTS, .. })
    }

    /// Whether upstream responded that it does not accept the key (401).
    pub fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Refused { status: StatusCode::UNAUTHORIZED, .. })
    }
}

/// One upstream: OpenRouter for the users' keys, or the default AI. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Upstream {
    http: ResendingClient,
    /// Without a trailing slash.
    base: String,
    pub(crate) time_outs: TimeOuts,
    referer: HeaderValue,
}

impl Upstream {
    /// `unpooled` opens a connection for each request; `base` is the API's root, for example
    /// `https://openrouter.ai/api/v1`, `referer` our name.
    pub fn new(
        client: Client,
        unpooled: Client,
        base: &Url,
        time_outs: TimeOuts,
        referer: HeaderValue,
    ) -> Self {
        let base = base.as_str().trim_end_matches('/').to_owned();
        Self { http: ResendingClient::new(client, unpooled), base, time_outs, referer }
    }

    /// `path` may have a query.
    pub(crate) fn request(
        &self,
        method: Method,
        path: &str,
        key: Option<&SecretString>,
    ) -> RequestBuilder {
        let request = self
            .http
            .client
            .request(method, format!("{}{path}", self.base))
            .header(ACCEPT_ENCODING, "identity")
            .header(HTTP_REFERER, self.referer.clone())
            .header(X_OPENROUTER_TITLE, "Greta");
        match key.and_then(bearer) {
            Some(key) => request.header(AUTHORIZATION, key),
            None => request,
        }
    }

    pub(crate) async fn send(&self, request: RequestBuilder) -> reqwest::Result<Response> {
        self.http.send(request).await
    }

    /// Asks for a response of at most `max` bytes.
    pub(crate) async fn ask(
        &self,
        path: &str,
        key: Option<&SecretString>,
        time: Duration,
        max: usize,
    ) -> Result<Bytes, AskError> {
        let ask = async {
            let response = self.send(self.request(Method::GET, path, key)).await;
            let response = response.map_err(|error| AskError::Send(error.without_url()))?;
            let status = response.status();
            if status.is_success() {
                return read(response, max).await.map_err(AskError::Read);
            }
            let headers = Box::new(response.headers().clone());
            let body = read(response, MAX_VALUE).await.ok();
            let error = Box::new(UpstreamError::from_response(status, body.as_deref()));
            Err(AskError::Refused { status, headers, error })
        };
        timeout(time, ask).await.map_err(|_| AskError::TimedOut)?
    }
}

pub(crate) async fn read(response: Response, max: usize) -> Result<Bytes, BoxError> {
    let body = Limited::new(reqwest::Body::from(response), max);
    Ok(body.collect().await?.to_bytes())
}

/// The members of a response's `data` object.
pub(crate) fn data_of(body: &[u8]) -> Result<Fields<'_>, AskError> {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        data: Fields<'a>,
    }
    let envelope = serde_json::from_slice::<Envelope<'_>>(body);
    Ok(envelope.map_err(|_| AskError::Unreadable)?.data)
}

/// A key that is no valid header is left out, and upstream then refuses the call.
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

    /// The address of a server that answers every request with these bytes and closes the
    /// connection.
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
        assert!(!format!("{broken:?}").contains(&address.to_string()), "{broken:?}");
    }
}
