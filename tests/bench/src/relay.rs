//! The baseline: a relay of hyper's server and client and nothing else, which passes bodies through
//! unchanged. Before relaying, two more baselines look an account up: one reads it as `ai-proxy`
//! does, the other sends the same request as plain HTTP.

use account::AccountId;
use bytes::Bytes;
use edge::Env;
use http::header::CONTENT_TYPE;
use http::uri::{Authority, Scheme};
use http::{StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::{Body, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use store::Store;

use crate::system::BYOK;
use crate::{Error, proxy};

/// The account lookup before a request is relayed.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "a process has one of them")]
pub(crate) enum First {
    Nothing,
    /// Reads the account.
    Read(Store, AccountId),
    /// Requests the account without a signature, and does not parse the item.
    Ask(Client<HttpConnector, Full<Bytes>>, Uri, Bytes),
}

impl First {
    pub(crate) async fn read() -> Result<Self, Error> {
        let deps = proxy::deps().await?;
        Ok(Self::Read(deps.api.store, AccountId::new(BYOK)?))
    }

    pub(crate) fn ask() -> Result<Self, Error> {
        let mut env = Env::process();
        let mut setting = |name| env.optional(name).ok_or(name);
        let uri = setting("AWS_ENDPOINT_URL_DYNAMODB")?.parse()?;
        let request = json!({
            "TableName": setting("ACCOUNTS_TABLE")?,
            "Key": {"account_id": {"S": BYOK}, "item": {"S": "account"}},
            "ConsistentRead": true,
        });
        Ok(Self::Ask(client(), uri, Bytes::from(request.to_string())))
    }

    async fn run_lookup(self) -> Result<(), Error> {
        match self {
            Self::Nothing => {}
            Self::Read(store, account) => {
                store.accounts.get(&account).await?.ok_or("no account")?;
            }
            Self::Ask(client, uri, body) => {
                let request = Request::post(uri)
                    .header(CONTENT_TYPE, "application/x-amz-json-1.0")
                    .header("x-amz-target", "DynamoDB_20120810.GetItem")
                    .header("x-amz-date", "20260101T000000Z")
                    .header("authorization", UNSIGNED);
                let answer = client.request(request.body(Full::new(body))?).await?;
                let status = answer.status();
                let body = answer.into_body().collect().await?.to_bytes();
                if status != StatusCode::OK || body.len() < 200 {
                    return Err(format!("no account, but {status}: {body:?}").into());
                }
            }
        }
        Ok(())
    }
}

/// In the format that the engine expects. The engine does not check the signature.
const UNSIGNED: &str = "AWS4-HMAC-SHA256 Credential=bench/20260101/eu-central-1/dynamodb/aws4_request, \
     SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature=0";

fn client<B: Body<Data: Send> + Send>() -> Client<HttpConnector, B> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).build(connector)
}

/// Relays requests on `port` to `upstream` (`host:port`).
pub(crate) async fn run(port: u16, upstream: &str, first: First) -> Result<(), Error> {
    let authority: Authority = upstream.parse()?;
    let client: Client<HttpConnector, Incoming> = client();
    crate::serve::serve(port, move |mut request: Request<Incoming>| {
        let (client, first) = (client.clone(), first.clone());
        let mut parts = request.uri().clone().into_parts();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(authority.clone());
        async move {
            *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
            first.run_lookup().await?;
            Ok::<_, Error>(client.request(request).await?)
        }
    })
    .await
}
