//! The wire between the functions and AWS, with everything that can go wrong on it. No emulator
//! throttles, conflicts or loses responses by itself.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::actions;
use crate::steps::Steps;

/// A fault that hits a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// AWS is overloaded and does nothing. The SDK retries.
    Throttled,
    /// Another transaction is changing the same item, and nothing is done.
    Conflict,
    /// It never arrives, and no response comes.
    NeverArrives,
    /// It is carried out, but its response is lost.
    ResponseLost,
    /// It is carried out, its response is lost, and the SDK retries.
    Repeated,
}

/// Carries requests to the engines. Clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    connector: SharedHttpConnector,
    state: Arc<Mutex<State>>,
    steps: Option<Steps>,
    /// The function whose requests it carries, if it belongs to one.
    function: Option<&'static str>,
}

type Meanwhile = Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Default)]
struct State {
    operations: Vec<String>,
    /// Number of requests that still get through; `None`: all.
    left: Option<usize>,
    /// Requests that did not get through.
    refused: usize,
    /// Requests that contain this text do not get through.
    blocked_text: Option<String>,
    /// The faults of the next requests of an operation.
    planned: Vec<(String, Fault, usize)>,
    /// Runs just before the next request of an operation.
    meanwhile: Vec<(String, Meanwhile)>,
    /// The units that DynamoDB requests consumed, once counting has started.
    units: Option<Units>,
}

/// The units that DynamoDB bills.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Units {
    pub(crate) read: f64,
    pub(crate) write: f64,
}

impl Units {
    #[expect(clippy::float_arithmetic, reason = "half a unit is what DynamoDB bills")]
    fn add(&mut self, operation: &str, answer: &Value) {
        let consumed = &answer["ConsumedCapacity"];
        let tables = consumed.as_array().cloned();
        for table in tables.unwrap_or_else(|| vec![consumed.clone()]) {
            let units = table["CapacityUnits"].as_f64().unwrap_or_default();
            match operation {
                "GetItem" | "Query" | "Scan" => self.read += units,
                _ => self.write += units,
            }
        }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            connector: local::engines::connector(),
            state: Arc::default(),
            steps: None,
            function: None,
        }
    }
}

impl Wire {
    /// The wire of a process: each request and each response is a step.
    pub(crate) fn of(steps: Steps) -> Self {
        Self { steps: Some(steps), ..Self::default() }
    }

    /// The same wire for one function, whose AWS requests are recorded.
    pub(crate) fn used_by(self, function: &'static str) -> Self {
        Self { function: Some(function), ..self }
    }

