//! The add-on: which plan needs it, who may buy it, who owes it, and which payments count.

use account::add_on::{Collection, GenerationId};
use account::{AddOnStatus, Period, Plan, Profile};
use jiff::Timestamp;

/// Does BYOK cost this plan something? Enterprise includes it.
pub fn needs_add_on(plan: Plan) -> bool {
    plan == Plan::Standard
}

/// May the account start a new generation of the add-on by buying it?
pub fn may_buy_add_on(profile: &Profile) -> bool {
    let ended = matches!(
        profile.add_on.status(),
        AddOnStatus::None | AddOnStatus::Suspended | AddOnStatus::Ended
    );
    needs_add_on(profile.plan()) && ended
}

/// Does the add-on renew? Then the account owes each period as it falls due.
pub fn add_on_renews(profile: &Profile) -> bool {
    let renews = matches!(profile.add_on.status(), AddOnStatus::Active | AddOnStatus::PastDue);
    needs_add_on(profile.plan()) && renews
}

/// When the next period falls due, or fell due; `None` if the account will owe none.
pub fn add_on_due_at(profile: &Profile) -> Option<Timestamp> {
    let paid_through = profile.add_on.paid_through();
    paid_through.filter(|_| add_on_renews(profile))
}

/// Is a period of the add-on due and unpaid at `now`?
pub fn owes_add_on(profile: &Profile, now: Timestamp) -> bool {
    add_on_due_at(profile).is_some_and(|due| due <= now)
}

/// Does the account owe this period, now or once it falls due?
pub fn owes_period(profile: &Profile, generation: &GenerationId, period: Period) -> bool {
    add_on_renews(profile) && is_unpaid(profile, generation, period)
}

/// Does a payment of this period count? If not, it is refunded.
pub fn payment_counts(profile: &Profile, generation: &GenerationId, period: Period) -> bool {
    let run_by_stripe = profile.add_on.collection() == Some(Collection::Provider);
    if run_by_stripe && Some(period) <= profile.add_on.last_paid() {
        // Stripe collects each period once; this is a late report of that payment.
        return profile.add_on.generation() == Some(generation);
    }
    let accepts = match profile.add_on.status() {
        AddOnStatus::Active | AddOnStatus::PastDue | AddOnStatus::Suspended => true,
        // Stripe collected after the cancellation, before our update reached it.
        AddOnStatus::Cancelling => !run_by_stripe,
        AddOnStatus::None | AddOnStatus::Ended => false,
    };
    needs_add_on(profile.plan()) && accepts && is_unpaid(profile, generation, period)
}

/// Should Stripe's subscription for this generation continue, at least to its period's end?
pub fn keeps_subscription(profile: &Profile, generation: &GenerationId) -> bool {
    let has_access = matches!(
        profile.add_on.status(),
        AddOnStatus::Active | AddOnStatus::PastDue | AddOnStatus::Cancelling
    );
    needs_add_on(profile.plan()) && has_access && profile.add_on.generation() == Some(generation)
}

fn is_unpaid(profile: &Profile, generation: &GenerationId, period: Period) -> bool {
    profile.add_on.generation() == Some(generation) && Some(period) > profile.add_on.last_paid()
}
