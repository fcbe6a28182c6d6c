//! A call with an open hold.

use account::Credits;
use account::hold::HoldState;
use account::price::Usage;
use store::{Hold, Resolution};
use tokio::task::JoinHandle;
use upstream::HasContent;

use crate::deps::Deps;
use crate::running::RunningCall;

/// The name under which this function resolves holds.
const RESOLVED_BY: &str = "ai-proxy";

/// Whether a failed call may cost credits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailedCallCost {
    Free,
    Possible,
}

/// Ends in exactly one of: settled, released, left to the sweeper.
pub(super) struct HeldCall {
    pub(super) deps: Deps,
    pub(super) hold: Hold,
    /// While this lives, the sweeper of `cargo dev` skips the call.
    pub(super) _running: RunningCall,
}

impl HeldCall {
    /// Charges the call's actual cost. `None` if the sweeper will charge it.
    pub(super) async fn settle(&self, usage: Usage) -> Option<Credits> {
        let Some(cost) = self.hold.tariff.cost(&usage) else {
            self.leave_to_sweeper("usage without a cost").await;
            return None;
        };
        if cost > self.hold.amount {
            tracing::error!(%cost, held = %self.hold.amount, "a call cost more than its ceiling");
        }
        let now = self.deps.api.clock.now();
        let store = &self.deps.api.store;
        let settled = store.holds.settle(&self.hold, cost, now, RESOLVED_BY, None).await;
        match settled.map(Resolution::state) {
            Ok(Some(HoldState::Settled(charged))) => {
                tracing::info!(%charged, model = self.hold.model, "call settled");
                Some(charged)
            }
            Ok(state) => {
                tracing::error!(?state, "could not settle: the hold had already ended");
                None
            }
            Err(error) => {
                edge::log_error(&error, "could not settle the hold");
                self.leave_to_sweeper("settling failed").await;
                None
            }
        }
    }

    /// Settles from `usage`, or leaves the hold to the sweeper for this `reason`.
    pub(super) async fn settle_or_leave(
        &self,
        usage: Option<Usage>,
        reason: &'static str,
    ) -> Option<Credits> {
        match usage {
            Some(usage) => self.settle(usage).await,
            None => {
                self.leave_to_sweeper(reason).await;
                None
            }
        }
    }

    /// Ends a failed call. If it has neither content nor cost, it did not take place and is
    /// released.
    pub(super) async fn end_failed(
        &self,
        usage: Option<Usage>,
        content: HasContent,
    ) -> FailedCallCost {
        let cost = usage.and_then(|usage| self.hold.tariff.cost(&usage));
        if content == HasContent::No && cost.is_none_or(|cost| cost == Credits::ZERO) {
            self.release().await;
            return FailedCallCost::Free;
        }
        self.settle_or_leave(usage, "failed call without usage").await;
        FailedCallCost::Possible
    }

    /// Returns the held credits, because the call did not take place.
    pub(super) async fn release(&self) {
        let now = self.deps.api.clock.now();
        match self.deps.api.store.holds.release(&self.hold, now, RESOLVED_BY, None).await {
            Ok(Resolution::Already(Some(HoldState::Open))) => {
                self.leave_to_sweeper("releasing refused").await;
            }
            Ok(_) => edge::metric("holds_released", 1),
            Err(error) => {
                edge::log_error(&error, "could not release the hold");
                self.leave_to_sweeper("releasing failed").await;
            }
        }
    }

    /// Makes the hold due for the sweeper, which looks up the call's cost.
    pub(super) async fn leave_to_sweeper(&self, why: &'static str) {
        tracing::warn!(why, "hold left to the sweeper");
        let now = self.deps.api.clock.now();
        if let Err(error) = self.deps.api.store.holds.check_at(&self.hold, now).await {
            edge::log_error(&error, "the hold waits for its first scheduled check");
        }
    }

    /// Stores the generation id while the response continues.
    pub(super) fn record_generation(&self, id: String) -> JoinHandle<()> {
        let (store, hold) = (self.deps.api.store.clone(), self.hold.clone());
        // Boxed, so that its memory is freed when it ends, and not with the `JoinHandle`.
        edge::spawn(Box::pin(async move {
            if let Err(error) = store.holds.record_generation(&hold, &id).await {
                edge::log_error(&error, "could not store the generation id");
            }
        }))
    }
}

pub(super) async fn wait_for_recording(recording: JoinHandle<()>) {
    if let Err(error) = recording.await {
        edge::log_error(&error, "storing the generation id failed");
    }
}
