//! A stub of Lambda's Runtime API: it hands events to a function and records when the response
//! arrives.
//!
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>; streamed responses as in
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html#runtimes-custom-response-streaming>.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::client::{Moments, Reading};
use crate::{Error, nanoseconds, serve};

/// Separates the head of an HTTP response, in JSON, from its body.
const END_OF_PRELUDE: [u8; 8] = [0; 8];

type Answered = oneshot::Sender<Result<Moments, Error>>;

pub(crate) struct RuntimeApi {
    pub(crate) port: u16,
    events: mpsc::UnboundedSender<(Bytes, Answered)>,
}

struct State {
    events: tokio::sync::Mutex<mpsc::UnboundedReceiver<(Bytes, Answered)>>,
    /// By request id: the time when the event was handed out, and the sender of its moments.
    given: Mutex<HashMap<String, (Instant, Answered)>>,
}

impl RuntimeApi {
    pub(crate) async fn start() -> Result<Self, Error> {
        let port = serve::free_port()?;
        let (events, receiver) = mpsc::unbounded_channel();
        let state =
            Arc::new(State { events: tokio::sync::Mutex::new(receiver), given: Mutex::default() });
        edge::spawn(serve::serve(port, move |request| Arc::clone(&state).answer(request)));
        serve::until_listening(port).await?;
        Ok(Self { port, events })
    }

    /// Hands out the event when the function next polls. Returns the response's moments, counted
    /// from that poll.
    pub(crate) async fn invoke(&self, event: &Bytes) -> Result<Moments, Error> {
        let (answered, answer) = oneshot::channel();
        self.events.send((event.clone(), answered))?;
        answer.await?
    }
}

impl State {
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Error> {
        let path = request.uri().path().to_owned();
        let invocation = path.strip_prefix("/2018-06-01/runtime/invocation/");
        match invocation {
            Some("next") if request.method() == Method::GET => self.next().await,
            Some(invocation) => self.take(invocation, request).await,
            None => {
                let body = request.into_body().collect().await?.to_bytes();
                Err(format!("{path}: {}", String::from_utf8_lossy(&body)).into())
            }
        }
    }

    async fn next(&self) -> Result<Response<Full<Bytes>>, Error> {
        let event = self.events.lock().await.recv().await;
        let (event, answered) = event.ok_or("no event will come")?;
        let id = edge::new_id("bench");
        let deadline = nanoseconds() / 1_000_000 + 900_000;
        let response = Response::builder()
            .header("lambda-runtime-aws-request-id", &id)
            .header("lambda-runtime-deadline-ms", deadline)
            .header(
                "lambda-runtime-invoked-function-arn",
                "arn:aws:lambda:eu-central-1:123456789012:function:bench",
            )
            .body(Full::from(event))?;
        self.given().insert(id, (Instant::now(), answered));
        Ok(response)
    }

    async fn take(
        &self,
        invocation: &str,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Error> {
        let (id, what) = invocation.split_once('/').ok_or("no such invocation")?;
        let (started, answered) = self.given().remove(id).ok_or("no such invocation")?;
        let read = match what {
            "response" => read(started, request.into_body()).await,
            _ => {
                let body = request.into_body().collect().await?.to_bytes();
                Err(format!("{what}: {}", String::from_utf8_lossy(&body)).into())
            }
        };
        // The caller may have given up.
        let _ = answered.send(read);
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::ACCEPTED;
        Ok(response)
    }

    fn given(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Instant, Answered)>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a streamed response to its end.
async fn read(started: Instant, mut body: Incoming) -> Result<Moments, Error> {
    let mut reading = Reading::since(started);
    let mut prelude = Some(BytesMut::new());
    while let Some(frame) = body.frame().await {
        let Ok(chunk) = frame?.into_data() else {
            continue;
        };
        let Some(head) = &mut prelude else {
            reading.chunk(&chunk);
            continue;
        };
        head.extend_from_slice(&chunk);
        let Some(end) = memchr::memmem::find(head, &END_OF_PRELUDE) else {
            continue;
        };
        reading.head();
        let rest = head.split_off(end + END_OF_PRELUDE.len());
        let prelude_json: Value = serde_json::from_slice(head.get(..end).unwrap_or_default())?;
        if prelude_json["statusCode"] != 200 {
            return Err(format!("{prelude_json}: {}", String::from_utf8_lossy(&rest)).into());
        }
        if !rest.is_empty() {
            reading.chunk(&rest);
        }
        prelude = None;
    }
    match prelude {
        None => Ok(reading.end()),
        Some(head) => Err(format!("no head in {}", String::from_utf8_lossy(&head)).into()),
    }
}

/// A chat call as API Gateway's REST API hands it to a function (payload v1), with a binary body.
pub(crate) fn event(token: &str, body: &Bytes) -> Bytes {
    let path = "/v1/chat/completions";
    let headers = [
        ("Accept", "*/*"),
        ("Authorization", token),
        ("Content-Type", "application/json"),
        ("Host", "abc123.execute-api.eu-central-1.amazonaws.com"),
        ("X-Forwarded-For", "192.0.2.1"),
        ("X-Forwarded-Port", "443"),
        ("X-Forwarded-Proto", "https"),
    ];
    let single: Value =
        headers.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let several: Value =
        headers.iter().map(|(name, value)| ((*name).to_owned(), json!([value]))).collect();
    let event = json!({
        "resource": path,
        "path": path,
        "httpMethod": "POST",
        "headers": single,
        "multiValueHeaders": several,
        "queryStringParameters": null,
        "multiValueQueryStringParameters": null,
        "pathParameters": null,
        "stageVariables": null,
        "requestContext": {
            "resourceId": "a1b2c3",
            "resourcePath": path,
            "httpMethod": "POST",
            "path": format!("/live{path}"),
            "accountId": "123456789012",
            "protocol": "HTTP/1.1",
            "stage": "live",
            "requestId": "7a1b2c3d-0123-4567-89ab-0123456789ab",
            "apiId": "abc123",
            "identity": {"sourceIp": "192.0.2.1", "userAgent": "bench"},
        },
        "body": base64::Engine::encode(&base64::engine::general_purpose::STANDARD, body),
        "isBase64Encoded": true,
    });
    Bytes::from(event.to_string())
}
