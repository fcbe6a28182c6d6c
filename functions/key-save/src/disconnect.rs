//! `DELETE …/key`: disconnect. Doing it twice is doing it once.

use std::convert::Infallible;

use account::{AccountId, KeyId};
use axum::Json;
use axum::extract::State;
use edge::{ApiError, Caller};
use jiff::Timestamp;
use store::Effect;

use crate::{Changed, Deps, ORPHAN_LIFE, changed};

pub(crate) async fn disconnect(
    State(deps): State<Deps>,
    caller: Caller,
) -> Result<Json<Changed>, ApiError> {
    caller.require_owner()?;
    let due = deps.clock.now() + ORPHAN_LIFE;
    let mut removed = None;
    let disconnected = deps
        .store
        .update(&caller.account, None, |profile| {
            let Some(key) = profile.key.as_ref().map(|key| key.id.clone()) else {
                return Ok::<_, Infallible>(Vec::new());
            };
            removed = Some(key.clone());
            profile.disconnect();
            Ok(vec![Effect::SecretDue { key, due }])
        })
        .await;
    let account = changed(disconnected)?;
    if let Some(key) = removed {
        deps.delete_secret(&account.id, &key, due).await;
        tracing::info!("key disconnected");
    }
    Ok(Json(Changed {
        integration: deps.card(&account, &caller).await,
    }))
}

impl Deps {
    /// Deletes the secret of a key that is not in force any more. If that fails, it is due, and the
    /// billing tick does it.
    pub(crate) async fn delete_secret(&self, account: &AccountId, key: &KeyId, due: Timestamp) {
        if let Err(error) = self.vault.delete(account, key).await {
            edge::log_error(&error, "a secret is left to the billing tick");
            return;
        }
        if let Err(error) = self.store.secret_gone(account, key, due).await {
            edge::log_error(&error, "a deleted secret is still noted as due");
        }
    }
}
