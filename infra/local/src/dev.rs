//! The development helpers (contract, section 8): `/_dev/…`, on this machine only.

use std::net::IpAddr;

use account::add_on::{Collection, Fact, GenerationId};
use account::{
    Account, AccountId, AccountNumber, AddOn, AddOnStatus, CallId, Credits, EntryId, Period, Plan,
    Profile,
};
use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use edge::{ApiError, Clock, Code, HttpSettings, Shape};
use http::HeaderValue;
use http::header::{CONTENT_TYPE, HOST};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::Duration;
use store::{Created, EntryKind, HistoryEntry, PostError, PostRefused, Posting, Store};

use crate::issuer::Issuer;
use crate::provider::{NewPayer, Renewals};
use crate::queue::Consumer;
use crate::sign_in::SignIn;

/// Who changed an account, in its ledger and history.
const ACTOR: &str = "_dev";
/// Where the panel's module is.
pub(crate) const TRY_A_CALL: &str = "/_dev/try-a-call.js";
const MAX_BODY: usize = 64 * 1024;
const TOKEN_LIFE: Duration = Duration::from_hours(24);

/// What the helpers work with.
#[derive(Clone)]
pub(crate) struct Dev {
    pub(crate) issuer: Issuer,
    pub(crate) clock: Clock,
    pub(crate) store: Store,
    /// Accounts whose add-on is set can be charged then. `None` where a real provider is in its place.
    pub(crate) payers: Option<NewPayer>,
    /// Subscriptions that the simulated provider runs go on with the ticks.
    pub(crate) renewals: Option<Renewals>,
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
        .merge(dev.sign_in.router())
        .layer(middleware::from_fn(only_loopback));
    edge::app(routes, Shape::Problem, http)
}

/// A page on another host that resolves to this machine must not reach the helpers.
async fn only_loopback(request: Request, next: Next) -> Response {
    let host = request.headers().get(HOST);
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    if is_loopback(host) {
        next.run(request).await
    } else {
        ApiError::new(
            Code::NotFound,
            "the development helpers answer only where Host is loopback",
        )
        .into_response()
    }
}

pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let address = name.parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenRequest {
    account_id: AccountId,
    role: Role,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Role {
    Owner,
    Member,
}

/// A panel for the settings page, on which a call can be made while the switches are moved.
async fn try_a_call() -> impl IntoResponse {
    let javascript = HeaderValue::from_static("text/javascript; charset=utf-8");
    (
        [(CONTENT_TYPE, javascript)],
        include_str!("../pages/try-a-call.js"),
    )
}

async fn token(State(dev): State<Dev>, body: Body) -> Result<Json<Value>, ApiError> {
    let asked: TokenRequest = read(body).await?;
    let role = match asked.role {
        Role::Owner => "owner",
        Role::Member => "member",
    };
    let account = asked.account_id.as_str();
    let token = dev.issuer.token(account, role, dev.clock.now(), TOKEN_LIFE);
    Ok(Json(json!({ "token": token })))
}

/// What an account is to become.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountChange {
    /// A new account is standard unless it says otherwise.
    pub plan: Option<Plan>,
    /// The balance to reach.
    pub credits: Option<Credits>,
    /// The status to reach, as of now.
    pub add_on: Option<AddOnStatus>,
}

