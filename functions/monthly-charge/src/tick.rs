//! The tick: what has come due by its `time`.

use account::CallId;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use store::{DueCleanup, DueDeletion, DueEvent, DuePayment, DueSecret, StoreError};

use crate::Deps;
use crate::outbox;
use crate::plan::plan;
use crate::sweep::sweep;

/// Orphaned secrets and deletions looked at by one tick, a shard; more wait for the next tick.
const A_SHARD: i32 = 25;
/// When a page that could not be looked at, or a payment that could not be given back, is tried again.
const AGAIN: SignedDuration = SignedDuration::from_mins(5);
/// When a piece of work that was taken on and failed is tried again.
const PUT_OFF: SignedDuration = SignedDuration::from_hours(1);

/// What a tick did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct TickReport {
    /// Accounts put into the queue.
    pub queued: u32,
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
    let planned = plan(deps, now).await;
    report.queued = planned.queued;
    report.errors += planned.errors;
    report.errors += outbox::deliver(deps, now).await;
    let swept = sweep(deps, store::shards(), now, is_under_way).await;
    report.swept = swept.ended;
    report.errors += swept.errors;
    // Last: each request to the payment provider may have to wait.
    Box::pin(settle(deps, now, &mut report)).await;
    let TickReport {
        queued,
        swept,
        errors,
    } = report;
    tracing::info!(queued, swept, errors, "tick done");
    report
}

/// Pending payment updates, payments that are to be called off or given back.
async fn settle(deps: &Deps, now: Timestamp, report: &mut TickReport) {
    for shard in store::shards() {
        match deps.store.due_events(shard, now, A_SHARD).await {
            Ok(due) => {
                for event in due {
                    report.count(replay(deps, event, now).await, "an event was not applied");
                }
            }
            Err(error) => report.count(Err(error.into()), "due events could not be found"),
        }
        match deps.store.due_pages(shard, now, A_SHARD).await {
            Ok(due) => {
                for page in due {
                    report.count(
                        look_at(deps, page, now).await,
                        "a page that has closed was not looked at",
                    );
                }
            }
            Err(error) => report.count(Err(error.into()), "due pages could not be found"),
        }
        match deps.store.due_cleanups(shard, now, A_SHARD).await {
            Ok(due) => {
                for left in due {
                    report.count(
                        cleanup(deps, left, now).await,
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
                        give_back(deps, refund, now).await,
                        "a payment was not given back",
                    );
                }
            }
            Err(error) => report.count(Err(error.into()), "due refunds could not be found"),
        }
    }
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

async fn cleanup(
    deps: &Deps,
    due: Result<DueCleanup, StoreError>,
    now: Timestamp,
) -> Result<(), lambda_runtime::Error> {
    Ok(deps.charging.cleanup_payments(&due?, now).await?)
}

async fn look_at(
    deps: &Deps,
    due: Result<DuePayment, StoreError>,
    now: Timestamp,
) -> Result<(), lambda_runtime::Error> {
    let due = due?;
    if let Err(error) = deps.charging.look_at_page(&due, now).await {
        deps.store.put_off_page(&due, Some(now + AGAIN)).await?;
        return Err(error.into());
    }
    Ok(())
}

async fn give_back(
    deps: &Deps,
    due: Result<DuePayment, StoreError>,
    now: Timestamp,
) -> Result<(), lambda_runtime::Error> {
    let due = due?;
    if let Err(error) = deps.charging.refund_unowed(&due).await {
        deps.store.put_off_refund(&due, now + AGAIN).await?;
        return Err(error.into());
    }
    Ok(())
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
