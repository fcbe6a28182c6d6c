//! An event bus that speaks EventBridge's wire protocol on loopback. It logs the events and keeps
//! them.

use std::io;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::engines::REGION;
use crate::serve::Server;

/// The maximum number of entries per request.
const MAX_ENTRIES: usize = 10;

/// A bus that runs until stopped or dropped. Its events are lost then.
#[derive(Debug)]
pub struct Bus {
    pub(crate) server: Server,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    events: Vec<Value>,
    /// Entries of these types are rejected; `None`: all.
    rejects: Vec<Option<String>>,
}

impl Bus {
    pub async fn start() -> io::Result<Self> {
        let kept = Arc::<Mutex<Kept>>::default();
        let router = Router::new().route("/", post(respond)).with_state(Arc::clone(&kept));
        let server = Server::start(router).await?;
        Ok(Self { server, kept })
    }

    pub fn url(&self) -> String {
        self.server.url()
    }

    /// The accepted events, in order, in the envelope that a rule's target receives.
    pub fn events(&self) -> Vec<Value> {
        self.kept.lock().unwrap().events.clone()
    }

    /// From now on, entries of this type (for example `add_on.ended`; `None`: all) are throttled.
    /// Other entries of the same request are accepted.
    pub fn throttle(&self, kind: Option<&str>) {
        self.kept.lock().unwrap().rejects.push(kind.map(str::to_owned));
    }

    pub fn heal(&self) {
        self.kept.lock().unwrap().rejects.clear();
    }
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
    let request: Value = serde_json::from_slice(&body).unwrap_or_default();
    let entries = request["Entries"].as_array().map_or(&[][..], Vec::as_slice);
    if !(1..=MAX_ENTRIES).contains(&entries.len()) {
        return refusal("ValidationException", "a request has 1 to 10 entries");
    }
    let mut kept = kept.lock().unwrap();
    let results = entries.iter().map(|entry| match kept.accept(entry) {
        Ok(id) => json!({"EventId": id}),
        Err((code, message)) => json!({"ErrorCode": code, "ErrorMessage": message}),
    });
    let entries: Vec<_> = results.collect();
    let failed = entries.iter().filter(|entry| entry["EventId"].is_null());
    let body = json!({"FailedEntryCount": failed.count(), "Entries": entries});
    Json(body).into_response()
}

impl Kept {
    /// The bus's own id for the event, or the reason for its rejection.
    fn accept(&mut self, entry: &Value) -> Result<String, (&'static str, String)> {
        let text = |name: &str| entry[name].as_str().unwrap_or_default();
        let kind = text("DetailType");
        let rejects = |rejected: &Option<String>| rejected.as_deref().is_none_or(|it| it == kind);
        if self.rejects.iter().any(rejects) {
            return Err(("ThrottlingException", "injected fault".to_owned()));
        }
        let detail: serde_json::Map<String, Value> = serde_json::from_str(text("Detail"))
            .map_err(|error| ("MalformedDetail", error.to_string()))?;
        let time = entry["Time"].as_f64().map(SignedDuration::from_secs_f64);
        let time = time.map(Timestamp::from_duration).transpose();
        let time = time.map_err(|error| ("InvalidArgument", error.to_string()))?;
        let id = uuid::Uuid::new_v4().to_string();
        tracing::info!(bus = text("EventBusName"), kind, detail = text("Detail"), "event accepted");
        self.events.push(json!({
            "version": "0",
            "id": id,
            "detail-type": kind,
            "source": text("Source"),
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
    (StatusCode::BAD_REQUEST, Json(body)).into_response()
}
