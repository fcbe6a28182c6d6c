//! `gretactl key`. A key's text is never read: what is shown is what the account's members see.

use std::fmt::{self, Display};

use account::{AccountId, KeyId};
use card::KeyFacts;
use key_save::disconnect_key;
use serde::Serialize;
use store::UpdateError;

use crate::cli::KeyCommand;
use crate::error::Error;
use crate::output::{Answer, Fields, name_of, on_off, or_dash, time};
use crate::session::Session;

pub(crate) async fn carry_out(
    session: &mut Session<'_, '_>,
    command: KeyCommand,
) -> Result<Answer, Error> {
    match command {
        KeyCommand::Status { account } => status(session, account.account).await,
        KeyCommand::Forget { account, reason } => forget(session, account.account, &reason).await,
    }
}

/// Adds what is known of a key.
pub(crate) fn fields(fields: Fields, key: Option<&KeyFacts>) -> Fields {
    let Some(key) = key else {
        return fields.and("key", "none is connected");
    };
    let dollars = |amount: &String| format!("{amount} USD");
    fields
        .and("key", &key.label)
        .and("last four", &key.last4)
        .and("sha-256", &key.sha256)
        .and("key state", name_of(&key.state))
        .and("checked", time(key.checked_at))
        .and(
            "saved",
            format!("{} by {}", time(key.saved_at), key.saved_by),
        )
        .and("limit", or_dash(key.limit_usd.as_ref(), dollars))
        .and(
            "remaining",
            or_dash(key.limit_remaining_usd.as_ref(), dollars),
        )
        .and("expires", or_dash(key.expires_at.as_ref(), String::clone))
}

#[derive(Serialize)]
struct Status {
    account_id: AccountId,
    key: Option<KeyFacts>,
    enabled: bool,
    always_use_key: bool,
}

impl Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = fields(Fields::new("account", &self.account_id), self.key.as_ref());
        let fields = fields
            .and("enabled", on_off(self.enabled))
            .and("always use", on_off(self.always_use_key));
        write!(f, "{fields}")
    }
}

async fn status(session: &Session<'_, '_>, id: AccountId) -> Result<Answer, Error> {
    let profile = session.account(&id).await?.profile;
    Answer::of(&Status {
        account_id: id,
        key: profile.key.map(KeyFacts::from),
        enabled: profile.enabled,
        always_use_key: profile.always_use_key,
    })
}

#[derive(Serialize)]
struct Forgotten {
    account_id: AccountId,
    /// False: no key was connected.
    disconnected: bool,
    /// False: the secret could not be deleted now; the billing tick does it.
    secret_deleted: bool,
    reason: String,
    actor: String,
}

impl Display for Forgotten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (done, secret) = match (self.disconnected, self.secret_deleted) {
            (false, _) => ("no key was connected; nothing was done", "there is none"),
            (true, true) => ("disconnected", "deleted"),
            (true, false) => (
                "disconnected",
                "Secrets Manager did not delete it; the billing tick does, in an hour",
            ),
        };
        let fields = Fields::new("account", &self.account_id)
            .and("key's secret", secret)
            .and("reason", &self.reason)
            .and("by", &self.actor);
        write!(f, "{done}\n\n{fields}")
    }
}

/// The account's key is not the one that was shown.
struct OtherKey;

async fn forget(
    session: &mut Session<'_, '_>,
    id: AccountId,
    reason: &str,
) -> Result<Answer, Error> {
    let actor = session.actor()?;
    let profile = session.account(&id).await?.profile;
    let mut forgotten = Forgotten {
        account_id: id,
        disconnected: false,
        secret_deleted: false,
        reason: reason.to_owned(),
        actor,
    };
    let Some(key) = profile.key else {
        return Answer::of(&forgotten);
    };
    let (shown, key) = (key.id.clone(), KeyFacts::from(key));
    let facts = fields(Fields::new("account", &forgotten.account_id), Some(&key))
        .and("always use", on_off(profile.always_use_key));
    session.confirm(
        "The key is disconnected and its secret deleted; calls are then paid in credits.",
        facts,
    )?;
    let why = session.history(format!("key {} disconnected: {reason}", key.label))?;
    let (store, vault, id) = (&session.store, &session.vault, &forgotten.account_id);
    let is_shown = |key: &KeyId| if *key == shown { Ok(()) } else { Err(OtherKey) };
    let disconnected = disconnect_key(store, vault, id, is_shown, why.at, Some(&why));
    let disconnected = disconnected.await.map_err(|error| match error {
        UpdateError::NotFound => Error::gone(id),
        UpdateError::Refused(OtherKey) => Error::refused(format!(
            "the account's key is another one by now; nothing was changed; look again at `gretactl key status {id}`"
        )),
        UpdateError::Store(source) => Error::Unknown {
            advice: format!("look at `gretactl key status {id}`"),
            source,
        },
    })?;
    let secret = disconnected.secret;
    forgotten.disconnected = secret.is_some();
    forgotten.secret_deleted = matches!(secret, Some(Ok(())));
    Answer::of(&forgotten)
}
