//! The sweeper: holds that their calls left open.
//!
//! A call ends its own hold. If it cannot (its response was cut off or reported no cost, its
//! process died, the store did not respond), the sweeper asks the default AI for the call's cost,
//! at growing intervals. It releases the hold if the default AI has had no record of the call for
//! an hour, or if the hold expires without an answer. Nothing is settled by guesswork.
//!
//! Safe to run late, twice, concurrently and alongside the call itself: a hold is claimed and ended
//! by conditional writes, of which only one succeeds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use account::hold::{End, HoldState, NO_RECORD_LIFE, Sweep, sweep as decide};
use account::{CallId, Credits};
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use secrecy::SecretString;
use store::{DueHold, OpenHold, Resolution, StoreError};
use tokio::sync::OnceCell;
use upstream::{AskError, DefaultAiKind};

use crate::deps::Deps;

/// The sweeper's name in the ledger.
const SWEEPER: &str = "sweeper";
/// Maximum number of holds in one tick and shard; more wait for the next tick.
const HOLDS_PER_SHARD: i32 = 250;
const CONCURRENT_HOLDS: usize = 16;
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(10);
/// Number of failed look-ups in a row after which a tick only looks up holds that would otherwise
/// be released.
const MAX_FAILURES: u32 = 5;

/// The results of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Holds settled from the default AI's record, or released without one.
    pub ended: u32,
    /// Holds that could not be checked; they stay due.
    pub errors: u32,
}

/// Checks the holds in `shards` whose check is due at `now`, except those of calls that are under
/// way.
pub async fn sweep(
    deps: &Deps,
    shards: impl IntoIterator<Item = u8>,
    now: Timestamp,
    is_under_way: impl Fn(&CallId) -> bool,
) -> Swept {
    let mut swept = Swept::default();
    let sweeper = Sweeper { deps, now, key: OnceCell::new(), failures: AtomicU32::new(0) };
    for shard in shards {
        let due = deps.store.holds.due(shard, now, HOLDS_PER_SHARD).await;
        let due = due.unwrap_or_else(|error| vec![Err(error)]);
        let due = due.into_iter().filter(|due| match due {
            Ok(due) => !is_under_way(&due.call),
            Err(_) => true,
        });
        let checks = stream::iter(due).map(|due| sweeper.check(due));
        let mut checks = checks.buffer_unordered(CONCURRENT_HOLDS);
        while let Some(ended) = checks.next().await {
            match ended {
                Ok(ended) => swept.ended += u32::from(ended),
                Err(error) => {
                    edge::log_error(&*error, "could not sweep a hold");
                    swept.errors += 1;
                }
            }
        }
    }
    swept
}

enum LookUp {
    Cost(Credits),
    /// The default AI has no record of the call, or not yet.
    NoRecord,
    Unknown,
}

struct Sweeper<'a> {
    deps: &'a Deps,
    now: Timestamp,
    /// The default AI's key, read on first use.
    key: OnceCell<Option<Arc<SecretString>>>,
    /// Look-ups that have failed in a row.
    failures: AtomicU32,
}

impl Sweeper<'_> {
    /// True if this ended the hold.
    async fn check(&self, due: Result<DueHold, StoreError>) -> Result<bool, edge::Error> {
        let store = &self.deps.store;
        let Some(open) = store.holds.claim(&due?, self.now).await? else {
            return Ok(false);
        };
        let (cost, release_at) = match self.look_up(&open).await {
            LookUp::Cost(cost) => (Some(cost), open.expires_at),
            LookUp::Unknown => (None, open.expires_at),
            LookUp::NoRecord => (None, self.release_without_record(&open).await?),
        };
        let Sweep::End(end) = decide(cost, release_at, self.now) else {
            return Ok(false);
        };
        // Never earlier than existing entries: the ledger is read in order of time.
        let at = self.now.max(self.deps.clock.now());
        let hold = &open.hold;
        let resolution = match end {
            End::Settle(cost) => store.holds.settle(hold, cost, at, SWEEPER, None).await?,
            End::Release => store.holds.release(hold, at, SWEEPER, None).await?,
        };
        let call_id = hold.call.as_str();
        match resolution {
            Resolution::Done(HoldState::Settled(charged)) => {
                tracing::info!(call_id, %charged, "hold settled from the default AI's record");
                edge::metric("holds_settled_late", 1);
            }
            Resolution::Done(_) => {
                let has_generation_id = open.generation_id.is_some();
                tracing::error!(call_id, held = %hold.amount, has_generation_id, "hold released at unknown cost");
                edge::metric("holds_expired", 1);
            }
            Resolution::Already(_) => return Ok(false),
        }
        Ok(true)
    }

    /// The release time of a hold for which the default AI has no record.
    async fn release_without_record(&self, open: &OpenHold) -> Result<Timestamp, StoreError> {
        let since = match open.no_record_since {
            Some(since) => since,
            None => {
                self.deps.store.holds.note_no_record(&open.hold, self.now).await?;
                self.now
            }
        };
        let release_at = since.checked_add(NO_RECORD_LIFE).unwrap_or(open.expires_at);
        Ok(release_at.min(open.expires_at))
    }

    /// Looks for the call in the default AI's records.
    async fn look_up(&self, open: &OpenHold) -> LookUp {
        let Some(generation) = open.generation_id.as_deref() else { return LookUp::Unknown };
        let can_wait = self.now < open.expires_at;
        let is_silent = self.failures.load(Ordering::Relaxed) >= MAX_FAILURES;
        if self.deps.default_ai_kind == DefaultAiKind::OpenAi || (is_silent && can_wait) {
            return LookUp::Unknown;
        }
        let Some(key) = self.key.get_or_init(|| self.read_key()).await else {
            return LookUp::Unknown;
        };
        let asked = self.deps.default_ai.generation(key, generation, LOOK_UP_TIMEOUT);
        match asked.await {
            Ok(usage) => {
                self.failures.store(0, Ordering::Relaxed);
                let Some(usage) = usage else { return LookUp::NoRecord };
                open.hold.tariff.cost(&usage).map_or(LookUp::Unknown, LookUp::Cost)
            }
            Err(error) => {
                if matches!(error, AskError::Refused { .. }) {
                    self.deps.vault.forget_platform_secret(&self.deps.default_ai_secret).await;
                }
                self.failures.fetch_add(1, Ordering::Relaxed);
                edge::log_error(&error, "could not look up a call's cost");
                LookUp::Unknown
            }
        }
    }

    async fn read_key(&self) -> Option<Arc<SecretString>> {
        let name = &self.deps.default_ai_secret;
        let key = self.deps.vault.platform_secret(name).await;
        key.inspect_err(|error| edge::log_error(error, "could not read the default AI's key")).ok()
    }
}
