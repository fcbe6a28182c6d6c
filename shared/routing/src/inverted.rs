//! For tests only: the same answers, of which the one named by `ROUTING_INVERTED` is wrong.
//!
//! A flow test that still passes then does not depend on that answer (tests/it/inverted.rs).

use std::sync::OnceLock;

use account::add_on::GenerationId;
use account::{AddOn, Period, Plan, Profile};
use jiff::Timestamp;

use crate::entitlement::Policy;
use crate::fallback::{Fallback, FallbackCause, FallbackCauses};
use crate::table::{Decision, Entitlement, Situation};
use crate::{add_on, entitlement, fallback, table};

#[expect(clippy::disallowed_methods, reason = "read by tests only")]
fn is_inverted(answer: &str) -> bool {
    static INVERTED: OnceLock<Option<String>> = OnceLock::new();
    let inverted = INVERTED.get_or_init(|| std::env::var("ROUTING_INVERTED").ok());
    inverted.as_deref() == Some(answer)
}

fn answer(name: &str, right: bool) -> bool {
    right ^ is_inverted(name)
}

/// The other payer; OpenRouter if the call is refused.
pub fn decide(mut situation: Situation) -> Decision {
    if is_inverted("entitled") {
        situation.entitlement = match situation.entitlement {
            Entitlement::Entitled => Entitlement::NotEntitled,
            Entitlement::NotEntitled => Entitlement::Entitled,
        };
    }
    let right = table::decide(situation);
    if !is_inverted("decide") {
        return right;
    }
    match right {
        Decision::OpenRouter { reason, .. } => Decision::GretaCredits { reason },
        Decision::GretaCredits { reason } | Decision::Refuse { reason } => {
            Decision::OpenRouter { reason, fallback: Fallback::Never }
        }
    }
}

pub fn entitled(plan: Plan, add_on: &AddOn, now: Timestamp, policy: &Policy) -> bool {
    answer("entitled", entitlement::entitled(plan, add_on, now, policy))
}

pub fn may_save_key(profile: &Profile, now: Timestamp, policy: &Policy) -> bool {
    let right = entitlement::may_save_key(profile, now, policy);
    answer("may_save_key", right)
}

pub fn may_fall_back(fallback: Fallback, cause: FallbackCause, causes: &FallbackCauses) -> bool {
    let right = fallback::may_fall_back(fallback, cause, causes);
    answer("may_fall_back", right)
}

pub fn needs_add_on(plan: Plan) -> bool {
    answer("needs_add_on", add_on::needs_add_on(plan))
}

pub fn may_buy_add_on(profile: &Profile) -> bool {
    answer("may_buy_add_on", add_on::may_buy_add_on(profile))
}

pub fn add_on_renews(profile: &Profile) -> bool {
    answer("add_on_renews", add_on::add_on_renews(profile))
}

/// Due when it is not, not due when it is.
pub fn add_on_due_at(profile: &Profile) -> Option<Timestamp> {
    let right = add_on::add_on_due_at(profile);
    if !is_inverted("add_on_due_at") {
        return right;
    }
    let paid_through = profile.add_on.paid_through();
    paid_through.filter(|_| right.is_none())
}

pub fn owes_add_on(profile: &Profile, now: Timestamp) -> bool {
    answer("owes_add_on", add_on::owes_add_on(profile, now))
}

pub fn owes_period(profile: &Profile, generation: &GenerationId, period: Period) -> bool {
    let right = add_on::owes_period(profile, generation, period);
    answer("owes_period", right)
}

pub fn payment_counts(profile: &Profile, generation: &GenerationId, period: Period) -> bool {
    let right = add_on::payment_counts(profile, generation, period);
    answer("payment_counts", right)
}

pub fn keeps_subscription(profile: &Profile, generation: &GenerationId) -> bool {
    let right = add_on::keeps_subscription(profile, generation);
    answer("keeps_subscription", right)
}

pub fn minimum_balance_applies(plan: Plan) -> bool {
    let right = entitlement::minimum_balance_applies(plan);
    answer("minimum_balance_applies", right)
}
