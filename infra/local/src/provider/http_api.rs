//! The provider's routes: HTTP to [`ApiRequest`]s and back, and the checkout page.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::routing::{any, get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri};
use tokio::sync::oneshot;

use super::acts::PayError;
use super::api::{ApiReply, ApiRequest};
use super::card::Card;
use super::form::Form;
use super::objects::API_VERSION;
use super::state::ProviderState;
use super::{Shared, page};
use crate::serve::{self, CloseWithoutHead};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const STRIPE_VERSION: HeaderName = HeaderName::from_static("stripe-version");

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/{*path}", any(api))
        .route("/checkout/{session}", get(checkout))
        .route("/checkout/{session}/pay", post(pay))
        .route("/checkout/{session}/decline", post(decline))
        .route("/invoice/{id}", get(invoice))
        .route("/invoice/{id}/pay", post(pay_invoice))
        .route("/invoice/{id}/decline", post(decline_invoice))
        .with_state(shared)
}

async fn api(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let parameters = match uri.query() {
        Some(query) if body.is_empty() => query.as_bytes(),
        _ => &body,
    };
    let request = ApiRequest {
        method,
        path: uri.path().to_owned(),
        api_key: api_key(&headers),
        idempotency_key: header(&headers, &IDEMPOTENCY_KEY).map(str::to_owned),
        form: Form::parse(parameters),
    };
    let begun = shared.act(|state, now| state.begin(&request, now));
    let reply = match begun {
        Some(reply) => reply,
        None if request.method == Method::POST => carry_out(shared, request).await,
        None => shared.act(|state, now| state.execute(&request, now)),
    };
    response(reply)
}

/// A request that has begun is carried out also when its caller does not wait for it.
async fn carry_out(shared: Arc<Shared>, request: ApiRequest) -> ApiReply {
    let (answer, answered) = oneshot::channel();
    serve::spawn(async move {
        shared.until_resumed(&request.path).await;
        let reply = shared.act(|state, now| state.execute(&request, now));
        // Whoever asked may be gone.
        let _ = answer.send(reply);
    });
    answered.await.expect("the task does not panic")
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// `Bearer KEY`, or `Basic` with the key as the user's name.
fn api_key(headers: &HeaderMap) -> Option<String> {
    let value = header(headers, &AUTHORIZATION)?;
    let key = if let Some(key) = value.strip_prefix("Bearer ") {
        key.to_owned()
    } else {
        let decoded = STANDARD.decode(value.strip_prefix("Basic ")?).ok()?;
        let text = String::from_utf8(decoded).ok()?;
        text.split(':').next().unwrap_or_default().to_owned()
    };
    Some(key).filter(|key| !key.is_empty())
}

fn response(reply: ApiReply) -> Response<Body> {
    let mut response = Response::new(Body::from(reply.body));
    if reply.lost {
        response.extensions_mut().insert(CloseWithoutHead);
        return response;
    }
    *response.status_mut() = StatusCode::from_u16(reply.status).expect("its statuses exist");
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(STRIPE_VERSION, HeaderValue::from_static(API_VERSION));
    if reply.replayed {
        headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

async fn checkout(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response<Body> {
    shared.act(|state, now| {
        state.advance_to(now);
        let status = if state.sessions.contains_key(&id) {
            StatusCode::OK
        } else {
            StatusCode::NOT_FOUND
        };
        html(status, page::checkout(state, &id, None))
    })
}

async fn pay(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    body: Bytes,
) -> Response<Body> {
    let Some(card) = chosen(&body) else {
        return no_such_card();
    };
    shared.act(|state, now| {
        let paid = state.pay(&id, card, now);
        after(state, &id, paid)
    })
}

async fn decline(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response<Body> {
    shared.act(|state, now| {
        let declined = state.decline(&id, now);
        after(state, &id, declined)
    })
}

async fn invoice(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response<Body> {
    shared.act(|state, _| {
        let status = if state.invoices.contains_key(&id) {
            StatusCode::OK
        } else {
            StatusCode::NOT_FOUND
        };
        html(status, page::invoice(state, &id, None))
    })
}

async fn pay_invoice(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    body: Bytes,
) -> Response<Body> {
    match chosen(&body) {
        Some(card) => settle_invoice(&shared, &id, card),
        None => no_such_card(),
    }
}

async fn decline_invoice(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Response<Body> {
    settle_invoice(&shared, &id, Card::DeclinesSoftly)
}

fn settle_invoice(shared: &Shared, id: &str, card: Card) -> Response<Body> {
    shared.act(|state, now| match state.pay_open_invoice(id, card, now) {
        Ok(()) => html(StatusCode::OK, page::invoice(state, id, None)),
        Err(problem) => html(
            status_of(&problem),
            page::invoice(state, id, Some(&problem)),
        ),
    })
}

fn chosen(body: &[u8]) -> Option<Card> {
    let form = Form::parse(body);
    form.get("card").and_then(|card| card.parse().ok())
}

fn no_such_card() -> Response<Body> {
    html(
        StatusCode::BAD_REQUEST,
        "there is no such test card".to_owned(),
    )
}

/// What the browser sees after an attempt to pay.
fn after(state: &ProviderState, id: &str, paid: Result<String, PayError>) -> Response<Body> {
    let problem = match paid {
        Ok(url) => {
            let mut response = html(StatusCode::SEE_OTHER, String::new());
            match HeaderValue::try_from(url) {
                Ok(url) => response.headers_mut().insert(LOCATION, url),
                Err(_) => return html(StatusCode::OK, page::checkout(state, id, None)),
            };
            return response;
        }
        Err(PayError::NoAnswer) => {
            let mut response = Response::new(Body::empty());
            response.extensions_mut().insert(CloseWithoutHead);
            return response;
        }
        Err(problem) => problem,
    };
    html(
        status_of(&problem),
        page::checkout(state, id, Some(&problem)),
    )
}

fn status_of(problem: &PayError) -> StatusCode {
    match problem {
        PayError::NoSuchSession => StatusCode::NOT_FOUND,
        PayError::Declined(_) => StatusCode::PAYMENT_REQUIRED,
        _ => StatusCode::CONFLICT,
    }
}

fn html(status: StatusCode, page: String) -> Response<Body> {
    let mut response = Response::new(Body::from(page));
    *response.status_mut() = status;
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, html);
    response
}
