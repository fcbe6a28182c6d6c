//! The account's credits: its balance, the amount held for calls in progress, and the amount owed.

use crate::money::Credits;

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

/// One change of a balance. The store writes exactly this, and moves credits in no other way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Movement {
    /// Also the sum of its ledger entries.
    pub balance: Credits,
    pub held: Credits,
    pub owed: Credits,
    pub open_holds: i32,
}

impl Movement {
    /// Sets `amount` aside for one more call.
    pub fn hold(amount: Credits) -> Self {
        Self { held: amount, open_holds: 1, ..Self::default() }
    }

    /// Ends a hold of `held`, and charges `charged` of it.
    pub fn end_hold(held: Credits, charged: Credits) -> Result<Self, BalanceError> {
        if charged.is_negative() || charged > held {
            return Err(BalanceError::AboveHold);
        }
        Ok(Self {
            balance: negative(charged)?,
            held: negative(held)?,
            open_holds: -1,
            ..Self::default()
        })
    }

    pub fn available(&self) -> Result<Credits, BalanceError> {
        let available = self.balance.checked_sub(self.held);
        available.ok_or(BalanceError::OutOfRange)
    }
}

fn negative(credits: Credits) -> Result<Credits, BalanceError> {
    credits.checked_neg().ok_or(BalanceError::OutOfRange)
}

