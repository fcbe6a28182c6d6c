//! The account's credits: what it has, what is held for calls under way, what it owes.

use serde::{Deserialize, Serialize};

use crate::Credits;

/// Why credits cannot move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BalanceError {
    #[error("the available credits do not cover it")]
    Insufficient,
    #[error("too many calls are under way")]
    TooManyHolds,
    #[error("more would be posted than was held")]
    AboveHold,
    #[error("the sum is beyond what can be counted")]
    OutOfRange,
}

/// Credits of one account. `held ≤ balance`, and neither is negative.
///
/// The store makes the same steps with conditional writes; these functions are their definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Balance {
    total: Credits,
    held: Credits,
    owed: Credits,
    open_holds: u32,
}

impl Balance {
    /// `None` unless `0 ≤ held ≤ balance` and `owed ≥ 0`.
    pub fn new(balance: Credits, held: Credits, owed: Credits, open_holds: u32) -> Option<Self> {
        let sound = !held.is_negative() && held <= balance && !owed.is_negative();
        sound.then_some(Self {
            total: balance,
            held,
            owed,
            open_holds,
        })
    }

    /// All credits of the account, the held ones included.
    pub fn balance(&self) -> Credits {
        self.total
    }

    /// Credits set aside for calls under way.
    pub fn held(&self) -> Credits {
        self.held
    }

    /// Credits that a reversal could not take, taken from the next credits that come.
    pub fn owed(&self) -> Credits {
        self.owed
    }

    /// How many calls hold credits now.
    pub fn open_holds(&self) -> u32 {
        self.open_holds
    }

    /// What can still be spent: balance less held.
    pub fn available(&self) -> Credits {
        Credits::from_micros(self.total.micros().saturating_sub(self.held.micros()))
    }

    /// Sets `amount` aside for one more call.
    ///
    /// # Errors
    /// [`BalanceError::TooManyHolds`] at `max_holds`, else [`BalanceError::Insufficient`].
    pub fn hold(self, amount: Credits, max_holds: u32) -> Result<Self, BalanceError> {
        if self.open_holds >= max_holds {
            return Err(BalanceError::TooManyHolds);
        }
        if amount.is_negative() || amount > self.available() {
            return Err(BalanceError::Insufficient);
        }
        Ok(Self {
            held: self
                .held
                .checked_add(amount)
                .ok_or(BalanceError::OutOfRange)?,
            open_holds: self
                .open_holds
                .checked_add(1)
                .ok_or(BalanceError::OutOfRange)?,
            ..self
        })
    }

    /// Ends a hold of `held`, taking `posted` of it; `posted` zero releases it.
    ///
    /// # Errors
    /// [`BalanceError::AboveHold`] if `posted` is more than `held`.
    pub fn resolve(self, held: Credits, posted: Credits) -> Result<Self, BalanceError> {
        if posted.is_negative() || posted > held {
            return Err(BalanceError::AboveHold);
        }
        let less = |from: Credits, amount: Credits| {
            from.checked_sub(amount).ok_or(BalanceError::OutOfRange)
        };
        let resolved = Self {
            total: less(self.total, posted)?,
            held: less(self.held, held)?,
            open_holds: self
                .open_holds
                .checked_sub(1)
                .ok_or(BalanceError::OutOfRange)?,
            ..self
        };
        Self::new(
            resolved.total,
            resolved.held,
            resolved.owed,
            resolved.open_holds,
        )
        .ok_or(BalanceError::OutOfRange)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn credits(micros: i64) -> Credits {
        Credits::from_micros(micros)
    }

    #[test]
    fn a_hold_needs_available_credits_and_a_free_place() {
        let start = Balance::new(credits(10), Credits::ZERO, Credits::ZERO, 0).unwrap();
        assert_eq!(start.hold(credits(11), 64), Err(BalanceError::Insufficient));
        assert_eq!(start.hold(credits(1), 0), Err(BalanceError::TooManyHolds));
        let held = start.hold(credits(10), 64).unwrap();
        assert_eq!(
            (held.available(), held.held()),
            (Credits::ZERO, credits(10))
        );
        assert_eq!(held.hold(credits(1), 64), Err(BalanceError::Insufficient));
    }

    #[test]
    fn never_more_is_posted_than_was_held() {
        let start = Balance::new(credits(10), Credits::ZERO, Credits::ZERO, 0).unwrap();
        let held = start.hold(credits(4), 64).unwrap();
        assert_eq!(
            held.resolve(credits(4), credits(5)),
            Err(BalanceError::AboveHold)
        );
        let settled = held.resolve(credits(4), credits(3)).unwrap();
        assert_eq!(
            (settled.balance(), settled.held()),
            (credits(7), Credits::ZERO)
        );
    }

    proptest! {
        /// Any run of holds and their ends keeps `0 ≤ held ≤ balance`, and gives back all that was
        /// not posted.
        #[test]
        fn any_history_is_sound(
            steps in prop::collection::vec((0_i64..100, 0_i64..100, any::<bool>()), 0..50),
        ) {
            let mut now = Balance::new(credits(500), Credits::ZERO, Credits::ZERO, 0).unwrap();
            let mut open = Vec::new();
            let mut posted = 0;
            for (amount, cost, end_one) in steps {
                if let Ok(after) = now.hold(credits(amount), 8) {
                    now = after;
                    open.push(amount);
                }
                if end_one && let Some(held) = open.pop() {
                    let cost = cost.min(held);
                    now = now.resolve(credits(held), credits(cost)).unwrap();
                    posted += cost;
                }
                prop_assert!(!now.available().is_negative());
                prop_assert_eq!(now.held().micros(), open.iter().sum::<i64>());
                prop_assert_eq!(now.balance().micros(), 500 - posted);
                prop_assert_eq!(usize::try_from(now.open_holds()).unwrap(), open.len());
            }
        }
    }
}
