//! A subscription that the provider runs: where it collects, we follow what it did.
//!
//! Invariants:
//! - nothing is charged by us where one collects, and nothing is bought beside it;
//! - it collects for the current generation while that goes on; else it is stopped;
//! - what the user decided is told to the provider until it is so there; what is decided there counts as
//!   the user's.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Billing, LEASE, Step, Task, later};
use crate::add_on::{Collection, Fact, GenerationId};
use crate::period::{Period, period_at};
use crate::{AddOnStatus, Plan, Profile};

/// When the provider has charged the card after a period's end: it waits for about an hour.
/// Source: <https://docs.stripe.com/invoicing/integration/automatic-advancement-collection>.
const CHARGED_AFTER: SignedDuration = SignedDuration::from_hours(2);
/// When it is looked again whether a period was paid.
const AGAIN: SignedDuration = SignedDuration::from_hours(24);
/// Well within any month, counted from its end.
const WITHIN: SignedDuration = SignedDuration::from_hours(14 * 24);

/// A subscription that the provider runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    pub id: String,
    /// What it collects for.
    pub generation: GenerationId,
    /// The provider has it end with its period. `None` is unknown: it is being told, and did not answer.
    ends: Option<bool>,
    /// When the provider last said how it stands.
    checked_at: Option<Timestamp>,
    /// When it is looked again whether a period was paid.
    follow_at: Timestamp,
    /// Nobody else takes it on before.
    next_at: Timestamp,
}

impl Subscription {
    /// One that goes on.
    pub fn new(id: String, generation: GenerationId) -> Self {
        Self {
            id,
            generation,
            ends: Some(false),
            checked_at: None,
            follow_at: Timestamp::MIN,
            next_at: Timestamp::MIN,
        }
    }

    pub(super) fn put_off(&mut self, at: Timestamp) {
        self.next_at = self.next_at.max(at);
    }
}

/// The provider's word on a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteStatus {
    /// `ends`: with its period.
    Runs {
        ends: bool,
    },
    Over,
}

/// The period that ends at `end` by the provider's count, which may begin some time from `anchor`.
pub fn period_ending(anchor: Timestamp, end: Timestamp) -> Period {
    period_at(anchor, end.checked_sub(WITHIN).unwrap_or(end))
}

impl Profile {
    pub(super) fn next_of_subscription(&self) -> Option<(Timestamp, Step)> {
        let Some(subscription) = &self.billing.subscription else {
            let left = self.collects() && self.is_run_by_provider();
            return left.then_some((Timestamp::MIN, Step::LeaveToItsEnd));
        };
        let next_at = subscription.next_at;
        if !self.goes_on(subscription) {
            return Some((next_at, Step::Stop));
        }
        if subscription.ends != Some(self.is_cancelling()) {
            return Some((next_at, Step::Tell));
        }
        let due = self.add_on.paid_through().filter(|_| self.collects())?;
        let at = later(due, CHARGED_AFTER).max(subscription.follow_at);
        Some((at.max(next_at), Step::Follow))
    }

    /// Carries out a step of [`next_of_subscription`](Self::next_of_subscription).
    pub(super) fn take_on_subscription(&mut self, step: &Step, now: Timestamp) -> Option<Task> {
        let ends = self.is_cancelling();
        let subscription = self.billing.subscription.as_mut()?;
        subscription.next_at = later(now, LEASE);
        let id = subscription.id.clone();
        match step {
            Step::Stop => Some(Task::Stop { subscription: id }),
            Step::Tell => {
                subscription.ends = None;
                Some(Task::Tell {
                    subscription: id,
                    ends,
                })
            }
            _ => Some(Task::Follow { subscription: id }),
        }
    }

    /// No subscription collects for the add-on any more: what is paid is its last.
    pub(super) fn leave_to_its_end(&mut self) {
        let Some(generation) = self.add_on.generation().cloned() else {
            return;
        };
        match (self.add_on.status(), self.add_on.last_declined()) {
            (AddOnStatus::PastDue, Some(period)) => {
                self.add_on.apply(Fact::GraceOver { generation, period });
            }
            _ => self.cancelled(generation, None),
        }
    }

