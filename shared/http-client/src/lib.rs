//! The HTTP client that everything goes out by: to both AIs, to the payment provider, to the token issuer and
//! to AWS. It is hyper's client over rustls, and no more: what stands between a call and its bytes is what every
//! call pays for.
//!
//! Invariants: nothing is redirected, and nothing is sent twice that may have arrived: what a request costs, and
//! what it answers, is the business of who made it. No error tells a URL, a header or a body.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper_rustls::{HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tower::timeout::Timeout;
use tower::util::BoxCloneSyncService;

type Cause = Box<dyn std::error::Error + Send + Sync>;
type Connection = MaybeHttpsStream<TokioIo<TcpStream>>;

/// So often a silent connection is asked whether it still stands.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// So many questions without an answer mean that it does not.
const UNANSWERED: u32 = 3;
/// Nor does it where what was written is not acknowledged for so long. Without this and the two above, the kernel waits
/// for up to a quarter of an hour, longer than any time-out of ours: a dead connection would pass for a slow answer.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// So many idle connections are kept to one host. One holds some 20 kB, and more calls than this are seldom in
/// flight in one process; what is over is closed, and opened again by the next burst.
const IDLE: usize = 64;

/// Why TLS cannot be set up: not on a machine that can run a function.
#[derive(Debug, thiserror::Error)]
#[error("TLS cannot be set up")]
pub struct TlsError(#[from] rustls::Error);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// There was no connection (name, refusal, TLS, time), or the request is none: nothing has arrived.
    #[error("nothing could be sent")]
    NotSent(#[source] Cause),
    /// The connection broke before the head of an answer: the request may have arrived.
    #[error("the connection broke before an answer")]
    Lost(#[source] hyper_util::client::legacy::Error),
}

/// A request that could not be built, of a builder that tells it at its end.
impl From<http::Error> for SendError {
    fn from(error: http::Error) -> Self {
        Self::NotSent(error.into())
    }
}

/// Why a body is not whole.
#[derive(Debug, thiserror::Error)]
pub enum ReadError<E> {
    #[error("the body broke off")]
    Broken(#[source] E),
    #[error("the body is longer than {0} bytes")]
    TooLong(usize),
}

/// Keeps connections and uses them again. Cheap to clone; clones share them.
#[derive(Debug, Clone)]
pub struct HttpClient(Client<BoxCloneSyncService<Uri, Connection, Cause>, Full<Bytes>>);

impl HttpClient {
    /// A client that connects within this time, TLS included. It trusts the certificate authorities that Mozilla does, as
    /// they were when this was built: reading those of the system takes longer than all else at a function's start.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(connect: Duration) -> Result<Self, TlsError> {
        let roots = RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        };
        let tls = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEP_ALIVE));
        tcp.set_keepalive_interval(Some(KEEP_ALIVE));
        tcp.set_keepalive_retries(Some(UNANSWERED));
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        // Shared among the addresses of a name: one that is silent leaves time for the others.
        tcp.set_connect_timeout(Some(connect));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let connector = BoxCloneSyncService::new(Timeout::new(https, connect));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(IDLE)
            .build(connector);
        Ok(Self(client))
    }

    /// Sends a request and waits for the head of its answer, without a time-out: what a request may take is its own.
    ///
    /// # Errors
    /// [`SendError`], which says whether it may have arrived.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Incoming>, SendError> {
        let sent = self.0.request(request.map(Full::new)).await;
        sent.map_err(|error| {
            if error.is_connect() {
                SendError::NotSent(error.into())
            } else {
                SendError::Lost(error)
            }
        })
    }
}

/// The next piece of a body, as it came; `None` at its end.
///
/// # Errors
/// If it broke off.
pub async fn next<B: Body + Unpin>(body: &mut B) -> Option<Result<B::Data, B::Error>> {
    loop {
        match body.frame().await?.map(Frame::into_data) {
            Ok(Ok(piece)) => return Some(Ok(piece)),
            // Trailers.
            Ok(Err(_)) => {}
            Err(error) => return Some(Err(error)),
        }
    }
}

