//! The routing table: who pays for an AI call.

use account::{Account, KeyState, Plan};
use jiff::Timestamp;

use crate::entitlement::{Policy, entitled};
use crate::fallback::Fallback;

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

/// The stored key, as routing sees it.
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

/// The balance against the minimum balance. Credits held by calls in progress count.
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
        let minimum_balance = if account.balance.balance() < policy.minimum_balance {
            MinimumBalance::Missed
        } else {
            MinimumBalance::Met
        };
        Self {
            always_use_key: profile.always_use_key.into(),
            key: match account.profile.key.as_ref().map(|key| key.state) {
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

/// The payer of a call, or its refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    /// The user's own OpenRouter account, through their key.
    OpenRouter { reason: Reason, fallback: Fallback },
    /// Greta credits, on the default AI. Refused if the credits do not cover the call.
    GretaCredits { reason: Reason },
    /// No payer; the call is refused with 402.
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

/// The table's reason.
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
    /// The reason's name in headers and responses.
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

/// The routing table, row by row (docs/contract.md, section 1).
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

/// The payer, as headers name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Payer {
    /// The user's own OpenRouter account.
    OpenRouter,
    GretaCredits,
    None,
}

impl Payer {
    /// The payer's name in headers and responses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OpenRouter => "openrouter",
            Self::GretaCredits => "greta_credits",
            Self::None => "none",
        }
    }
}

/// The reason for refusing a call that credits would pay for but do not cover.
pub const INSUFFICIENT_CREDITS: &str = "insufficient_credits";

/// The payer of the next call and the reason, as the integration card shows them.
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
