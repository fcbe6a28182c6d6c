//! The floor: a relay of hyper's server and client and nothing else. Bodies pass through as they come.

use http::Uri;
use http::uri::{Authority, Scheme};
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::Error;

/// Relays what comes to `port` to `upstream` (`host:port`).
pub(crate) async fn run(port: u16, upstream: &str) -> Result<(), Error> {
    let authority: Authority = upstream.parse()?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<HttpConnector, Incoming> =
        Client::builder(TokioExecutor::new()).build(connector);
    crate::serve::serve(port, move |mut request: Request<Incoming>| {
        let client = client.clone();
        let mut parts = request.uri().clone().into_parts();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(authority.clone());
        async move {
            *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
            client.request(request).await
        }
    })
    .await
}
