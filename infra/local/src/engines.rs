//! DynamoDB and Secrets Manager inside this process. They speak AWS's own wire protocol on
//! loopback, so that the product talks to them through the real SDK.
//!
//! Invariant: nothing here takes the place of the product's own code. Faults are injected on the
//! wire.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::SharedHttpConnector;
use aws_types::service_config::{LoadServiceConfig, ServiceConfigKey};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use winterbaume_core::{
    MockRequest, MockResponse, MockService, StatefulService, default_account_id,
};
use winterbaume_secretsmanager::SecretsManagerService;

use crate::serve::Server;

pub mod dynamodb;

pub const REGION: &str = "us-east-1";

/// Passes the settings that begin with `AWS_ENDPOINT_URL` to the SDK, as a deployed function's
/// environment does.
#[derive(Debug)]
struct Endpoints(BTreeMap<String, String>);

impl LoadServiceConfig for Endpoints {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        let service = key.service_id().to_uppercase().replace(' ', "_");
        self.0.get(&format!("{}_{service}", key.env())).cloned()
    }
}

/// The configuration of clients of the embedded services, whose endpoints are in `settings`.
pub fn aws_config(settings: &BTreeMap<String, String>) -> SdkConfig {
    let credentials = Credentials::new("local", "local", None, None, "local");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .http_client(Builder::new().build_http())
        .region(Region::from_static(REGION))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .service_config(Endpoints(settings.clone()))
        .build()
}

/// Has an emulated AWS service handle a request.
pub(crate) async fn handle(
    service: &impl MockService,
    headers: HeaderMap,
    body: Bytes,
) -> MockResponse {
    let request = MockRequest {
        method: "POST".to_owned(),
        uri: format!("https://{}.{REGION}.amazonaws.com/", service.service_name()),
        headers,
        body,
    };
    service.handle(request).await
}

pub(crate) fn into_response(emulated: MockResponse) -> Response {
    let mut response = Response::new(Body::from(emulated.body));
    *response.status_mut() = StatusCode::from_u16(emulated.status).expect("a valid status");
    *response.headers_mut() = emulated.headers;
    response
}

/// Engines that run until stopped or dropped. Their data is lost then.
pub struct Engines {
    /// DynamoDB's endpoint: `http://127.0.0.1:PORT`.
    pub dynamodb_url: String,
    /// Secrets Manager's endpoint: `http://127.0.0.1:PORT`.
    pub secrets_url: String,
    database: dynoxide::Database,
    secrets: Arc<Secrets>,
    secrets_server: Server,
    dynamodb_server: Server,
}

/// A connector to the engines, which speak plain HTTP, for tests that look at requests or disturb
/// them.
pub fn connector() -> SharedHttpConnector {
    SharedHttpConnector::new(Connector::builder().build_http())
}

impl Engines {
    /// Starts both engines, without any table or secret.
    pub async fn start() -> io::Result<Self> {
        let database = dynoxide::Database::memory().map_err(io::Error::other)?;
        let dynamodb_server = Server::start(dynamodb::router(database.clone())).await?;
        let secrets = Arc::new(Secrets::default());
        let router = Router::new().route("/", post(respond)).with_state(Arc::clone(&secrets));
        let secrets_server = Server::start(router).await?;
        Ok(Self {
            dynamodb_url: dynamodb_server.url(),
            secrets_url: secrets_server.url(),
            database,
            secrets,
            secrets_server,
            dynamodb_server,
        })
    }

    /// The DynamoDB engine itself, without a connection.
    pub fn database(&self) -> &dynoxide::Database {
        &self.database
    }

