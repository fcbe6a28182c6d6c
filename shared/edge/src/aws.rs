//! The configuration that all AWS clients share, and how their requests go out.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::identity::IdentityCache;
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_smithy_async::rt::sleep::{SharedAsyncSleep, TokioSleep};
use aws_smithy_async::time::{SharedTimeSource, SystemTimeSource};
use aws_smithy_runtime_api::client::connection::{CaptureSmithyConnection, ConnectionMetadata};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use aws_types::sdk_config::SharedCredentialsProvider;
use aws_types::service_config::{LoadServiceConfig, ServiceConfigKey};
use http::Request;
use http_body_util::BodyExt as _;
use http_client::{HttpClient as Http, TlsError};
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};

use crate::settings::Env;

const CONNECT_TIME: Duration = Duration::from_secs(1);
/// Of each attempt, all that follows the connecting included.
const ATTEMPT_TIME: Duration = Duration::from_secs(3);
const ATTEMPTS: u32 = 3;

/// What a function's clients of AWS work with: region, credentials and endpoints (`AWS_ENDPOINT_URL*`) from the
/// environment, where Lambda puts them, or the credentials from the container's endpoint. No file is read, and
/// nothing is asked of the network before a credential is needed.
///
/// Time-outs are short enough to answer the caller within a request: 1 s to connect, 3 s for each of three attempts.
///
/// # Errors
/// [`TlsError`]: not on a machine that can run a function.
pub fn aws_config() -> Result<SdkConfig, TlsError> {
    let http = aws_http()?;
    let sleep = SharedAsyncSleep::new(TokioSleep::new());
    let time = SharedTimeSource::new(SystemTimeSource::new());
    let container = ProviderConfig::without_region()
        .with_http_client(http.clone())
        .with_sleep_impl(sleep.clone())
        .with_time_source(time.clone());
    let container = EcsCredentialsProvider::builder().configure(&container);
    let credentials = CredentialsProviderChain::first_try(
        "Environment",
        EnvironmentVariableCredentialsProvider::new(),
    )
    .or_else("Container", container.build());
    let mut env = Env::process();
    let region = env.optional("AWS_REGION").map(Region::new);
    Ok(SdkConfig::builder()
        .behavior_version(behavior())
        .http_client(http)
        .sleep_impl(sleep)
        .time_source(time)
        .identity_cache(IdentityCache::lazy().build())
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .region(region)
        .service_config(Endpoints(env.beginning_with(ENDPOINT_URL)))
        .timeout_config(time_outs())
        .retry_config(retries())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .build())
}

/// The same for a program that is not a function: profiles, and whatever else the SDK knows, count too; region and
/// credentials may still be given.
///
/// # Errors
/// [`TlsError`]: not on a machine that can run a function.
pub fn aws_config_loader() -> Result<ConfigLoader, TlsError> {
    Ok(aws_config::defaults(behavior())
        .http_client(aws_http()?)
        .timeout_config(time_outs())
        .retry_config(retries())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled()))
}

fn behavior() -> BehaviorVersion {
    BehaviorVersion::v2026_01_12()
}

/// Of an attempt only: each time-out of the SDK's is a timer more for every request.
fn time_outs() -> TimeoutConfig {
    TimeoutConfig::builder()
        .operation_attempt_timeout(ATTEMPT_TIME)
        .build()
}

fn retries() -> RetryConfig {
    RetryConfig::standard().with_max_attempts(ATTEMPTS)
}

/// `AWS_ENDPOINT_URL_DYNAMODB` and its like, before `AWS_ENDPOINT_URL`.
#[derive(Debug)]
struct Endpoints(BTreeMap<String, String>);

const ENDPOINT_URL: &str = "AWS_ENDPOINT_URL";

impl LoadServiceConfig for Endpoints {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        if key.env() != ENDPOINT_URL {
            return None;
        }
        let service = key.service_id().to_uppercase().replace(' ', "_");
        let of_service = self.0.get(&format!("{ENDPOINT_URL}_{service}"));
        of_service.or_else(|| self.0.get(ENDPOINT_URL)).cloned()
    }
}

/// The SDK's HTTP client over [`aws_connector`].
///
/// # Errors
/// [`TlsError`].
pub fn aws_http() -> Result<SharedHttpClient, TlsError> {
    let connector = aws_connector()?;
    Ok(http_client_fn(move |_, _| connector.clone()))
}

/// What carries requests to AWS: our own HTTP client, so that there is one HTTP and one TLS stack.
///
/// # Errors
/// [`TlsError`].
pub fn aws_connector() -> Result<SharedHttpConnector, TlsError> {
    Ok(SharedHttpConnector::new(Carrier(Http::new(CONNECT_TIME)?)))
}

#[derive(Debug)]
struct Carrier(Http);

impl HttpConnector for Carrier {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let http = self.0.clone();
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http1x();
            let request = request.map_err(|error| ConnectorError::user(error.into()))?;
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_err(ConnectorError::user)?;
            let mut request = Request::from_parts(parts, body.to_bytes());
            let captured = capture_connection(&mut request);
            if let Some(asked) = request.extensions().get::<CaptureSmithyConnection>() {
                asked.set_connection_retriever(move || connection(&captured));
            }
            // Whether or not it has arrived, the SDK may send it again, as it does what AWS failed at.
            let answer = http.send(request).await;
            let answer = answer.map_err(|error| ConnectorError::io(error.into()))?;
            HttpResponse::try_from(answer.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// The connection of a request, for the SDK: it has those closed on which AWS fails in passing, so that its next attempt
/// may come to another host.
fn connection(captured: &CaptureConnection) -> Option<ConnectionMetadata> {
    captured.connection_metadata().as_ref()?;
    let captured = captured.clone();
    let close = move || {
        if let Some(connection) = captured.connection_metadata().as_ref() {
            connection.poison();
        }
    };
    let metadata = ConnectionMetadata::builder().proxied(false);
    Some(metadata.poison_fn(close).build())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::SocketAddr;

    use axum::Router;
    use axum::extract::ConnectInfo;
    use tokio::net::TcpListener;

    use super::*;

    /// Answers every request; the header tells from which port it came.
    async fn aws() -> SocketAddr {
        let answer =
            async |ConnectInfo(from): ConnectInfo<SocketAddr>| [("from", from.port().to_string())];
        let router = Router::new().fallback(answer);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        #[expect(clippy::disallowed_methods, reason = "nothing is logged here")]
        tokio::spawn(async { axum::serve(listener, service).await });
        address
    }

    /// As the SDK's own interceptor does it.
    #[tokio::test]
    async fn a_connection_is_used_again_unless_the_sdk_marks_it() {
        let aws = aws().await;
        let connector = aws_connector().unwrap();
        let ask = async |marked: bool| {
            let request = Request::post(format!("http://{aws}/")).body(SdkBody::from("{}"));
            let mut request = HttpRequest::try_from(request.unwrap()).unwrap();
            let capture = CaptureSmithyConnection::new();
            request.add_extension(capture.clone());
            let mut answer = connector.call(request).await.unwrap();
            if marked {
                capture.get().unwrap().poison();
            }
            // To its end: a connection that still carries an answer is not used for another one.
            answer.take_body().collect().await.unwrap();
            answer.headers().get("from").unwrap().to_owned()
        };
        let mut connections = BTreeSet::new();
        for (marked, until_now) in [(false, 1), (false, 1), (true, 1), (false, 2), (true, 2)] {
            connections.insert(ask(marked).await);
            assert_eq!(connections.len(), until_now);
        }
    }
}
