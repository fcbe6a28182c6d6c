//! What comes next, and when.

use account::Profile;
use jiff::Timestamp;

use crate::dunning::Dunning;
use crate::task::{LEASE, Step, Task, later};
use crate::{cancellation, charge, checkout, subscription};

/// Bound on the steps between two tasks, against a mistake.
const MAX_STEPS: u32 = 16;

/// When the add-on next needs work without anybody asking for it.
pub fn due_at(profile: &Profile) -> Option<Timestamp> {
    next_step(profile).map(|(at, _)| at)
}

/// Brings the add-on to `now` and takes the next task. Periods that were missed are skipped.
pub fn take_task(profile: &mut Profile, now: Timestamp, dunning: &Dunning) -> Option<Task> {
    for _ in 0..MAX_STEPS {
        let (at, step) = next_step(profile)?;
        if at > now {
            return None;
        }
        let lease = later(now, LEASE);
        match step {
            Step::Apply(fact) => profile.add_on.apply(fact),
            Step::DropCheckout => profile.billing.checkout = None,
            Step::AbandonCharge => charge::abandon(profile),
            Step::BeginCharge => profile.billing.charge = charge::at(profile, now, dunning),
            Step::Attempt => return charge::attempt(profile, now),
            Step::LookUp => {
                let charge = profile.billing.charge.as_mut()?;
                charge.next_at = lease;
                return charge::look_up(charge);
            }
            Step::Cancel => {
                let charge = profile.billing.charge.as_mut()?;
                charge.next_at = lease;
                let id = charge.intent.id()?.to_owned();
                return Some(Task::Cancel { id });
            }
            Step::ExpireCheckout => {
                let checkout = profile.billing.checkout.as_mut()?;
                checkout.next_at = lease;
                let session = checkout.session.as_ref()?.id.clone();
                return Some(Task::ExpireCheckout { session });
            }
            Step::CheckSubscription | Step::UpdateSubscription | Step::CancelSubscription => {
                return subscription::take_task(profile, &step, now);
            }
            Step::LetExpire => subscription::let_expire(profile),
        }
    }
    None
}

/// The earliest of all possible next steps; of steps at the same time, the first in this list.
fn next_step(profile: &Profile) -> Option<(Timestamp, Step)> {
    let steps = [
        checkout::next_step(profile),
        charge::next_step(profile),
        subscription::next_step(profile),
        charge::end_of_grace(profile),
        cancellation::end_of_paid_time(profile),
    ];
    steps.into_iter().flatten().min_by_key(|(at, _)| *at)
}

/// Keeps the current task from being retried before `at`.
pub fn postpone(profile: &mut Profile, at: Timestamp) {
    let billing = &mut profile.billing;
    if let Some(charge) = &mut billing.charge {
        charge.next_at = charge.next_at.max(at);
    }
    if let Some(checkout) = &mut billing.checkout {
        checkout.next_at = checkout.next_at.max(at);
    }
    if let Some(subscription) = &mut billing.subscription {
        subscription.next_at = subscription.next_at.max(at);
    }
}
