//! HTTP servers on loopback.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use http::header::{AUTHORIZATION, CONNECTION};
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tower::ServiceExt;

use crate::guard::guarded;

/// The largest request body that is read before the request is handled, in bytes.
const READ_AHEAD: u64 = 8 * 1024 * 1024;

/// A response extension: the connection is closed instead, before any byte of a head.
#[derive(Debug, Clone, Copy)]
pub struct CloseWithoutHead;

/// A server of routes on its own listener, until stopped or dropped.
///
/// Stopping drops the open connections: a response that stalls on purpose would hold up a graceful
/// shutdown forever.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves `router` on a free port, for this machine only.
    pub async fn start(router: Router) -> io::Result<Self> {
        Self::on(listener().await?, router)
    }

    /// Serves `router` for this machine only; other sites' pages are refused.
    pub fn on(listener: TcpListener, router: Router) -> io::Result<Self> {
        Self::without_guard(listener, guarded(router))
    }

    /// Serves `router` without adding the guard: the router checks its callers itself.
    pub(crate) fn without_guard(listener: TcpListener, router: Router) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (stop, stopped) = watch::channel(());
        let task = spawn(accept(listener, router, stopped));
        Ok(Self { address, stop, task })
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub async fn stop(self) {
        drop(self.stop);
        // A task that panicked has stopped as well.
        let _ = self.task.await;
    }
}

/// A listener on a free port of 127.0.0.1. The connections it accepts have Nagle's algorithm off:
/// they inherit that from the listener, even where a library accepts them.
pub async fn listener() -> io::Result<TcpListener> {
    listener_on(0).await
}

/// Such a listener on `port`.
#[expect(
    clippy::unused_async,
    reason = "a listener needs a runtime around it, which an async function proves"
)]
pub async fn listener_on(port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_nodelay(true)?;
    // Lets a system start right after another one stopped on the same port.
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
    socket.listen(1024)
}

/// The token of `Authorization: Bearer TOKEN`.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ").filter(|token| !token.is_empty())
}

/// A response that closes the connection before any byte of a head.
pub(crate) fn close_without_head() -> Response {
    Extension(CloseWithoutHead).into_response()
}

#[expect(
    clippy::disallowed_methods,
    reason = "these tasks serve every request and belong to no request's span"
)]
pub(crate) fn spawn<F>(task: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(task)
}

async fn accept(listener: TcpListener, router: Router, mut stopped: watch::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // Nothing is ever sent: the other end is dropped.
            _ = stopped.changed() => break,
            // An error here concerns one connection, which is gone.
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn(serve(stream, router.clone()));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, router: Router) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        respond(router.clone(), request.map(Body::new))
    });
    // The client reports how a connection ended.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn respond(router: Router, request: Request<Body>) -> io::Result<Response> {
    let (request, whole) = with_whole_body(request).await?;
    let Ok::<Response, Infallible>(mut response) = router.oneshot(request).await;
    if !whole {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    match response.extensions().get::<CloseWithoutHead>() {
        Some(CloseWithoutHead) => Err(io::ErrorKind::ConnectionAborted.into()),
        None => Ok(response),
    }
}

/// Reads a body of moderate size before the request is handled, as API Gateway does: a response to
/// an unread request closes the connection unannounced. Returns false for a larger body, whose
/// response announces the close.
async fn with_whole_body(request: Request<Body>) -> io::Result<(Request<Body>, bool)> {
    let size = request.body().size_hint().exact();
    if size.is_none_or(|size| size > READ_AHEAD) {
        return Ok((request, false));
    }
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?;
    let request = Request::from_parts(parts, Body::from(body.to_bytes()));
    Ok((request, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn accepted_connections_send_at_once() {
        let listener = listener().await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        assert!(accepted.unwrap().0.nodelay().unwrap());
    }

    #[tokio::test]
    async fn a_stopped_server_is_gone() {
        let server = Server::start(Router::new()).await.unwrap();
        let address = server.address;
        TcpStream::connect(address).await.unwrap();
        server.stop().await;
        assert!(TcpStream::connect(address).await.is_err());
    }
}
