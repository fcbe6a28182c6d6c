//! The sweeper: holds that their calls left open.
//!
//! A call ends its own hold. Where it could not (its answer broke off or did not say what it cost,
//! its process died, the store did not answer), the default AI is asked what the call did cost, at
//! growing intervals; what it does not tell within the hold's life is released. Nothing is settled by
//! guess.
//!
//! Safe to run late, twice, twice at once and beside the call itself: a hold is taken on by a
//! conditional write, and its end is one that only one of all who try can make.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use account::hold::{End, HoldState, Sweep, sweep as decide};
use account::{CallId, Credits};
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use secrecy::SecretString;
use store::{DueHold, OpenHold, Resolution, StoreError};
use tokio::sync::OnceCell;
use upstream::{DefaultAiKind, GenerationError};

use crate::Deps;

/// Who ends a hold, in the ledger.
const ACTOR: &str = "sweeper";
/// Holds looked at by one tick, a shard; more wait for the next tick.
const HOLDS_A_SHARD: i32 = 250;
/// Holds looked at at once.
const AT_ONCE: usize = 16;
const LOOK_UP_TIME: Duration = Duration::from_secs(10);
/// After so many look-ups without an answer this tick asks no more, but about holds that would
/// otherwise be released.
const PATIENCE: u32 = 5;

/// What the sweeper did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Holds settled by the provider's word, or released for want of it.
    pub ended: u32,
    /// Holds that could not be looked at; they stay due.
    pub errors: u32,
}

/// Looks at the holds in `shards` whose check is due at `now`, but not at those of calls that are under
/// way.
pub async fn sweep(
    deps: &Deps,
    shards: impl IntoIterator<Item = u8>,
    now: Timestamp,
    is_under_way: impl Fn(&CallId) -> bool,
) -> Swept {
    let mut swept = Swept::default();
    let sweeper = Sweeper {
        deps,
        now,
        key: OnceCell::new(),
        unanswered: AtomicU32::new(0),
    };
    for shard in shards {
        let due = match deps.store.holds.due(shard, now, HOLDS_A_SHARD).await {
            Ok(due) => due,
            Err(error) => {
                edge::log_error(&error, "due holds could not be found");
                swept.errors += 1;
                continue;
            }
        };
        let due = due.into_iter().filter(|due| match due {
            Ok(due) => !is_under_way(&due.call),
            Err(_) => true,
        });
        let ends = stream::iter(due).map(|due| sweeper.look_at(due));
        let ends: Vec<_> = ends.buffer_unordered(AT_ONCE).collect().await;
        for end in ends {
            match end {
                Ok(ended) => swept.ended += u32::from(ended),
                Err(error) => {
                    edge::log_error(&*error, "a hold could not be swept");
                    swept.errors += 1;
                }
            }
        }
    }
    swept
}

struct Sweeper<'a> {
    deps: &'a Deps,
    now: Timestamp,
    /// The default AI's key, read when it is first needed.
    key: OnceCell<Option<Arc<SecretString>>>,
    /// Look-ups of this tick that came to nothing.
    unanswered: AtomicU32,
}

impl Sweeper<'_> {
    /// True if the hold ended by this.
    async fn look_at(&self, due: Result<DueHold, StoreError>) -> Result<bool, edge::Error> {
        let store = &self.deps.store;
        let Some(open) = store.holds.claim(&due?, self.now).await? else {
            return Ok(false);
        };
        let cost = self.cost_of(&open).await;
        let Sweep::End(end) = decide(cost, open.expires_at, self.now) else {
            return Ok(false);
        };
        // The ledger is read in the order of time: nothing is entered before what is there.
        let at = self.now.max(self.deps.clock.now());
        let hold = &open.hold;
        let resolution = match end {
            End::Settle(cost) => store.holds.settle(hold, cost, at, ACTOR, None).await?,
            End::Release => store.holds.release(hold, at, ACTOR, None).await?,
        };
        let call = hold.call.as_str();
        match resolution {
            Resolution::Done(HoldState::Settled(charged)) => {
                tracing::info!(call, %charged, "hold settled by the provider's record");
                edge::metric("holds_settled_late", 1);
            }
            Resolution::Done(_) => {
                let generation = open.generation_id.is_some();
                tracing::error!(call, held = %hold.amount, generation, "hold expired: nobody knows what the call did cost");
                edge::metric("holds_expired", 1);
            }
            Resolution::Already(_) => return Ok(false),
        }
        Ok(true)
    }

    /// What the provider says that the call did cost.
    async fn cost_of(&self, open: &OpenHold) -> Option<Credits> {
        let generation = open.generation_id.as_deref()?;
        let can_wait = self.now < open.expires_at;
        let is_silent = self.unanswered.load(Ordering::Relaxed) >= PATIENCE;
        if self.deps.default_ai_kind == DefaultAiKind::OpenAi || (is_silent && can_wait) {
            return None;
        }
        let key = self.key.get_or_init(|| self.read_key()).await.as_ref()?;
        let asked = self
            .deps
            .default_ai
            .generation(key, generation, LOOK_UP_TIME);
        match asked.await {
            Ok(usage) => {
                self.unanswered.store(0, Ordering::Relaxed);
                open.hold.tariff.cost(&usage?)
            }
            Err(error) => {
                if matches!(error, GenerationError::Refused(_)) {
                    self.deps
                        .vault
                        .forget_platform_secret(&self.deps.default_ai_secret)
                        .await;
                }
                self.unanswered.fetch_add(1, Ordering::Relaxed);
                edge::log_error(&error, "the default AI does not say what a call did cost");
                None
            }
        }
    }

    async fn read_key(&self) -> Option<Arc<SecretString>> {
        let name = &self.deps.default_ai_secret;
        let key = self.deps.vault.platform_secret(name).await;
        key.inspect_err(|error| edge::log_error(error, "the default AI's key cannot be read"))
            .ok()
    }
}
