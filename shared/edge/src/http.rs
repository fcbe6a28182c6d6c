//! The layer around every HTTP function's routes: request id, span and log line, error bodies,
//! CORS, and a response after a panic.
//!
//! It gives the router's own empty 404 and 405 their error codes. It sets no axum fallback, because
//! apps with fallbacks do not merge.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::header::{
    ACCESS_CONTROL_REQUEST_HEADERS, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, ORIGIN,
    VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, StatusCode};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};
use tracing::Instrument as _;

use crate::body::refuse_compressed;
use crate::error::{ApiError, Code};
use crate::ids::new_id;
use crate::lambda::RequestId;
use crate::paths;
use crate::settings::HttpSettings;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Headers that a page may read.
const EXPOSED: [&str; 11] = [
    "x-greta-payer",
    "x-greta-route-reason",
    "x-greta-call-id",
    "x-greta-model",
    "x-greta-credits-charged",
    "x-greta-ignored",
    "x-greta-output-limit",
    "x-generation-id",
    "x-should-retry",
    "retry-after",
    "request-id",
];

/// The format of an endpoint's errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// RFC 9457, `application/problem+json`.
    Problem,
    /// The form that OpenAI's and OpenRouter's SDKs read.
    Ai,
}

/// Wraps a function's routes. Response bodies pass through unchanged.
pub fn app(routes: Router, shape: Shape, settings: &HttpSettings) -> Router {
    // A single layer, because each one clones everything below it on every request.
    let edge = Edge { shape, cors: cors(settings) };
    routes.layer(middleware::from_fn_with_state(Arc::new(edge), around))
}

/// Merges the apps of several functions.
pub fn gateway(apps: impl IntoIterator<Item = Router>, settings: &HttpSettings) -> Router {
    // The app merged last handles what no route matches.
    let rest = app(Router::new(), Shape::Problem, settings);
    let merged = apps.into_iter().fold(Router::new(), Router::merge).merge(rest);
    Router::new().fallback_service(paths::ignore_trailing_slash(merged))
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
    let path = request.uri().path().to_owned();
    async move {
        let response = edge.answer(request, next).await;
        let (response, code) = edge.finish(response, &path, &id);
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
    /// The routes' response, with CORS headers.
    async fn answer(&self, request: Request, next: Next) -> Response {
        let from_a_page =
            request.headers().contains_key(ORIGIN) || request.method() == Method::OPTIONS;
        if from_a_page {
            let routes = service_fn(|request: Request| {
                let next = next.clone();
                async { Ok::<_, Infallible>(self.routes(request, next).await) }
            });
            let Ok(response) = self.cors.layer(routes).oneshot(request).await;
            return response;
        }
        let mut response = self.routes(request, next).await;
        // Keeps caches from serving this response, which has no CORS headers, to a page.
        response
            .headers_mut()
            .append(VARY, HeaderValue::from_static("origin, access-control-request-headers"));
        response
    }

    async fn routes(&self, request: Request, next: Next) -> Response {
        // AI routes refuse a compressed body themselves, because their refusals carry a receipt.
        if self.shape == Shape::Problem
            && let Err(error) = refuse_compressed(request.headers())
        {
            return error.into_response();
        }
        let answer = AssertUnwindSafe(next.run(request)).catch_unwind().await;
        answer.unwrap_or_else(after_panic)
    }

    fn finish(&self, response: Response, path: &str, id: &RequestId) -> (Response, Option<Code>) {
        let (mut parts, mut body) = response.into_parts();
        let own = parts.extensions.remove::<ApiError>();
        let bare = body.size_hint().exact() == Some(0) && !parts.headers.contains_key(CONTENT_TYPE);
        let error = match (own, parts.status) {
            (Some(error), _) => Some((self.shape, error)),
            // An error of the router itself.
            (None, StatusCode::NOT_FOUND) if bare => {
                // AI SDKs call paths that do not exist here, and can read only this shape.
                let shape = if paths::is_api_path(path) { Shape::Ai } else { Shape::Problem };
                Some((shape, paths::not_found(path)))
            }
            (None, StatusCode::METHOD_NOT_ALLOWED) if bare => {
                Some((self.shape, paths::method_not_allowed()))
            }
            _ => None,
        };
        let headers = &mut parts.headers;
        if let Some((shape, error)) = &error {
            let (content_type, document) = match shape {
                Shape::Problem => ("application/problem+json", error.problem_body(&id.0)),
                Shape::Ai => ("application/json", error.ai_body()),
            };
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            body = Body::from(document.to_string());
        }
        if let Ok(id) = HeaderValue::from_str(&id.0) {
            headers.insert(X_REQUEST_ID, id);
        }
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        (Response::from_parts(parts, body), error.map(|(_, error)| error.code()))
    }
}

/// Answers every `OPTIONS`, so that preflights need no token, and allows the configured origins.
/// All headers are allowed, because SDKs send many and none of them identifies the caller.
fn cors(settings: &HttpSettings) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(settings.allowed_origins.clone()))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(EXPOSED.map(HeaderName::from_static))
        .max_age(Duration::from_mins(10))
        .vary([ORIGIN, ACCESS_CONTROL_REQUEST_HEADERS])
}

fn after_panic(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = text.unwrap_or("not a text"), "request panicked");
    ApiError::unexplained().into_response()
}

#[cfg(test)]
mod tests;
