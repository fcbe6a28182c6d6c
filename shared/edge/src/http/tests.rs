use std::convert::Infallible;

use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ALLOW, AUTHORIZATION,
    CONTENT_LENGTH, VARY, WWW_AUTHENTICATE,
};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::telemetry::tests::Log;

const VARIES: &str = "origin, access-control-request-headers";
const OURS: &str = "https://app.example";

fn settings() -> HttpSettings {
    HttpSettings {
        allowed_origins: vec![HeaderValue::from_static(OURS)],
        ..HttpSettings::default()
    }
}

async fn refused() -> ApiError {
    ApiError::new(Code::InvalidToken, "no token")
}

fn routes() -> Router {
    Router::new()
        .route("/ok", get(async || "fine"))
        .route("/cached", get(async || ([(CACHE_CONTROL, "max-age=60")], "fine")))
        .route("/refused", get(refused).post(refused))
        .route("/bare", get(async || StatusCode::CONFLICT))
        .route("/own-404", get(async || (StatusCode::NOT_FOUND, "mine")))
        .route("/panic", get(async || -> &'static str { panic!("at the disco") }))
}

fn request(method: Method, path: &str) -> Request {
    let request = Request::builder().method(method).uri(path);
    request.body(Body::empty()).unwrap()
}

async fn send(app: &Router, request: Request) -> (StatusCode, HeaderMap, Bytes) {
    let response = app.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status, parts.headers, body)
}

async fn fetch(app: &Router, method: Method, path: &str) -> (StatusCode, HeaderMap, Bytes) {
    send(app, request(method, path)).await
}

fn document(body: &Bytes) -> Value {
    serde_json::from_slice(body).unwrap()
}

#[tokio::test]
async fn errors_as_problems() {
    let app = app(routes(), Shape::Problem, &settings());
    let mut request = request(Method::GET, "/refused");
    request.extensions_mut().insert(RequestId("r1".to_owned()));
    let (status, headers, body) = send(&app, request).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_eq!(headers[CONTENT_TYPE], "application/problem+json");
    assert_eq!(headers[WWW_AUTHENTICATE], "Bearer");
    assert_eq!(headers[CONTENT_LENGTH], body.len().to_string());
    assert_eq!(
        document(&body),
        json!({
            "type": "https://greta.example/problems/invalid_token",
            "title": "The access token is not accepted",
            "status": 401,
            "detail": "no token",
            "code": "invalid_token",
            "request_id": "r1",
        })
    );
}

#[tokio::test]
async fn errors_of_ai_routes() {
    let app = app(routes(), Shape::Ai, &settings());
    let (status, headers, body) = fetch(&app, Method::GET, "/refused").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_eq!(headers[CONTENT_TYPE], "application/json");
    assert!(headers[X_REQUEST_ID].to_str().unwrap().starts_with("req_"));
    assert_eq!(
        document(&body),
        json!({"error": {
            "message": "no token",
            "type": "invalid_token",
            "code": 401,
            "param": null,
            "metadata": {},
        }})
    );
}

#[tokio::test]
async fn every_response_has_the_safe_headers() {
    let app = app(routes(), Shape::Problem, &settings());
    for (method, path) in [
        (Method::GET, "/ok"),
        (Method::GET, "/refused"),
        (Method::GET, "/bare"),
        (Method::GET, "/panic"),
        (Method::GET, "/nowhere"),
        (Method::PUT, "/ok"),
        (Method::OPTIONS, "/ok"),
        (Method::OPTIONS, "/nowhere"),
    ] {
        let (_, headers, _) = fetch(&app, method.clone(), path).await;
        assert_eq!(headers[CACHE_CONTROL], "no-store", "{method} {path}");
        assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff", "{method} {path}");
        assert_eq!(headers[VARY], VARIES, "{method} {path}");
        assert!(headers.contains_key(X_REQUEST_ID), "{method} {path}");
    }
    let (_, headers, _) = fetch(&app, Method::GET, "/cached").await;
    assert_eq!(headers[CACHE_CONTROL], "max-age=60");
}

#[tokio::test]
async fn unknown_paths_and_methods() {
    let app = app(routes(), Shape::Problem, &settings());
    let (status, _, body) = fetch(&app, Method::GET, "/nowhere").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(document(&body)["code"], "not_found");
    let (status, headers, body) = fetch(&app, Method::DELETE, "/refused").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(document(&body)["code"], "method_not_allowed");
    assert_eq!(headers[ALLOW], "GET,HEAD,POST");
    // A function's own responses stay unchanged.
    let (status, _, body) = fetch(&app, Method::GET, "/own-404").await;
    assert_eq!((status, &body[..]), (StatusCode::NOT_FOUND, &b"mine"[..]));
    let (status, _, body) = fetch(&app, Method::GET, "/bare").await;
    assert_eq!((status, &body[..]), (StatusCode::CONFLICT, &b""[..]));
}

#[tokio::test]
async fn several_apps_merge() {
    let ai = app(Router::new().route("/v1/chat", post(refused)), Shape::Ai, &settings());
    let card = app(Router::new().route("/v1/card", get(refused)), Shape::Problem, &settings());
    let pages = app(Router::new().route("/", get(async || "page")), Shape::Problem, &settings());
    let merged = ai.clone().merge(card.clone()).merge(pages.clone());
    for (name, app) in [
        ("merge", merged),
        ("gateway", gateway([ai.clone(), card.clone(), pages.clone()], &settings())),
        ("gateway, the AI last", gateway([pages, card, ai], &settings())),
    ] {
        let code = async |method: Method, path: &str| {
            let (status, headers, body) = fetch(&app, method, path).await;
            let document = document(&body);
            let code = document.pointer("/error/type").unwrap_or(&document["code"]);
            let shape = headers[CONTENT_TYPE].to_str().unwrap().to_owned();
            (status.as_u16(), code.as_str().unwrap().to_owned(), shape)
        };
        let ai_error =
            |status: u16, code: &str| (status, code.to_owned(), "application/json".to_owned());
        let problem = |status: u16, code: &str| {
            (status, code.to_owned(), "application/problem+json".to_owned())
        };
        assert_eq!(code(Method::POST, "/v1/chat").await, ai_error(401, "invalid_token"), "{name}");
        assert_eq!(code(Method::GET, "/v1/card").await, problem(401, "invalid_token"), "{name}");
        assert_eq!(
            code(Method::GET, "/v1/chat").await,
            ai_error(405, "method_not_allowed"),
            "{name}"
        );
        assert_eq!(
            code(Method::PUT, "/v1/card").await,
            problem(405, "method_not_allowed"),
            "{name}"
        );
        assert_eq!(code(Method::GET, "/v1").await, ai_error(404, "not_found"), "{name}");
        assert_eq!(code(Method::GET, "/elsewhere").await, problem(404, "not_found"), "{name}");
        let (_, headers, _) = fetch(&app, Method::GET, "/v1/chat").await;
        assert_eq!(headers[ALLOW], "POST", "{name}");
        let (status, _, _) = fetch(&app, Method::OPTIONS, "/v1/nowhere").await;
        assert_eq!(status, StatusCode::OK, "{name}");
        let (status, _, body) = fetch(&app, Method::GET, "/").await;
        assert_eq!((status, &body[..]), (StatusCode::OK, &b"page"[..]), "{name}");
    }
}

#[tokio::test]
async fn a_preflight_is_answered_before_identity_and_for_any_path() {
    let app = app(routes(), Shape::Problem, &settings());
    for path in ["/refused", "/nowhere"] {
        let mut request = request(Method::OPTIONS, path);
        let headers = request.headers_mut();
        headers.insert(ORIGIN, HeaderValue::from_static(OURS));
        headers.insert(ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("PATCH"));
        let requested = "authorization,x-stainless-retry-count,anthropic-version";
        headers.insert(ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static(requested));
        let (status, headers, body) = send(&app, request).await;
        assert_eq!((status, body.len()), (StatusCode::OK, 0));
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], OURS);
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_METHODS], "GET,POST,PUT,PATCH,DELETE");
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_HEADERS], requested);
        assert_eq!(headers[ACCESS_CONTROL_MAX_AGE], "600");
        assert!(!headers.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS));
        assert!(!headers.contains_key(WWW_AUTHENTICATE));
    }
}

