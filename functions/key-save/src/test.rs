//! `POST …/key/test`: check the stored key with OpenRouter again.

use account::Purpose;
use axum::Json;
use axum::extract::State;
use edge::{ApiError, Caller, Code};
use store::{DomainEvent, Effect, UpdateError};

use crate::check;
use crate::deps::Deps;
use crate::response::Changed;

/// Checks the saved key at OpenRouter.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/v1/integrations/openrouter/key/test", tag = "key", operation_id = "test_key",
    responses((status = 200, description = "The integration with the key's new state", body = Changed), edge::openapi::ChangeProblems),
))]
pub(crate) async fn test_key(
    State(deps): State<Deps>,
    caller: Caller,
) -> Result<Json<Changed>, ApiError> {
    caller.require_owner()?;
    let account = deps.api.account(&caller.account).await?;
    let tested = account.profile.key.clone().ok_or_else(not_connected)?;
    let now = deps.api.clock.now();
    check::count(&deps, &account.id, Purpose::Test, now).await?;
    let key = deps.vault.user_key(&account.id, &tested.id).await;
    let key = key.map_err(|error| {
        edge::log_error(&error, "could not read the key's secret");
        ApiError::new(
            Code::KeyUnavailable,
            "the connected key cannot be read right now; try again, and reconnect the key if \
             this persists",
        )
    })?;
    let facts = check::check(&deps, &key).await?;
    let updated = deps
        .api
        .store
        .accounts
        .update(&account.id, Some(account.clone()), now, |profile| {
            let key = profile.key.as_mut().filter(|key| key.id == tested.id);
            let key = key.ok_or(Replaced)?;
            if let Some(facts) = &facts {
                key.accept(&facts.limits, now);
                return Ok(Vec::new());
            }
            let rejected = key.reject(now).then(|| DomainEvent::key_rejected(&tested.id, now));
            Ok(rejected.map(Effect::Event).into_iter().collect())
        })
        .await;
    let account = match updated {
        Ok(account) => account,
        // The result is about a key that the account no longer has, so it is dropped.
        Err(UpdateError::Refused(Replaced)) => deps.api.account(&account.id).await?,
        Err(UpdateError::NotFound) => return Err(ApiError::account_not_found()),
        Err(UpdateError::Store(error)) => return Err(ApiError::storage(&error)),
    };
    Ok(Json(Changed { integration: deps.api.card(&account, &caller).await }))
}

#[derive(Debug, thiserror::Error)]
#[error("the tested key was replaced or disconnected in the meantime")]
struct Replaced;

fn not_connected() -> ApiError {
    ApiError::new(Code::NotConnected, "there is no key to test; connect one first")
}
