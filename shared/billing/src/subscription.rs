//! A subscription at Stripe: we follow what Stripe collects.
//!
//! Invariants:
//! - we charge nothing while Stripe collects, and nothing can be bought beside it;
//! - it collects while the current generation continues; otherwise it is cancelled;
//! - a user's decision is sent to Stripe until Stripe confirms it; a decision made at Stripe counts
//!   as the user's.

use account::add_on::{Fact, GenerationId};
use account::billing::{Billing, Subscription};
use account::{AddOnStatus, Period, Profile, period_at};
use jiff::{SignedDuration, Timestamp};

use crate::cancellation::{cancel, cancelled, resume};
use crate::task::{Step, Task, later};

/// Time after a period's end by which Stripe has charged the card: Stripe waits about an hour.
/// Source: <https://docs.stripe.com/invoicing/integration/automatic-advancement-collection>.
const CHARGED_AFTER: SignedDuration = SignedDuration::from_hours(2);
/// Delay before checking again whether a period was paid.
const RECHECK_DELAY: SignedDuration = SignedDuration::from_hours(24);
/// A point well within any month, counted back from its end.
const WITHIN_MONTH: SignedDuration = SignedDuration::from_hours(14 * 24);

/// The status of a subscription as Stripe reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteStatus {
    /// `ends`: it ends with its period instead of renewing.
    Runs { ends: bool },
    /// It collects nothing more.
    Over,
}

/// The period that ends at `end` by Stripe's calendar, whose anchor may differ from `anchor`.
pub fn period_ending(anchor: Timestamp, end: Timestamp) -> Period {
    period_at(anchor, end.checked_sub(WITHIN_MONTH).unwrap_or(end))
}

pub(crate) fn next_step(profile: &Profile) -> Option<(Timestamp, Step)> {
    let Some(subscription) = &profile.billing.subscription else {
        let is_left_over = routing::add_on_renews(profile) && profile.add_on.is_run_by_stripe();
        return is_left_over.then_some((Timestamp::MIN, Step::LetExpire));
    };
    let ends = profile.add_on.status() == AddOnStatus::Cancelling;
    let (id, next_at) = (subscription.id.clone(), subscription.next_at);
    let (at, task) = if !routing::keeps_subscription(profile, &subscription.generation) {
        (next_at, Task::CancelSubscription { subscription: id })
    } else if subscription.ends != Some(ends) {
        (next_at, Task::UpdateSubscription { subscription: id, ends })
    } else {
        let due = routing::add_on_due_at(profile)?;
        let at = later(due, CHARGED_AFTER).max(subscription.follow_at);
        (at.max(next_at), Task::CheckSubscription { subscription: id })
    };
    Some((at, Step::Subscription(task)))
}

/// Nothing collects for the add-on any more: the paid period is its last.
pub(crate) fn let_expire(profile: &mut Profile) {
    let Some(generation) = profile.add_on.generation().cloned() else {
        return;
    };
    match (profile.add_on.status(), profile.add_on.last_declined()) {
        (AddOnStatus::PastDue, Some(period)) => {
            profile.add_on.apply(Fact::GraceOver { generation, period });
        }
        _ => cancelled(profile, generation, None),
    }
}

/// Applies the status that Stripe reports. `before` is the state stored before Stripe was asked: if
/// it has changed since, the report says nothing about it.
pub fn apply_remote_status(
    profile: &mut Profile,
    before: &Billing,
    status: RemoteStatus,
    now: Timestamp,
) {
    let Some(asked) = &before.subscription else {
        return;
    };
    let (known, actions) = (&profile.billing.subscription, profile.billing.actions);
    if known.as_ref() != Some(asked) || actions != before.actions {
        return;
    }
    let RemoteStatus::Runs { ends } = status else {
        subscription_ended(profile, &asked.id);
        return;
    };
    let charged_by = now.checked_sub(CHARGED_AFTER).unwrap_or(now);
    let is_due = routing::owes_add_on(profile, charged_by);
    // Check once more when access is about to end.
    let grace_ends = profile.billing.charge.as_ref().map(|it| it.grace_ends);
    let recheck_at = match grace_ends.filter(|end| *end > now) {
        Some(end) => later(now, RECHECK_DELAY).min(end),
        None => later(now, RECHECK_DELAY),
    };
    if let Some(known) = &mut profile.billing.subscription {
        known.checked_at = Some(now);
        if is_due {
            known.follow_at = recheck_at;
        }
        // An update that is under way may take effect after this report.
        if known.ends.is_some() {
            known.ends = Some(ends);
            known.next_at = Timestamp::MIN;
        }
    }
    let is_unchanged = asked.ends.is_none_or(|known| known == ends);
    if is_unchanged || !routing::keeps_subscription(profile, &asked.generation) {
        return;
    }
    // This was decided at Stripe.
    if ends {
        // Nothing to cancel means that the decision was ours.
        let _ = cancel(profile);
    } else {
        resume(profile, now);
    }
}

/// Records that Stripe knows whether the subscription ends with its period.
pub fn subscription_updated(profile: &mut Profile, id: &str, ends: bool) {
    if let Some(known) = stored(profile, id) {
        known.ends = Some(ends);
        known.next_at = Timestamp::MIN;
    }
}

/// Records that an update may or may not have reached Stripe.
pub fn subscription_uncertain(profile: &mut Profile, id: &str) {
    if let Some(known) = stored(profile, id) {
        known.ends = None;
    }
}

pub fn subscription_ended(profile: &mut Profile, id: &str) {
    if profile.billing.has_subscription(id) {
        profile.billing.subscription = None;
    }
}

/// Records that Stripe could not collect a period.
pub fn collection_failed(profile: &mut Profile, generation: &GenerationId, period: Period) {
    if routing::owes_period(profile, generation, period) {
        let generation = generation.clone();
        profile.add_on.apply(Fact::Declined { generation, period });
    }
}

/// Whether this is the subscription that collects, and should continue.
pub fn collects(profile: &Profile, subscription: &str) -> bool {
    let known = profile.billing.subscription.as_ref();
    known.is_some_and(|known| {
        known.id == subscription && routing::keeps_subscription(profile, &known.generation)
    })
}

/// Whether a cancellation can be undone. False if nothing collects any more.
pub fn can_resume(profile: &Profile) -> bool {
    !profile.add_on.is_run_by_stripe() || profile.billing.subscription.is_some()
}

fn stored<'a>(profile: &'a mut Profile, id: &str) -> Option<&'a mut Subscription> {
    let known = profile.billing.subscription.as_mut();
    known.filter(|known| known.id == id)
}