#[tokio::test]
async fn only_our_origins_are_allowed() {
    let ours = settings();
    let no_origins = HttpSettings::default();
    for (settings, origin, allowed) in [
        (&ours, Some(OURS), true),
        (&ours, Some("https://app.example:8443"), false),
        (&ours, Some("http://app.example"), false),
        (&ours, Some("https://app.example.evil.example"), false),
        (&ours, Some("null"), false),
        (&ours, None, false),
        (&no_origins, Some(OURS), false),
    ] {
        let app = app(routes(), Shape::Problem, settings);
        for (method, path) in
            [(Method::OPTIONS, "/ok"), (Method::GET, "/ok"), (Method::GET, "/refused")]
        {
            let mut request = request(method.clone(), path);
            if let Some(origin) = origin {
                request.headers_mut().insert(ORIGIN, HeaderValue::from_static(origin));
            }
            let (_, headers, _) = send(&app, request).await;
            let named =
                headers.get(ACCESS_CONTROL_ALLOW_ORIGIN).map(|value| value.to_str().unwrap());
            assert_eq!(named, allowed.then_some(OURS), "{method} {path} from {origin:?}");
            assert_eq!(headers[VARY], VARIES);
            if origin.is_some() && method == Method::GET {
                assert_eq!(headers[ACCESS_CONTROL_EXPOSE_HEADERS], EXPOSED.join(","));
            }
        }
    }
}

