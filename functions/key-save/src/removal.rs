//! Taking a key out of force, whoever asks for it: the account's owner, or an operator.

use account::{Account, AccountId, KeyId};
use jiff::Timestamp;
use keyvault::{Vault, VaultError};
use store::{Effect, HistoryEntry, Store, UpdateError};

use crate::ORPHAN_LIFE;

/// What became of the wish to disconnect.
#[derive(Debug)]
pub struct Disconnected {
    pub account: Account,
    /// What became of the key's secret; `None` if no key was connected.
    pub secret: Option<Result<(), VaultError>>,
}

/// Disconnects the account's key, if `may` says so of it: first the record, which then tells of it
/// as `why`, then the secret. Doing it twice is doing it once.
///
/// # Errors
/// [`UpdateError`] if the record still names the key, or nobody knows.
pub async fn disconnect_key<E>(
    store: &Store,
    vault: &Vault,
    account: &AccountId,
    may: impl Fn(&KeyId) -> Result<(), E>,
    now: Timestamp,
    why: Option<&HistoryEntry>,
) -> Result<Disconnected, UpdateError<E>> {
    let due = now + ORPHAN_LIFE;
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

/// Deletes the secret of a key that is not in force any more, and that was written down as due at
/// `due`.
///
/// # Errors
/// [`VaultError`] if it may still be there; the billing tick then deletes it.
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
        .inspect_err(|error| edge::log_error(error, "a secret is left to the billing tick"))?;
    if let Err(error) = store.secrets.remove(account, key, due).await {
        edge::log_error(&error, "a deleted secret is still noted as due");
    }
    Ok(())
}
