//! The event bus, as far as the product puts events on it: EventBridge's wire protocol on loopback.
//! What is accepted is told in the log, and kept.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_config::SdkConfig;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::post;
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Number, Value, json};

use crate::engines::REGION;
use crate::serve::{self, Server};

/// The most entries that EventBridge takes at once.
const MOST_ENTRIES: usize = 10;

/// The bus, until stopped or dropped. Its events go with it.
#[derive(Debug)]
pub struct Bus {
    server: Server,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    events: Vec<Value>,
    /// Entries of these kinds are refused; `None`: all.
    refuses: Vec<Option<String>>,
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
    /// Starts it, empty.
    ///
    /// # Errors
    /// If no port can be opened.
    pub async fn start() -> io::Result<Self> {
        let kept = Arc::<Mutex<Kept>>::default();
        let router = Router::new()
            .route("/", post(answer))
            .with_state(Arc::clone(&kept));
        let server = Server::start(router).await?;
        Ok(Self { server, kept })
    }

    /// Where it answers: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// A client of it whose requests `http` carries.
    pub fn client_over(
        &self,
        config: &SdkConfig,
        http: Option<SharedHttpClient>,
    ) -> aws_sdk_eventbridge::Client {
        let mut config =
            aws_sdk_eventbridge::config::Builder::from(config).endpoint_url(self.url());
        if let Some(http) = http {
            config = config.http_client(http);
        }
        aws_sdk_eventbridge::Client::from_conf(config.build())
    }

    /// All events that were accepted, in order, in the envelope in which a rule's target is given them.
    pub fn events(&self) -> Vec<Value> {
        lock(&self.kept).events.clone()
    }

    /// From now on entries of this kind (for example `add_on.ended`; `None`: all) are refused, as by
    /// a bus that is asked for too much. The others of the same request are taken.
    pub fn refuse(&self, kind: Option<&str>) {
        lock(&self.kept).refuses.push(kind.map(str::to_owned));
    }

    /// Everything is taken again.
    pub fn heal(&self) {
        lock(&self.kept).refuses.clear();
    }

    /// Stops, and returns once the port is closed.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(
    State(kept): State<Arc<Mutex<Kept>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let target = headers.get("x-amz-target");
    if target.is_none_or(|target| target != "AWSEvents.PutEvents") {
        return refused("UnknownOperationException", "only PutEvents is played");
    }
    let request = match serde_json::from_slice::<PutEvents>(&body) {
        Ok(request) => request,
        Err(error) => return refused("ValidationException", &error.to_string()),
    };
    if request.entries.is_empty() || request.entries.len() > MOST_ENTRIES {
        return refused("ValidationException", "1 to 10 entries can be put at once");
    }
    let mut kept = lock(&kept);
    let entries: Vec<_> = request
        .entries
        .iter()
        .map(|entry| match kept.take(entry) {
            Ok(id) => json!({"EventId": id}),
            Err((code, message)) => json!({"ErrorCode": code, "ErrorMessage": message}),
        })
        .collect();
    let failed = entries.iter().filter(|entry| entry["EventId"].is_null());
    let answer = json!({"FailedEntryCount": failed.count(), "Entries": entries});
    serve::json(StatusCode::OK, &answer)
}

impl Kept {
    /// The bus's own id of the event, or why it is not taken.
    fn take(&mut self, entry: &Entry) -> Result<String, (&'static str, String)> {
        let kind = Some(entry.detail_type.clone());
        if self
            .refuses
            .iter()
            .any(|refused| refused.is_none() || *refused == kind)
        {
            return Err(("ThrottlingException", "asked for by a test".to_owned()));
        }
        let detail: serde_json::Map<String, Value> = serde_json::from_str(&entry.detail)
            .map_err(|error| ("MalformedDetail", error.to_string()))?;
        let seconds = entry.time.as_ref().and_then(Number::as_f64);
        #[expect(clippy::cast_possible_truncation, reason = "whole seconds are sent")]
        let time = seconds.map(|seconds| Timestamp::from_second(seconds as i64));
        let time = time
            .transpose()
            .map_err(|error| ("InvalidArgument", error.to_string()))?;
        let id = uuid::Uuid::new_v4().to_string();
        tracing::info!(
            bus = entry.event_bus_name,
            kind = entry.detail_type,
            detail = entry.detail,
            "event"
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

fn refused(code: &str, message: &str) -> Response<Body> {
    let body = json!({"__type": code, "message": message});
    serve::json(StatusCode::BAD_REQUEST, &body)
}
