//! The next step of an account's add-on, and its time.

use account::Profile;
use jiff::Timestamp;

use crate::dunning::Dunning;
use crate::task::{LEASE, Step, Task, later};
use crate::{cancellation, charge, checkout, subscription};

/// Maximum number of steps between two tasks, as a safety net.
const MAX_STEPS: u32 = 16;

/// The time of the add-on's next background work.
pub fn due_at(profile: &Profile) -> Option<Timestamp> {
    let next = next_step(profile, Timestamp::MIN).map(|(at, _)| at);
    // A charge that would wait past the end of its period is abandoned at that end.
    let end = charge::chargeable_until(profile);
    let end = end.filter(|_| !charge::period_has_ended(profile, Timestamp::MIN));
    next.into_iter().chain(end).min()
}

/// Advances the add-on to `now` and takes the next task. Missed periods are skipped.
pub fn take_task(profile: &mut Profile, now: Timestamp, dunning: &Dunning) -> Option<Task> {
    for _ in 0..MAX_STEPS {
        let (at, step) = next_step(profile, now)?;
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
            Step::Charge(task) => {
                profile.billing.charge.as_mut()?.next_at = lease;
                return Some(task);
            }
            Step::Checkout(task) => {
                profile.billing.checkout.as_mut()?.next_at = lease;
                return Some(task);
            }
            Step::Subscription(task) => {
                let subscription = profile.billing.subscription.as_mut()?;
                subscription.next_at = lease;
                if let Task::UpdateSubscription { .. } = task {
                    subscription.ends = None;
                }
                return Some(task);
            }
            Step::LetExpire => subscription::let_expire(profile),
        }
    }
    None
}

/// The earliest of all possible next steps; among simultaneous steps, the first in this list.
fn next_step(profile: &Profile, now: Timestamp) -> Option<(Timestamp, Step)> {
    let steps = [
        checkout::next_step(profile),
        charge::next_step(profile, now),
        subscription::next_step(profile),
        charge::end_of_grace(profile, now),
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
