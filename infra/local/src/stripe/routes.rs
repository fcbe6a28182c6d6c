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
use super::card::Card;
use super::checkout::PayError;
use super::handle::StripeHandle;
use super::page;
use super::params::Params;
use super::state::{API_VERSION, StripeState};
use crate::serve;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const STRIPE_VERSION: HeaderName = HeaderName::from_static("stripe-version");

pub(super) fn router(stripe: StripeHandle) -> Router {
    Router::new()
        .route("/v1/{*path}", any(api))
        .route("/checkout/{session}", get(checkout))
        .route("/checkout/{session}/{choice}", post(pay))
        .route("/invoice/{id}", get(invoice))
        .route("/invoice/{id}/{choice}", post(pay_invoice))
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
    let begun = stripe.act(|state| state.begin(&request));
    api_response(match begun {
        Some(response) => response,
        None if request.method == Method::POST => execute_detached(stripe, request).await,
        None => stripe.act(|state| state.execute(&request)),
    })
}

/// Carries out a request that has begun, even if its caller goes away.
async fn execute_detached(stripe: StripeHandle, request: ApiRequest) -> ApiResponse {
    let (sender, response) = oneshot::channel();
    serve::spawn(async move {
        stripe.until_resumed(&request.path).await;
        let response = stripe.act(|state| state.execute(&request));
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

async fn checkout(State(stripe): State<StripeHandle>, Path(id): Path<String>) -> Response {
    stripe.act(|state| {
        state.expire_sessions();
        checkout_page(state, &id, None)
    })
}

async fn invoice(State(stripe): State<StripeHandle>, Path(id): Path<String>) -> Response {
    stripe.act(|state| invoice_page(state, &id, None))
}

async fn pay(
    State(stripe): State<StripeHandle>,
    Path((id, choice)): Path<(String, String)>,
    body: Bytes,
) -> Response {
    let Some(card) = chosen_card(&choice, &body) else {
        return no_such_card();
    };
    stripe.act(|state| match state.pay(&id, card) {
        Ok(url) => Redirect::to(&url).into_response(),
        Err(PayError::NoResponse) => serve::close_without_head(),
        Err(problem) => checkout_page(state, &id, Some(&problem)),
    })
}

async fn pay_invoice(
    State(stripe): State<StripeHandle>,
    Path((id, choice)): Path<(String, String)>,
    body: Bytes,
) -> Response {
    let Some(card) = chosen_card(&choice, &body) else {
        return no_such_card();
    };
    stripe.act(|state| {
        let problem = state.pay_open_invoice(&id, card).err();
        invoice_page(state, &id, problem.as_ref())
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

fn no_such_card() -> Response {
    (StatusCode::BAD_REQUEST, "no such test card").into_response()
}

fn checkout_page(state: &StripeState, id: &str, problem: Option<&PayError>) -> Response {
    let id = state.known("checkout.session", id).ok();
    page_response(id.map(|id| page::checkout(state.get(&id), problem)), problem)
}

fn invoice_page(state: &StripeState, id: &str, problem: Option<&PayError>) -> Response {
    let id = state.known("invoice", id).ok();
    page_response(id.map(|id| page::invoice(state.get(&id), problem)), problem)
}

fn page_response(page: Option<String>, problem: Option<&PayError>) -> Response {
    let status = match (&page, problem) {
        (None, _) | (_, Some(PayError::NotFound)) => StatusCode::NOT_FOUND,
        (_, Some(PayError::Declined(_))) => StatusCode::PAYMENT_REQUIRED,
        (_, Some(_)) => StatusCode::CONFLICT,
        (Some(_), None) => StatusCode::OK,
    };
    (status, Html(page.unwrap_or_else(page::not_found))).into_response()
}
