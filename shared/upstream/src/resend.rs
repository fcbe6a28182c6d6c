//! Resends a request once, on a fresh connection, if its pooled connection had died unnoticed, for
//! example while Lambda was frozen.
//!
//! This is safe only if the connection was dead before the request was sent: it had carried a
//! response before, and it is reset or closed within [`DEAD_CONNECTION_TIMEOUT`] without a byte of
//! a new response.

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

/// Maximum time for a dead connection to report its failure.
const DEAD_CONNECTION_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum number of connections remembered: more than the pool keeps.
const MAX_REMEMBERED: usize = 256;

/// A client that resends. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ResendingClient {
    pub(crate) client: Client,
    /// Opens a connection for each request.
    unpooled: Client,
    /// The local addresses of connections that have carried a response.
    used_addresses: Arc<Mutex<VecDeque<SocketAddr>>>,
}

impl ResendingClient {
    pub(crate) fn new(client: Client, unpooled: Client) -> Self {
        Self { client, unpooled, used_addresses: Arc::default() }
    }

    pub(crate) async fn send(&self, request: RequestBuilder) -> reqwest::Result<Response> {
        let copy = request.try_clone();
        let sent = Instant::now();
        let error = match request.send().await {
            Ok(response) => {
                self.remember(&response);
                return Ok(response);
            }
            Err(error) => error,
        };
        let had_died = sent.elapsed() < DEAD_CONNECTION_TIMEOUT
            && closed_connection(&error).is_some_and(|address| self.forget(address));
        match copy {
            Some(copy) if had_died => {
                tracing::info!("resending a request: its pooled connection had died");
                // Boxed, because it is large and rare.
                Box::pin(self.unpooled.execute(copy.build()?)).await
            }
            _ => Err(error),
        }
    }

    fn remember(&self, response: &Response) {
        let Some(info) = response.extensions().get::<HttpInfo>() else { return };
        let address = info.local_addr();
        let mut used_addresses = self.used_addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if used_addresses.contains(&address) {
            return;
        }
        if used_addresses.len() >= MAX_REMEMBERED {
            used_addresses.pop_front();
        }
        used_addresses.push_back(address);
    }

    /// Removes a closed connection. Returns whether it had carried a response.
    fn forget(&self, address: SocketAddr) -> bool {
        let mut used_addresses = self.used_addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let at = used_addresses.iter().position(|known| *known == address);
        at.is_some_and(|at| used_addresses.remove(at).is_some())
    }
}

/// The connection's local address, if it was reset or closed.
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
                    tokio::time::sleep(DEAD_CONNECTION_TIMEOUT + Duration::from_millis(200)).await;
                    return;
                }
            }
        }
        // Stays open until the client closes it.
        let _ = stream.read(&mut request).await;
    }

    /// Sends two requests to a server with these connections. Returns whether the second request
    /// got a response, and how many connections were opened.
    async fn send_two(connections: &'static [&'static [Reply]]) -> (bool, usize) {
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
        let edge::HttpClients { pooled, unpooled } =
            edge::http_clients(Duration::from_secs(1)).unwrap();
        let client = ResendingClient::new(pooled.clone(), unpooled);
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
    async fn a_request_on_a_dead_connection_is_resent_once() {
        use Reply::{Close, CloseLate, Respond};
        // The connection had carried a response, and closes without another.
        assert_eq!(send_two(&[&[Respond, Close], &[Respond]]).await, (true, 2));
        // The second one dies, too: there is no third.
        assert_eq!(send_two(&[&[Respond, Close], &[Close], &[Respond]]).await, (false, 2));
        // Too late: the call may have arrived.
        assert_eq!(send_two(&[&[Respond, CloseLate], &[Respond]]).await, (false, 1));
        // The connections never carried a response.
        assert_eq!(send_two(&[&[Close], &[Close], &[Respond]]).await, (false, 2));
    }
}
