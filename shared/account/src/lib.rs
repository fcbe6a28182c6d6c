//! An account: its plan, its add-on, its key, its credits, and the cost of its calls.
//!
//! Everything here is a pure function of its arguments: no I/O, no async, no clock, no AWS types,
//! no logging. Time and ids come in from outside.
//!
//! Invariants held here and nowhere else:
//! - money is a whole number of micro-credits, with checked arithmetic, and never a float;
//! - `available = balance − held` is never negative ([`Balance`]);
//! - a call never costs more than was held for it ([`price`]);
//! - the add-on's state is the join of all known facts, so that their order does not matter
//!   ([`add_on`]).

#![cfg_attr(
    not(test),
    deny(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::indexing_slicing)
)]

pub mod add_on;
mod attempts;
mod balance;
pub mod billing;
mod decimal;
pub mod hold;
mod ids;
mod key;
mod money;
mod period;
mod plan;
pub mod price;
mod reversals;

pub use add_on::{AddOn, AddOnStatus};
pub use attempts::{Attempts, Purpose};
pub use balance::{Balance, BalanceError, Movement};
pub use billing::Billing;
pub use decimal::DecimalError;
pub use ids::{AccountId, AccountNumber, CallId, EntryId, IdError, KeyId};
pub use key::{KeyLimits, KeyState, SavedKey};
pub use money::{Credits, CreditsPerUsd, Usd};
pub use period::{Period, end_of_period, period_at};
pub use plan::{Plan, PlanChange, Plans};
pub use reversals::{DisputeState, ReversalReport, Reversals};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The part of an account that users and events change. Money is separate, in [`Balance`], because
/// calls move it at any moment and must not collide with a change of settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    pub plans: Plans,
    pub add_on: AddOn,
    /// Boxed, because a call is routed without it.
    pub billing: Box<Billing>,
    /// Facts about the connected key. The key itself is in Secrets Manager.
    pub key: Option<SavedKey>,
    /// The key is used for calls while `always_use_key` is off.
    pub enabled: bool,
    /// Every call uses the key; credits are never touched.
    pub always_use_key: bool,
}

impl Profile {
    /// A new account: no key, no add-on, both switches off.
    pub fn new(plan: Plan, plan_version: u64, at: Timestamp) -> Self {
        Self {
            plans: Plans::new(plan, plan_version, at),
            add_on: AddOn::default(),
            billing: Box::default(),
            key: None,
            enabled: false,
            always_use_key: false,
        }
    }

    pub fn plan(&self) -> Plan {
        self.plans.plan()
    }

    /// Sets the plan as of `version`, reported at `at`; the add-on follows.
    pub fn apply_plan(&mut self, plan: Plan, version: u64, at: Timestamp) {
        self.plans.apply(plan, version, at);
        self.add_on.plan_change = self.plans.last_change();
    }

    /// Connects a first key, which enables it, or replaces the key, which keeps the switches.
    pub fn connect(&mut self, key: SavedKey) {
        if self.key.replace(key).is_none() {
            self.enabled = true;
        }
    }

    /// Forgets the key and sets both switches off. Idempotent.
    pub fn disconnect(&mut self) {
        self.key = None;
        self.enabled = false;
        self.always_use_key = false;
    }

    /// Sets the given switches, unless the contract's section 2 forbids the combination.
    pub fn switch(
        &mut self,
        enabled: Option<bool>,
        always_use_key: Option<bool>,
    ) -> Result<(), SwitchError> {
        if self.key.is_none() {
            return Err(SwitchError::NotConnected);
        }
        let always = always_use_key.unwrap_or(self.always_use_key);
        if always && enabled == Some(false) {
            return Err(SwitchError::AlwaysUseKeyOn);
        }
        self.always_use_key = always;
        self.enabled =
            if always_use_key == Some(true) { true } else { enabled.unwrap_or(self.enabled) };
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SwitchError {
    #[error("there is no key to switch")]
    NotConnected,
    #[error("the key cannot be switched off while it is always used")]
    AlwaysUseKeyOn,
}

/// A Greta customer, from one consistent read.
#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    pub id: AccountId,
    /// The account's name in the ledger, in holds and in charges. Deleting the account record
    /// removes the only link from them to a person.
    pub number: AccountNumber,
    pub profile: Profile,
    /// The number of changes of `profile`; writes are conditional on it.
    pub revision: u64,
    pub balance: Balance,
    pub created_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected(enabled: bool, always_use_key: bool) -> Profile {
        let mut profile = Profile::new(Plan::Standard, 1, Timestamp::UNIX_EPOCH);
        profile.connect(key::tests::saved_key("key_1"));
        profile.enabled = enabled;
        profile.always_use_key = always_use_key;
        profile
    }

    #[test]
    fn switches_follow_the_contract() {
        use SwitchError::AlwaysUseKeyOn;
        let on = Some(true);
        let off = Some(false);
        // (before: enabled, always) (asked: enabled, always) → after, or the refusal
        let table = [
            ((true, false), (off, None), Ok((false, false))),
            ((false, false), (on, None), Ok((true, false))),
            ((false, false), (None, on), Ok((true, true))),
            ((true, true), (None, off), Ok((true, false))),
            ((true, true), (off, None), Err(AlwaysUseKeyOn)),
            ((true, true), (off, off), Ok((false, false))),
            ((false, false), (off, on), Err(AlwaysUseKeyOn)),
            ((true, true), (off, on), Err(AlwaysUseKeyOn)),
            ((true, true), (on, None), Ok((true, true))),
        ];
        for (before, asked, expected) in table {
            let mut profile = connected(before.0, before.1);
            let answer = profile.switch(asked.0, asked.1);
            let after = (profile.enabled, profile.always_use_key);
            match expected {
                Ok(expected) => assert_eq!((answer, after), (Ok(()), expected), "{asked:?}"),
                Err(error) => assert_eq!((answer, after), (Err(error), before), "{asked:?}"),
            }
        }
    }

    #[test]
    fn without_a_key_there_is_nothing_to_switch() {
        let mut profile = Profile::new(Plan::Enterprise, 1, Timestamp::UNIX_EPOCH);
        assert_eq!(profile.switch(Some(true), None), Err(SwitchError::NotConnected));
    }

    #[test]
    fn replacing_a_key_keeps_the_switches_and_disconnecting_clears_both() {
        for (enabled, always) in [(false, false), (true, false), (true, true)] {
            let mut profile = connected(enabled, always);
            profile.connect(key::tests::saved_key("key_2"));
            assert_eq!((profile.enabled, profile.always_use_key), (enabled, always));
        }
        let mut profile = connected(true, true);
        profile.disconnect();
        let once = profile.clone();
        profile.disconnect();
        assert_eq!(profile, once);
        assert!(!profile.enabled && !profile.always_use_key && profile.key.is_none());
    }
}