    /// The provider says how the subscription stands. `before` is what was stored before it was asked: of
    /// something newer it tells nothing.
    pub fn apply_remote_status(
        &mut self,
        before: &Billing,
        standing: RemoteStatus,
        now: Timestamp,
    ) {
        let Some(asked) = &before.subscription else {
            return;
        };
        let (known, actions) = (&self.billing.subscription, self.billing.actions);
        if known.as_ref() != Some(asked) || actions != before.actions {
            return;
        }
        let RemoteStatus::Runs { ends } = standing else {
            self.subscription_gone(&asked.id);
            return;
        };
        // It is asked once more when access is to end.
        let grace_ends = self.billing.charge.as_ref().map(|charge| charge.grace_ends);
        let again = match grace_ends.filter(|end| *end > now) {
            Some(end) => later(now, AGAIN).min(end),
            None => later(now, AGAIN),
        };
        let due = self.add_on.paid_through().filter(|_| self.collects());
        let is_due = due.is_some_and(|due| later(due, CHARGED_AFTER) <= now);
        if let Some(known) = &mut self.billing.subscription {
            known.checked_at = Some(now);
            if is_due {
                known.follow_at = again;
            }
            // What it was told meanwhile may come after its word.
            if known.ends.is_some() {
                known.ends = Some(ends);
                known.next_at = Timestamp::MIN;
            }
        }
        if asked.ends.is_none_or(|known| known == ends) || !self.goes_on(asked) {
            return;
        }
        // Somebody decided so at the provider.
        if ends {
            // If there is nothing to cancel, it was us.
            let _ = self.cancel();
        } else {
            self.resume(now);
        }
    }

    /// The provider was told whether the subscription ends with its period.
    pub fn subscription_told(&mut self, id: &str, ends: bool) {
        if let Some(known) = &mut self.billing.subscription
            && known.id == id
        {
            known.ends = Some(ends);
            known.next_at = Timestamp::MIN;
        }
    }

    /// It is not known whether the provider carried out what it was told.
    pub fn subscription_in_doubt(&mut self, id: &str) {
        if let Some(known) = &mut self.billing.subscription
            && known.id == id
        {
            known.ends = None;
        }
    }

    /// The subscription is over at the provider.
    pub fn subscription_gone(&mut self, id: &str) {
        let known = &mut self.billing.subscription;
        if known.as_ref().is_some_and(|known| known.id == id) {
            *known = None;
        }
    }

    /// The provider could not collect a period.
    pub fn not_collected(&mut self, generation: &GenerationId, period: Period) {
        if self.is_owed(generation, period) {
            let generation = generation.clone();
            self.add_on.apply(Fact::Declined { generation, period });
        }
    }

    pub(super) fn was_asked_since(&self, at: Timestamp) -> bool {
        let subscription = self.billing.subscription.as_ref();
        subscription.is_none_or(|subscription| subscription.checked_at >= Some(at))
    }

    /// Is the subscription the one that collects, and is to go on?
    pub fn is_collected_by(&self, subscription: &str) -> bool {
        let known = self.billing.subscription.as_ref();
        known.is_some_and(|known| known.id == subscription && self.goes_on(known))
    }

    /// Does the subscription collect for what the account has, and is to have further?
    fn goes_on(&self, subscription: &Subscription) -> bool {
        let has = matches!(
            self.add_on.status(),
            AddOnStatus::Active | AddOnStatus::PastDue | AddOnStatus::Cancelling
        );
        has && self.plan() == Plan::Standard
            && self.add_on.generation() == Some(&subscription.generation)
    }

    /// Can the cancellation be taken back? Not where nothing collects any more.
    pub fn can_resume(&self) -> bool {
        !self.is_run_by_provider() || self.billing.subscription.is_some()
    }

    pub(super) fn is_run_by_provider(&self) -> bool {
        self.add_on.collection() == Some(Collection::Provider)
    }

    pub(super) fn is_cancelling(&self) -> bool {
        self.add_on.status() == AddOnStatus::Cancelling
    }
}
