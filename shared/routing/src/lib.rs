//! Who pays for an AI call, who is entitled to BYOK, who may save a key, who owes the add-on.
//!
//! The one place where these questions are answered; key save, the subscription webhook, the
//! monthly charge and the AI proxy all ask here. Pure: time and settings come in as arguments.

#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::indexing_slicing
    )
)]

mod add_on;

pub use add_on::{
    add_on_due_at, add_on_renews, keeps_subscription, may_buy_add_on, needs_add_on, owes_add_on,
    owes_period, payment_counts,
};

use account::{Account, AddOn, AddOnStatus, Credits, KeyState, Plan, Profile};
use jiff::{SignedDuration, Timestamp};

/// A switch of the integration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Switch {
    On,
    Off,
}

impl From<bool> for Switch {
    fn from(on: bool) -> Self {
        if on { Self::On } else { Self::Off }
    }
}

/// The key, as far as routing is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key {
    None,
    Usable,
    Rejected,
}

/// May the account use BYOK now?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Entitlement {
    Entitled,
    NotEntitled,
}

/// Available credits against the minimum balance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MinimumBalance {
    Met,
    Missed,
}

/// The inputs of the routing table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Situation {
    pub always_use_key: Switch,
    pub key: Key,
    pub entitlement: Entitlement,
    pub enabled: Switch,
    pub plan: Plan,
    pub minimum_balance: MinimumBalance,
}

impl Situation {
    /// The account's situation at `now`, under the deployment's `policy`.
    pub fn of(account: &Account, now: Timestamp, policy: &Policy) -> Self {
        let profile = &account.profile;
        let entitlement = if entitled(profile.plan(), &profile.add_on, now, policy) {
            Entitlement::Entitled
        } else {
            Entitlement::NotEntitled
        };
        let minimum_balance = if account.balance.available() < policy.minimum_balance {
            MinimumBalance::Missed
        } else {
            MinimumBalance::Met
        };
        Self {
            always_use_key: profile.always_use_key.into(),
            key: match account.key_state() {
                None => Key::None,
                Some(KeyState::Usable) => Key::Usable,
                Some(KeyState::Rejected) => Key::Rejected,
            },
            entitlement,
            enabled: profile.enabled.into(),
            plan: profile.plan(),
            minimum_balance,
        }
    }
}

/// The deployment's settings that routing depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// `MIN_CREDIT_BALANCE`.
    pub minimum_balance: Credits,
    /// `ADD_ON_GRACE_DAYS`.
    pub grace: SignedDuration,
}

/// Who pays, or that nobody does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    /// The user's own OpenRouter account, through their key.
    OpenRouter { reason: Reason, fallback: Fallback },
    /// Greta credits, through the default AI; refused for lack of credits where they do not cover
    /// the call.
    GretaCredits { reason: Reason },
    /// Nobody: 402.
    Refuse { reason: Reason },
}

impl Decision {
    pub fn reason(self) -> Reason {
        match self {
            Self::OpenRouter { reason, .. }
            | Self::GretaCredits { reason }
            | Self::Refuse { reason } => reason,
        }
    }
}

/// May a call that OpenRouter did not take go to the default AI?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fallback {
    Allowed,
    Never,
}

/// Why the table decided as it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    AddOnInactive,
    MinimumBalance,
    AlwaysUseKey,
    KeyEnabled,
    KeyRejected,
    KeyDisabled,
    NotConnected,
}

impl Reason {
    /// The reason's name in headers and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AddOnInactive => "add_on_inactive",
            Self::MinimumBalance => "minimum_balance",
            Self::AlwaysUseKey => "always_use_key",
            Self::KeyEnabled => "key_enabled",
            Self::KeyRejected => "key_rejected",
            Self::KeyDisabled => "key_disabled",
            Self::NotConnected => "not_connected",
        }
    }
}

