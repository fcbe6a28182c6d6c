//! The layer around every HTTP function's routes: request id, span and log line, error bodies,
//! CORS, and a response after a panic.
//!
//! It gives the router's own empty 404 and 405 their error codes. It sets no axum fallback, because
//! apps with fallbacks do not merge.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, ORIGIN, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, StatusCode};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::Instrument as _;

use crate::error::{ApiError, Code};
use crate::ids::new_id;
use crate::lambda::RequestId;
use crate::settings::HttpSettings;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The format of an endpoint's errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// RFC 9457, `application/problem+json`.
    Problem,
    /// OpenAI's, so that its SDKs raise their usual exceptions.
    OpenAi,
}

/// Wraps a function's routes. Response bodies pass through unchanged.
pub fn app(routes: Router, shape: Shape, settings: &HttpSettings) -> Router {
    // A single layer, because each one clones everything below it on every request.
    let edge = Edge { shape, cors: cors(settings) };
    routes.layer(middleware::from_fn_with_state(Arc::new(edge), around))
}

/// Merges the apps of several functions; an unknown path gets a problem document.
pub fn gateway(apps: impl IntoIterator<Item = Router>, settings: &HttpSettings) -> Router {
    // The app merged last handles what no route matches.
    let rest = app(Router::new(), Shape::Problem, settings);
    apps.into_iter().fold(Router::new(), Router::merge).merge(rest)
}

struct Edge {
    shape: Shape,
    cors: CorsLayer,
}

async fn around(State(edge): State<Arc<Edge>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = match request.extensions().get::<RequestId>() {
        Some(id) => id.clone(),
        None => RequestId(new_id("req")),
    };
    request.extensions_mut().insert(id.clone());
    // At the highest level, so that log lines of every level have the span.
    let span = tracing::error_span!(
        "request",
        request_id = id.0,
        method = request.method().as_str(),
        path = request.uri().path(),
        // Known once the token is checked, and once the request is an AI call.
        account = tracing::field::Empty,
        call_id = tracing::field::Empty,
        // Known once an AI call is routed.
        payer = tracing::field::Empty,
        reason = tracing::field::Empty,
        generation_id = tracing::field::Empty,
    );
    async move {
        let response = edge.answer(request, next).await;
        let (response, code) = finish(response, edge.shape, &id);
        tracing::info!(
            status = response.status().as_u16(),
            duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            code = code.map(Code::as_str),
            "answered"
        );
        response
    }
    .instrument(span)
    .await
}

impl Edge {
    /// The routes' response, with the headers that pages from other origins need to read it.
    async fn answer(&self, request: Request, next: Next) -> Response {
        let from_a_page =
            request.headers().contains_key(ORIGIN) || request.method() == Method::OPTIONS;
        if from_a_page {
            let routes = service_fn(|request: Request| {
                let next = next.clone();
                async { Ok::<_, Infallible>(routes(request, next).await) }
            });
            let Ok(response) = self.cors.layer(routes).oneshot(request).await;
            return response;
        }
        let mut response = routes(request, next).await;
        // A cache must not serve a page a response without CORS headers.
        response.headers_mut().append(VARY, HeaderValue::from_static("origin"));
        response
    }
}

async fn routes(request: Request, next: Next) -> Response {
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    answer.unwrap_or_else(after_panic)
}

fn finish(response: Response, shape: Shape, id: &RequestId) -> (Response, Option<Code>) {
    let (mut parts, mut body) = response.into_parts();
    let error = parts
        .extensions
        .remove::<ApiError>()
        .or_else(|| unrouted(parts.status, &parts.headers, &body));
    let headers = &mut parts.headers;
    if let Some(error) = &error {
        let (content_type, document) = match shape {
            Shape::Problem => ("application/problem+json", error.problem_body(&id.0)),
            Shape::OpenAi => ("application/json", error.openai_body()),
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        body = Body::from(document.to_string());
    }
    if let Ok(id) = HeaderValue::from_str(&id.0) {
        headers.insert(X_REQUEST_ID, id);
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    (Response::from_parts(parts, body), error.map(|error| error.code()))
}

/// Explains the router's bare 404 and 405.
fn unrouted(status: StatusCode, headers: &http::HeaderMap, body: &Body) -> Option<ApiError> {
    let bare = body.size_hint().exact() == Some(0) && !headers.contains_key(CONTENT_TYPE);
    let (code, detail) = match status {
        StatusCode::NOT_FOUND => (Code::NotFound, "there is nothing at this path"),
        StatusCode::METHOD_NOT_ALLOWED => (
            Code::MethodNotAllowed,
            "this path does not take this method; the Allow header lists those it takes",
        ),
        _ => return None,
    };
    bare.then(|| ApiError::new(code, detail))
}

/// Answers every `OPTIONS`, so that no preflight needs a token, and allows our origins.
fn cors(settings: &HttpSettings) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(settings.allowed_origins.clone()))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE, HeaderName::from_static("idempotency-key")])
        .expose_headers(
            [
                "x-greta-payer",
                "x-greta-route-reason",
                "x-greta-call-id",
                "x-greta-model",
                "x-greta-credits-charged",
                "retry-after",
            ]
            .map(HeaderName::from_static),
        )
        .vary([ORIGIN])
}

fn after_panic(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = text.unwrap_or("not a text"), "request panicked");
    ApiError::unexplained().into_response()
}

#[cfg(test)]
mod tests;
