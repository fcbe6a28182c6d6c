//! Taking the hold for a call.

use std::time::Duration;

use account::Account;
use account::price::{CallSize, PricedModel, Tariff, ceiling};
use edge::{ApiError, Code};
use store::{HoldOutcome, NewHold, StoreError};

use super::held_call::HeldCall;
use crate::call::Call;
use crate::deps::Deps;

/// Maximum number of tries to take a hold, each for less because the balance fell in the meantime.
const ATTEMPTS: usize = 4;

/// Holds the call's ceiling. Returns the call with its hold, and the output limit that keeps it
/// within the ceiling.
pub(super) async fn take(
    deps: &Deps,
    account: &Account,
    call: &Call,
    model: &PricedModel,
    size: CallSize,
) -> Result<(HeldCall, u64), ApiError> {
    // Before the hold exists, so that the sweeper never sees the hold without its call.
    let running = deps.running.begin(&call.id);
    let settings = &deps.settings;
    let rate = deps.api.settings.rate;
    let mut available = account.balance.available();
    for _ in 0..ATTEMPTS {
        let ceiling = ceiling(model, size, available, settings.min_output_tokens, rate);
        let Some(ceiling) = ceiling else {
            return Err(uncovered(deps, account, call).await);
        };
        let new = NewHold {
            call: &call.id,
            amount: ceiling.amount,
            at: deps.api.clock.now(),
            model: &model.id,
            tariff: Tariff { prices: model.prices.of(true), rate },
            idempotency: call.idempotency.as_deref(),
            max_holds: settings.max_concurrent_holds,
        };
        let taken = deps.api.store.holds.take(account, &new).await;
        match taken.map_err(store_error)? {
            HoldOutcome::Taken(hold) => {
                let call = HeldCall { deps: deps.clone(), hold, _running: running };
                return Ok((call, ceiling.output_limit));
            }
            HoldOutcome::Insufficient(balance) => available = balance.available(),
            HoldOutcome::TooMany => return Err(too_many()),
            HoldOutcome::AlwaysUseKey => {
                let error = ApiError::new(
                    Code::StorageUnavailable,
                    "\"Always use this key\" was switched on while the call was being routed; send \
                     it again",
                );
                return Err(error.with_retry_after(Duration::from_secs(1)));
            }
            HoldOutcome::Duplicate => return Err(duplicate()),
            HoldOutcome::NoAccount => return Err(ApiError::account_not_found()),
        }
    }
    Err(too_many())
}

/// The credits do not cover the call, perhaps because an earlier request with the same
/// `Idempotency-Key` holds them.
async fn uncovered(deps: &Deps, account: &Account, call: &Call) -> ApiError {
    if let Some(hash) = &call.idempotency {
        let now = deps.api.clock.now();
        match deps.api.store.holds.idempotency_key_in_use(account, hash, now).await {
            Ok(true) => return duplicate(),
            Ok(false) => {}
            Err(error) => return ApiError::storage(&error),
        }
    }
    ApiError::new(
        Code::InsufficientCredits,
        "your credits do not cover this call; buy credits, or connect an OpenRouter key",
    )
}

fn duplicate() -> ApiError {
    ApiError::new(
        Code::DuplicateCall,
        "a call with this Idempotency-Key is in progress or was already paid for",
    )
    .without_retry()
}

fn store_error(error: StoreError) -> ApiError {
    match error {
        StoreError::Contended { .. } => too_many(),
        error => ApiError::storage(&error),
    }
}

fn too_many() -> ApiError {
    ApiError::new(
        Code::TooManyCalls,
        "your account has too many calls in progress; wait for some to end and try again",
    )
    .with_retry_after(Duration::from_secs(1))
}
