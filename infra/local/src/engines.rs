//! DynamoDB and Secrets Manager inside this process, speaking AWS's own wire protocol on loopback,
//! so that the product talks to them through the real SDK.
//!
//! Invariant: nothing here stands in for the product's own code. Faults are made at the wire.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::{SharedHttpClient, SharedHttpConnector};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::post;
use bytes::Bytes;
use dynoxide::actions::transact_write_items::TransactWriteItemsRequest;
use http::{HeaderMap, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use winterbaume_core::{
    MockRequest, MockResponse, MockService, StatefulService, default_account_id,
};
use winterbaume_secretsmanager::SecretsManagerService;

use crate::serve::{self, Server};

/// The region that everything here is in.
pub const REGION: &str = "us-east-1";

/// Why the engines did not start.
#[derive(Debug, thiserror::Error)]
pub enum EnginesError {
    #[error("no port could be opened on 127.0.0.1")]
    Listen(#[from] io::Error),
    #[error("the DynamoDB engine did not start")]
    Database(#[source] dynoxide::DynoxideError),
}

/// The engines, until stopped or dropped. Their data goes with them.
#[derive(Debug)]
pub struct Engines {
    /// Where DynamoDB is: `http://127.0.0.1:PORT`.
    pub dynamodb_url: String,
    /// Where Secrets Manager is: `http://127.0.0.1:PORT`.
    pub secrets_url: String,
    direct: Direct,
    secrets: Arc<Secrets>,
    secrets_server: Server,
    /// What carries the requests of their clients.
    http: SharedHttpClient,
    dynamodb_stop: oneshot::Sender<()>,
    dynamodb_task: JoinHandle<()>,
}

/// A connector to the engines, which speak plain HTTP, for tests that look at requests or disturb
/// them.
pub fn connector() -> SharedHttpConnector {
    SharedHttpConnector::new(Connector::builder().build_http())
}

impl Engines {
    /// Starts both, empty: no table, no secret.
    ///
    /// # Errors
    /// [`EnginesError`] where ports or memory cannot be had.
    pub async fn start() -> Result<Self, EnginesError> {
        let database = dynoxide::Database::memory().map_err(EnginesError::Database)?;
        let direct = Direct(database.clone());
        let listener = serve::listener().await?;
        let dynamodb_url = format!("http://{}", listener.local_addr()?);
        let (dynamodb_stop, stopped) = oneshot::channel::<()>();
        let dynamodb_task = serve::spawn(async move {
            // The sender is only ever dropped, which ends the wait as well.
            let stopped = async move { drop(stopped.await) };
            let served = dynoxide::server::serve_with_shutdown(listener, database, stopped).await;
            if let Err(problem) = served {
                tracing::error!(problem, "the DynamoDB engine ended");
            }
        });

        let secrets = Arc::new(Secrets::default());
        let router = Router::new()
            .route("/", post(answer_secrets))
            .with_state(Arc::clone(&secrets));
        let secrets_server = Server::start(router).await?;
        Ok(Self {
            dynamodb_url,
            secrets_url: secrets_server.url(),
            direct,
            secrets,
            secrets_server,
            http: Builder::new().build_http(),
            dynamodb_stop,
            dynamodb_task,
        })
    }

    /// The way to the DynamoDB here that needs no connection.
    pub fn direct(&self) -> Direct {
        self.direct.clone()
    }

    /// What any SDK client works with, but for an endpoint.
    pub fn sdk_config(&self) -> SdkConfig {
        let credentials = Credentials::new("local", "local", None, None, "local");
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .http_client(self.http.clone())
            .region(Region::from_static(REGION))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .build()
    }

    /// A client of the DynamoDB here.
    pub fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        self.dynamodb_over(None)
    }

    /// A client of the DynamoDB here whose requests `http` carries.
    pub fn dynamodb_over(&self, http: Option<SharedHttpClient>) -> aws_sdk_dynamodb::Client {
        let mut config = aws_sdk_dynamodb::config::Builder::from(&self.sdk_config())
            .endpoint_url(&self.dynamodb_url);
        if let Some(http) = http {
            config = config.http_client(http);
        }
        aws_sdk_dynamodb::Client::from_conf(config.build())
    }

    /// A client of the Secrets Manager here.
    pub fn secrets(&self) -> aws_sdk_secretsmanager::Client {
        self.secrets_over(None)
    }

    /// A client of the Secrets Manager here whose requests `http` carries.
    pub fn secrets_over(&self, http: Option<SharedHttpClient>) -> aws_sdk_secretsmanager::Client {
        let mut config = aws_sdk_secretsmanager::config::Builder::from(&self.sdk_config())
            .endpoint_url(&self.secrets_url);
        if let Some(http) = http {
            config = config.http_client(http);
        }
        aws_sdk_secretsmanager::Client::from_conf(config.build())
    }

    /// The names of all secrets there are, in order.
    pub async fn secret_names(&self) -> Vec<String> {
        let view = self.secrets.engine.snapshot(default_account_id(), REGION);
        let mut names: Vec<_> = view.await.secrets.into_keys().collect();
        names.sort_unstable();
        names
    }

    /// Every operation that Secrets Manager was asked for, in order, for example `GetSecretValue`.
    /// What the SDK repeats is there again.
    pub fn secret_operations(&self) -> Vec<String> {
        self.secrets.wire().operations.clone()
    }

    /// From now on Secrets Manager answers `operation` (for example `CreateSecret`; `None`: every
    /// operation) with `fault`. A later fault for the same operation takes the place of this one.
    pub fn fail_secrets(&self, operation: Option<&str>, fault: SecretsFault) {
        let operation = operation.map(str::to_owned);
        self.secrets.wire().faults.insert(operation, fault);
    }

    /// Ends all faults.
    pub fn heal_secrets(&self) {
        self.secrets.wire().faults.clear();
    }

    /// Stops both, and returns once their ports are closed. Requests to DynamoDB that are under way
    /// are answered.
    pub async fn stop(self) {
        drop(self.dynamodb_stop);
        // A task that panicked has stopped as well.
        let _ = self.dynamodb_task.await;
        self.secrets_server.stop().await;
    }
}

/// The DynamoDB here without a connection, for runs that make very many requests and repeat none. Cheap to
/// clone.
#[derive(Clone)]
pub struct Direct(dynoxide::Database);

impl std::fmt::Debug for Direct {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Direct").finish_non_exhaustive()
    }
}

impl Direct {
    /// Status and body of the answer to `operation`, for example `GetItem`. `None` if it is none of those
    /// that the product uses all the time: the others go over the wire.
    pub fn answer(&self, operation: &str, body: &[u8]) -> Option<(u16, String)> {
        let database = &self.0;
        let answer = match operation {
            "GetItem" => run(body, |request| database.get_item(request)),
            "PutItem" => run(body, |request| database.put_item(request)),
            "UpdateItem" => run(body, |request| database.update_item(request)),
            "DeleteItem" => run(body, |request| database.delete_item(request)),
            "Query" => run(body, |request| database.query(request)),
            "TransactWriteItems" => run(body, |mut request: TransactWriteItemsRequest| {
                // It would be compared with those of all others, and nobody sends one twice.
                request.client_request_token = None;
                database.transact_write_items(request)
            }),
            _ => return None,
        };
        Some(match answer {
            Ok(body) => (200, body),
            Err(error) => (error.status_code(), error.to_json()),
        })
    }
}

fn run<Q: DeserializeOwned, A: Serialize>(
    body: &[u8],
    answer: impl FnOnce(Q) -> dynoxide::Result<A>,
) -> dynoxide::Result<String> {
    let unreadable = |error: serde_json::Error| {
        dynoxide::DynoxideError::SerializationException(error.to_string())
    };
    let answer = answer(serde_json::from_slice(body).map_err(unreadable)?)?;
    serde_json::to_string(&answer).map_err(unreadable)
}

/// What Secrets Manager can be made to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretsFault {
    /// 500 `InternalServiceError`; nothing is done.
    Internal,
    /// 400 `ThrottlingException`; nothing is done.
    Throttled,
    /// 400 `AccessDeniedException`; nothing is done.
    AccessDenied,
    /// It is done, and then answered with 500 `InternalServiceError`.
    AnswerLost,
}

