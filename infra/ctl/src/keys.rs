//! `gretactl key`. It never reads a key's text; it shows the facts that the account's members see.

use account::{AccountId, KeyId};
use card::KeyFacts;
use key_save::disconnect_key;
use serde_json::json;
use store::UpdateError;

use crate::error::Error;
use crate::output::{Fields, Report};
use crate::session::Session;

/// Adds a key's facts.
pub(crate) fn fields(fields: Fields, key: Option<&KeyFacts>) -> Fields {
    match key {
        Some(key) => fields.members("key ", &json!(key)),
        None => fields.and("key", "none is connected"),
    }
}

pub(crate) async fn status(session: &Session<'_, '_>, id: AccountId) -> Result<Report, Error> {
    let profile = session.account(&id).await?.profile;
    let key = profile.key.map(KeyFacts::from);
    let fields = fields(Fields::new("account", &id), key.as_ref())
        .and("enabled", profile.enabled)
        .and("always use", profile.always_use_key);
    let json = json!({
        "account_id": id,
        "key": key,
        "enabled": profile.enabled,
        "always_use_key": profile.always_use_key,
    });
    Ok(Report::new(json, fields))
}

/// The account's current key is not the one shown.
struct OtherKey;

pub(crate) async fn forget(
    session: &mut Session<'_, '_>,
    id: AccountId,
    reason: &str,
) -> Result<Report, Error> {
    let actor = session.actor()?;
    let report = |id: &AccountId, disconnected: bool, secret_deleted: bool| {
        let done = match (disconnected, secret_deleted) {
            (false, _) => "no key was connected; nothing was done",
            (true, true) => "disconnected, and its secret deleted",
            (true, false) => {
                "disconnected; Secrets Manager did not delete its secret: the billing tick does, \
                 in an hour"
            }
        };
        let json = json!({
            "account_id": id,
            "disconnected": disconnected,
            "secret_deleted": secret_deleted,
            "reason": reason,
            "actor": actor,
        });
        Report::change(json, done)
    };
    let profile = session.account(&id).await?.profile;
    let Some(key) = profile.key else {
        return Ok(report(&id, false, false));
    };
    let (shown, key) = (key.id.clone(), KeyFacts::from(key));
    let facts =
        fields(Fields::new("account", &id), Some(&key)).and("always use", profile.always_use_key);
    session.confirm(
        "The key is disconnected and its secret deleted; calls are then paid in credits.",
        facts,
    )?;
    let entry = session.history(format!("key {} disconnected: {reason}", key.label))?;
    let (store, vault) = (&session.store, &session.vault);
    let is_shown = |key: &KeyId| if *key == shown { Ok(()) } else { Err(OtherKey) };
    let disconnected = disconnect_key(store, vault, &id, is_shown, entry.at, Some(&entry));
    let disconnected = disconnected.await.map_err(|error| match error {
        UpdateError::NotFound => Error::gone(&id),
        UpdateError::Refused(OtherKey) => Error::refused(format!(
            "the account now has another key; nothing was changed; see `gretactl key status {id}`"
        )),
        UpdateError::Store(source) => {
            Error::unknown(format!("see `gretactl key status {id}`"))(source)
        }
    })?;
    let secret = disconnected.secret;
    Ok(report(&id, secret.is_some(), matches!(secret, Some(Ok(())))))
}
