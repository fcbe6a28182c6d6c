//! Who may use BYOK, and who may save a key.

use account::{AddOn, AddOnStatus, Credits, Plan, Profile};
use jiff::{SignedDuration, Timestamp};

use crate::add_on::needs_add_on;

/// The deployment's settings that routing depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// `MIN_CREDIT_BALANCE`.
    pub minimum_balance: Credits,
    /// `ADD_ON_GRACE_DAYS`.
    pub grace: SignedDuration,
}

/// May the account use BYOK at `now`? Enterprise always may; others while the add-on is paid, and
/// through the grace period if a payment is missing.
pub fn entitled(plan: Plan, add_on: &AddOn, now: Timestamp, policy: &Policy) -> bool {
    if !needs_add_on(plan) {
        return true;
    }
    let Some(paid_through) = add_on.paid_through() else {
        return false;
    };
    match add_on.status() {
        AddOnStatus::Active | AddOnStatus::PastDue => {
            let until = paid_through.checked_add(policy.grace);
            now < until.unwrap_or(Timestamp::MAX)
        }
        AddOnStatus::Cancelling => now < paid_through,
        AddOnStatus::None | AddOnStatus::Suspended | AddOnStatus::Ended => false,
    }
}

/// May the account save a key? Only saving is gated; reading, testing, switching and disconnecting
/// are not.
pub fn may_save_key(profile: &Profile, now: Timestamp, policy: &Policy) -> bool {
    entitled(profile.plan(), &profile.add_on, now, policy)
}

/// Does the minimum balance apply to this plan? Only where BYOK is not included.
pub fn minimum_balance_applies(plan: Plan) -> bool {
    plan == Plan::Standard
}