/// The routing table of the contract's section 1, row by row.
#[rustfmt::skip]
#[expect(clippy::match_same_arms, reason = "one arm for each row of the table")]
pub fn decide(situation: Situation) -> Decision {
    use Entitlement::{Entitled, NotEntitled};
    use MinimumBalance::{Met, Missed};
    use Plan::{Enterprise, Standard};
    use Reason::{AddOnInactive, AlwaysUseKey, KeyDisabled, KeyEnabled, KeyRejected, MinimumBalance as MinBalance, NotConnected};
    use Switch::{Off, On};

    let s = situation;
    match (s.always_use_key, s.key, s.entitlement, s.enabled, s.plan, s.minimum_balance) {
        //  always key                          entitled     enabled  plan & balance
        /* 1 */ (On,  Key::Usable | Key::Rejected, NotEntitled, _,   _,          _)      => Decision::Refuse { reason: AddOnInactive },
        /* 2 */ (On,  Key::Usable | Key::Rejected, Entitled,    _,   Standard,   Missed) => Decision::Refuse { reason: MinBalance },
        /* 3 */ (On,  Key::Usable | Key::Rejected, Entitled,    _,   Enterprise, _)
              | (On,  Key::Usable | Key::Rejected, Entitled,    _,   Standard,   Met)    => Decision::OpenRouter { reason: AlwaysUseKey, fallback: Fallback::Never },
        /* 4 */ (Off, Key::Usable,                 Entitled,    On,  Standard,   Missed) => Decision::Refuse { reason: MinBalance },
        /* 5 */ (Off, Key::Usable,                 Entitled,    On,  Enterprise, _)
              | (Off, Key::Usable,                 Entitled,    On,  Standard,   Met)    => Decision::OpenRouter { reason: KeyEnabled, fallback: Fallback::Allowed },
        /* 6 */ (Off, Key::Usable,                 NotEntitled, On,  _,          _)      => Decision::GretaCredits { reason: AddOnInactive },
        /* 7 */ (Off, Key::Rejected,               _,           On,  _,          _)      => Decision::GretaCredits { reason: KeyRejected },
        /* 8 */ (Off, Key::Usable | Key::Rejected, _,           Off, _,          _)      => Decision::GretaCredits { reason: KeyDisabled },
        /* 9 */ (_,   Key::None,                   _,           _,   _,          _)      => Decision::GretaCredits { reason: NotConnected },
    }
}

/// Who pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Payer {
    /// The user's own OpenRouter account.
    OpenRouter,
    GretaCredits,
    None,
}

impl Payer {
    /// The payer's name in headers and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OpenRouter => "openrouter",
            Self::GretaCredits => "greta_credits",
            Self::None => "none",
        }
    }
}

/// The reason of a call that credits would pay for and cannot.
pub const INSUFFICIENT_CREDITS: &str = "insufficient_credits";

/// Who would pay for the next call, and why: the decision in the integration card's terms.
/// `cheapest_call_covered`: credits cover the cheapest possible call on the default model.
pub fn next_call(decision: Decision, cheapest_call_covered: bool) -> (Payer, &'static str) {
    let reason = decision.reason().as_str();
    match decision {
        Decision::OpenRouter { .. } => (Payer::OpenRouter, reason),
        Decision::GretaCredits { .. } if cheapest_call_covered => (Payer::GretaCredits, reason),
        Decision::GretaCredits { .. } => (Payer::None, INSUFFICIENT_CREDITS),
        Decision::Refuse { .. } => (Payer::None, reason),
    }
}

/// What OpenRouter did not take a call for, where the default AI may take it instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FallbackCause {
    KeyRejected,
    PaymentRequired,
    RateLimited,
    Unavailable,
    /// The key's secret could not be read; allowed where `Unavailable` is.
    KeyUnavailable,
}

impl FallbackCause {
    /// The route reason of a call that fell back.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::KeyRejected => "fallback_key_rejected",
            Self::PaymentRequired => "fallback_payment_required",
            Self::RateLimited => "fallback_rate_limited",
            Self::Unavailable => "fallback_unavailable",
            Self::KeyUnavailable => "fallback_key_unavailable",
        }
    }
}

/// The causes for which a deployment lets calls fall back (`FALLBACK_CAUSES`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a set of four names")]
pub struct FallbackCauses {
    key_rejected: bool,
    payment_required: bool,
    rate_limited: bool,
    unavailable: bool,
}

impl FallbackCauses {
    pub const ALL: Self = Self {
        key_rejected: true,
        payment_required: true,
        rate_limited: true,
        unavailable: true,
    };

    /// Reads a comma-separated list; an empty one allows no fallback.
    ///
    /// # Errors
    /// The name that is not a cause.
    pub fn parse(list: &str) -> Result<Self, String> {
        let mut causes = Self {
            key_rejected: false,
            payment_required: false,
            rate_limited: false,
            unavailable: false,
        };
        for name in list
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
        {
            match name {
                "key_rejected" => causes.key_rejected = true,
                "payment_required" => causes.payment_required = true,
                "rate_limited" => causes.rate_limited = true,
                "unavailable" => causes.unavailable = true,
                other => return Err(other.to_owned()),
            }
        }
        Ok(causes)
    }

    pub const fn allow(self, cause: FallbackCause) -> bool {
        match cause {
            FallbackCause::KeyRejected => self.key_rejected,
            FallbackCause::PaymentRequired => self.payment_required,
            FallbackCause::RateLimited => self.rate_limited,
            FallbackCause::Unavailable | FallbackCause::KeyUnavailable => self.unavailable,
        }
    }
}

/// May the account use BYOK at `now`? Enterprise always; else while the add-on is paid for, or
/// unpaid within the grace period.
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

#[cfg(test)]
mod tests;
