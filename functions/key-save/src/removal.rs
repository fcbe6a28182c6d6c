//! Disconnecting a key and deleting its secret, for the account's owner and for operators.

use account::{Account, AccountId, KeyId};
use jiff::{SignedDuration, Timestamp};
use keyvault::{Vault, VaultError};
use store::{Effect, HistoryEntry, Store, UpdateError};

/// Age at which the billing tick deletes a secret that no account names.
pub(crate) const ORPHAN_AGE: SignedDuration = SignedDuration::from_hours(1);

#[derive(Debug)]
pub struct Disconnected {
    pub account: Account,
    /// The outcome of deleting the key's secret; `None` if no key was connected.
    pub secret: Option<Result<(), VaultError>>,
}

/// Disconnects the account's key if `may` allows it: first removes the record, with `why` in the
/// account's history, then deletes the secret. Repeating it changes nothing.
pub async fn disconnect_key<E>(
    store: &Store,
    vault: &Vault,
    account: &AccountId,
    may: impl Fn(&KeyId) -> Result<(), E>,
    now: Timestamp,
    why: Option<&HistoryEntry>,
) -> Result<Disconnected, UpdateError<E>> {
    let due = now + ORPHAN_AGE;
    let mut removed = None;
    let account = store
        .accounts
        .update(account, None, now, |profile| {
            let Some(key) = profile.key.as_ref().map(|key| key.id.clone()) else {
                return Ok(Vec::new());
            };
            may(&key)?;
            removed = Some(key.clone());
            profile.disconnect();
            let history = why.cloned().map(Effect::History);
            let secret = Effect::SecretDue { key, due };
            Ok([secret].into_iter().chain(history).collect())
        })
        .await?;
    let secret = match removed {
        Some(key) => Some(delete_secret(store, vault, &account.id, &key, due).await),
        None => None,
    };
    Ok(Disconnected { account, secret })
}

/// Deletes the secret of a key that is no longer in use and whose secret was made due at `due`. If
/// this fails, the billing tick deletes the secret.
pub async fn delete_secret(
    store: &Store,
    vault: &Vault,
    account: &AccountId,
    key: &KeyId,
    due: Timestamp,
) -> Result<(), VaultError> {
    vault
        .delete(account, key)
        .await
        .inspect_err(|error| edge::log_error(error, "secret left to the billing tick"))?;
    if let Err(error) = store.accounts.forget_secret(account, key, due).await {
        edge::log_error(&error, "a deleted secret is still listed as due");
    }
    Ok(())
}
