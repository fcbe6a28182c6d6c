//! `PUT …/key`: connect or replace.

use std::convert::Infallible;

use account::{Account, AccountId, KeyId, KeyState, Purpose, SavedKey};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use card::Card;
use edge::{ApiError, Caller, Code, Fields};
use jiff::Timestamp;
use keyvault::UserKey;
use serde::Serialize;
use store::Effect;
use upstream::KeyFacts;

use crate::check::{self, within_limit};
use crate::deps::Deps;
use crate::removal::{ORPHAN_AGE, delete_secret};
use crate::response::update_error;

/// The product document's wording.
const SAVED: &str = "OpenRouter API key saved successfully.";

#[cfg(feature = "openapi")]
#[derive(serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the body's schema; edge::Fields reads it")]
pub(crate) struct NewKey {
    /// The OpenRouter API key. White space around it is ignored.
    #[schema(pattern = r"^\s*sk-or-v1-[A-Za-z0-9_-]{16,246}\s*$")]
    key: String,
}

#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Serialize)]
pub(crate) struct Saved {
    message: &'static str,
    integration: Card,
}

/// Saves the key, or replaces it.
///
/// Checks in the order of section 2 of the contract: token, role, entitlement, attempts, format,
/// network.
#[cfg_attr(feature = "openapi", utoipa::path(
    put, path = "/v1/integrations/openrouter/key", tag = "key", operation_id = "save_key",
    request_body = NewKey,
    responses((status = 200, description = "Saved", body = Saved), edge::openapi::ChangeProblems),
))]
pub(crate) async fn save(
    State(deps): State<Deps>,
    caller: Caller,
    body: Body,
) -> Result<Json<Saved>, ApiError> {
    caller.require_owner()?;
    let account = deps.api.account(&caller.account).await?;
    let now = deps.api.clock.now();
    if !routing::may_save_key(&account.profile, now, &deps.api.settings.policy) {
        return Err(ApiError::new(
            Code::AddOnRequired,
            "connecting a key needs the OpenRouter add-on; subscribe under Plans & Pricing",
        ));
    }
    let wait = deps.api.store.accounts.attempt_wait(&account.id, Purpose::Save, now);
    within_limit(wait.await)?;
    let key = parse_key(body, &deps).await?;
    check::count(&deps, &account.id, Purpose::Save, now).await?;
    let stored = check_and_store(&deps, &account, &caller, &key, now).await;
    if stored.is_err() {
        // Only successful saves count against the limit of saves.
        let uncounted = deps.api.store.accounts.uncount_save(&account.id, now).await;
        if let Err(error) = uncounted {
            edge::log_error(&error, "a failed save still counts against the limit");
        }
    }
    Ok(Json(Saved { message: SAVED, integration: deps.api.card(&stored?, &caller).await }))
}

async fn parse_key(body: Body, deps: &Deps) -> Result<UserKey, ApiError> {
    let body = edge::read_body(body, deps.api.settings.http.max_body_bytes).await?;
    let fields = Fields::parse(&body, &["key"])?;
    UserKey::parse(fields.required_string("key")?)
        .map_err(|error| ApiError::new(Code::InvalidKeyFormat, error.to_string()))
}

async fn check_and_store(
    deps: &Deps,
    account: &Account,
    caller: &Caller,
    key: &UserKey,
    now: Timestamp,
) -> Result<Account, ApiError> {
    let facts = check_new(deps, key).await?;
    let id = KeyId::new(edge::new_id("key")).map_err(|error| ApiError::internal(&error))?;
    let due = now + ORPHAN_AGE;
    let intended = deps.api.store.accounts.remember_secret(&account.id, &id, due).await;
    intended.map_err(|error| ApiError::storage(&error))?;
    let created = deps.vault.create(&account.id, &id, key).await;
    created.map_err(|error| ApiError::storage(&error))?;
    let saved = SavedKey {
        id,
        label: key.mask(facts.label),
        last4: key.last4(),
        sha256: key.sha256(),
        saved_at: now,
        saved_by: caller.subject.clone(),
        state: KeyState::Usable,
        limits: facts.limits,
        checked_at: now,
        unclear_error_at: None,
    };
    switch_to(deps, &account.id, saved, due).await
}

async fn check_new(deps: &Deps, key: &UserKey) -> Result<KeyFacts, ApiError> {
    match check::check(deps, key.secret()).await? {
        Some(facts) if facts.is_management => Err(ApiError::new(
            Code::ManagementKey,
            "this is a management key, which cannot make AI calls; create an API key at OpenRouter",
        )),
        Some(facts) => Ok(facts),
        None => Err(ApiError::new(
            Code::KeyRejected,
            "OpenRouter does not accept this key; copy it again, or create a new one at OpenRouter",
        )),
    }
}

/// Makes `saved` the account's key, and deletes the secret of the key that it replaces.
async fn switch_to(
    deps: &Deps,
    account: &AccountId,
    saved: SavedKey,
    due: Timestamp,
) -> Result<Account, ApiError> {
    let mut replaced = None;
    let switched = deps
        .api
        .store
        .accounts
        .update(account, None, deps.api.clock.now(), |profile| {
            let before = profile.key.as_ref().map(|key| key.id.clone());
            if before.as_ref() == Some(&saved.id) {
                return Ok::<_, Infallible>(Vec::new());
            }
            replaced.clone_from(&before);
            profile.connect(saved.clone());
            let old = before.map(|key| Effect::SecretDue { key, due });
            let new = Effect::SecretInForce { key: saved.id.clone(), due };
            Ok(old.into_iter().chain([new]).collect())
        })
        .await;
    let account = switched.map_err(update_error)?;
    tracing::info!(by = saved.saved_by, replaced = replaced.is_some(), "key saved");
    if let Some(old) = replaced {
        // If this fails, it is logged, and the billing tick deletes the secret.
        let _ = delete_secret(&deps.api.store, &deps.vault, &account.id, &old, due).await;
    }
    Ok(account)
}