    /// The operations since the last call, for example `GetItem`.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().operations)
    }

    /// The DynamoDB units since the last call; the first call starts the count.
    pub(crate) fn take_units(&self) -> Units {
        let mut state = self.state.lock().unwrap();
        state.units.replace(Units::default()).unwrap_or_default()
    }

    /// The process dies after `requests` more requests: nothing gets through any more.
    pub(crate) fn die_after(&self, requests: usize) {
        self.state.lock().unwrap().left = Some(requests);
    }

    /// Everything gets through again. True if something did not.
    pub(crate) fn revive(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        state.left = None;
        std::mem::take(&mut state.refused) > 0
    }

    /// The next `times` requests of this operation, for example `TransactWriteItems`, hit this
    /// fault. 0 ends it.
    pub(crate) fn disturb(&self, operation: &str, fault: Fault, times: usize) {
        let mut state = self.state.lock().unwrap();
        state.planned.retain(|(of, what, _)| !(of == operation && *what == fault));
        state.planned.push((operation.to_owned(), fault, times));
    }

    /// Blocks every request whose body contains this text; `None` blocks none.
    pub(crate) fn refuse_about(&self, text: Option<&str>) {
        self.state.lock().unwrap().blocked_text = text.map(str::to_owned);
    }

    /// Runs `something` just before the next request of `operation`.
    pub(crate) fn meanwhile(
        &self,
        operation: &str,
        something: impl Future<Output = ()> + Send + 'static,
    ) {
        let something = (operation.to_owned(), Box::pin(something) as Meanwhile);
        self.state.lock().unwrap().meanwhile.push(something);
    }

    async fn run_meanwhile(&self, operation: &str) {
        let something = {
            let mut state = self.state.lock().unwrap();
            let place = state.meanwhile.iter().position(|(of, _)| of == operation);
            place.map(|place| state.meanwhile.remove(place).1)
        };
        if let Some(something) = something {
            something.await;
        }
    }

    pub(crate) fn lose_next_response_of(&self, operation: &str) {
        self.disturb(operation, Fault::ResponseLost, 1);
    }

    pub(crate) fn repeat_next(&self, operation: &str) {
        self.disturb(operation, Fault::Repeated, 1);
    }

    pub(crate) fn swallow_next(&self, operation: &str) {
        self.disturb(operation, Fault::NeverArrives, 1);
    }

    pub(crate) fn conflict_with_next(&self, operation: &str, times: usize) {
        self.disturb(operation, Fault::Conflict, times);
    }

    /// Records a request and returns its fault.
    fn admit(&self, operation: &str, body: &[u8]) -> Option<Fault> {
        let mut state = self.state.lock().unwrap();
        let blocked_text = state.blocked_text.as_deref();
        if blocked_text.is_some_and(|text| String::from_utf8_lossy(body).contains(text)) {
            return Some(Fault::NeverArrives);
        }
        let planned = state.planned.iter_mut().find(|(of, _, times)| of == operation && *times > 0);
        let fault = planned.map(|(_, fault, times)| {
            *times -= 1;
            *fault
        });
        if matches!(fault, Some(Fault::Throttled | Fault::Conflict | Fault::NeverArrives)) {
            return fault;
        }
        match state.left {
            Some(0) => {
                state.refused += 1;
                return Some(Fault::NeverArrives);
            }
            Some(left) => state.left = Some(left - 1),
            None => {}
        }
        state.operations.push(operation.to_owned());
        fault
    }

    async fn step(&self, operation: &str, what: &str) {
        if let Some(steps) = &self.steps {
            steps.step(&format!("{operation} {what}")).await;
        }
    }

    async fn send(&self, mut request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let counted = target.strip_prefix("DynamoDB_20120810.").map(str::to_owned);
        let counted = counted.filter(|_| self.state.lock().unwrap().units.is_some());
        let Some(operation) = counted else {
            return self.connector.call(request).await;
        };
        let mut request_body: Value =
            serde_json::from_slice(request.body().bytes().unwrap()).unwrap();
        request_body["ReturnConsumedCapacity"] = json!("TOTAL");
        *request.body_mut() = SdkBody::from(request_body.to_string());
        request.headers_mut().remove("content-length");
        let mut answer = self.connector.call(request).await?;
        let body = answer.take_body().collect().await;
        let body = body.map_err(ConnectorError::io)?.to_bytes();
        if let Ok(response) = serde_json::from_slice(&body)
            && let Some(units) = &mut self.state.lock().unwrap().units
        {
            units.add(&operation, &response);
        }
        *answer.body_mut() = SdkBody::from(body);
        Ok(answer)
    }
}

impl HttpClient for Wire {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Wire {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let wire = self.clone();
        HttpConnectorFuture::new(async move {
            let target = request.headers().get("x-amz-target").unwrap_or_default();
            let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
            let body = request.body().bytes().unwrap_or_default();
            let fault = wire.admit(&operation, body);
            match fault {
                Some(Fault::Throttled) => return Ok(throttled()),
                Some(Fault::Conflict) => return Ok(conflict(&operation)),
                // An error that the SDK does not retry.
                Some(Fault::NeverArrives) => {
                    return Err(ConnectorError::user("the process is dead".into()));
                }
                Some(Fault::ResponseLost | Fault::Repeated) | None => {}
            }
            if let Some(function) = wire.function {
                actions::note(function, target, body);
            }
            wire.run_meanwhile(&operation).await;
            wire.step(&operation, "request").await;
            let answer = wire.send(request).await;
            wire.step(&operation, "response").await;
            match fault {
                Some(Fault::ResponseLost) => {
                    Err(ConnectorError::user("the response was lost".into()))
                }
                Some(Fault::Repeated) => Err(ConnectorError::io("the response was lost".into())),
                _ => answer,
            }
        })
    }
}

/// AWS's response to an operation that conflicts with a transaction on the same item.
fn conflict(operation: &str) -> HttpResponse {
    refusal(if operation == "TransactWriteItems" {
        r#"{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
            "Message":"Transaction cancelled","CancellationReasons":[
            {"Code":"TransactionConflict","Message":"Transaction is ongoing for the item"},
            {"Code":"None"}]}"#
    } else {
        r#"{"__type":"com.amazonaws.dynamodb.v20120810#TransactionConflictException",
            "message":"Transaction is ongoing for the item"}"#
    })
}

fn throttled() -> HttpResponse {
    refusal(
        r#"{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",
            "message":"The level of configured provisioned throughput was exceeded"}"#,
    )
}

fn refusal(body: &'static str) -> HttpResponse {
    let mut response = http::Response::new(SdkBody::from(body));
    *response.status_mut() = http::StatusCode::BAD_REQUEST;
    HttpResponse::try_from(response).unwrap()
}
