//! An event bus that speaks EventBridge's wire protocol on loopback. It logs the events and keeps
//! them.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_config::SdkConfig;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Number, Value, json};

use crate::engines::{REGION, config_at};
use crate::serve::{self, Server};

/// The most entries of a request.
const MAX_ENTRIES: usize = 10;

/// A running bus, until stopped or dropped. Its events go with it.
#[derive(Debug)]
pub struct Bus {
    server: Server,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    events: Vec<Value>,
    /// Entries of these types are rejected; `None`: all.
    rejects: Vec<Option<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutEvents {
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    event_bus_name: String,
    source: String,
    detail_type: String,
    detail: String,
    /// Seconds since 1970.
    time: Option<Number>,
}

impl Bus {
    /// Starts one without events.
    pub async fn start() -> io::Result<Self> {
        let kept = Arc::<Mutex<Kept>>::default();
        let router = Router::new()
            .route("/", post(respond))
            .with_state(Arc::clone(&kept));
        let server = Server::start(router).await?;
        Ok(Self { server, kept })
    }

    /// The endpoint: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// A client of this bus whose requests `http` carries.
    pub fn client_over(
        &self,
        config: &SdkConfig,
        http: Option<SharedHttpClient>,
    ) -> aws_sdk_eventbridge::Client {
        aws_sdk_eventbridge::Client::new(&config_at(config, &self.url(), http))
    }

    /// The accepted events, in order, in the envelope that a rule's target receives.
    pub fn events(&self) -> Vec<Value> {
        lock(&self.kept).events.clone()
    }

    /// From now on, entries of this type (for example `add_on.ended`; `None`: all) are throttled.
    /// Other entries of the same request are accepted.
    pub fn throttle(&self, kind: Option<&str>) {
        lock(&self.kept).rejects.push(kind.map(str::to_owned));
    }

    /// Everything is accepted again.
    pub fn heal(&self) {
        lock(&self.kept).rejects.clear();
    }

    /// Stops, and returns once the port is closed.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn respond(
    State(kept): State<Arc<Mutex<Kept>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let target = headers.get("x-amz-target");
    if target.is_none_or(|target| target != "AWSEvents.PutEvents") {
        return refusal("UnknownOperationException", "only PutEvents is implemented");
    }
    let request = match serde_json::from_slice::<PutEvents>(&body) {
        Ok(request) => request,
        Err(error) => return refusal("ValidationException", &error.to_string()),
    };
    if request.entries.is_empty() || request.entries.len() > MAX_ENTRIES {
        return refusal("ValidationException", "a request has 1 to 10 entries");
    }
    let mut kept = lock(&kept);
    let entries: Vec<_> = request
        .entries
        .iter()
        .map(|entry| match kept.accept(entry) {
            Ok(id) => json!({"EventId": id}),
            Err((code, message)) => json!({"ErrorCode": code, "ErrorMessage": message}),
        })
        .collect();
    let failed = entries.iter().filter(|entry| entry["EventId"].is_null());
    let body = json!({"FailedEntryCount": failed.count(), "Entries": entries});
    serve::json(StatusCode::OK, &body)
}

impl Kept {
    /// The bus's own id of the event, or why it is rejected.
    fn accept(&mut self, entry: &Entry) -> Result<String, (&'static str, String)> {
        let rejects =
            |kind: &Option<String>| kind.as_ref().is_none_or(|kind| *kind == entry.detail_type);
        if self.rejects.iter().any(rejects) {
            return Err(("ThrottlingException", "injected fault".to_owned()));
        }
        let detail: serde_json::Map<String, Value> = serde_json::from_str(&entry.detail)
            .map_err(|error| ("MalformedDetail", error.to_string()))?;
        let seconds = entry.time.as_ref().and_then(Number::as_f64);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the product sends whole seconds"
        )]
        let time = seconds.map(|seconds| Timestamp::from_second(seconds as i64));
        let time = time
            .transpose()
            .map_err(|error| ("InvalidArgument", error.to_string()))?;
        let id = uuid::Uuid::new_v4().to_string();
        tracing::info!(
            bus = entry.event_bus_name,
            kind = entry.detail_type,
            detail = entry.detail,
            "event accepted"
        );
        self.events.push(json!({
            "version": "0",
            "id": id,
            "detail-type": entry.detail_type,
            "source": entry.source,
            "account": "111122223333",
            "time": time,
            "region": REGION,
            "resources": [],
            "detail": detail,
        }));
        Ok(id)
    }
}

fn refusal(code: &str, message: &str) -> Response {
    let body = json!({"__type": code, "message": message});
    serve::json(StatusCode::BAD_REQUEST, &body)
}
