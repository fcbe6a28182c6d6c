//! `account.deleted`: turn the account into a tombstone.
//!
//! One transaction replaces the account by its tombstone and records the rest of the work: deleting
//! the secret of its key, and scrubbing its item. Both follow at once; if one fails, the billing
//! tick retries it. Secrets of saves in progress are due separately, like any other orphan.

use account::KeyId;
use jiff::Timestamp;
use store::Deletion;

use crate::deps::Deps;
use crate::event::AccountEvent;
use crate::outcome::{EventError, Outcome};

pub(crate) async fn apply(deps: &Deps, event: &AccountEvent) -> Result<Outcome, EventError> {
    // Our own time, not the event's: the remaining work is due from then on, and the sender's clock
    // may be ahead.
    let now = deps.clock.now();
    let why = event.history_entry(now, "deleted".to_owned());
    let deletion = deps.store.accounts.delete(&event.account, event.version, &why);
    let Deletion::Done(profile) = deletion.await? else {
        return Ok(Outcome::Late);
    };
    if let Some(key) = profile.and_then(|profile| profile.key) {
        delete_secret(deps, event, &key.id, now).await;
    }
    match deps.store.accounts.scrub(&event.account).await {
        Ok(true) => {}
        Ok(false) => tracing::info!("calls are in progress; the billing tick scrubs later"),
        Err(error) => edge::log_error(&error, "scrubbing left to the billing tick"),
    }
    Ok(Outcome::Deleted)
}

/// If this fails, the secret stays due, and the billing tick deletes it.
async fn delete_secret(deps: &Deps, event: &AccountEvent, key: &KeyId, due: Timestamp) {
    if let Err(error) = deps.vault.delete(&event.account, key).await {
        edge::log_error(&error, "secret left to the billing tick");
        return;
    }
    if let Err(error) = deps.store.accounts.forget_secret(&event.account, key, due).await {
        edge::log_error(&error, "a deleted secret is still listed as due");
    }
}
