//! The tick: what has come due by its `time`.

use account::CallId;
use charging::Worked;
use futures_util::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use store::{DueAccount, DueDeletion, DueEvent, DueRefund, DueSecret, DueWindUp, StoreError};

use crate::Deps;
use crate::outbox;
use crate::sweep::sweep;

/// Orphaned secrets and deletions looked at by one tick, a shard; more wait for the next tick.
const A_SHARD: i32 = 25;
/// Accounts charged by one tick, a shard; more wait for the next tick.
const ACCOUNTS_A_SHARD: i32 = 250;
/// Accounts charged at once.
const AT_ONCE: usize = 16;
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
    /// Holds ended by the sweeper.
    pub swept: u32,
    /// Pieces of work that failed, and stay due.
    pub errors: u32,
}

/// Does what is due at `now`. Safe to run late, twice, or twice at once. Holds of calls that are
/// under way are left alone.
pub async fn tick(
    deps: &Deps,
    now: Timestamp,
    is_under_way: impl Fn(&CallId) -> bool,
) -> TickReport {
    let mut report = TickReport::default();
    for shard in store::shards() {
        match deps.store.due_secrets(shard, now, A_SHARD).await {
            Ok(due) => {
                for secret in due {
                    report.count(
                        clean_up(deps, secret, now).await,
                        "a secret's clean-up failed",
                    );
                }
            }
            Err(error) => report.count(Err(error.into()), "due secrets could not be found"),
        }
        match deps.store.due_deletions(shard, now, A_SHARD).await {
            Ok(due) => {
                for deletion in due {
                    report.count(
                        scrub(deps, deletion, now).await,
                        "a deletion was not finished",
                    );
                }
            }
            Err(error) => report.count(Err(error.into()), "due deletions could not be found"),
        }
    }
    Box::pin(charge(deps, now, &mut report)).await;
    report.errors += outbox::deliver(deps, now).await;
    // Last: it waits for others.
    let swept = sweep(deps, store::shards(), now, is_under_way).await;
    report.swept = swept.ended;
    report.errors += swept.errors;
    tracing::info!(swept = report.swept, errors = report.errors, "tick done");
    report
}

/// What is due for add-ons, and payments that are to be given back.
async fn charge(deps: &Deps, now: Timestamp, report: &mut TickReport) {
    for shard in store::shards() {
        match deps.store.due_accounts(shard, now, ACCOUNTS_A_SHARD).await {
            Ok(due) => {
                let works = due.into_iter().map(|account| work(deps, account, now));
                let mut works = stream::iter(works).buffer_unordered(AT_ONCE);
                while let Some(worked) = works.next().await {
                    let worked = worked.map(|worked| {
                        report.charged += worked.charged;
                        report.declined += worked.declined;
                        report.unknown += worked.unknown;
                    });
                    report.count(worked, "a due account was not charged");
                }
            }
            Err(error) => report.count(Err(error.into()), "due accounts could not be found"),
        }
        match deps.store.due_events(shard, now, A_SHARD).await {
            Ok(due) => {
                for event in due {
                    report.count(replay(deps, event, now).await, "an event was not applied");
                }
            }
            Err(error) => report.count(Err(error.into()), "due events could not be found"),
        }
        match deps.store.due_wind_ups(shard, now, A_SHARD).await {
            Ok(due) => {
                for left in due {
                    report.count(
                        wind_up(deps, left, now).await,
                        "a deleted account's payments were not called off",
                    );
                }
            }
            Err(error) => report.count(Err(error.into()), "due wind-ups could not be found"),
        }
        match deps.store.due_refunds(shard, now, A_SHARD).await {
            Ok(due) => {
                for refund in due {
                    report.count(
                        give_back(deps, refund).await,
                        "a payment was not given back",
                    );
                }
            }
            Err(error) => report.count(Err(error.into()), "due refunds could not be found"),
        }
    }
}

async fn work(
    deps: &Deps,
    due: Result<DueAccount, StoreError>,
    now: Timestamp,
) -> Result<Worked, lambda_runtime::Error> {
    Ok(deps.charging.work(&due?.account, now).await?)
}

/// Applies an event that could not be applied when it came.
async fn replay(
    deps: &Deps,
    due: Result<DueEvent, StoreError>,
    now: Timestamp,
) -> Result<(), lambda_runtime::Error> {
    deps.charging.replay(&due?.id, now).await?;
    Ok(())
}

async fn wind_up(
    deps: &Deps,
    due: Result<DueWindUp, StoreError>,
    now: Timestamp,
) -> Result<(), lambda_runtime::Error> {
    Ok(deps.charging.wind_up(&due?, now).await?)
}

async fn give_back(
    deps: &Deps,
    due: Result<DueRefund, StoreError>,
) -> Result<(), lambda_runtime::Error> {
    Ok(deps.charging.give_back(&due?).await?)
}

impl TickReport {
    /// Logs and counts a piece of work that failed.
    fn count(&mut self, done: Result<(), lambda_runtime::Error>, failed: &'static str) {
        if let Err(error) = done {
            edge::log_error(&*error, failed);
            self.errors += 1;
        }
    }
}

/// Finishes the deletion of an account; while calls are open on it, it stays due.
async fn scrub(
    deps: &Deps,
    due: Result<DueDeletion, StoreError>,
    now: Timestamp,
) -> Result<(), lambda_runtime::Error> {
    let due = due?;
    if deps.store.claim_deletion(&due, now + PUT_OFF).await? {
        deps.store.scrub(&due.account).await?;
    }
    Ok(())
}

/// Deletes a secret that is not its account's key. What fails stays due, an hour later.
async fn clean_up(
    deps: &Deps,
    due: Result<DueSecret, StoreError>,
    now: Timestamp,
) -> Result<(), lambda_runtime::Error> {
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
