//! The tick: what has come due by its `time`.

use std::error::Error;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use store::{DueSecret, StoreError};

use crate::Deps;

/// Orphaned secrets looked at by one tick, a shard; more wait for the next tick.
const SECRETS_A_SHARD: i32 = 25;
/// When a piece of work that was taken on and failed is tried again.
const PUT_OFF: SignedDuration = SignedDuration::from_hours(1);

/// What a tick did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct TickReport {
    /// Accounts charged.
    pub charged: u32,
    pub declined: u32,
    /// Charges whose outcome is not known yet.
    pub unknown: u32,
    /// Holds resolved by the sweeper.
    pub swept: u32,
    /// Pieces of work that failed, and stay due.
    pub errors: u32,
}

/// Does what is due at `now`. Safe to run late, twice, or twice at once.
pub async fn tick(deps: &Deps, now: Timestamp) -> TickReport {
    let mut report = TickReport::default();
    for shard in store::shards() {
        match deps.store.due_secrets(shard, now, SECRETS_A_SHARD).await {
            Ok(due) => {
                for secret in due {
                    if let Err(error) = clean_up(deps, secret, now).await {
                        edge::log_error(&*error, "an orphaned secret could not be cleaned up");
                        report.errors += 1;
                    }
                }
            }
            Err(error) => {
                edge::log_error(&error, "due secrets could not be found");
                report.errors += 1;
            }
        }
    }
    tracing::info!(errors = report.errors, "tick done");
    report
}

/// Deletes a secret that is not its account's key. What fails stays due, an hour later.
async fn clean_up(
    deps: &Deps,
    due: Result<DueSecret, StoreError>,
    now: Timestamp,
) -> Result<(), Box<dyn Error>> {
    let Some(claimed) = deps.store.claim_secret(&due?, now + PUT_OFF).await? else {
        return Ok(());
    };
    let (account, key) = (&claimed.account, &claimed.key);
    let stored = deps.store.account(account).await?;
    let in_force = stored.and_then(|stored| stored.profile.key);
    if in_force.is_none_or(|in_force| in_force.id != *key) {
        deps.vault.delete(account, key).await?;
        tracing::warn!("an orphaned secret was deleted");
    }
    deps.store.secret_gone(account, key, claimed.due).await?;
    Ok(())
}
