//! A plain hyper listener, the same for every measured server: HTTP/1.1, Nagle's algorithm off.

use std::net::{Ipv4Addr, SocketAddr};

use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use crate::Error;

/// Serves on `port` of 127.0.0.1 until the process ends.
pub(crate) async fn serve<H, F, B, E>(port: u16, handler: H) -> Result<(), Error>
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<B>, E>> + Send + 'static,
    B: Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Error>,
    E: Into<Error>,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = service_fn(handler.clone());
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service);
        edge::spawn(async move {
            // A client that disconnects ends its connection.
            let _ = connection.await;
        });
    }
}

/// Waits until something listens on `port`.
pub(crate) async fn until_listening(port: u16) -> Result<(), Error> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    for _ in 0..600 {
        if TcpStream::connect(address).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    Err(format!("nothing listens on port {port}").into())
}

/// A port that nothing listens on.
pub(crate) fn free_port() -> Result<u16, Error> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}
