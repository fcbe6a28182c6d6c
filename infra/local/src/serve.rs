//! HTTP listeners on loopback, for what this program plays itself.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::body::Body;
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tower::ServiceExt;

/// Bodies of up to so many bytes are read before they are answered.
const READ_AHEAD: u64 = 8 * 1024 * 1024;

/// As a response's extension: the connection is closed instead, before any byte of a head.
#[derive(Debug, Clone, Copy)]
pub struct CloseWithoutHead;

#[derive(Debug, thiserror::Error)]
#[error("the handler asked for the connection to be closed")]
struct ClosedWithoutHead;

/// Routes served on a listener of their own, until stopped or dropped.
///
/// Stopping drops the connections that are open: an answer that stalls on purpose would hold up a
/// graceful end for ever.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves on a free port.
    ///
    /// # Errors
    /// If no port can be opened.
    pub async fn start(router: Router) -> io::Result<Self> {
        Self::on(listener().await?, router)
    }

    /// Serves on `listener`.
    ///
    /// # Errors
    /// If the listener has no address.
    pub fn on(listener: TcpListener, router: Router) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (stop, stopped) = watch::channel(());
        let task = spawn(accept(listener, router, stopped));
        Ok(Self {
            address,
            stop,
            task,
        })
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stops, and returns once the port is closed.
    pub async fn stop(self) {
        drop(self.stop);
        // A task that panicked has stopped as well.
        let _ = self.task.await;
    }
}

/// A listener on a free port of 127.0.0.1. The connections it accepts have Nagle's algorithm off:
/// they inherit that from the listener, so that it also holds where a library accepts them.
///
/// # Errors
/// If no port can be opened.
pub async fn listener() -> io::Result<TcpListener> {
    listener_on(0).await
}

/// Such a listener on `port`.
///
/// # Errors
/// If the port cannot be opened.
#[expect(
    clippy::unused_async,
    reason = "a listener needs a runtime around it, which an async function proves"
)]
pub async fn listener_on(port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_nodelay(true)?;
    // A system that was just stopped does not keep its port from the next one.
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
    socket.listen(1024)
}

/// An answer with a JSON body.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    let body = serde_json::to_vec(body).expect("answers can be written as JSON");
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// Runs `task` until it ends.
#[expect(
    clippy::disallowed_methods,
    reason = "these tasks serve every call and belong to the span of none"
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
            // An error here is about one connection that went away again.
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn(serve(stream, router.clone()));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, router: Router) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        answer(router.clone(), request.map(Body::new))
    });
    // How a connection ended is told by who asked, not here.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(
    router: Router,
    request: Request<Body>,
) -> Result<Response<Body>, ClosedWithoutHead> {
    let (request, whole) = with_whole_body(request).await?;
    let mut response = match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => {
            let never: Infallible = never;
            match never {}
        }
    };
    if !whole {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    match response.extensions().get::<CloseWithoutHead>() {
        Some(CloseWithoutHead) => Err(ClosedWithoutHead),
        None => Ok(response),
    }
}

/// Reads a body of moderate size before anybody answers, as API Gateway does. An answer that came
/// before its request was read would have the connection closed without a word; where the body is
/// larger (false), the answer says so.
async fn with_whole_body(
    request: Request<Body>,
) -> Result<(Request<Body>, bool), ClosedWithoutHead> {
    let size = request.body().size_hint().exact();
    if size.is_none_or(|size| size > READ_AHEAD) {
        return Ok((request, false));
    }
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| ClosedWithoutHead)?;
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
