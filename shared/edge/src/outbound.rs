//! The HTTP client for everything but AWS: OpenRouter, the default AI, Stripe and the token issuer.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

use crate::lambda::Error;

/// TCP keep-alive: the idle time before the first probe, and the time between probes.
/// Without probes the kernel takes up to a quarter of an hour to notice that a connection is dead,
/// and a dead connection looks like a slow response.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const KEEP_ALIVE_PROBES: u32 = 3;
/// Maximum time that sent data stays unacknowledged before the connection counts as dead.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// Idle connections kept per host. One holds about 20 kB, and more calls than this are rarely in
/// flight in one process.
const IDLE_CONNECTIONS: usize = 64;

/// Maximum number of response headers; hyper's default is 100.
const MAX_HEADERS: usize = 512;

/// Clients for an upstream whose calls may be resent on a fresh connection.
#[derive(Debug, Clone)]
pub struct HttpClients {
    pub pooled: Client,
    /// Opens a connection for each request.
    pub unpooled: Client,
}

/// Both trust the same roots, which are read once.
pub fn http_clients(connect: Duration) -> Result<HttpClients, Error> {
    let tls = tls()?;
    Ok(HttpClients {
        pooled: client(tls.clone(), connect, IDLE_CONNECTIONS)?,
        unpooled: client(tls, connect, 0)?,
    })
}

/// A client whose only time-out is for connecting, TLS included. It sends a request at most once
/// and only to the host it was given: no retries, redirects or proxies. It trusts Mozilla's roots
/// as of the build, because reading the system's costs milliseconds at every cold start.
pub fn http_client(connect: Duration) -> Result<Client, Error> {
    client(tls()?, connect, IDLE_CONNECTIONS)
}

fn tls() -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(TLS_SERVER_ROOT_CERTS.iter().cloned());
    Ok(ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn client(tls: ClientConfig, connect: Duration, idle_connections: usize) -> Result<Client, Error> {
    let client = Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .http1_max_headers(MAX_HEADERS)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .connect_timeout(connect)
        .pool_max_idle_per_host(idle_connections)
        .tcp_nodelay(true)
        .tcp_keepalive(KEEP_ALIVE)
        .tcp_keepalive_interval(KEEP_ALIVE)
        .tcp_keepalive_retries(KEEP_ALIVE_PROBES);
    #[cfg(target_os = "linux")]
    let client = client.tcp_user_timeout(UNACKNOWLEDGED);
    Ok(client.build()?)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::process::Command;

    use reqwest::Response;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::*;

    const TIME: Duration = Duration::from_secs(5);

    /// Accepts connections, reads a request from each, writes `response`, and returns how many
    /// connections there were.
    async fn server(response: &'static [u8]) -> (SocketAddr, JoinHandle<usize>) {
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
                stream.write_all(response).await.unwrap();
            }
            connections
        });
        (address, served)
    }

    async fn get(address: SocketAddr) -> reqwest::Result<Response> {
        let client = http_client(TIME).unwrap();
        client.get(format!("http://{address}/")).send().await
    }

    #[tokio::test]
    async fn a_request_without_a_connection_was_not_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let refused = get(address).await.unwrap_err();
        assert!(refused.is_connect(), "{refused:?}");
    }

    #[tokio::test]
    async fn a_request_whose_connection_breaks_may_have_arrived_and_is_sent_once() {
        let (address, served) = server(b"").await;
        let lost = get(address).await.unwrap_err();
        assert!(!lost.is_connect() && !lost.is_builder(), "{lost:?}");
        assert_eq!(served.await.unwrap(), 1);
    }

    #[tokio::test]
    async fn redirects_are_not_followed() {
        let (address, served) = server(
            b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /there\r\ncontent-length: 0\r\n\r\n",
        )
        .await;
        let response = get(address).await.unwrap();
        assert_eq!(response.status(), http::StatusCode::TEMPORARY_REDIRECT);
        assert_eq!(served.await.unwrap(), 1);
    }

    #[tokio::test]
    async fn connecting_ends_at_its_time_out() {
        // The backlog accepts connections, and no server speaks TLS on them.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = http_client(Duration::from_millis(50)).unwrap();
        let request = client.get(format!("https://{address}/")).send();
        let waited = tokio::time::timeout(TIME, request).await.unwrap();
        let error = waited.unwrap_err();
        assert!(error.is_connect(), "{error:?}");
    }

    /// Runs another test of this program in an environment with proxies that do not exist.
    #[test]
    fn proxies_in_the_environment_are_ignored() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "outbound::tests::redirects_are_not_followed"])
            .envs(
                ["http_proxy", "HTTP_PROXY", "ALL_PROXY"].map(|name| (name, "http://127.0.0.1:9")),
            )
            .envs(["no_proxy", "NO_PROXY"].map(|name| (name, "")))
            .output()
            .unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        assert!(output.contains("1 passed"), "{output}");
    }
}
