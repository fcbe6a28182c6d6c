//! Reads of single items, as they are now.
//!
//! Every AI call reads one, and what the SDK does around a request takes several times what the request itself takes
//! (docs/performance.md, decision 26). So the SDK sends a first read and we look at how; the next ones are [`Direct`]: to the same
//! endpoint, over the same connections, with the same credentials, once. Whatever does not come back as an item is read
//! again by the SDK, with its retries, and so is everything else for a while.
//!
//! Architecture invariant: nothing but a read is sent so. It does no harm where it is carried out twice, or where nobody
//! knows whether it was.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::auth::AuthSchemeId;
use aws_smithy_runtime_api::client::connection::CaptureSmithyConnection;
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
use tokio::time::Instant;

use crate::item::Item;
use crate::signature::{CONTENT_TYPE, Signer};
use crate::{Store, StoreError, json};

const OPERATION: &str = "DynamoDB_20120810.GetItem";
/// Where the SDK's own time for an attempt is not known.
const TIME_OUT: Duration = Duration::from_secs(3);
/// So long the SDK reads after a read without it failed: what lasts costs a request more each time, and not with each
/// read.
const PAUSE: Duration = Duration::from_secs(10);

impl Store {
    /// The item as it is now: one strongly consistent read.
    pub(crate) async fn read(
        &self,
        operation: &'static str,
        table: &str,
        key: Item,
    ) -> Result<Option<Item>, StoreError> {
        // Boxed, both ways: the futures are large, and those that contain them are moved several times.
        if let Some(direct) = self.reads.direct() {
            match Box::pin(direct.read(table, &key)).await {
                Ok(item) => return Ok(item),
                Err(error) => {
                    let error = DisplayErrorContext(&*error);
                    tracing::info!(%error, "a read without the SDK failed; the SDK reads");
                    self.reads.failed();
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
        let read = Box::pin(read.send()).await;
        let read = read.map_err(|error| StoreError::unavailable(operation, error))?;
        self.reads.succeeded(look.seen());
        Ok(read.item)
    }
}

/// How items are read. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reads(Arc<RwLock<How>>);

#[derive(Debug, Default)]
enum How {
    #[default]
    BySdk,
    Direct(Arc<Direct>),
    BySdkUntil(Instant),
}

impl Reads {
    fn direct(&self) -> Option<Arc<Direct>> {
        match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            How::Direct(direct) => Some(direct.clone()),
            How::BySdk | How::BySdkUntil(_) => None,
        }
    }

    /// A read without the SDK did.
    fn failed(&self) {
        let mut how = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *how = How::BySdkUntil(Instant::now() + PAUSE);
    }

    /// A read of the SDK's did, which was sent in this way.
    fn succeeded(&self, direct: Option<Direct>) {
        let mut how = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match *how {
            How::BySdkUntil(then) if Instant::now() < then => {}
            _ => *how = direct.map_or(How::BySdk, |direct| How::Direct(Arc::new(direct))),
        }
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
    time_out: Duration,
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
        let time_out = time_outs.and_then(TimeoutConfig::operation_attempt_timeout);
        let http = components.http_client()?;
        let mut without_interceptors = components.to_builder();
        without_interceptors.set_interceptors(std::iter::empty());
        Some(Self {
            uri: uri.to_owned(),
            signer: Signer::new(&parsed, region.as_ref())?,
            connector: http.http_connector(&HttpConnectorSettings::default(), components),
            credentials: components.identity_resolver(AuthSchemeId::new("sigv4"))?,
            // Among the interceptors is the one that has this.
            components: without_interceptors.build().ok()?,
            time_out: time_out.unwrap_or(TIME_OUT),
        })
    }

    async fn read(&self, table: &str, key: &Item) -> Result<Option<Item>, BoxError> {
        let body = json::get_item(table, key)?;
        tokio::time::timeout(self.time_out, self.send(body)).await?
    }

    async fn send(&self, body: Vec<u8>) -> Result<Option<Item>, BoxError> {
        let mut request = self.request(body).await?;
        let connection = CaptureSmithyConnection::new();
        request.add_extension(connection.clone());
        let answer = self.connector.call(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if status.is_success() {
            return json::item(&body).map_err(Into::into);
        }
        if status.is_server_error()
            && let Some(connection) = connection.get()
        {
            // Another one may lead to a host that works.
            connection.poison();
        }
        let reason = json::refusal(&body);
        Err(format!("DynamoDB answers {}, {reason}", status.as_u16()).into())
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
        headers.try_insert("content-type", CONTENT_TYPE)?;
        headers.try_insert("x-amz-target", OPERATION)?;
        headers.try_insert("x-amz-date", signed.time)?;
        if let Some(token) = credentials.session_token() {
            headers.try_insert("x-amz-security-token", token.to_owned())?;
        }
        headers.try_insert("authorization", signed.authorization)?;
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    use std::time::UNIX_EPOCH;

    use aws_credential_types::provider::error::CredentialsError;
    use aws_credential_types::provider::{ProvideCredentials, future};
    use aws_sdk_dynamodb::config::retry::RetryConfig;
    use aws_sdk_dynamodb::config::timeout::TimeoutConfig as TimeOuts;
    use aws_sdk_dynamodb::config::{BehaviorVersion, Region, SharedAsyncSleep};
    use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
    use aws_sigv4::sign::v4::SigningParams;
    use aws_smithy_async::rt::sleep::TokioSleep;
    use aws_smithy_runtime_api::client::http::{
        HttpConnector, HttpConnectorFuture, http_client_fn,
    };
    use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
    use jiff::fmt::strtime;
    use jiff::tz::TimeZone;

    use super::*;
    use crate::Tables;
    use crate::item::key;

    /// DynamoDB, and who gives the credentials for it: new ones each time, because they are over at once.
    #[derive(Debug, Clone)]
    struct Aws(Arc<State>);

    #[derive(Debug)]
    struct State {
        asked: Mutex<Vec<HttpRequest>>,
        /// The status that the next requests are answered with.
        status: AtomicU32,
        credentials: AtomicU32,
        gives_credentials: Mutex<bool>,
    }

    impl HttpConnector for Aws {
        fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
            self.0.asked.lock().unwrap().push(request);
            let status = u16::try_from(self.0.status.load(Relaxed)).unwrap();
            let answer = if status == 200 {
                r#"{"Item":{"n":{"N":"1"}}}"#
            } else {
                r#"{"__type":"com.amazonaws.dynamodb#InternalServerError"}"#
            };
            let mut response = http::Response::new(SdkBody::from(answer));
            *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
            HttpConnectorFuture::ready(Ok(HttpResponse::try_from(response).unwrap()))
        }
    }

    impl ProvideCredentials for Aws {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            if !*self.0.gives_credentials.lock().unwrap() {
                return future::ProvideCredentials::new(std::future::pending::<
                    Result<Credentials, CredentialsError>,
                >());
            }
            let number = self.0.credentials.fetch_add(1, Relaxed);
            future::ProvideCredentials::ready(Ok(credentials(number)))
        }
    }

    fn credentials(number: u32) -> Credentials {
        let (key, secret) = (format!("AKIA{number}"), format!("secret-{number}"));
        let token = Some(format!("token/{number}=="));
        Credentials::new(key, secret, token, Some(UNIX_EPOCH), "test")
    }

    impl Aws {
        fn new() -> Self {
            Self(Arc::new(State {
                asked: Mutex::default(),
                status: AtomicU32::new(200),
                credentials: AtomicU32::new(0),
                gives_credentials: Mutex::new(true),
            }))
        }

        fn store(&self) -> Store {
            let aws = self.clone();
            let config = aws_sdk_dynamodb::Config::builder()
                .behavior_version(BehaviorVersion::v2026_01_12())
                .region(Region::new("eu-central-1"))
                .credentials_provider(self.clone())
                .http_client(http_client_fn(move |_, _| {
                    SharedHttpConnector::new(aws.clone())
                }))
                .sleep_impl(SharedAsyncSleep::new(TokioSleep::new()))
                .retry_config(RetryConfig::disabled())
                .timeout_config(
                    TimeOuts::builder()
                        .operation_attempt_timeout(TIME_OUT)
                        .build(),
                );
            let client = aws_sdk_dynamodb::Client::from_conf(config.build());
            Store::new(client, Tables::from_settings(str::to_owned))
        }

        /// Whether each request since the last time was the SDK's.
        fn asked_by_sdk(&self) -> Vec<bool> {
            let asked = std::mem::take(&mut *self.0.asked.lock().unwrap());
            let by_sdk = |request: &HttpRequest| request.headers().contains_key("amz-sdk-request");
            asked.iter().map(by_sdk).collect()
        }
    }

    async fn read(store: &Store) -> Result<Option<Item>, StoreError> {
        let key = key([("account_id", "acme"), ("item", "account")]);
        store.read("read", "accounts", key).await
    }

    /// What AWS's own signer makes of a request that is sent.
    fn signed_by_aws(request: &HttpRequest, credentials: Credentials) -> String {
        let header = |name| request.headers().get(name).unwrap();
        let at = strtime::parse("%Y%m%dT%H%M%SZ", header("x-amz-date")).unwrap();
        let at = at.to_datetime().unwrap().to_zoned(TimeZone::UTC).unwrap();
        let identity = credentials.into();
        let params = SigningParams::builder()
            .identity(&identity)
            .region("eu-central-1")
            .name("dynamodb")
            .time(at.timestamp().into())
            .settings(SigningSettings::default())
            .build()
            .unwrap()
            .into();
        let kept = ["content-type", "x-amz-target"].map(|name| (name, header(name)));
        let body = SignableBody::Bytes(request.body().bytes().unwrap());
        let request =
            SignableRequest::new(request.method(), request.uri(), kept.into_iter(), body).unwrap();
        let (signed, _) = sign(request, &params).unwrap().into_parts();
        let (headers, _) = signed.into_parts();
        let authorization = headers
            .iter()
            .find(|header| header.name() == "authorization");
        authorization.unwrap().value().to_owned()
    }

    #[tokio::test]
    async fn what_is_sent_is_signed_with_the_credentials_of_now() {
        let aws = Aws::new();
        let store = aws.store();
        for _ in 0..3 {
            assert!(read(&store).await.unwrap().is_some());
        }
        let asked = std::mem::take(&mut *aws.0.asked.lock().unwrap());
        assert_eq!(asked.len(), 3);
        for (number, request) in (0..).zip(asked).skip(1) {
            let header = |name| request.headers().get(name);
            assert_eq!(header("amz-sdk-request"), None);
            assert_eq!(
                request.uri(),
                "https://dynamodb.eu-central-1.amazonaws.com/"
            );
            let credentials = credentials(number);
            assert_eq!(header("x-amz-security-token"), credentials.session_token());
            let theirs = signed_by_aws(&request, credentials);
            assert_eq!(header("authorization"), Some(theirs.as_str()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_failure_the_sdk_reads_for_a_while() {
        let aws = Aws::new();
        let store = aws.store();
        read(&store).await.unwrap();
        read(&store).await.unwrap();
        assert_eq!(aws.asked_by_sdk(), [true, false]);
        aws.0.status.store(500, Relaxed);
        for _ in 0..3 {
            read(&store).await.unwrap_err();
        }
        assert_eq!(aws.asked_by_sdk(), [false, true, true, true]);
        aws.0.status.store(200, Relaxed);
        read(&store).await.unwrap();
        tokio::time::advance(Duration::from_millis(9_999)).await;
        read(&store).await.unwrap();
        assert_eq!(aws.asked_by_sdk(), [true, true]);
        tokio::time::advance(Duration::from_millis(1)).await;
        read(&store).await.unwrap();
        read(&store).await.unwrap();
        assert_eq!(aws.asked_by_sdk(), [true, false]);
    }

    #[tokio::test]
    async fn a_read_leaves_nothing_behind() {
        let aws = Aws::new();
        let store = aws.store();
        read(&store).await.unwrap();
        // One of them is that of how items are read.
        let clones = Arc::strong_count(&aws.0);
        aws.0.status.store(500, Relaxed);
        for _ in 0..10 {
            read(&store).await.unwrap_err();
        }
        assert!(Arc::strong_count(&aws.0) <= clones);
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_that_do_not_come_take_no_longer_than_an_attempt() {
        let aws = Aws::new();
        let store = aws.store();
        read(&store).await.unwrap();
        *aws.0.gives_credentials.lock().unwrap() = false;
        let began = Instant::now();
        read(&store).await.unwrap_err();
        assert_eq!(began.elapsed(), 2 * TIME_OUT, "without the SDK, and by it");
    }
}