#[tokio::test]
async fn a_panic_is_an_internal_error() {
    let (log, _guard) = Log::capture();
    let app = app(routes(), Shape::Ai, &settings());
    let (status, _, body) = fetch(&app, Method::GET, "/panic").await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(document(&body)["error"]["type"], "internal_error");
    assert!(!String::from_utf8_lossy(&body).contains("disco"));
    let [panicked, answered] = log.lines().try_into().unwrap();
    assert_eq!(panicked["panic"], "at the disco");
    assert_eq!(panicked["request_id"], answered["request_id"]);
}

#[tokio::test]
async fn one_line_per_request_without_query_headers_or_body() {
    let (log, _guard) = Log::capture();
    let app = app(routes(), Shape::Problem, &settings());
    let mut request = Request::builder()
        .method(Method::POST)
        .uri("/refused?code=hush")
        .header(AUTHORIZATION, "Bearer hush")
        .body(Body::from("hush"))
        .unwrap();
    request.extensions_mut().insert(RequestId("r1".to_owned()));
    send(&app, request).await;
    let [line] = log.lines().try_into().unwrap();
    for (name, value) in [
        ("request_id", json!("r1")),
        ("method", json!("POST")),
        ("path", json!("/refused")),
        ("status", json!(401)),
        ("code", json!("invalid_token")),
        ("level", json!("INFO")),
    ] {
        assert_eq!(line[name], value, "{name}");
    }
    assert!(line["duration_ms"].is_u64());
    assert!(!log.text().contains("hush"));
}

#[tokio::test]
async fn a_streamed_body_passes_frame_by_frame_with_its_trailers() {
    let trailers = HeaderMap::from_iter([(X_REQUEST_ID, HeaderValue::from_static("t"))]);
    let given = trailers.clone();
    let routes = Router::new().route(
        "/stream",
        get(async move || {
            let chunks = stream::iter(["one", "two"].map(Ok::<_, Infallible>));
            let trailers = async move { Some(Ok(given)) };
            Body::new(Body::from_stream(chunks).with_trailers(trailers))
        }),
    );
    let app = app(routes, Shape::Ai, &settings());
    let response = app.oneshot(request(Method::GET, "/stream")).await.unwrap();
    assert!(!response.headers().contains_key(CONTENT_LENGTH));
    let mut body = response.into_body();
    assert_eq!(body.size_hint().exact(), None);
    for expected in ["one", "two"] {
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), expected);
    }
    let last = body.frame().await.unwrap().unwrap();
    assert_eq!(last.into_trailers().unwrap(), trailers);
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn a_stream_is_passed_on_before_it_ends() {
    let (chunks, received) = tokio::sync::mpsc::channel::<Result<Bytes, Infallible>>(1);
    let received = std::sync::Arc::new(tokio::sync::Mutex::new(Some(received)));
    let routes = Router::new().route(
        "/stream",
        get(async move || {
            let received = received.lock().await.take().unwrap();
            Body::from_stream(stream::unfold(received, async |mut received| {
                Some((received.recv().await?, received))
            }))
        }),
    );
    let app = app(routes, Shape::Ai, &settings());
    let response = app.oneshot(request(Method::GET, "/stream")).await.unwrap();
    let mut body = response.into_body();
    for chunk in ["one", "two"] {
        chunks.send(Ok(Bytes::from(chunk))).await.unwrap();
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), chunk);
    }
    drop(chunks);
    assert!(body.frame().await.is_none());
}
