//! The tick: what has come due by its `time`.

use jiff::Timestamp;
use serde::Serialize;
use store::DueSecret;

use crate::Deps;

/// Orphaned secrets looked at by one tick, a shard; more wait for the next tick.
const SECRETS_A_SHARD: i32 = 25;

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
    let due = match deps.store.due_secrets(now, SECRETS_A_SHARD).await {
        Ok(due) => due,
        Err(error) => {
            edge::log_error(&error, "due secrets could not be found");
            report.errors += 1;
            return report;
        }
    };
    for secret in due {
        if !clean_up(deps, &secret).await {
            report.errors += 1;
        }
    }
    tracing::info!(errors = report.errors, "tick done");
    report
}

/// Deletes a secret that is not its account's key. False if it stays due.
async fn clean_up(deps: &Deps, due: &DueSecret) -> bool {
    let account = match deps.store.account(&due.account).await {
        Ok(account) => account,
        Err(error) => {
            edge::log_error(&error, "the account of a due secret could not be read");
            return false;
        }
    };
    let key = account.and_then(|account| account.profile.key);
    let in_force = key.is_some_and(|key| key.id == due.key);
    if !in_force {
        if let Err(error) = deps.vault.delete(&due.account, &due.key).await {
            edge::log_error(&error, "an orphaned secret could not be deleted");
            return false;
        }
        tracing::warn!("an orphaned secret was deleted");
    }
    match deps.store.secret_gone(&due.account, &due.key).await {
        Ok(()) => true,
        Err(error) => {
            edge::log_error(&error, "a deleted secret is still noted as due");
            false
        }
    }
}
