//! Running an app on Lambda, with events of API Gateway or `cargo lambda watch` (payload v1, v2).

use std::convert::Infallible;
use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use lambda_http::{Context, LambdaEvent, RequestExt as _, lambda_runtime, service_fn};
use serde_json::Value;
use tokio::time::Instant;
use tower::ServiceExt as _;

use crate::clock::Clock;
use crate::paths;
use crate::settings::Env;
use crate::task::block_on;
use crate::telemetry;

/// The request's id, as a request extension: Lambda's own, or else one from [`crate::app`].
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

/// When Lambda ends this invocation, as a request extension; absent outside Lambda.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(pub Instant);

impl Deadline {
    /// `None` for a deadline in the past: `cargo lambda watch` counts it from 1970.
    pub fn of(context: &Context, clock: &Clock) -> Option<Self> {
        let now = u64::try_from(clock.now().as_millisecond()).unwrap_or_default();
        let left = context.deadline.checked_sub(now).filter(|left| *left > 0)?;
        let left = Duration::from_millis(left);
        Instant::now().checked_add(left).map(Self)
    }

    /// When to end long work: 10 s before the deadline, to end the stream and settle the call.
    pub fn stop_at(self) -> Instant {
        let reserve = Duration::from_secs(10);
        self.0.checked_sub(reserve).unwrap_or(self.0)
    }
}

pub type Error = lambda_http::Error;

/// The `main` of an HTTP function with buffered responses.
pub fn serve(build: impl AsyncFnOnce(Env) -> Result<Router, Error>) -> Result<(), Error> {
    block_on(async {
        telemetry::init();
        let app = build(Env::process()).await?;
        let handle = service_fn(move |event| {
            let app = app.clone();
            async move { whole(answer(app, event).await?).await }
        });
        lambda_http::run_concurrent(handle).await
    })
}

/// Streams responses. Bodies must not fail: Lambda writes the error's text into the response.
pub fn serve_streaming(build: impl AsyncFnOnce(Env) -> Result<Router, Error>) -> Result<(), Error> {
    block_on(async {
        telemetry::init();
        let app = build(Env::process()).await?;
        let handle = service_fn(move |event| answer(app.clone(), event));
        lambda_http::run_with_streaming_response_concurrent(handle).await
    })
}

