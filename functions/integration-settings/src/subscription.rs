//! Buying and cancelling the add-on, replacing the card, buying credits.

use std::ops::RangeInclusive;

use account::{Account, Purpose, Usd};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use billing::NotSubscribed;
use card::Card;
use charging::{Bought, ChargingError, NotBought};
use edge::{ApiError, Caller, Code, Fields};
use serde::Serialize;
use store::UpdateError;

use crate::deps::Deps;

#[cfg(feature = "openapi")]
#[derive(serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the body's schema; edge::Fields reads it")]
pub(crate) struct CreditsOrder {
    /// Dollars and cents, from 5 to 1000.
    #[schema(pattern = r"^\d+(\.\d{1,2})?$", example = "25")]
    usd: String,
}

/// Price range of a purchase of credits, in US cents.
const PURCHASE_CENTS: RangeInclusive<u64> = 500..=100_000;

#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Serialize)]
pub(crate) struct Subscribed {
    /// `None` if there is nothing to pay.
    checkout_url: Option<String>,
    integration: Card,
}

#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Serialize)]
pub(crate) struct Cancelled {
    integration: Card,
}

/// Starts or resumes the add-on, or pays what is due, depending on the add-on's state.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/v1/integrations/openrouter/subscription", tag = "add-on", operation_id = "subscribe",
    responses((status = 200, description = "Bought, resumed, or a page to pay on", body = Subscribed), edge::openapi::ChangeProblems),
))]
pub(crate) async fn subscribe(
    State(deps): State<Deps>,
    caller: Caller,
) -> Result<Json<Subscribed>, ApiError> {
    caller.require_owner()?;
    let account = deps.api.account(&caller.account).await?;
    count_payment_page(&deps, &account).await?;
    let bought = charging::buy_add_on(deps.charging.at(deps.api.clock.now()), account).await;
    let (checkout_url, what) = match bought.map_err(not_bought)? {
        Bought::Checkout(url) => (Some(url.into()), "Checkout Session opened"),
        Bought::Paid => (None, "add-on paid for in credits"),
        Bought::Resumed => (None, "add-on resumed"),
    };
    tracing::info!(by = caller.subject, "{what}");
    let account = deps.api.account(&caller.account).await?;
    Ok(Json(Subscribed { checkout_url, integration: deps.api.card(&account, &caller).await }))
}

/// Cancels the add-on. Access lasts until the end of the paid period.
#[cfg_attr(feature = "openapi", utoipa::path(
    delete, path = "/v1/integrations/openrouter/subscription", tag = "add-on", operation_id = "cancel_subscription",
    responses((status = 200, description = "Cancelled", body = Cancelled), edge::openapi::ChangeProblems),
))]
pub(crate) async fn cancel(
    State(deps): State<Deps>,
    caller: Caller,
) -> Result<Json<Cancelled>, ApiError> {
    caller.require_owner()?;
    let mut cancelled = false;
    let updated = deps
        .api
        .store
        .accounts
        .update(&caller.account, None, deps.api.clock.now(), |profile| {
            match billing::cancel(profile) {
                Ok(()) => cancelled = true,
                // Our own write succeeded, but its response was lost.
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
            "there is no subscription to the add-on, so there is nothing to cancel",
        ),
        UpdateError::Store(error) => ApiError::storage(&error),
    })?;
    tracing::info!(by = caller.subject, "add-on cancelled");
    // Cancels open payments at once; if that fails, the billing tick retries it.
    let cx = deps.charging.at(deps.api.clock.now());
    if let Err(error) = charging::run_due(cx, &account.id).await {
        edge::log_error(&error, "could not cancel open payments; the billing tick retries");
    }
    let account = deps.api.account(&caller.account).await?;
    Ok(Json(Cancelled { integration: deps.api.card(&account, &caller).await }))
}