    /// The settings with which clients find the engines.
    pub fn settings(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("AWS_ENDPOINT_URL_DYNAMODB".to_owned(), self.dynamodb_url.clone()),
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER".to_owned(), self.secrets_url.clone()),
        ])
    }

    pub fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        aws_sdk_dynamodb::Client::new(&aws_config(&self.settings()))
    }

    pub fn secrets(&self) -> aws_sdk_secretsmanager::Client {
        aws_sdk_secretsmanager::Client::new(&aws_config(&self.settings()))
    }

    pub async fn secret_names(&self) -> Vec<String> {
        let view = self.secrets.engine.snapshot(default_account_id(), REGION);
        let mut names: Vec<_> = view.await.secrets.into_keys().collect();
        names.sort_unstable();
        names
    }

    /// The operations of all requests to Secrets Manager, retries included, in order, for example
    /// `GetSecretValue`.
    pub fn secret_operations(&self) -> Vec<String> {
        self.secrets.wire.lock().unwrap().operations.clone()
    }

    /// From now on, `operation` (for example `CreateSecret`; `None`: every operation) of Secrets
    /// Manager meets `fault`. A later fault for the same operation replaces this one.
    pub fn fail_secrets(&self, operation: Option<&str>, fault: SecretsFault) {
        let operation = operation.map(str::to_owned);
        self.secrets.wire.lock().unwrap().faults.insert(operation, fault);
    }

    pub fn heal_secrets(&self) {
        self.secrets.wire.lock().unwrap().faults.clear();
    }

    /// Stops both engines, and returns once their ports are closed.
    pub async fn stop(self) {
        self.dynamodb_server.stop().await;
        self.secrets_server.stop().await;
    }
}

/// A fault that requests to Secrets Manager meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretsFault {
    /// 500 `InternalServiceError`; nothing is done.
    Internal,
    /// 400 `AccessDeniedException`; nothing is done.
    AccessDenied,
    /// The request is carried out, but the response is 500 `InternalServiceError`.
    ResponseLost,
}

#[derive(Default)]
struct Secrets {
    engine: SecretsManagerService,
    wire: Mutex<Wire>,
}

/// The requests, and the faults that they meet.
#[derive(Default)]
struct Wire {
    operations: Vec<String>,
    faults: HashMap<Option<String>, SecretsFault>,
    /// Responses to `CreateSecret` by request body, which contains the client's token: AWS repeats
    /// its response to a repeated request, but the engine refuses the repeat.
    created: HashMap<Bytes, Bytes>,
}

impl Wire {
    fn fault(&self, operation: &str) -> Option<SecretsFault> {
        let specific = self.faults.get(&Some(operation.to_owned()));
        specific.or_else(|| self.faults.get(&None)).copied()
    }
}

impl Secrets {
    async fn run(&self, operation: &str, headers: HeaderMap, body: Bytes) -> MockResponse {
        let response = handle(&self.engine, headers, body.clone()).await;
        if operation != "CreateSecret" {
            return response;
        }
        let mut wire = self.wire.lock().unwrap();
        if response.status == 200 {
            wire.created.insert(body, response.body.clone());
        } else if is_error(&response, "ResourceExistsException")
            && let Some(first) = wire.created.get(&body)
        {
            return MockResponse::json(200, first.clone());
        }
        response
    }
}

fn is_error(response: &MockResponse, code: &str) -> bool {
    let body = serde_json::from_slice::<Value>(&response.body);
    body.is_ok_and(|body| body["__type"] == code)
}

async fn respond(State(secrets): State<Arc<Secrets>>, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers.get("x-amz-target");
    let target = target.and_then(|target| target.to_str().ok());
    let operation = target.and_then(|target| target.rsplit('.').next());
    let operation = operation.unwrap_or_default().to_owned();
    let fault = {
        let mut wire = secrets.wire.lock().unwrap();
        wire.operations.push(operation.clone());
        wire.fault(&operation)
    };
    let (status, code) = match fault {
        None => return into_response(secrets.run(&operation, headers, body).await),
        Some(SecretsFault::Internal) => (500, "InternalServiceError"),
        Some(SecretsFault::AccessDenied) => (400, "AccessDeniedException"),
        Some(SecretsFault::ResponseLost) => {
            secrets.run(&operation, headers, body).await;
            (500, "InternalServiceError")
        }
    };
    let body = json!({"__type": code, "message": "injected fault"});
    into_response(MockResponse::json(status, body.to_string()))
}

#[cfg(test)]
mod tests;
