//! The floor: a relay of hyper's server and client and nothing else. Bodies pass through as they come. And the
//! floor of what looks an account up: the same relay, which first reads one.

use account::AccountId;
use http::Uri;
use http::uri::{Authority, Scheme};
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::system::BYOK;
use crate::{Error, proxy};

/// Relays what comes to `port` to `upstream` (`host:port`), after reading the account, if it is told to.
pub(crate) async fn run(port: u16, upstream: &str, reads: bool) -> Result<(), Error> {
    let reads = if reads {
        Some((proxy::deps()?.store, AccountId::new(BYOK)?))
    } else {
        None
    };
    let authority: Authority = upstream.parse()?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<HttpConnector, Incoming> =
        Client::builder(TokioExecutor::new()).build(connector);
    crate::serve::serve(port, move |mut request: Request<Incoming>| {
        let (client, reads) = (client.clone(), reads.clone());
        let mut parts = request.uri().clone().into_parts();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(authority.clone());
        async move {
            *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
            if let Some((store, account)) = reads {
                store.account(&account).await?.ok_or("no account")?;
            }
            Ok::<_, Error>(client.request(request).await?)
        }
    })
    .await
}