/// Credits of one account: `0 ≤ held ≤ balance`. These functions define the steps that the store
/// makes with conditional writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
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
        sound.then_some(Self { total: balance, held, owed, open_holds })
    }

    /// All credits of the account, including the held ones.
    pub fn balance(&self) -> Credits {
        self.total
    }

    /// Credits set aside for calls in progress.
    pub fn held(&self) -> Credits {
        self.held
    }

    /// Credits that a reversal could not take; the next credits pay them.
    pub fn owed(&self) -> Credits {
        self.owed
    }

    pub fn open_holds(&self) -> u32 {
        self.open_holds
    }

    /// The credits that can still be spent: balance − held.
    pub fn available(&self) -> Credits {
        Credits::from_micros(self.total.micros().saturating_sub(self.held.micros()))
    }

    /// Sets `amount` aside for one more call.
    pub fn hold(self, amount: Credits, max_holds: u32) -> Result<Self, BalanceError> {
        if self.open_holds >= max_holds {
            return Err(BalanceError::TooManyHolds);
        }
        if amount.is_negative() {
            return Err(BalanceError::OutOfRange);
        }
        self.moved(Movement::hold(amount))
    }

    /// A posting of `amount`; a negative amount takes credits, and never more than are available.
    pub fn adjust(self, amount: Credits) -> Result<Movement, BalanceError> {
        let movement = Movement { balance: amount, ..Movement::default() };
        self.moved(movement).map(|_| movement)
    }

    /// New credits. The amount owed is paid at once from `amount` and the available credits.
    pub fn credit(self, amount: Credits) -> Result<Movement, BalanceError> {
        if amount.is_negative() {
            return Err(BalanceError::OutOfRange);
        }
        let credited = self.moved(Movement { balance: amount, ..Movement::default() })?;
        let taken = negative(self.owed.min(credited.available()))?;
        let balance = amount.checked_add(taken);
        Ok(Movement {
            balance: balance.ok_or(BalanceError::OutOfRange)?,
            owed: taken,
            ..Movement::default()
        })
    }

    /// The reversal of a credit: takes as much as is available; the rest is owed.
    pub fn reverse(self, amount: Credits) -> Result<Movement, BalanceError> {
        if amount.is_negative() {
            return Err(BalanceError::OutOfRange);
        }
        let taken = amount.min(self.available());
        let owed = amount.checked_sub(taken);
        let movement = Movement {
            balance: negative(taken)?,
            owed: owed.ok_or(BalanceError::OutOfRange)?,
            ..Movement::default()
        };
        self.moved(movement).map(|_| movement)
    }

    /// Returns what a reversal took: cancels what is owed, and credits the rest.
    pub fn undo_reversal(self, amount: Credits) -> Result<Movement, BalanceError> {
        if amount.is_negative() {
            return Err(BalanceError::OutOfRange);
        }
        let cancelled = self.owed.min(amount);
        let credited = amount.checked_sub(cancelled);
        let movement = Movement {
            balance: credited.ok_or(BalanceError::OutOfRange)?,
            owed: negative(cancelled)?,
            ..Movement::default()
        };
        self.moved(movement).map(|_| movement)
    }

    pub fn moved(self, movement: Movement) -> Result<Self, BalanceError> {
        let plus = |a: Credits, b| a.checked_add(b).ok_or(BalanceError::OutOfRange);
        let total = plus(self.total, movement.balance)?;
        let held = plus(self.held, movement.held)?;
        if held > total {
            return Err(BalanceError::Insufficient);
        }
        let open_holds = self.open_holds.checked_add_signed(movement.open_holds);
        let open_holds = open_holds.ok_or(BalanceError::OutOfRange)?;
        let owed = plus(self.owed, movement.owed)?;
        Self::new(total, held, owed, open_holds).ok_or(BalanceError::OutOfRange)
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
        assert_eq!((held.available(), held.held()), (Credits::ZERO, credits(10)));
        assert_eq!(held.hold(credits(1), 64), Err(BalanceError::Insufficient));
    }

    #[test]
    fn no_more_is_charged_than_was_held() {
        let start = Balance::new(credits(10), Credits::ZERO, Credits::ZERO, 0).unwrap();
        let held = start.hold(credits(4), 64).unwrap();
        let above = Movement::end_hold(credits(4), credits(5));
        assert_eq!(above, Err(BalanceError::AboveHold));
        let end = Movement::end_hold(credits(4), credits(3)).unwrap();
        let settled = held.moved(end).unwrap();
        assert_eq!((settled.balance(), settled.held()), (credits(7), Credits::ZERO));
    }

    #[test]
    fn a_reversal_beyond_the_available_credits_is_owed_and_paid_by_the_next() {
        let start = Balance::new(credits(10), credits(7), Credits::ZERO, 1).unwrap();
        let reversal = start.reverse(credits(8)).unwrap();
        assert_eq!((reversal.balance, reversal.owed), (credits(-3), credits(5)));
        let reversed = start.moved(reversal).unwrap();
        assert_eq!(reversed.available(), Credits::ZERO);
        // First fewer credits than are owed, then more.
        let first = reversed.credit(credits(2)).unwrap();
        assert_eq!((first.balance, first.owed), (credits(0), credits(-2)));
        let second = reversed.moved(first).unwrap().credit(credits(9)).unwrap();
        assert_eq!((second.balance, second.owed), (credits(6), credits(-3)));
        let paid = reversed.moved(first).unwrap().moved(second).unwrap();
        assert_eq!((paid.owed(), paid.available()), (Credits::ZERO, credits(6)));
        // Credits released meanwhile pay the amount owed, too.
        let released = Movement::end_hold(credits(7), Credits::ZERO).unwrap();
        let next = reversed.moved(released).unwrap().credit(credits(1)).unwrap();
        assert_eq!((next.balance, next.owed), (credits(-4), credits(-5)));
    }

    #[test]
    fn undoing_a_reversal_cancels_what_is_owed_and_credits_the_rest() {
        let start = Balance::new(credits(10), Credits::ZERO, Credits::ZERO, 0).unwrap();
        let reversed = start.moved(start.reverse(credits(25)).unwrap()).unwrap();
        assert_eq!((reversed.balance(), reversed.owed()), (Credits::ZERO, credits(15)));
        let part = reversed.undo_reversal(credits(5)).unwrap();
        assert_eq!((part.balance, part.owed), (Credits::ZERO, credits(-5)));
        let all = reversed.undo_reversal(credits(25)).unwrap();
        assert_eq!(reversed.moved(all), Ok(start));
        // The amount owed has been paid in the meantime.
        let purchase = reversed.moved(reversed.credit(credits(20)).unwrap()).unwrap();
        let undone = purchase.undo_reversal(credits(25)).unwrap();
        assert_eq!((undone.balance, undone.owed), (credits(25), Credits::ZERO));
        assert_eq!(start.undo_reversal(credits(-1)), Err(BalanceError::OutOfRange));
        let much = start.undo_reversal(Credits::from_micros(i64::MAX));
        assert_eq!(much, Err(BalanceError::OutOfRange));
    }

    #[test]
    fn an_adjustment_takes_no_more_than_is_available() {
        let start = Balance::new(credits(10), credits(7), Credits::ZERO, 1).unwrap();
        assert_eq!(start.adjust(credits(-3)).unwrap().balance, credits(-3));
        assert_eq!(start.adjust(credits(-4)), Err(BalanceError::Insufficient));
        for wrong in [start.credit(credits(-1)), start.reverse(credits(-1))] {
            assert_eq!(wrong, Err(BalanceError::OutOfRange));
        }
    }

    proptest! {
        /// Any run of holds and their ends keeps `0 ≤ held ≤ balance`, and releases everything that
        /// was not charged.
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
                    let end = Movement::end_hold(credits(held), credits(cost)).unwrap();
                    now = now.moved(end).unwrap();
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
