//! Buying the add-on and cancelling it, replacing the card, buying credits.

use std::ops::RangeInclusive;

use account::billing::NotSubscribed;
use account::{Account, Purpose, Usd};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use card::Card;
use charging::{Bought, ChargingError, NotBought};
use edge::{ApiError, Caller, Code, Fields};
use serde::Serialize;
use store::{AttemptLimit, UpdateError};

use crate::Deps;

/// What a purchase of credits can cost, in US cents.
const CREDITS_CENTS: RangeInclusive<u64> = 500..=100_000;

#[derive(Serialize)]
pub(crate) struct Subscribed {
    /// Where to pay; `None` where nothing is to be paid.
    checkout_url: Option<String>,
    integration: Card,
}

#[derive(Serialize)]
pub(crate) struct Cancelled {
    integration: Card,
}

/// Purchase, resumes, or pays what is due, as the add-on's state asks for.
pub(crate) async fn subscribe(
    State(deps): State<Deps>,
    caller: Caller,
) -> Result<Json<Subscribed>, ApiError> {
    caller.require_owner()?;
    let account = deps.account(&caller.account).await?;
    count_page(&deps, &account).await?;
    let bought = Box::pin(deps.charging.buy(account, deps.clock.now())).await;
    let (checkout_url, what) = match bought.map_err(not_bought)? {
        Bought::Checkout(url) => (Some(url.into()), "payment page opened"),
        Bought::Paid => (None, "add-on paid with credits"),
        Bought::Resumed => (None, "add-on resumed"),
    };
    tracing::info!(by = caller.subject, "{what}");
    let account = deps.account(&caller.account).await?;
    Ok(Json(Subscribed {
        checkout_url,
        integration: deps.card(&account, &caller).await,
    }))
}

/// Cancels: access goes on until what is paid for is over.
pub(crate) async fn cancel(
    State(deps): State<Deps>,
    caller: Caller,
) -> Result<Json<Cancelled>, ApiError> {
    caller.require_owner()?;
    let mut cancelled = false;
    let updated = deps
        .store
        .accounts
        .update(&caller.account, None, deps.clock.now(), |profile| {
            match profile.cancel() {
                Ok(()) => cancelled = true,
                // Our own write, whose answer was lost.
                Err(NotSubscribed) if cancelled => {}
                Err(NotSubscribed) => return Err(NotSubscribed),
            }
            Ok(Vec::new())
        })
        .await;
    let account = updated.map_err(|error| match error {
        UpdateError::NotFound => ApiError::account_not_found(),
        UpdateError::Refused(NotSubscribed) => ApiError::new(
            Code::NotSubscribed,
            "the add-on is not subscribed to, so there is nothing to cancel",
        ),
        UpdateError::Store(error) => ApiError::storage(&error),
    })?;
    tracing::info!(by = caller.subject, "add-on cancelled");
    // What could still be paid is called off at once; if that fails, the billing tick does it.
    if let Err(error) = deps.charging.work(&account.id, deps.clock.now()).await {
        edge::log_error(&error, "an open payment is left to the billing tick");
    }
    let account = deps.account(&caller.account).await?;
    Ok(Json(Cancelled {
        integration: deps.card(&account, &caller).await,
    }))
}

/// Counts what may ask the payment provider for a page: its limit of requests is one for all accounts.
async fn count_page(deps: &Deps, account: &Account) -> Result<(), ApiError> {
    let counted = deps
        .store
        .attempts
        .count(&account.id, Purpose::Page, deps.clock.now());
    let counted = counted.await.map_err(|error| ApiError::storage(&error))?;
    let AttemptLimit::WaitFor(wait) = counted else {
        return Ok(());
    };
    let error = ApiError::new(
        Code::TooManyAttempts,
        "an account may open 60 payment pages in an hour; try again later",
    );
    Err(error.with_retry_after(wait.unsigned_abs()))
}

fn not_bought(error: NotBought) -> ApiError {
    match error {
        NotBought::NotNeeded => ApiError::new(
            Code::AddOnNotNeeded,
            "the enterprise plan includes OpenRouter; connect your key",
        ),
        NotBought::Already => ApiError::new(
            Code::AlreadySubscribed,
            "the add-on stands; connect your key. If it was cancelled and cannot be kept, buy it \
             again when its time is over",
        ),
        NotBought::Insufficient(price) => ApiError::new(
            Code::InsufficientCredits,
            format!(
                "the add-on costs {price} credits a month, and fewer are available; buy credits"
            ),
        ),
        NotBought::Nothing => ApiError::new(
            Code::NotSubscribed,
            "no card is charged; subscribe first, the card is given on that page",
        ),
        NotBought::InProgress => ApiError::new(
            Code::PaymentInProgress,
            "it is not known yet whether an earlier payment succeeded; try again in some minutes",
        ),
        NotBought::Failed(ChargingError::Gone) => ApiError::account_not_found(),
        NotBought::Failed(ChargingError::Store(error)) => ApiError::storage(&error),
        NotBought::Failed(error) => {
            edge::log_error(&error, "a checkout could not be made");
            ApiError::new(
                Code::PaymentProviderUnavailable,
                "the payment page could not be opened; nothing was charged, try again",
            )
        }
    }
}

#[derive(Serialize)]
pub(crate) struct Page {
    checkout_url: String,
}

/// A page on which the card is replaced.
pub(crate) async fn payment_method(
    State(deps): State<Deps>,
    caller: Caller,
) -> Result<Json<Page>, ApiError> {
    caller.require_owner()?;
    let account = deps.account(&caller.account).await?;
    count_page(&deps, &account).await?;
    let url = deps.charging.replace_card(&account, deps.clock.now()).await;
    let checkout_url = url.map_err(not_bought)?.into();
    tracing::info!(by = caller.subject, "page for another card opened");
    Ok(Json(Page { checkout_url }))
}

/// A page on which credits are bought.
pub(crate) async fn credits(
    State(deps): State<Deps>,
    caller: Caller,
    body: Body,
) -> Result<Json<Page>, ApiError> {
    caller.require_owner()?;
    let product = &deps.settings.product;
    let body = edge::read_body(body, product.http.max_body_bytes).await?;
    let fields = Fields::parse(&body, &["usd"])?;
    let usd = fields.required_string("usd")?.parse::<Usd>().ok();
    let cents = usd.and_then(Usd::whole_cents);
    let cents = cents.filter(|cents| CREDITS_CENTS.contains(cents));
    let credits = usd.and_then(|usd| usd.in_credits(product.rate));
    let Some((cents, credits)) = cents.zip(credits) else {
        return Err(ApiError::new(
            Code::InvalidRequest,
            "`usd` must be dollars and cents from 5 to 1000 as a decimal string, for example \"25\"",
        ));
    };
    let account = deps.account(&caller.account).await?;
    count_page(&deps, &account).await?;
    let now = deps.clock.now();
    let url = deps.charging.buy_credits(&account, cents, credits, now);
    let url = url.await.map_err(|error| not_bought(error.into()))?;
    tracing::info!(by = caller.subject, cents, "page for credits opened");
    Ok(Json(Page {
        checkout_url: url.into(),
    }))
}