#[derive(Default)]
struct Secrets {
    engine: SecretsManagerService,
    wire: Mutex<Wire>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

/// What is known of the requests apart from their effects.
#[derive(Default)]
struct Wire {
    operations: Vec<String>,
    faults: HashMap<Option<String>, SecretsFault>,
    /// Answers of `CreateSecret` by the request's body, which holds the client's token: AWS repeats
    /// the answer to a repeated request, the engine refuses it.
    created: HashMap<Bytes, Bytes>,
}

impl Wire {
    fn fault(&self, operation: &str) -> Option<SecretsFault> {
        let specific = self.faults.get(&Some(operation.to_owned()));
        specific.or_else(|| self.faults.get(&None)).copied()
    }
}

impl Secrets {
    fn wire(&self) -> std::sync::MutexGuard<'_, Wire> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(&self, operation: &str, headers: HeaderMap, body: Bytes) -> MockResponse {
        let request = MockRequest {
            method: "POST".to_owned(),
            uri: format!("https://secretsmanager.{REGION}.amazonaws.com/"),
            headers,
            body: body.clone(),
        };
        let mut answer = self.engine.handle(request).await;
        if operation == "CreateSecret" {
            let mut wire = self.wire();
            if answer.status == 200 {
                wire.created.insert(body, answer.body.clone());
            } else if is(&answer, "ResourceExistsException")
                && let Some(first) = wire.created.get(&body)
            {
                answer = MockResponse::json(200, first.clone());
            }
        }
        answer
    }
}

fn is(answer: &MockResponse, code: &str) -> bool {
    let body = serde_json::from_slice::<Value>(&answer.body);
    body.is_ok_and(|body| body["__type"] == code)
}

async fn answer_secrets(
    State(secrets): State<Arc<Secrets>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let target = headers
        .get("x-amz-target")
        .and_then(|target| target.to_str().ok());
    let operation = target
        .unwrap_or_default()
        .rsplit('.')
        .next()
        .unwrap_or_default();
    let operation = operation.to_owned();
    let fault = {
        let mut wire = secrets.wire();
        wire.operations.push(operation.clone());
        wire.fault(&operation)
    };
    match fault {
        Some(SecretsFault::Internal) => {
            refuse(StatusCode::INTERNAL_SERVER_ERROR, "InternalServiceError")
        }
        Some(SecretsFault::Throttled) => refuse(StatusCode::BAD_REQUEST, "ThrottlingException"),
        Some(SecretsFault::AccessDenied) => {
            refuse(StatusCode::BAD_REQUEST, "AccessDeniedException")
        }
        Some(SecretsFault::AnswerLost) => {
            secrets.run(&operation, headers, body).await;
            refuse(StatusCode::INTERNAL_SERVER_ERROR, "InternalServiceError")
        }
        None => {
            let answer = secrets.run(&operation, headers, body).await;
            let mut response = Response::new(Body::from(answer.body));
            *response.status_mut() =
                StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            *response.headers_mut() = answer.headers;
            response
        }
    }
}

fn refuse(status: StatusCode, code: &str) -> Response<Body> {
    serve::json(
        status,
        &json!({"__type": code, "message": "asked for by a test"}),
    )
}

#[cfg(test)]
mod tests;
