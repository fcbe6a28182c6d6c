//! Cancelling, resuming, and the end of the paid time.

use account::add_on::{Fact, GenerationId};
use account::{AddOnStatus, Period, Profile};
use jiff::Timestamp;

use crate::charge;
use crate::task::Step;

/// Whether a cancelled add-on has reached the end of the paid time. False while an attempt that was
/// under way when the user cancelled may still succeed.
pub fn is_over(profile: &Profile, now: Timestamp) -> bool {
    end_of_paid_time(profile).is_some_and(|(at, _)| at <= now)
}

pub(crate) fn end_of_paid_time(profile: &Profile) -> Option<(Timestamp, Step)> {
    let charge = profile.billing.charge.as_ref();
    // A payment that was under way when the user cancelled stands if it succeeds.
    if profile.add_on.status() != AddOnStatus::Cancelling
        || charge.is_some_and(charge::is_confirming)
    {
        return None;
    }
    let fact = Fact::PeriodOver {
        generation: profile.add_on.generation()?.clone(),
        period: profile.add_on.last_paid()?,
    };
    Some((profile.add_on.paid_through()?, Step::Apply(fact)))
}

/// The user cancels: access lasts until the end of the paid time. A past-due add-on ends at once.
pub fn cancel(profile: &mut Profile) -> Result<(), NotSubscribed> {
    let while_due = match profile.add_on.status() {
        AddOnStatus::Cancelling => return Ok(()),
        AddOnStatus::Active => None,
        AddOnStatus::PastDue => profile.add_on.last_declined(),
        AddOnStatus::None | AddOnStatus::Suspended | AddOnStatus::Ended => {
            return Err(NotSubscribed);
        }
    };
    let generation = profile.add_on.generation().ok_or(NotSubscribed)?.clone();
    cancelled(profile, generation, while_due);
    Ok(())
}

pub(crate) fn cancelled(
    profile: &mut Profile,
    generation: GenerationId,
    while_due: Option<Period>,
) {
    profile.billing.actions = profile.billing.actions.saturating_add(1);
    profile.add_on.apply(Fact::Cancelled {
        generation,
        counter: profile.billing.actions,
        while_due,
    });
}

/// The user undoes a cancellation while the paid time lasts.
pub fn resume(profile: &mut Profile, now: Timestamp) {
    if is_over(profile, now) {
        return;
    }
    let generation = profile.add_on.generation().cloned();
    if let (AddOnStatus::Cancelling, Some(generation)) = (profile.add_on.status(), generation) {
        profile.billing.actions = profile.billing.actions.saturating_add(1);
        profile.add_on.apply(Fact::Resumed {
            generation,
            counter: profile.billing.actions,
            at: now,
        });
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the add-on is not subscribed to")]
pub struct NotSubscribed;
