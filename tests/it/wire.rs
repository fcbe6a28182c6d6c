//! The wire between the functions and AWS: counts every request, and can be cut.

use std::sync::{Arc, Mutex};

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;

/// Carries requests to the engines. Clones share everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wire {
    http: reqwest::Client,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    operations: Vec<String>,
    /// How many more requests get through; `None`: all.
    left: Option<usize>,
    /// Requests that did not get through.
    refused: usize,
    lose_next_answer_of: Option<String>,
    swallow_next: Option<String>,
    /// The next request of this operation is carried out twice: the first answer is lost in a way
    /// that the SDK tries again after.
    repeat_next: Option<String>,
    /// The next requests of this operation meet a transaction on the same item.
    conflicts: Option<(String, usize)>,
}

impl Wire {
    /// The operations since the last time, for example `GetItem`.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().operations)
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

    /// The next request of this operation is carried out, but its answer never arrives.
    pub(crate) fn lose_next_answer_of(&self, operation: &str) {
        self.state.lock().unwrap().lose_next_answer_of = Some(operation.to_owned());
    }

    /// The next request of this operation is carried out, its answer is lost, and the SDK sends it
    /// again.
    pub(crate) fn repeat_next(&self, operation: &str) {
        self.state.lock().unwrap().repeat_next = Some(operation.to_owned());
    }

    fn repeats(&self, operation: &str) -> bool {
        let mut state = self.state.lock().unwrap();
        state
            .repeat_next
            .take_if(|next| next == operation)
            .is_some()
    }

    /// The next request of this operation never arrives, and nobody is told.
    pub(crate) fn swallow_next(&self, operation: &str) {
        self.state.lock().unwrap().swallow_next = Some(operation.to_owned());
    }

    /// The next `times` requests of this operation are answered as AWS does when another transaction
    /// is changing the same item. The engine cannot raise that by itself.
    pub(crate) fn conflict_with_next(&self, operation: &str, times: usize) {
        self.state.lock().unwrap().conflicts = Some((operation.to_owned(), times));
    }

    /// Is this request to meet another transaction?
    fn conflicts(&self, operation: &str) -> bool {
        let mut state = self.state.lock().unwrap();
        match &mut state.conflicts {
            Some((with, times)) if with == operation && *times > 0 => {
                *times -= 1;
                true
            }
            _ => false,
        }
    }

    /// Notes a request. `None`: it does not get through; else whether its answer is lost.
    fn admit(&self, operation: String) -> Option<bool> {
        let mut state = self.state.lock().unwrap();
        if state.swallow_next.as_ref() == Some(&operation) {
            state.swallow_next = None;
            return None;
        }
        match state.left {
            Some(0) => {
                state.refused += 1;
                return None;
            }
            Some(left) => state.left = Some(left - 1),
            None => {}
        }
        let lost = state.lose_next_answer_of.as_ref() == Some(&operation);
        if lost {
            state.lose_next_answer_of = None;
        }
        state.operations.push(operation);
        Some(lost)
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
            if wire.conflicts(&operation) {
                return Ok(conflict(&operation));
            }
            let repeats = wire.repeats(&operation);
            let Some(lost) = wire.admit(operation) else {
                // An error that the SDK does not try again.
                return Err(ConnectorError::user("the process is dead".into()));
            };
            let request = request.try_into_http1x().unwrap();
            let (parts, body) = request.into_parts();
            let body = body.bytes().unwrap().to_vec();
            let sent = wire
                .http
                .request(parts.method, parts.uri.to_string())
                .headers(parts.headers)
                .body(body);
            let answer = sent.send().await;
            let answer = answer.map_err(|error| ConnectorError::io(error.into()))?;
            let (status, headers) = (answer.status(), answer.headers().clone());
            let body = answer.bytes().await;
            let body = body.map_err(|error| ConnectorError::io(error.into()))?;
            if repeats {
                return Err(ConnectorError::io("the answer was lost".into()));
            }
            if lost {
                return Err(ConnectorError::user("the answer was lost".into()));
            }
            let mut response = http::Response::new(SdkBody::from(body));
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            Ok(HttpResponse::try_from(response).unwrap())
        })
    }
}

/// What AWS answers to an operation that meets a transaction on the same item.
fn conflict(operation: &str) -> HttpResponse {
    let body = if operation == "TransactWriteItems" {
        r#"{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
            "Message":"Transaction cancelled","CancellationReasons":[
            {"Code":"TransactionConflict","Message":"Transaction is ongoing for the item"},
            {"Code":"None"}]}"#
    } else {
        r#"{"__type":"com.amazonaws.dynamodb.v20120810#TransactionConflictException",
            "message":"Transaction is ongoing for the item"}"#
    };
    let mut response = http::Response::new(SdkBody::from(body));
    *response.status_mut() = http::StatusCode::BAD_REQUEST;
    HttpResponse::try_from(response).unwrap()
}
