//! The simulator's routes: the API, and the pages of Checkout Sessions and invoices.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{any, get, post};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use tokio::sync::oneshot;

use super::admission::{ApiRequest, ApiResponse};
use super::card::{Card, PayError};
use super::handle::StripeHandle;
use super::params::Params;
use super::state::{API_VERSION, StripeState};
use super::{api, checkout, invoices, page};
use crate::serve;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const STRIPE_VERSION: HeaderName = HeaderName::from_static("stripe-version");

pub(super) fn router(stripe: StripeHandle) -> Router {
    Router::new()
        .route("/v1/{*path}", any(api))
        .route("/checkout/{id}", get(show))
        .route("/checkout/{id}/{choice}", post(pay))
        .route("/invoice/{id}", get(show))
        .route("/invoice/{id}/{choice}", post(pay))
        .with_state(stripe)
}

async fn api(
    State(stripe): State<StripeHandle>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let params = match uri.query() {
        Some(query) if body.is_empty() => query.as_bytes(),
        _ => &body,
    };
    let request = ApiRequest {
        method,
        path: uri.path().to_owned(),
        api_key: serve::bearer(&headers).map(str::to_owned),
        idempotency_key: headers
            .get(IDEMPOTENCY_KEY)
            .and_then(|key| key.to_str().ok().map(str::to_owned)),
        params: Params::parse(params),
    };
    let begun = stripe.act(|state| api::begin(state, &request));
    api_response(match begun {
        Some(response) => response,
        None if request.method == Method::POST => execute_detached(stripe, request).await,
        None => stripe.act(|state| api::execute(state, &request)),
    })
}

/// Carries out a request that has begun, even if its caller goes away.
async fn execute_detached(stripe: StripeHandle, request: ApiRequest) -> ApiResponse {
    let (sender, response) = oneshot::channel();
    serve::spawn(async move {
        stripe.until_resumed(&request.path).await;
        let response = stripe.act(|state| api::execute(state, &request));
        // The caller may be gone.
        let _ = sender.send(response);
    });
    response.await.expect("the task does not panic")
}

fn api_response(reply: ApiResponse) -> Response {
    if reply.lost {
        return serve::close_without_head();
    }
    let mut response = Response::new(Body::from(reply.body));
    *response.status_mut() = StatusCode::from_u16(reply.status).expect("a valid status");
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(STRIPE_VERSION, HeaderValue::from_static(API_VERSION));
    if reply.replayed {
        headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

async fn show(State(stripe): State<StripeHandle>, Path(id): Path<String>) -> Response {
    stripe.act(|state| {
        checkout::expire_due(state);
        page(state, &id, None)
    })
}

async fn pay(
    State(stripe): State<StripeHandle>,
    Path((id, choice)): Path<(String, String)>,
    body: Bytes,
) -> Response {
    let Some(card) = chosen_card(&choice, &body) else {
        return (StatusCode::BAD_REQUEST, "no such test card").into_response();
    };
    stripe.act(|state| {
        let paid = if state.known("invoice", &id).is_ok() {
            invoices::pay_on_page(state, &id, card).map(|()| page(state, &id, None))
        } else {
            checkout::pay(state, &id, card).map(|url| Redirect::to(&url).into_response())
        };
        match paid {
            Ok(response) => response,
            Err(PayError::NoResponse) => serve::close_without_head(),
            Err(problem) => page(state, &id, Some(&problem)),
        }
    })
}

/// The card behind the button that was pressed: `pay`, with the card in the form, or `decline`.
fn chosen_card(choice: &str, body: &[u8]) -> Option<Card> {
    match choice {
        "pay" => Card::named(Params::parse(body).get("card")?),
        "decline" => Some(Card::DeclinesSoftly),
        _ => None,
    }
}

/// The page of a Checkout Session or an invoice, with the reason why a payment just failed.
fn page(state: &StripeState, id: &str, problem: Option<&PayError>) -> Response {
    let status = match problem {
        None => StatusCode::OK,
        Some(PayError::Declined(_)) => StatusCode::PAYMENT_REQUIRED,
        Some(_) => StatusCode::CONFLICT,
    };
    let resource = state.get(id);
    let (status, page) = match resource["object"].as_str() {
        Some("checkout.session") => (status, page::checkout(resource, problem)),
        Some("invoice") => (status, page::invoice(resource, problem)),
        _ => (StatusCode::NOT_FOUND, page::not_found()),
    };
    (status, Html(page)).into_response()
}
