//! Is the key still accepted? What a call learns of it, and the re-check of a rejected one.

use std::time::Duration;

use account::{Account, KeyId, KeyState, Profile, SavedKey};
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use store::{DomainEvent, Effect, UpdateError};
use upstream::KeyCheckError;

use crate::Deps;

/// A rejected key is asked about again after this time, at most once in it.
const RECHECK_AFTER: SignedDuration = SignedDuration::from_mins(5);
/// A call waits this long for it.
const CHECK_TIME: Duration = Duration::from_secs(2);

/// Why a change does not apply any more.
#[derive(Debug, Clone, Copy, thiserror::Error)]
enum Overtaken {
    #[error("the key or its state changed meanwhile")]
    Changed,
}

/// The account, its rejected key re-checked where that is due. Whatever fails, the stored state
/// stands.
pub(crate) async fn recheck_if_due(deps: &Deps, account: Account, now: Timestamp) -> Account {
    match due_for_recheck(&account.profile, now).cloned() {
        // Boxed, as it is large and rare.
        Some(saved) => Box::pin(recheck(deps, account, &saved, now)).await,
        None => account,
    }
}

async fn recheck(deps: &Deps, account: Account, saved: &SavedKey, now: Timestamp) -> Account {
    let claimed = deps
        .store
        .accounts
        .update(&account.id, Some(account.clone()), now, |profile| {
            let key = current(profile, &saved.id)?;
            if key.checked_at == now {
                // Our own claim, whose answer was lost.
                return Ok(Vec::new());
            }
            if key.checked_at != saved.checked_at {
                return Err(Overtaken::Changed);
            }
            key.checked_at = now;
            Ok(Vec::new())
        })
        .await;
    let claimed = match claimed {
        Ok(claimed) => claimed,
        Err(error) => return stands(account, &error),
    };
    let check = async {
        let key = deps.user_key(&claimed).await.ok()?;
        deps.openrouter.check_key(&key, CHECK_TIME).await.ok()
    };
    let Ok(Some(facts)) = tokio::time::timeout(CHECK_TIME, check).await else {
        return claimed;
    };
    let accepted = deps
        .store
        .accounts
        .update(&claimed.id, Some(claimed.clone()), now, |profile| {
            current(profile, &saved.id)?.accept(&facts.limits, now);
            Ok::<_, Overtaken>(Vec::new())
        })
        .await;
    match accepted {
        Ok(account) => account,
        Err(error) => stands(claimed, &error),
    }
}

/// A call was answered 401: asks about the key itself, and marks it rejected if that says so too
/// and it is still the account's key.
pub(crate) async fn confirm_rejection(deps: &Deps, account: &Account, key: &SecretString) {
    let used = match &account.profile.key {
        Some(saved) if saved.state == KeyState::Usable => &saved.id,
        _ => return,
    };
    let checked = deps.openrouter.check_key(key, CHECK_TIME).await;
    if !matches!(checked, Err(KeyCheckError::Rejected)) {
        return;
    }
    let now = deps.clock.now();
    let mut is_news = false;
    let marked = deps
        .store
        .accounts
        .update(&account.id, Some(account.clone()), now, |profile| {
            let key = current(profile, used)?;
            if key.state == KeyState::Rejected {
                return Ok(Vec::new());
            }
            is_news = key.reject(now);
            let event = DomainEvent::key_rejected(used, now);
            Ok::<_, Overtaken>(vec![Effect::Event(event)])
        })
        .await;
    match marked {
        Ok(_) if is_news => tracing::warn!("OpenRouter does not accept the key any more"),
        // Another call was faster, or the key is another one by now.
        Ok(_) | Err(UpdateError::Refused(Overtaken::Changed) | UpdateError::NotFound) => {}
        Err(UpdateError::Store(error)) => {
            edge::log_error(&error, "the rejected key could not be marked");
        }
    }
}

fn due_for_recheck(profile: &Profile, now: Timestamp) -> Option<&SavedKey> {
    profile.key.as_ref().filter(|key| {
        key.state == KeyState::Rejected && now.duration_since(key.checked_at) >= RECHECK_AFTER
    })
}

/// The key that the account has now, if it is still `id`.
fn current<'a>(profile: &'a mut Profile, id: &KeyId) -> Result<&'a mut SavedKey, Overtaken> {
    let key = profile.key.as_mut().filter(|key| key.id == *id);
    key.ok_or(Overtaken::Changed)
}

fn stands(account: Account, error: &UpdateError<Overtaken>) -> Account {
    if let UpdateError::Store(error) = error {
        edge::log_error(error, "a rejected key could not be re-checked");
    }
    account
}