async fn change(
    State(dev): State<Dev>,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let id = account_id(id)?;
    let change: AccountChange = read(body).await?;
    let now = dev.clock.now();
    let account = change_account(&dev.store, dev.payers.as_ref(), &id, change, now).await?;
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

/// A tick, and what the worker makes of the queue after it.
async fn tick(State(dev): State<Dev>, body: Body) -> Result<Json<Value>, ApiError> {
    let asked: TickRequest = read(body).await?;
    if let Some(renewals) = &dev.renewals {
        renewals(asked.time).await;
    }
    let is_under_way = |call: &CallId| dev.running.contains(call);
    let report = monthly_charge::tick(&dev.monthly_charge, asked.time, is_under_way).await;
    let drained = dev.consumer.drain(&dev.monthly_charge).await;
    Ok(Json(json!({
        "charged": drained.report.charged,
        "declined": drained.report.declined,
        "unknown": drained.report.unknown,
        "swept": report.swept,
        "errors": report.errors + drained.given_up,
    })))
}

async fn read<T: DeserializeOwned>(body: Body) -> Result<T, ApiError> {
    let body = edge::read_body(body, MAX_BODY).await?;
    serde_json::from_slice(&body).map_err(|error| {
        ApiError::new(
            Code::InvalidRequest,
            format!("the body does not fit: {error}"),
        )
    })
}

fn account_id(id: String) -> Result<AccountId, ApiError> {
    AccountId::new(id).map_err(|error| ApiError::new(Code::InvalidRequest, error.to_string()))
}

async fn stored(store: &Store, id: &AccountId) -> Result<Option<Account>, ApiError> {
    let account = store.accounts.get(id).await;
    account.map_err(|error| ApiError::storage(&error))
}

/// Makes the account, or changes it, until it is as `change` says.
///
/// # Errors
/// If the store fails, or credits are held that would have to go.
pub async fn change_account(
    store: &Store,
    payers: Option<&NewPayer>,
    id: &AccountId,
    change: AccountChange,
    now: Timestamp,
) -> Result<Account, ApiError> {
    if stored(store, id).await?.is_none() {
        let number = AccountNumber::new(edge::random_id("acct"));
        let number = number.map_err(|error| ApiError::internal(&error))?;
        let profile = Profile::new(change.plan.unwrap_or(Plan::Standard), 1, now);
        let why = HistoryEntry {
            id: edge::random_id("dev"),
            at: now,
            actor: ACTOR.to_owned(),
            what: "created".to_owned(),
        };
        let created = store.accounts.create(id, &number, &profile, &why).await;
        let created = created.map_err(|error| ApiError::storage(&error))?;
        if created == Created::Deleted {
            return Err(ApiError::new(
                Code::InvalidRequest,
                "the account was deleted; take another id",
            ));
        }
    }
    let is_bought = change
        .add_on
        .is_some_and(|status| status != AddOnStatus::None);
    let payer = payers.filter(|_| is_bought).map(|payers| payers());
    let changed = store
        .accounts
        .update(id, None, now, |profile| {
            change_profile(profile, id, change, now);
            if let Some((customer, card)) = payer.clone() {
                profile.billing.customer = Some(customer);
                billing::keep_card(profile, card, now);
            }
            Ok::<_, std::convert::Infallible>(Vec::new())
        })
        .await;
    let account = changed.map_err(|error| ApiError::internal(&error))?;
    match change.credits {
        Some(balance) => reach_balance(store, account, balance, now).await,
        None => Ok(account),
    }
}

fn change_profile(profile: &mut Profile, id: &AccountId, change: AccountChange, now: Timestamp) {
    if let Some(plan) = change.plan.filter(|plan| *plan != profile.plan()) {
        profile.hear_plan(plan, profile.plans.version() + 1, now);
    }
    if let Some(status) = change.add_on {
        profile.add_on = add_on_in(status, id, now);
        *profile.billing = account::Billing::default();
    }
}

/// An add-on that the facts of its life have led to `status`, as of `now`.
fn add_on_in(status: AddOnStatus, id: &AccountId, now: Timestamp) -> AddOn {
    // The payment provider's times are whole seconds.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let generation = || GenerationId::new(format!("dev-{id}-{}", now.as_second()));
    let second = Period::FIRST.next();
    let month_ago = now
        .to_zoned(TimeZone::UTC)
        .saturating_sub(1.month())
        .timestamp();
    let (at, facts) = match status {
        AddOnStatus::None => return AddOn::default(),
        AddOnStatus::Active => (now, Vec::new()),
        AddOnStatus::PastDue => (
            month_ago,
            vec![Fact::Declined {
                generation: generation(),
                period: second,
            }],
        ),
        AddOnStatus::Cancelling => (now, vec![cancelled(generation())]),
        AddOnStatus::Suspended => (
            month_ago - SignedDuration::from_hours(8 * 24),
            vec![
                Fact::Declined {
                    generation: generation(),
                    period: second,
                },
                Fact::GraceOver {
                    generation: generation(),
                    period: second,
                },
            ],
        ),
        AddOnStatus::Ended => (
            month_ago,
            vec![
                cancelled(generation()),
                Fact::PeriodOver {
                    generation: generation(),
                    period: Period::FIRST,
                },
            ],
        ),
    };
    let mut add_on = AddOn::default();
    add_on.apply(Fact::Activated {
        generation: generation(),
        at,
        collection: Collection::Card,
    });
    for fact in facts {
        add_on.apply(fact);
    }
    add_on
}

fn cancelled(generation: GenerationId) -> Fact {
    Fact::Cancelled {
        generation,
        counter: 1,
        while_due: None,
    }
}

async fn reach_balance(
    store: &Store,
    account: Account,
    balance: Credits,
    now: Timestamp,
) -> Result<Account, ApiError> {
    if balance.is_negative() {
        return Err(ApiError::new(
            Code::InvalidRequest,
            "`credits` is a balance to reach; it cannot be negative",
        ));
    }
    let missing = balance.checked_sub(account.balance.balance());
    let missing = missing
        .ok_or_else(|| ApiError::new(Code::InvalidRequest, "so many credits cannot be counted"))?;
    if missing != Credits::ZERO {
        let id = EntryId::new(edge::new_id("adj")).map_err(|error| ApiError::internal(&error))?;
        let posting = Posting {
            id: &id,
            kind: EntryKind::Adjustment,
            amount: missing,
            at: now,
            note: "set by a development helper",
            actor: ACTOR,
        };
        let posted = store.ledger.post(&account.id, &posting).await;
        posted.map_err(|error| match error {
            PostError::Store(error) => ApiError::storage(&error),
            PostError::Refused(PostRefused::Insufficient(_)) => ApiError::new(
                Code::InvalidRequest,
                "calls under way hold more credits than that; wait for them to end",
            ),
            PostError::Refused(refused) => ApiError::new(Code::InvalidRequest, refused.to_string()),
        })?;
    }
    let account = stored(store, &account.id).await?;
    account.ok_or_else(ApiError::account_not_found)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_of_the_add_on_can_be_reached() {
        use AddOnStatus::{Active, Cancelling, Ended, None, PastDue, Suspended};
        for text in ["2026-03-31T12:00:00Z", "2026-11-23T00:00:00Z"] {
            let now = text.parse().unwrap();
            let id = AccountId::new("acme").unwrap();
            for status in [None, Active, PastDue, Cancelling, Suspended, Ended] {
                let add_on = add_on_in(status, &id, now);
                assert_eq!(add_on.status(), status);
                let paid_through = add_on.paid_through();
                match status {
                    None => assert_eq!(paid_through, Option::None),
                    Active | Cancelling => assert!(paid_through > Some(now)),
                    PastDue | Suspended | Ended => assert!(paid_through <= Some(now)),
                }
            }
        }
    }

    #[test]
    fn only_loopback_hosts_pass() {
        for host in [
            "127.0.0.1:9000",
            "localhost",
            "LOCALHOST:1",
            "[::1]:9000",
            "127.9.9.9",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "example.com",
            "localhost.example.com:80",
            "10.0.0.1",
            "[::2]",
            "0.0.0.0",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