/// A whole body of at most `max` bytes; one that comes in one piece is not copied.
///
/// # Errors
/// [`ReadError`]; a length that is too long is known before reading, where it is declared.
pub async fn read<B>(mut body: B, max: usize) -> Result<Bytes, ReadError<B::Error>>
where
    B: Body<Data = Bytes> + Unpin,
{
    if usize::try_from(body.size_hint().lower()).map_or(true, |least| least > max) {
        return Err(ReadError::TooLong(max));
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(piece) = next(&mut body).await {
        let piece = piece.map_err(ReadError::Broken)?;
        let so_far = first.len().max(all.len());
        if piece.len() > max.saturating_sub(so_far) {
            return Err(ReadError::TooLong(max));
        }
        if first.is_empty() {
            first = piece;
            continue;
        }
        if all.is_empty() {
            all.extend_from_slice(&first);
        }
        all.extend_from_slice(&piece);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::*;

    const TIME: Duration = Duration::from_secs(5);

    /// Takes connections, reads a request from each and writes this; tells how many there were.
    async fn server(writes: &'static [u8]) -> (SocketAddr, JoinHandle<usize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        #[expect(clippy::disallowed_methods, reason = "nothing is logged here")]
        let served = tokio::spawn(async move {
            let mut connections = 0;
            let pause = Duration::from_millis(200);
            while let Ok(Ok((mut stream, _))) = tokio::time::timeout(pause, listener.accept()).await
            {
                connections += 1;
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await.unwrap();
                stream.write_all(writes).await.unwrap();
            }
            connections
        });
        (address, served)
    }

    async fn get(address: SocketAddr) -> Result<Response<Incoming>, SendError> {
        let client = HttpClient::new(TIME).unwrap();
        let request = Request::get(format!("http://{address}/")).body(Bytes::new());
        client.send(request.unwrap()).await
    }

    #[tokio::test]
    async fn a_request_without_a_connection_was_not_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let refused = get(address).await;
        assert!(matches!(refused, Err(SendError::NotSent(_))), "{refused:?}");
    }

    #[tokio::test]
    async fn a_request_whose_connection_breaks_may_have_arrived_and_is_sent_once() {
        let (address, served) = server(b"").await;
        let lost = get(address).await;
        assert!(matches!(lost, Err(SendError::Lost(_))), "{lost:?}");
        assert_eq!(served.await.unwrap(), 1);
    }

    #[tokio::test]
    async fn nothing_is_redirected() {
        let (address, served) = server(
            b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /there\r\ncontent-length: 0\r\n\r\n",
        )
        .await;
        let answer = get(address).await.unwrap();
        assert_eq!(answer.status(), http::StatusCode::TEMPORARY_REDIRECT);
        assert_eq!(served.await.unwrap(), 1);
    }

    #[tokio::test]
    async fn no_connection_is_waited_for_longer_than_asked() {
        // Takes connections into its backlog and never speaks TLS.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = HttpClient::new(Duration::from_millis(50)).unwrap();
        let request = Request::get(format!("https://{address}/")).body(Bytes::new());
        let waited = tokio::time::timeout(TIME, client.send(request.unwrap())).await;
        assert!(
            matches!(waited, Ok(Err(SendError::NotSent(_)))),
            "{waited:?}"
        );
    }

    #[tokio::test]
    async fn no_answer_fills_the_memory() {
        // With a length, and without one.
        for head in ["content-length: 11\r\n", ""] {
            let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n{head}\r\n12345678901");
            let (address, _) = server(answer.leak().as_bytes()).await;
            let body = get(address).await.unwrap().into_body();
            assert!(matches!(read(body, 10).await, Err(ReadError::TooLong(10))));
            let body = get(address).await.unwrap().into_body();
            assert_eq!(read(body, 11).await.unwrap(), "12345678901");
        }
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_told() {
        let (address, _) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n1234").await;
        let body = get(address).await.unwrap().into_body();
        assert!(matches!(read(body, 11).await, Err(ReadError::Broken(_))));
    }
}
