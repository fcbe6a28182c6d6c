//! `account.deleted`: the account's end.
//!
//! One transaction makes the account a tombstone and writes down what is left to do: the secret of its
//! key, and all that its item still holds. Both are then done at once; what fails is left to the billing
//! tick. Secrets of saves that were under way are due by themselves, like any other orphan.

use account::KeyId;
use jiff::Timestamp;
use store::{Deletion, HistoryEntry};

use crate::{ACTOR, AccountEvent, Deps, Done, EventError};

pub(crate) async fn deleted(deps: &Deps, event: &AccountEvent) -> Result<Done, EventError> {
    // Our own time and not the event's: what is left is due from then on, and on the sender's clock it
    // may be a time that is still to come.
    let now = deps.clock.now();
    let why = HistoryEntry {
        id: format!("deleted-{}", event.version),
        at: now,
        actor: ACTOR.to_owned(),
        what: "deleted".to_owned(),
    };
    let deletion = deps
        .store
        .accounts
        .delete(&event.account, event.version, &why);
    let Deletion::Done(profile) = deletion.await? else {
        return Ok(Done::Late);
    };
    if let Some(key) = profile.and_then(|profile| profile.key) {
        delete_secret(deps, event, &key.id, now).await;
    }
    match deps.store.accounts.scrub(&event.account).await {
        Ok(true) => {}
        Ok(false) => tracing::info!("calls are open on a deleted account; the tick does the rest"),
        Err(error) => edge::log_error(&error, "the rest of a deletion is left to the billing tick"),
    }
    Ok(Done::Deleted)
}

/// Deletes the secret that is `due`. If that fails, it still is, and the billing tick does it.
async fn delete_secret(deps: &Deps, event: &AccountEvent, key: &KeyId, due: Timestamp) {
    if let Err(error) = deps.vault.delete(&event.account, key).await {
        edge::log_error(&error, "a secret is left to the billing tick");
        return;
    }
    if let Err(error) = deps.store.secrets.remove(&event.account, key, due).await {
        edge::log_error(&error, "a deleted secret is still noted as due");
    }
}
