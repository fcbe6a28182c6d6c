//! Reads of single items, as they are now.
//!
//! Every AI call reads one, and the SDK's way of sending a request costs several times what carrying it costs
//! (docs/performance.md). So the SDK sends the first read, and tells how; those that follow are sent the same way by
//! ourselves: same endpoint, credentials and connections, one attempt. Whatever is not answered as expected is the
//! SDK's again, with its retries, and so is every read until one of them has succeeded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use aws_smithy_types::body::SdkBody;
use aws_credential_types::Credentials;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::auth::AuthSchemeId;
use aws_smithy_runtime_api::client::http::{
    HttpClient as _, HttpConnector as _, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::identity::{ResolveCachedIdentity as _, SharedIdentityResolver};
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextRef;
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::{
    GetIdentityResolver as _, RuntimeComponents,
};
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::region::SigningRegion;
use http::Uri;
use http_body_util::BodyExt as _;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::item::Item;
use crate::signature::{CONTENT_TYPE, Signer, Unsigned};
use crate::{Store, StoreError};

const TARGET: &str = "DynamoDB_20120810.GetItem";
const SIGV4: AuthSchemeId = AuthSchemeId::new("sigv4");

impl Store {
    /// The item as it is now: one strongly consistent read.
    pub(crate) async fn read(
        &self,
        operation: &'static str,
        table: &str,
        key: Item,
    ) -> Result<Option<Item>, StoreError> {
        if let Some(way) = self.reads.known() {
            match way.read(table, &key).await {
                Ok(item) => return Ok(item),
                Err(error) => {
                    tracing::debug!(error, "a read is left to the SDK");
                    self.reads.learn(None);
                }
            }
        }
        let told = Told::default();
        let read = self
            .client
            .get_item()
            .table_name(table)
            .set_key(Some(key))
            .consistent_read(true)
            .customize()
            .interceptor(told.clone());
        // Boxed: the SDK's future is large, and those that contain it are moved several times.
        let read = Box::pin(read.send()).await;
        let read = read.map_err(|error| StoreError::unavailable(operation, error))?;
        self.reads.learn(told.take());
        Ok(read.item)
    }
}

/// How reads are sent, as soon as one has succeeded. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reads(Arc<RwLock<Option<Arc<Way>>>>);

impl Reads {
    fn known(&self) -> Option<Arc<Way>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn learn(&self, way: Option<Way>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = way.map(Arc::new);
    }
}

/// How the SDK sends a request to DynamoDB.
#[derive(Debug)]
struct Way {
    uri: String,
    host: String,
    region: SigningRegion,
    signer: Signer,
    connector: SharedHttpConnector,
    identities: SharedIdentityResolver,
    components: RuntimeComponents,
    time_out: Option<Duration>,
}

/// Hears how a request is sent.
#[derive(Debug, Clone, Default)]
struct Told(Arc<Mutex<Option<Way>>>);

impl Told {
    fn take(&self) -> Option<Way> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[dyn_dispatch_hint]
impl Intercept for Told {
    fn name(&self) -> &'static str {
        "Told"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        components: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let time_outs = cfg.load::<TimeoutConfig>();
        let way = || {
            let connector = components.http_client()?;
            let uri: Uri = context.request().uri().parse().ok()?;
            // The signature is that of this path.
            let host = (uri.path() == "/").then(|| uri.authority())??;
            Some(Way {
                uri: uri.to_string(),
                host: host.to_string(),
                signer: Signer::default(),
                region: cfg.load::<SigningRegion>()?.clone(),
                connector: connector
                    .http_connector(&HttpConnectorSettings::default(), components),
                identities: components.identity_resolver(SIGV4)?,
                components: components.clone(),
                time_out: time_outs.and_then(TimeoutConfig::operation_attempt_timeout),
            })
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = way();
        Ok(())
    }
}

impl Way {
    async fn read(&self, table: &str, key: &Item) -> Result<Option<Item>, BoxError> {
        let request = self.request(table, key).await?;
        let answered = async {
            let answer = self.connector.call(request).await?;
            let status = answer.status();
            let body = answer.into_body().collect().await?.to_bytes();
            if !status.is_success() {
                return Err(format!("DynamoDB answered {}", status.as_u16()).into());
            }
            let read: Read = serde_json::from_slice(&body)?;
            Ok(read.item.map(|Attributes(item)| item))
        };
        match self.time_out {
            Some(time_out) => tokio::time::timeout(time_out, answered).await?,
            None => answered.await,
        }
    }

    async fn request(&self, table: &str, key: &Item) -> Result<HttpRequest, BoxError> {
        let key = key.iter().map(|(name, value)| {
            let value = value.as_s().map_err(|_| "the key is no text")?;
            Ok((name.as_str(), Text { value }))
        });
        let body = serde_json::to_vec(&GetItem {
            table_name: table,
            key: key.collect::<Result<_, BoxError>>()?,
            consistent_read: true,
        })?;
        let cfg = ConfigBag::base();
        let identities = self.identities.clone();
        let cache = self.components.identity_cache();
        let identity = cache.resolve_cached_identity(identities, &self.components, &cfg);
        let identity = identity.await?;
        let credentials = identity.data::<Credentials>().ok_or("no credentials")?;
        let unsigned = Unsigned {
            host: &self.host,
            region: self.region.as_ref(),
            target: TARGET,
            body: &body,
            at: self.components.time_source().ok_or("no clock")?.now(),
        };
        let signed = self.signer.sign(unsigned, credentials).ok_or("no time")?;
        let mut request = HttpRequest::new(SdkBody::from(body));
        request.set_method("POST")?;
        request.set_uri(self.uri.as_str())?;
        let headers = request.headers_mut();
        headers.insert("content-type", CONTENT_TYPE);
        headers.insert("x-amz-target", TARGET);
        headers.insert("x-amz-date", signed.date);
        if let Some(token) = credentials.session_token() {
            headers.insert("x-amz-security-token", token.to_owned());
        }
        headers.insert("authorization", signed.authorization);
        Ok(request)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct GetItem<'a> {
    table_name: &'a str,
    key: HashMap<&'a str, Text<'a>>,
    consistent_read: bool,
}

#[derive(Serialize)]
struct Text<'a> {
    #[serde(rename = "S")]
    value: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Read {
    item: Option<Attributes>,
}

struct Attributes(Item);

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Attributes;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("attributes by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Attributes, A::Error> {
                let mut item = Item::with_capacity(16);
                while let Some((name, value)) = map.next_entry::<_, Attribute>()? {
                    item.insert(name, value.into());
                }
                Ok(Attributes(item))
            }
        }
        deserializer.deserialize_map(Map)
    }
}

/// DynamoDB's own notation.
#[derive(Deserialize)]
enum Attribute {
    S(String),
    N(String),
    #[serde(rename = "BOOL")]
    Bool(bool),
    #[serde(rename = "NULL")]
    Null(bool),
    L(Vec<Attribute>),
    M(Attributes),
}

impl From<Attribute> for AttributeValue {
    fn from(attribute: Attribute) -> Self {
        match attribute {
            Attribute::S(text) => Self::S(text),
            Attribute::N(number) => Self::N(number),
            Attribute::Bool(value) => Self::Bool(value),
            Attribute::Null(value) => Self::Null(value),
            Attribute::L(list) => Self::L(list.into_iter().map(Self::from).collect()),
            Attribute::M(Attributes(map)) => Self::M(map),
        }
    }
}
