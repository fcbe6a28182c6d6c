//! Checking a key with OpenRouter, within the account's limit of checks.

use std::time::Duration;

use account::{AccountId, Purpose};
use edge::{ApiError, Code};
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use store::StoreError;
use upstream::KeyFacts;

use crate::deps::Deps;

/// Time-out of a key check by OpenRouter.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// Retry delay after OpenRouter rate-limited a key check.
const BUSY_RETRY: Duration = Duration::from_mins(1);

/// Counts a check that is about to be made, unless the account has reached its limit.
pub(crate) async fn count(
    deps: &Deps,
    account: &AccountId,
    purpose: Purpose,
    now: Timestamp,
) -> Result<(), ApiError> {
    within_limit(deps.api.store.accounts.count_attempt(account, purpose, now).await)
}

pub(crate) fn within_limit(
    wait: Result<Option<SignedDuration>, StoreError>,
) -> Result<(), ApiError> {
    let Some(wait) = wait.map_err(|error| ApiError::storage(&error))? else {
        return Ok(());
    };
    let error = ApiError::new(
        Code::TooManyAttempts,
        "an account may have a key checked 10 times and saved 5 times in an hour; try again later",
    );
    Err(error.with_retry_after(wait.unsigned_abs()))
}

/// OpenRouter's facts about the key, or `None` if it rejects the key.
pub(crate) async fn check(deps: &Deps, key: &SecretString) -> Result<Option<KeyFacts>, ApiError> {
    match deps.openrouter.check_key(key, CHECK_TIMEOUT).await {
        Ok(facts) => Ok(Some(facts)),
        Err(error) if error.is_unauthorized() => Ok(None),
        Err(error) if error.is_rate_limited() => {
            let error = ApiError::new(
                Code::OpenRouterBusy,
                "OpenRouter is rate-limiting key checks; nothing was changed; try again in a \
                 minute",
            );
            Err(error.with_retry_after(BUSY_RETRY))
        }
        Err(error) => {
            edge::log_error(&error, "OpenRouter could not check the key");
            Err(ApiError::new(
                Code::OpenRouterUnavailable,
                "OpenRouter could not check the key at the moment; nothing was changed; try again",
            ))
        }
    }
}
