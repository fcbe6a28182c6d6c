//! Whether OpenRouter still accepts the key: marking it rejected after a 401, and re-checking a
//! rejected one.

use std::time::Duration;

use account::{Account, KeyId, KeyState, Profile, SavedKey};
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use store::{DomainEvent, Effect, UpdateError};

use crate::deps::Deps;

/// Minimum time between two checks by calls.
const CHECK_INTERVAL: SignedDuration = SignedDuration::from_mins(5);
/// Maximum time that a call waits for a check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the key was replaced or checked in the meantime")]
struct KeyChanged;

/// Re-checks the account's key if it is rejected and due for a check. If anything fails, the stored
/// state stands.
pub(crate) async fn recheck_if_due(deps: &Deps, account: Account, now: Timestamp) -> Account {
    match due_for_recheck(&account.profile, now).cloned() {
        // Boxed, because it is large and rare.
        Some(saved) => Box::pin(recheck(deps, account, &saved, now)).await,
        None => account,
    }
}

async fn recheck(deps: &Deps, account: Account, saved: &SavedKey, now: Timestamp) -> Account {
    let account = match claim_check(deps, &account, &saved.id, now).await {
        Ok(account) => account,
        Err(error) => return unchanged(account, &error),
    };
    let check = async {
        let key = deps.user_key(&account).await.ok()?;
        deps.openrouter.check_key(&key, CHECK_TIMEOUT).await.ok()
    };
    let Ok(Some(facts)) = tokio::time::timeout(CHECK_TIMEOUT, check).await else {
        return account;
    };
    let accepted = deps
        .api
        .store
        .accounts
        .update(&account.id, Some(account.clone()), now, |profile| {
            current(profile, &saved.id)?.accept(&facts.limits, now);
            Ok(Vec::new())
        })
        .await;
    accepted.unwrap_or_else(|error| unchanged(account, &error))
}

/// Notes that this call checks the key, so that others do not repeat the check.
async fn claim_check(
    deps: &Deps,
    account: &Account,
    id: &KeyId,
    now: Timestamp,
) -> Result<Account, UpdateError<KeyChanged>> {
    let accounts = &deps.api.store.accounts;
    let claim = accounts.update(&account.id, Some(account.clone()), now, |profile| {
        let key = current(profile, id)?;
        // Equal to `now`: this call's own write, whose response was lost.
        if key.check_started_at != Some(now) && !is_due(key.check_started_at, now) {
            return Err(KeyChanged);
        }
        key.check_started_at = Some(now);
        Ok(Vec::new())
    });
    claim.await
}

/// Returns whether OpenRouter rejects the key, after an error that may or may not be about it.
/// Checks the key, unless a call did so in the last five minutes.
pub(crate) async fn is_rejected(deps: &Deps, account: &Account, key: &SecretString) -> bool {
    let Some(saved) = &account.profile.key else {
        return false;
    };
    if saved.state == KeyState::Rejected {
        return true;
    }
    match claim_check(deps, account, &saved.id, deps.api.clock.now()).await {
        Ok(account) => confirm_rejection(deps, &account, key).await,
        Err(error) => {
            log_store_error(&error);
            false
        }
    }
}

/// After a 401 on a call: checks the key, and marks it rejected if OpenRouter rejects it there too
/// and it is still the account's key. Returns whether OpenRouter rejects it.
pub(crate) async fn confirm_rejection(deps: &Deps, account: &Account, key: &SecretString) -> bool {
    let used = match &account.profile.key {
        Some(saved) if saved.state == KeyState::Usable => &saved.id,
        _ => return false,
    };
    let checked = deps.openrouter.check_key(key, CHECK_TIMEOUT).await;
    if !checked.is_err_and(|error| error.is_unauthorized()) {
        return false;
    }
    let now = deps.api.clock.now();
    let mut newly_rejected = false;
    let marked = deps
        .api
        .store
        .accounts
        .update(&account.id, Some(account.clone()), now, |profile| {
            let key = current(profile, used)?;
            if key.state == KeyState::Rejected {
                return Ok(Vec::new());
            }
            newly_rejected = key.reject(now);
            let event = DomainEvent::key_rejected(used, now);
            Ok(vec![Effect::Event(event)])
        })
        .await;
    match marked {
        Ok(_) if newly_rejected => tracing::warn!("OpenRouter no longer accepts the key"),
        // Another call marked it first, or the account has another key by now.
        Ok(_) | Err(UpdateError::Refused(KeyChanged) | UpdateError::NotFound) => {}
        Err(UpdateError::Store(error)) => {
            edge::log_error(&error, "could not mark the key as rejected");
        }
    }
    true
}

fn due_for_recheck(profile: &Profile, now: Timestamp) -> Option<&SavedKey> {
    profile.key.as_ref().filter(|key| {
        key.state == KeyState::Rejected
            && is_due(Some(key.checked_at), now)
            && is_due(key.check_started_at, now)
    })
}

/// Is the next check due after one at `last`?
fn is_due(last: Option<Timestamp>, now: Timestamp) -> bool {
    last.is_none_or(|last| now.duration_since(last) >= CHECK_INTERVAL)
}

/// The account's key, if it is still `id`.
fn current<'a>(profile: &'a mut Profile, id: &KeyId) -> Result<&'a mut SavedKey, KeyChanged> {
    let key = profile.key.as_mut().filter(|key| key.id == *id);
    key.ok_or(KeyChanged)
}

fn unchanged(account: Account, error: &UpdateError<KeyChanged>) -> Account {
    log_store_error(error);
    account
}

fn log_store_error(error: &UpdateError<KeyChanged>) {
    if let UpdateError::Store(error) = error {
        edge::log_error(error, "could not check the key");
    }
}
