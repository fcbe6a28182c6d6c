//! The development helpers (contract, section 8): `/_dev/…`, on this machine only.

use std::time::Duration;

use account::{Account, AccountId, CallId};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use edge::{ApiError, Clock, Code, HttpSettings, Shape};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use store::Store;

use crate::accounts::{AccountChange, change_account, stored};
use crate::guard::guarded;
use crate::issuer::Issuer;
use crate::queue::Consumer;
use crate::sign_in::SignIn;
use crate::stripe::StripeHandle;

pub(crate) const TRY_A_CALL: &str = "/_dev/try-a-call.js";
const MAX_BODY: usize = 64 * 1024;
const TOKEN_LIFETIME: Duration = Duration::from_hours(24);

#[derive(Clone)]
pub(crate) struct Dev {
    pub(crate) issuer: Issuer,
    pub(crate) clock: Clock,
    pub(crate) store: Store,
    /// The Stripe simulator; `None` where the real Stripe replaces it.
    pub(crate) stripe: Option<StripeHandle>,
    pub(crate) monthly_charge: monthly_charge::Deps,
    pub(crate) consumer: Consumer,
    pub(crate) running: ai_proxy::Running,
    pub(crate) sign_in: SignIn,
}

pub(crate) fn router(dev: Dev, http: &HttpSettings) -> Router {
    let routes = Router::new()
        .route("/_dev/token", post(token))
        .route("/_dev/accounts/{id}", put(change).get(show))
        .route("/_dev/tick", post(tick))
        .route(TRY_A_CALL, get(try_a_call))
        .with_state(dev.clone())
        .merge(dev.sign_in.router());
    // The guard comes first, so that it also refuses preflights.
    guarded(edge::app(routes, Shape::Problem, http))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenRequest {
    account_id: AccountId,
    role: String,
}

/// A panel on the settings page that makes a call and shows how the switches route it.
async fn try_a_call() -> impl IntoResponse {
    let javascript = HeaderValue::from_static("text/javascript; charset=utf-8");
    ([(CONTENT_TYPE, javascript)], include_str!("../pages/try-a-call.js"))
}

async fn token(State(dev): State<Dev>, body: Body) -> Result<Json<Value>, ApiError> {
    let request: TokenRequest = read(body).await?;
    if !matches!(request.role.as_str(), "owner" | "member") {
        return Err(ApiError::new(Code::InvalidRequest, "`role` is `owner` or `member`"));
    }
    let account = request.account_id.as_str();
    let token = dev.issuer.token(account, &request.role, dev.clock.now(), TOKEN_LIFETIME);
    Ok(Json(json!({ "token": token })))
}

async fn change(
    State(dev): State<Dev>,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let id = account_id(id)?;
    let change: AccountChange = read(body).await?;
    let now = dev.clock.now();
    let account = change_account(&dev.store, dev.stripe.as_ref(), &id, change, now).await?;
    Ok(Json(json!({ "account": account_json(&account) })))
}

async fn show(State(dev): State<Dev>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let id = account_id(id)?;
    let account = stored(&dev.store, &id).await?;
    let account = account.ok_or_else(ApiError::account_not_found)?;
    let now = dev.clock.now();
    let reconciled = dev.store.books.reconcile(&id, &account.number, now).await;
    let reconciled = reconciled.map_err(|error| ApiError::storage(&error))?;
    let holds = reconciled.open_holds.iter().map(|open| {
        json!({
            "call_id": open.hold.call,
            "amount": open.hold.amount,
            "created_at": open.created_at,
            "next_check_at": open.next_check_at,
            "expires_at": open.expires_at,
            "generation_id": open.generation_id,
        })
    });
    Ok(Json(json!({
        "account": account_json(&account),
        "holds": holds.collect::<Vec<_>>(),
        "reconciliation": {
            "ok": reconciled.problems.is_empty(),
            "problems": reconciled.problems,
        },
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TickRequest {
    time: Timestamp,
}

/// Runs a tick, then has the worker empty the queue.
async fn tick(State(dev): State<Dev>, body: Body) -> Result<Json<Value>, ApiError> {
    let TickRequest { time } = read(body).await?;
    if let Some(stripe) = &dev.stripe {
        // Ticks also advance the subscriptions that Stripe runs.
        stripe.renew_due_at(time).await;
    }
    let is_running = |call: &CallId| dev.running.contains(call);
    let report = monthly_charge::tick(&dev.monthly_charge, time, is_running).await;
    let drained = dev.consumer.drain(&dev.monthly_charge).await;
    Ok(Json(json!({
        "charged": drained.report.charged,
        "declined": drained.report.declined,
        "unknown": drained.report.unknown,
        "swept": report.swept,
        "errors": report.errors + drained.dead_letters,
    })))
}

async fn read<T: DeserializeOwned>(body: Body) -> Result<T, ApiError> {
    let body = edge::read_body(body, MAX_BODY).await?;
    serde_json::from_slice(&body).map_err(|error| {
        ApiError::new(Code::InvalidRequest, format!("invalid request body: {error}"))
    })
}

fn account_id(id: String) -> Result<AccountId, ApiError> {
    AccountId::new(id).map_err(|error| ApiError::new(Code::InvalidRequest, error.to_string()))
}

fn account_json(account: &Account) -> Value {
    let profile = &account.profile;
    let balance = &account.balance;
    json!({
        "id": account.id,
        "plan": profile.plan(),
        "add_on": {
            "status": profile.add_on.status(),
            "paid_through": profile.add_on.paid_through(),
        },
        "key": profile.key,
        "enabled": profile.enabled,
        "always_use_key": profile.always_use_key,
        "credits": {
            "balance": balance.balance(),
            "held": balance.held(),
            "available": balance.available(),
            "owed": balance.owed(),
            "open_holds": balance.open_holds(),
        },
        "created_at": account.created_at,
    })
}
