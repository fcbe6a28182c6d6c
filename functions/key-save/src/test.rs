//! `POST …/key/test`: ask OpenRouter about the stored key again.

use account::Purpose;
use axum::Json;
use axum::extract::State;
use edge::{ApiError, Caller, Code};
use store::{DomainEvent, Effect, UpdateError};
use upstream::KeyCheckError;

use crate::save::CHECK_TIME;
use crate::{Changed, Deps, openrouter_unavailable};

pub(crate) async fn test_key(
    State(deps): State<Deps>,
    caller: Caller,
) -> Result<Json<Changed>, ApiError> {
    caller.require_owner()?;
    let account = deps.account(&caller.account).await?;
    let tested = account.profile.key.clone().ok_or_else(not_connected)?;
    let now = deps.clock.now();
    deps.count_check(&account.id, Purpose::Test, now).await?;
    let key = deps.vault.user_key(&account.id, &tested.id).await;
    let key = key.map_err(|error| {
        edge::log_error(&error, "the key's secret cannot be read");
        ApiError::new(
            Code::KeyUnavailable,
            "the connected key cannot be read at the moment; try again, and reconnect the key if \
             it stays like this",
        )
    })?;
    let facts = match deps.openrouter.check_key(&key, CHECK_TIME).await {
        Ok(facts) => Some(facts),
        Err(KeyCheckError::Rejected) => None,
        Err(error) => {
            edge::log_error(&error, "OpenRouter could not check the key");
            return Err(openrouter_unavailable());
        }
    };
    let noted = deps
        .store
        .accounts
        .update(&account.id, Some(account.clone()), now, |profile| {
            let key = profile.key.as_mut().filter(|key| key.id == tested.id);
            let key = key.ok_or(Replaced)?;
            if let Some(facts) = &facts {
                key.accept(&facts.limits, now);
                return Ok(Vec::new());
            }
            let rejected = key
                .reject(now)
                .then(|| DomainEvent::key_rejected(&tested.id, now));
            Ok(rejected.map(Effect::Event).into_iter().collect())
        })
        .await;
    let account = match noted {
        Ok(account) => account,
        // The key that was tested is gone: what counts is the account as it is now.
        Err(UpdateError::Refused(Replaced)) => deps.account(&account.id).await?,
        Err(UpdateError::NotFound) => return Err(ApiError::account_not_found()),
        Err(UpdateError::Store(error)) => return Err(ApiError::storage(&error)),
    };
    Ok(Json(Changed {
        integration: deps.card(&account, &caller).await,
    }))
}

/// The tested key was replaced or disconnected meanwhile.
#[derive(Debug, thiserror::Error)]
#[error("the key was replaced")]
struct Replaced;

fn not_connected() -> ApiError {
    ApiError::new(
        Code::NotConnected,
        "there is no key to test; connect one first",
    )
}