/// Limits the requests of one account that may open a Checkout Session, because all accounts share
/// Stripe's rate limit.
async fn count_payment_page(deps: &Deps, account: &Account) -> Result<(), ApiError> {
    let counted =
        deps.api.store.accounts.count_attempt(&account.id, Purpose::Page, deps.api.clock.now());
    let counted = counted.await.map_err(|error| ApiError::storage(&error))?;
    let Some(wait) = counted else {
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
        NotBought::AlreadyActive => ApiError::new(
            Code::AlreadySubscribed,
            "the add-on is active; connect your key. If it was cancelled and cannot be resumed, \
             buy it again when it has ended",
        ),
        NotBought::InsufficientCredits(price) => ApiError::new(
            Code::InsufficientCredits,
            format!(
                "the add-on costs {price} credits a month, and fewer are available; buy credits"
            ),
        ),
        NotBought::NoCardCharged => ApiError::new(
            Code::NotSubscribed,
            "there is no card to replace; subscribe first and enter the card on the payment page",
        ),
        NotBought::InProgress => ApiError::new(
            Code::PaymentInProgress,
            "it is not known yet whether an earlier payment succeeded; try again in a few minutes",
        ),
        NotBought::Failed(ChargingError::Gone) => ApiError::account_not_found(),
        NotBought::Failed(ChargingError::Store(error)) => ApiError::storage(&error),
        NotBought::NotCreated(error) => unavailable(&error),
        NotBought::Failed(error) => unavailable(&error),
    }
}

/// Does not say that nothing was charged, because an earlier payment may still succeed.
fn unavailable(error: &(dyn std::error::Error + 'static)) -> ApiError {
    edge::log_error(error, "could not open a payment page");
    ApiError::new(
        Code::PaymentProviderUnavailable,
        "the payment page could not be opened; try again in a minute",
    )
}

#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Serialize)]
pub(crate) struct PaymentPage {
    checkout_url: String,
}

/// Opens a Checkout Session in which the user saves another card.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/v1/integrations/openrouter/subscription/payment-method", tag = "add-on", operation_id = "replace_card",
    responses((status = 200, description = "A page to enter a card on", body = PaymentPage), edge::openapi::ChangeProblems),
))]
pub(crate) async fn replace_card(
    State(deps): State<Deps>,
    caller: Caller,
) -> Result<Json<PaymentPage>, ApiError> {
    caller.require_owner()?;
    let account = deps.api.account(&caller.account).await?;
    count_payment_page(&deps, &account).await?;
    let url = charging::replace_card(deps.charging.at(deps.api.clock.now()), &account).await;
    let checkout_url = url.map_err(not_bought)?.into();
    tracing::info!(by = caller.subject, "Checkout Session for a new card opened");
    Ok(Json(PaymentPage { checkout_url }))
}

/// Opens a Checkout Session for a purchase of credits.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/v1/credits/checkout", tag = "credits", operation_id = "buy_credits",
    request_body = CreditsOrder,
    responses((status = 200, description = "A page to pay on", body = PaymentPage), edge::openapi::ChangeProblems),
))]
pub(crate) async fn buy_credits(
    State(deps): State<Deps>,
    caller: Caller,
    body: Body,
) -> Result<Json<PaymentPage>, ApiError> {
    caller.require_owner()?;
    let settings = &deps.api.settings;
    let body = edge::read_body(body, settings.http.max_body_bytes).await?;
    let fields = Fields::parse(&body, &["usd"])?;
    let usd = Usd::from_amount(fields.required_string("usd")?).ok();
    let cents = usd.and_then(Usd::whole_cents);
    let cents = cents.filter(|cents| PURCHASE_CENTS.contains(cents));
    let credits = usd.and_then(|usd| usd.in_credits(settings.rate));
    let Some((cents, credits)) = cents.zip(credits) else {
        return Err(ApiError::new(
            Code::InvalidRequest,
            "`usd` must be dollars and cents from 5 to 1000 as a decimal string, for example \
             \"25\"",
        ));
    };
    let account = deps.api.account(&caller.account).await?;
    count_payment_page(&deps, &account).await?;
    let now = deps.api.clock.now();
    let url = charging::buy_credits(deps.charging.at(now), &account, cents, credits);
    let url = url.await.map_err(not_bought)?;
    tracing::info!(by = caller.subject, cents, "Checkout Session for credits opened");
    Ok(Json(PaymentPage { checkout_url: url.into() }))
}
