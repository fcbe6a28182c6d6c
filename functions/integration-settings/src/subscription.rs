//! Buying the add-on and cancelling it.

use account::billing::NotSubscribed;
use axum::Json;
use axum::extract::State;
use card::Card;
use charging::{Bought, ChargingError, NotBought};
use edge::{ApiError, Caller, Code};
use serde::Serialize;
use store::UpdateError;

use crate::Deps;

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

/// Buys, resumes, or pays what is due, as the add-on's state asks for.
pub(crate) async fn subscribe(
    State(deps): State<Deps>,
    caller: Caller,
) -> Result<Json<Subscribed>, ApiError> {
    caller.require_owner()?;
    let account = deps.account(&caller.account).await?;
    let bought = deps.charging.buy(account, deps.clock.now()).await;
    let checkout_url = match bought.map_err(not_bought)? {
        Bought::Checkout(url) => Some(url.into()),
        Bought::Resumed => None,
    };
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
        .update(&caller.account, None, |profile| {
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
    tracing::info!("add-on cancelled");
    // What could still be paid is called off at once; if that fails, the billing tick does it.
    if let Err(error) = deps.charging.work(&account.id, deps.clock.now()).await {
        edge::log_error(&error, "an open payment is left to the billing tick");
    }
    let account = deps.account(&caller.account).await?;
    Ok(Json(Cancelled {
        integration: deps.card(&account, &caller).await,
    }))
}

fn not_bought(error: NotBought) -> ApiError {
    match error {
        NotBought::NotNeeded => ApiError::new(
            Code::AddOnNotNeeded,
            "the enterprise plan includes OpenRouter; connect your key",
        ),
        NotBought::Already => ApiError::new(
            Code::AlreadySubscribed,
            "the add-on is active; connect your key",
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

/// A member learns that only an owner may pay; an owner, that nobody can yet.
pub(crate) async fn not_yet(caller: Caller) -> Result<(), ApiError> {
    caller.require_owner()?;
    Err(ApiError::new(
        Code::NotImplemented,
        "this payment is not part of this version; nothing was bought or changed",
    ))
}
