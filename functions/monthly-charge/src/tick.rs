//! The tick: everything that is due at its `time`.

use account::{AccountId, CallId, KeyId};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use store::{Due, DueKind, DueTask};

use crate::deps::Deps;
use crate::outbox;
use crate::plan::plan;
use crate::sweep::sweep;

/// Maximum number of tasks of a kind and shard in one tick; more wait for the next tick.
const TASKS_PER_SHARD: i32 = 25;
/// The delay before a payment task that failed is tried again.
const PAYMENT_RETRY_DELAY: SignedDuration = SignedDuration::from_mins(5);
/// The delay before a Checkout Session that should have closed is looked up again.
const OPEN_SESSION_DELAY: SignedDuration = SignedDuration::from_mins(10);
/// The time for which a secret or deletion belongs to the tick that claimed it.
const CLAIM: SignedDuration = SignedDuration::from_hours(1);

/// The results of a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct TickReport {
    /// Accounts put into the queue.
    pub queued: u32,
    /// Holds ended by the sweeper.
    pub swept: u32,
    /// Tasks that failed, and stay due.
    pub errors: u32,
}

/// Runs everything that is due at `now`. Safe to run late, twice or concurrently. Skips the holds
/// of calls that are under way.
pub async fn tick(
    deps: &Deps,
    now: Timestamp,
    is_under_way: impl Fn(&CallId) -> bool,
) -> TickReport {
    let mut report = TickReport {
        errors: run_due(deps, &[DueKind::Secret, DueKind::Deletion], now).await,
        ..TickReport::default()
    };
    let planned = plan(deps, now).await;
    report.queued = planned.queued;
    report.errors += planned.errors;
    report.errors += outbox::deliver(deps, now).await;
    let swept = sweep(deps, store::shards(), now, is_under_way).await;
    report.swept = swept.ended;
    report.errors += swept.errors;
    // Last, because each request to Stripe may have to wait.
    let payment_tasks =
        [DueKind::StripeEvent, DueKind::CheckoutSession, DueKind::Cleanup, DueKind::Refund];
    report.errors += Box::pin(run_due(deps, &payment_tasks, now)).await;
    let TickReport { queued, swept, errors } = report;
    tracing::info!(queued, swept, errors, "tick done");
    report
}

/// Runs the due tasks of these kinds; returns the number of errors. An error stops no other task.
async fn run_due(deps: &Deps, kinds: &[DueKind], now: Timestamp) -> u32 {
    let mut errors = 0;
    for shard in store::shards() {
        for kind in kinds {
            let due = deps.store.due.find(*kind, shard, now, TASKS_PER_SHARD);
            for due in due.await.unwrap_or_else(|error| vec![Err(error)]) {
                let done = match due {
                    Ok(due) => run(deps, &due, now).await,
                    Err(error) => Err(error.into()),
                };
                if let Err(error) = done {
                    edge::log_error(&*error, &format!("a due task failed: {kind:?}"));
                    errors += 1;
                }
            }
        }
    }
    errors
}

async fn run(deps: &Deps, due: &Due, now: Timestamp) -> Result<(), edge::Error> {
    let (store, cx) = (&deps.store, deps.charging.at(now));
    match &due.task {
        DueTask::Secret(account, key) => {
            if store.due.postpone(due, now + CLAIM).await? {
                delete_orphan(deps, account, key, now + CLAIM).await?;
            }
        }
        DueTask::Deletion(account) => {
            // Stays due while calls are open on the account.
            if store.due.postpone(due, now + CLAIM).await? {
                store.accounts.scrub(account).await?;
            }
        }
        DueTask::StripeEvent(id) => drop(charging::replay(cx, id).await?),
        DueTask::Cleanup(account) => charging::cleanup_payments(cx, account).await?,
        DueTask::CheckoutSession(stripe_id) => match charging::check_session(cx, stripe_id).await {
            Ok(true) => {}
            Ok(false) => drop(store.due.postpone(due, now + OPEN_SESSION_DELAY).await?),
            Err(error) => {
                store.due.postpone(due, now + PAYMENT_RETRY_DELAY).await?;
                return Err(error.into());
            }
        },
        DueTask::Refund(stripe_id) => {
            if let Err(error) = charging::refund_unowed(cx, stripe_id).await {
                store.due.postpone(due, now + PAYMENT_RETRY_DELAY).await?;
                return Err(error.into());
            }
        }
        DueTask::Billing(_) | DueTask::Event(..) => {
            return Err("planned or delivered elsewhere".into());
        }
    }
    Ok(())
}

/// Deletes a secret unless it is the account's key, and forgets its name, which is due at `due`.
async fn delete_orphan(
    deps: &Deps,
    account: &AccountId,
    key: &KeyId,
    due: Timestamp,
) -> Result<(), edge::Error> {
    let stored = deps.store.accounts.get(account).await?;
    let in_force = stored.and_then(|stored| stored.profile.key);
    if in_force.is_none_or(|in_force| in_force.id != *key) {
        deps.vault.delete(account, key).await?;
        tracing::warn!("deleted an orphaned secret");
    }
    Ok(deps.store.accounts.forget_secret(account, key, due).await?)
}
