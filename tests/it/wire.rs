//! The wire between the functions and AWS, with all that can go wrong on it. No emulator throttles,
//! conflicts or loses answers by itself.

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

/// What can happen to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// AWS has too much to do; nothing is done. The SDK sends it again.
    Throttled,
    /// Another transaction is changing the same item; nothing is done.
    Conflict,
    /// It never arrives, and nobody is told.
    NeverArrives,
    /// It is carried out, but its answer never arrives.
    AnswerLost,
    /// It is carried out, its answer is lost, and the SDK sends it again.
    Repeated,
}

/// Carries requests to the engines. Clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    connector: SharedHttpConnector,
    state: Arc<Mutex<State>>,
    steps: Option<Steps>,
    /// The function whose requests it carries, where it is one's own.
    function: Option<&'static str>,
}

type Meanwhile = Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Default)]
struct State {
    operations: Vec<String>,
    /// How many more requests get through; `None`: all.
    left: Option<usize>,
    /// Requests that did not get through.
    refused: usize,
    /// Requests that name this do not get through.
    unspeakable: Option<String>,
    /// What happens to the next requests of an operation.
    planned: Vec<(String, Fault, usize)>,
    /// What somebody else does just before the next request of an operation.
    meanwhile: Vec<(String, Meanwhile)>,
    /// Where DynamoDB is asked for them: the units that requests took.
    units: Option<Units>,
}

/// What DynamoDB bills requests by.
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
    /// The wire of a process whose every request is two steps: asked, and answered.
    pub(crate) fn of(steps: Steps) -> Self {
        Self { steps: Some(steps), ..Self::default() }
    }

    /// The same wire, for the requests of one function: what it asks of AWS is kept.
    pub(crate) fn used_by(self, function: &'static str) -> Self {
        Self { function: Some(function), ..self }
    }

    /// The operations since the last time, for example `GetItem`.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().operations)
    }

    /// The units of DynamoDB since the last time; the first time begins to count.
    pub(crate) fn take_units(&self) -> Units {
        let mut state = self.state.lock().unwrap();
        state.units.replace(Units::default()).unwrap_or_default()
    }

    /// The process dies after `requests` more of them: nothing gets through any more.
    pub(crate) fn die_after(&self, requests: usize) {
        self.state.lock().unwrap().left = Some(requests);
    }

    /// Everything gets through again. True if something did not.
    pub(crate) fn revive(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        state.left = None;
        std::mem::take(&mut state.refused) > 0
    }

    /// From now on the next `times` requests of this operation, for example `TransactWriteItems`,
    /// meet this fault. 0 ends it.
    pub(crate) fn disturb(&self, operation: &str, fault: Fault, times: usize) {
        let mut state = self.state.lock().unwrap();
        state.planned.retain(|(of, what, _)| !(of == operation && *what == fault));
        state.planned.push((operation.to_owned(), fault, times));
    }

    /// From now on no request gets through whose body has this text; `None`: all do.
    pub(crate) fn refuse_about(&self, text: Option<&str>) {
        self.state.lock().unwrap().unspeakable = text.map(str::to_owned);
    }

    /// Somebody else does this just before the next request of `operation` is carried out.
    pub(crate) fn meanwhile(
        &self,
        operation: &str,
        something: impl Future<Output = ()> + Send + 'static,
    ) {
        let something = (operation.to_owned(), Box::pin(something) as Meanwhile);
        self.state.lock().unwrap().meanwhile.push(something);
    }

    async fn let_others_act(&self, operation: &str) {
        let something = {
            let mut state = self.state.lock().unwrap();
            let place = state.meanwhile.iter().position(|(of, _)| of == operation);
            place.map(|place| state.meanwhile.remove(place).1)
        };
        if let Some(something) = something {
            something.await;
        }
    }

    pub(crate) fn lose_next_answer_of(&self, operation: &str) {
        self.disturb(operation, Fault::AnswerLost, 1);
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

    /// Notes a request; what happens to it?
    fn admit(&self, operation: &str, body: &[u8]) -> Option<Fault> {
        let mut state = self.state.lock().unwrap();
        let unspeakable = state.unspeakable.as_deref();
        if unspeakable.is_some_and(|text| String::from_utf8_lossy(body).contains(text)) {
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
        let mut asked: Value = serde_json::from_slice(request.body().bytes().unwrap()).unwrap();
        asked["ReturnConsumedCapacity"] = json!("TOTAL");
        *request.body_mut() = SdkBody::from(asked.to_string());
        request.headers_mut().remove("content-length");
        let mut answer = self.connector.call(request).await?;
        let body = answer.take_body().collect().await;
        let body = body.map_err(ConnectorError::io)?.to_bytes();
        if let Ok(told) = serde_json::from_slice(&body)
            && let Some(units) = &mut self.state.lock().unwrap().units
        {
            units.add(&operation, &told);
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
                // An error that the SDK does not try again.
                Some(Fault::NeverArrives) => {
                    return Err(ConnectorError::user("the process is dead".into()));
                }
                Some(Fault::AnswerLost | Fault::Repeated) | None => {}
            }
            if let Some(function) = wire.function {
                actions::note(function, target, body);
            }
            wire.let_others_act(&operation).await;
            wire.step(&operation, "asked").await;
            let answer = wire.send(request).await;
            wire.step(&operation, "answered").await;
            match fault {
                Some(Fault::AnswerLost) => Err(ConnectorError::user("the answer was lost".into())),
                Some(Fault::Repeated) => Err(ConnectorError::io("the answer was lost".into())),
                _ => answer,
            }
        })
    }
}

/// What AWS answers to an operation that meets a transaction on the same item.
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
