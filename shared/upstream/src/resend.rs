//! A connection that has died unnoticed, as after a freeze of the function, loses the request that is
//! sent on it. Such a request is sent once more, on a connection opened for it.
//!
//! That is safe only if the old connection had died before: it had carried a response, and it is
//! reset or closed at once and without a byte of the next one.

use std::collections::VecDeque;
use std::error::Error;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpInfo;
use reqwest::{Client, RequestBuilder, Response};
use tokio::time::Instant;

/// Time within which a connection that had died shows it.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Number of connections that are remembered: more than a client keeps.
const REMEMBERED: usize = 256;

/// A client that resends. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Resending {
    pub(crate) client: Client,
    /// Opens a connection for each request.
    unpooled: Client,
    /// Our addresses of connections that have carried a response.
    proven: Arc<Mutex<VecDeque<SocketAddr>>>,
}

impl Resending {
    pub(crate) fn new(client: Client, unpooled: Client) -> Self {
        Self { client, unpooled, proven: Arc::default() }
    }

    pub(crate) async fn send(&self, request: RequestBuilder) -> reqwest::Result<Response> {
        let again = request.try_clone();
        let sent = Instant::now();
        let error = match request.send().await {
            Ok(response) => {
                self.remember(&response);
                return Ok(response);
            }
            Err(error) => error,
        };
        let had_died = sent.elapsed() < AT_ONCE
            && closed_connection(&error).is_some_and(|address| self.forget(address));
        match again {
            Some(again) if had_died => {
                tracing::info!("sending again: the connection had died");
                // Boxed, because it is large and rare.
                Box::pin(self.unpooled.execute(again.build()?)).await
            }
            _ => Err(error),
        }
    }

    fn remember(&self, response: &Response) {
        let Some(info) = response.extensions().get::<HttpInfo>() else { return };
        let address = info.local_addr();
        let mut proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        if proven.contains(&address) {
            return;
        }
        if proven.len() >= REMEMBERED {
            proven.pop_front();
        }
        proven.push_back(address);
    }

    /// Returns whether the connection had carried a response. It is gone now.
    fn forget(&self, address: SocketAddr) -> bool {
        let mut proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        let at = proven.iter().position(|known| *known == address);
        at.is_some_and(|at| proven.remove(at).is_some())
    }
}

/// Our address of the connection, if it was reset or closed.
fn closed_connection(error: &reqwest::Error) -> Option<SocketAddr> {
    let mut address = None;
    let mut was_closed = false;
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<legacy::Error>() {
            let mut extras = http::Extensions::new();
            error.connect_info()?.get_extras(&mut extras);
            address = extras.get::<HttpInfo>().map(HttpInfo::local_addr);
        }
        if let Some(error) = error.downcast_ref::<hyper::Error>() {
            was_closed |= error.is_incomplete_message() || error.is_closed() || error.is_canceled();
        }
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            was_closed |= matches!(
                error.kind(),
                ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe
            );
        }
        cause = error.source();
    }
    address.filter(|_| was_closed)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// What a connection does with each of its requests.
    #[derive(Debug, Clone, Copy)]
    enum Reply {
        Respond,
        Close,
        CloseLate,
    }

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

    async fn serve(mut stream: TcpStream, replies: &[Reply]) {
        let mut request = [0; 4096];
        for reply in replies {
            if stream.read(&mut request).await.unwrap_or(0) == 0 {
                return;
            }
            match reply {
                Reply::Respond => stream.write_all(OK).await.unwrap(),
                Reply::Close => return,
                Reply::CloseLate => {
                    tokio::time::sleep(AT_ONCE + Duration::from_millis(200)).await;
                    return;
                }
            }
        }
        // Stays open until the client closes it.
        let _ = stream.read(&mut request).await;
    }

    /// Sends two requests to a server whose connections behave like this; returns whether the second
    /// has a response, and the number of connections.
    async fn second(connections: &'static [&'static [Reply]]) -> (bool, usize) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let opened = Arc::new(Mutex::new(0));
        let counter = Arc::clone(&opened);
        edge::spawn(async move {
            for replies in connections {
                let (stream, _) = listener.accept().await.unwrap();
                *counter.lock().unwrap() += 1;
                edge::spawn(serve(stream, replies));
            }
        });
        let edge::HttpClients { pooled, unpooled } = edge::http_clients(AT_ONCE).unwrap();
        let client = Resending::new(pooled.clone(), unpooled);
        let send = || client.send(pooled.post(&url).body("call"));
        let first = send().await;
        if let Ok(first) = first {
            first.bytes().await.unwrap();
        }
        let second = send().await.is_ok();
        let opened = *opened.lock().unwrap();
        (second, opened)
    }

    #[tokio::test]
    async fn a_request_on_a_connection_that_had_died_is_sent_once_more() {
        use Reply::{Close, CloseLate, Respond};
        // The connection had carried a response, and dies at once.
        assert_eq!(second(&[&[Respond, Close], &[Respond]]).await, (true, 2));
        // The second one dies, too: there is no third.
        assert_eq!(second(&[&[Respond, Close], &[Close], &[Respond]]).await, (false, 2));
        // Too late: the call may have arrived.
        assert_eq!(second(&[&[Respond, CloseLate], &[Respond]]).await, (false, 1));
        // The connections never carried a response.
        assert_eq!(second(&[&[Close], &[Close], &[Respond]]).await, (false, 2));
    }
}
