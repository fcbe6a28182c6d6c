//! Reads of single items, as they are now.
//!
//! Every AI call reads one, and what the SDK does around a request takes several times what the request itself takes
//! (docs/performance.md, decision 26). So the SDK sends a first read and we look at how; the next ones are [`Direct`]: to the same
//! endpoint, over the same connections, with the same credentials, once. Whatever does not come back as an item is read
//! again by the SDK, with its retries, and so is everything until it has succeeded.
//!
//! Architecture invariant: nothing but a read is sent so. It does no harm where it is carried out twice, or where nobody
//! knows whether it was.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::auth::AuthSchemeId;
use aws_smithy_runtime_api::client::http::{
    HttpClient as _, HttpConnector as _, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::identity::{
    ResolveCachedIdentity as _, SharedIdentityResolver,
};
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextRef;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::{
    GetIdentityResolver as _, RuntimeComponents,
};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::error::display::DisplayErrorContext;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::region::SigningRegion;
use http::Uri;
use http_body_util::BodyExt as _;

use crate::item::Item;
use crate::signature::{CONTENT_TYPE, Signer};
use crate::{Store, StoreError, json};

const OPERATION: &str = "DynamoDB_20120810.GetItem";

impl Store {
    /// The item as it is now: one strongly consistent read.
    pub(crate) async fn read(
        &self,
        operation: &'static str,
        table: &str,
        key: Item,
    ) -> Result<Option<Item>, StoreError> {
        if let Some(direct) = self.reads.direct() {
            match direct.read(table, &key).await {
                Ok(item) => return Ok(item),
                Err(error) => {
                    let error = DisplayErrorContext(&*error);
                    tracing::info!(%error, "a read without the SDK failed; the SDK reads");
                    self.reads.set(None);
                }
            }
        }
        let look = Look::default();
        let read = self
            .client
            .get_item()
            .table_name(table)
            .set_key(Some(key))
            .consistent_read(true)
            .customize()
            .interceptor(look.clone());
        // Boxed: the SDK's future is large, and those that contain it are moved several times.
        let read = Box::pin(read.send()).await;
        let read = read.map_err(|error| StoreError::unavailable(operation, error))?;
        self.reads.set(look.seen());
        Ok(read.item)
    }
}

/// How items are read without the SDK, once that is known. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reads(Arc<RwLock<Option<Arc<Direct>>>>);

impl Reads {
    fn direct(&self) -> Option<Arc<Direct>> {
        let direct = self.0.read().unwrap_or_else(PoisonError::into_inner);
        direct.clone()
    }

    fn set(&self, direct: Option<Direct>) {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *current = direct.map(Arc::new);
    }
}

/// Looks at how the SDK sends a request.
#[derive(Debug, Clone, Default)]
struct Look(Arc<Mutex<Option<Direct>>>);

impl Look {
    fn seen(&self) -> Option<Direct> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Intercept for Look {
    fn name(&self) -> &'static str {
        "Look"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let direct = Direct::new(context.request().uri(), components, config);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = direct;
        Ok(())
    }
}

/// Sends reads as the SDK sent one.
struct Direct {
    uri: String,
    signer: Signer,
    connector: SharedHttpConnector,
    credentials: SharedIdentityResolver,
    components: RuntimeComponents,
    time_out: Option<Duration>,
}

impl fmt::Debug for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Direct")
            .field("uri", &self.uri)
            .finish_non_exhaustive()
    }
}

impl Direct {
    /// `None` where a request is sent in a way that is not ours.
    fn new(uri: &str, components: &RuntimeComponents, config: &ConfigBag) -> Option<Self> {
        let parsed: Uri = uri.parse().ok()?;
        let region = config.load::<SigningRegion>()?;
        let time_outs = config.load::<TimeoutConfig>();
        let http = components.http_client()?;
        Some(Self {
            uri: uri.to_owned(),
            signer: Signer::new(&parsed, region.as_ref())?,
            connector: http.http_connector(&HttpConnectorSettings::default(), components),
            credentials: components.identity_resolver(AuthSchemeId::new("sigv4"))?,
            components: components.clone(),
            time_out: time_outs.and_then(TimeoutConfig::operation_attempt_timeout),
        })
    }

    async fn read(&self, table: &str, key: &Item) -> Result<Option<Item>, BoxError> {
        let request = self.request(json::get_item(table, key)?).await?;
        let answered = async {
            let answer = self.connector.call(request).await?;
            let status = answer.status();
            let body = answer.into_body().collect().await?.to_bytes();
            if !status.is_success() {
                let status = status.as_u16();
                return Err(format!("DynamoDB answers {status}, {}", json::refusal(&body)).into());
            }
            Ok(json::item(&body)?)
        };
        match self.time_out {
            Some(time_out) => tokio::time::timeout(time_out, answered).await?,
            None => answered.await,
        }
    }

    async fn request(&self, body: Vec<u8>) -> Result<HttpRequest, BoxError> {
        let (cache, config) = (self.components.identity_cache(), ConfigBag::base());
        let resolver = self.credentials.clone();
        let identity = cache.resolve_cached_identity(resolver, &self.components, &config);
        let identity = identity.await?;
        let credentials = identity.data::<Credentials>().ok_or("no credentials")?;
        let now = self.components.time_source().ok_or("no clock")?.now();
        let signed = self.signer.sign(OPERATION, &body, credentials, now)?;
        let mut request = HttpRequest::new(SdkBody::from(body));
        request.set_method("POST")?;
        request.set_uri(self.uri.as_str())?;
        let headers = request.headers_mut();
        headers.insert("content-type", CONTENT_TYPE);
        headers.insert("x-amz-target", OPERATION);
        headers.insert("x-amz-date", signed.time);
        if let Some(token) = credentials.session_token() {
            headers.insert("x-amz-security-token", token.to_owned());
        }
        headers.insert("authorization", signed.authorization);
        Ok(request)
    }
}