/// The `main` of a function that handles events other than HTTP requests.
pub fn serve_events<H, F, E>(build: impl AsyncFnOnce(Env) -> Result<H, Error>) -> Result<(), Error>
where
    H: Fn(Value, Option<Deadline>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Value, E>> + Send + 'static,
    E: Display,
{
    block_on(async {
        telemetry::init();
        let handle = build(Env::process()).await?;
        let handle = service_fn(move |event: LambdaEvent<Value>| {
            let deadline = Deadline::of(&event.context, &Clock::system());
            let handled = handle(event.payload, deadline);
            // The runtime logs an error's `Debug`, which may show a whole request to AWS.
            async { handled.await.map_err(|error| Error::from(error.to_string())) }
        });
        lambda_runtime::run_concurrent(handle).await
    })
}

async fn answer(app: Router, event: lambda_http::Request) -> Result<Response, Infallible> {
    paths::ignore_trailing_slash(app).oneshot(request(event, &Clock::system())).await
}

/// Buffers a response, as text if it is UTF-8, so that it needs no base64.
async fn whole(response: Response) -> Result<lambda_http::Response<lambda_http::Body>, Error> {
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await?;
    let body = match String::from_utf8(body.into()) {
        Ok(text) => lambda_http::Body::Text(text),
        Err(bytes) => lambda_http::Body::Binary(bytes.into_bytes()),
    };
    Ok(lambda_http::Response::from_parts(parts, body))
}

/// Turns an event into an app's request, with [`RequestId`] and [`Deadline`].
fn request(event: lambda_http::Request, clock: &Clock) -> axum::extract::Request {
    let context = event.lambda_context_ref().cloned();
    let mut request = event.map(|body| match body {
        lambda_http::Body::Text(text) => Body::from(text),
        lambda_http::Body::Binary(bytes) => Body::from(bytes),
        _ => Body::empty(),
    });
    if let Some(context) = context {
        let extensions = request.extensions_mut();
        if let Some(deadline) = Deadline::of(&context, clock) {
            extensions.insert(deadline);
        }
        extensions.insert(RequestId(context.request_id));
    }
    request
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;
    use http::Method;
    use http::header::{AUTHORIZATION, CONTENT_TYPE};
    use lambda_http::Body as EventBody;
    use serde_json::json;

    use super::*;

    fn v1(body: Value, base64: bool) -> Value {
        json!({
            "resource": "/{proxy+}",
            "path": "/v1/credits/ledger",
            "httpMethod": "POST",
            "headers": {"Authorization": "Bearer t", "content-type": "application/json", "Host": "api.example"},
            "multiValueHeaders": {"Authorization": ["Bearer t"], "content-type": ["application/json"], "Host": ["api.example"]},
            "queryStringParameters": {"limit": "5"},
            "multiValueQueryStringParameters": {"limit": ["5"]},
            "requestContext": {"stage": "$default", "httpMethod": "POST"},
            "body": body,
            "isBase64Encoded": base64,
        })
    }

    fn v2(body: Value, base64: bool) -> Value {
        json!({
            "version": "2.0",
            "routeKey": "$default",
            "rawPath": "/v1/credits/ledger",
            "rawQueryString": "limit=5",
            "headers": {"authorization": "Bearer t", "content-type": "application/json", "host": "api.example"},
            "requestContext": {"stage": "$default", "http": {"method": "POST", "path": "/v1/credits/ledger"}},
            "body": body,
            "isBase64Encoded": base64,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn events_of_both_versions_become_requests() {
        let clock = Clock::system();
        for event in [v1, v2] {
            for (body, base64, bytes) in [
                (json!("{\"a\":1}"), false, &b"{\"a\":1}"[..]),
                (json!("eyJhIjr/fQ=="), true, &b"{\"a\":\xff}"[..]),
                (json!(null), false, &b""[..]),
                (json!(""), true, &b""[..]),
            ] {
                let mut context = Context::default();
                context.request_id = "3a1f".to_owned();
                let in_a_minute = clock.now().as_millisecond() + 60_000;
                context.deadline = u64::try_from(in_a_minute).unwrap();
                let text = event(body, base64).to_string();
                let event = lambda_http::request::from_str(&text).unwrap();
                let request = request(event.with_lambda_context(context), &clock);

                assert_eq!(request.method(), Method::POST);
                assert_eq!(request.uri().path(), "/v1/credits/ledger");
                assert_eq!(request.uri().query(), Some("limit=5"));
                let authorizations: Vec<_> =
                    request.headers().get_all(AUTHORIZATION).iter().collect();
                assert_eq!(authorizations, ["Bearer t"]);
                assert_eq!(request.headers()[CONTENT_TYPE], "application/json");
                assert_eq!(request.extensions().get::<RequestId>().unwrap().0, "3a1f");
                let deadline = *request.extensions().get::<Deadline>().unwrap();
                let left = deadline.0 - Instant::now();
                assert!((59_000..=60_000).contains(&left.as_millis()), "{left:?}");
                assert_eq!(deadline.0 - deadline.stop_at(), Duration::from_secs(10));
                let read = axum::body::to_bytes(request.into_body(), 100).await.unwrap();
                assert_eq!(read, bytes);
            }
        }
    }

    #[test]
    fn a_past_deadline_is_none() {
        let mut context = Context::default();
        for past in [0, 600_000] {
            context.deadline = past;
            assert!(Deadline::of(&context, &Clock::system()).is_none(), "{past}");
        }
    }

    #[tokio::test]
    async fn a_buffered_response_is_text_if_possible() {
        for (body, expected) in [
            (Body::empty(), EventBody::Text(String::new())),
            (Body::from("grün"), EventBody::Text("grün".to_owned())),
            (Body::from(&b"\xff\x00"[..]), EventBody::Binary(b"\xff\x00".to_vec())),
        ] {
            let response = (http::StatusCode::ACCEPTED, body).into_response();
            let response = whole(response).await.unwrap();
            assert_eq!(response.status(), http::StatusCode::ACCEPTED);
            assert_eq!(*response.body(), expected);
        }
    }

    #[tokio::test]
    async fn a_response_carries_lambdas_request_id() {
        let app = crate::app(Router::new(), crate::Shape::Problem, &crate::HttpSettings::default());
        let event = lambda_http::request::from_str(&v1(json!(null), false).to_string()).unwrap();
        let mut context = Context::default();
        context.request_id = "3a1f".to_owned();
        let response = answer(app, event.with_lambda_context(context)).await.unwrap();
        assert_eq!(response.headers()["x-request-id"], "3a1f");
    }
}
