//! How much of a payment refunds and disputes have undone.
//!
//! Reports arrive at least once, late, and in any order. [`Reversals`] merges them, and computes
//! the undone amount from the merged state, so no part of the price is undone twice.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::money::Credits;

/// A refund or dispute of a payment, by Stripe's own id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReversalReport {
    /// `failed`: the money came back.
    Refund {
        id: String,
        cents: u64,
        failed: bool,
    },
    Dispute {
        id: String,
        cents: u64,
        state: DisputeState,
    },
}

/// In the order in which a state replaces another: a bank can change a lost dispute to won and
/// return the money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisputeState {
    /// The money is withdrawn until the dispute is decided.
    Open,
    /// The money went to the cardholder.
    Lost,
    /// The money was paid back.
    Won,
}

/// All known refunds and disputes of one payment, and the amount that they undo.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reversals {
    refunds: BTreeMap<String, Refund>,
    disputes: BTreeMap<String, Dispute>,
    undone_cents: u64,
    version: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Refund {
    cents: u64,
    failed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Dispute {
    cents: u64,
    state: DisputeState,
}

impl Reversals {
    /// Grows with each change.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The part of the price that is undone.
    pub fn undone_cents(&self) -> u64 {
        self.undone_cents
    }

    /// The undone part of the `credits` that were bought for `price_cents`, rounded up.
    pub fn undone_of(&self, credits: Credits, price_cents: u64) -> Credits {
        let micros = u128::try_from(credits.micros()).unwrap_or(0);
        let cents = u128::from(self.undone_cents.min(price_cents));
        let undone = micros.saturating_mul(cents).div_ceil(u128::from(price_cents.max(1)));
        Credits::from_micros(i64::try_from(undone).unwrap_or(i64::MAX))
    }

    /// Whether this reports a refund's failure for the first time.
    pub fn is_new_failure(&self, report: &ReversalReport) -> bool {
        let ReversalReport::Refund { id, failed, .. } = report else {
            return false;
        };
        *failed && self.refunds.get(id).is_none_or(|known| !known.failed)
    }

    /// Merges reports about a payment of `price_cents`, and updates the undone amount. Reports that
    /// are known or outdated change nothing.
    pub fn apply(&mut self, reports: &[ReversalReport], price_cents: u64) {
        let before = self.clone();
        for report in reports {
            self.report(report);
        }
        self.undone_cents = self.reported_cents().min(price_cents);
        if *self != before {
            self.version = self.version.saturating_add(1);
        }
    }

    fn report(&mut self, report: &ReversalReport) {
        match report {
            ReversalReport::Refund { id, cents, failed } => {
                let new = Refund { cents: *cents, failed: *failed };
                let known = self.refunds.entry(id.clone()).or_insert(new);
                known.cents = known.cents.max(*cents);
                known.failed |= failed;
            }
            ReversalReport::Dispute { id, cents, state } => {
                let new = Dispute { cents: *cents, state: *state };
                let known = self.disputes.entry(id.clone()).or_insert(new);
                known.cents = known.cents.max(*cents);
                known.state = known.state.max(*state);
            }
        }
    }

    /// The sum of the refunds that did not fail and the disputes that were not won.
    fn reported_cents(&self) -> u64 {
        let refunds = self.refunds.values().filter(|refund| !refund.failed);
        let disputes = self.disputes.values();
        let disputes = disputes.filter(|dispute| dispute.state != DisputeState::Won);
        let cents = refunds.map(|it| it.cents).chain(disputes.map(|it| it.cents));
        cents.fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refund(id: &str, cents: u64, failed: bool) -> ReversalReport {
        ReversalReport::Refund { id: id.to_owned(), cents, failed }
    }

    fn dispute(id: &str, cents: u64, state: DisputeState) -> ReversalReport {
        ReversalReport::Dispute { id: id.to_owned(), cents, state }
    }

    #[test]
    fn no_part_of_the_price_is_undone_twice() {
        use DisputeState::{Lost, Open, Won};
        let table = [
            (vec![refund("re_1", 300, false)], 300),
            (vec![refund("re_1", 300, false), refund("re_2", 200, false)], 500),
            (vec![refund("re_1", 500, false), dispute("dp_1", 500, Open)], 500),
            (vec![refund("re_1", 300, false), dispute("dp_1", 500, Open)], 500),
            (vec![refund("re_1", 500, false), dispute("dp_1", 500, Won)], 500),
            (vec![refund("re_1", 500, true), dispute("dp_1", 500, Won)], 0),
            (vec![refund("re_1", 500, true), dispute("dp_1", 500, Lost)], 500),
            (vec![dispute("dp_1", 500, Lost), dispute("dp_1", 500, Won)], 0),
            (vec![dispute("dp_1", u64::MAX, Open), refund("re_1", 1, false)], 500),
        ];
        for (reports, undone) in table {
            let mut reversals = Reversals::default();
            reversals.apply(&reports, 500);
            assert_eq!(reversals.undone_cents(), undone, "{reports:?}");
        }
    }

    #[test]
    fn the_undone_part_of_credits_is_rounded_up_and_never_more_than_all() {
        let table = [(0, 0), (100, 34), (300, 100), (900, 100)];
        for (cents, undone) in table {
            let reversals = Reversals { undone_cents: cents, ..Reversals::default() };
            let credits = reversals.undone_of(Credits::from_micros(100), 300);
            assert_eq!(credits.micros(), undone, "{cents} cents of 300");
        }
    }

    #[test]
    fn a_refund_failure_is_new_only_once() {
        let mut reversals = Reversals::default();
        let failed = refund("re_1", 300, true);
        assert!(reversals.is_new_failure(&failed));
        assert!(!reversals.is_new_failure(&refund("re_1", 300, false)));
        reversals.apply(std::slice::from_ref(&failed), 500);
        assert!(!reversals.is_new_failure(&failed));
    }

    fn report() -> impl Strategy<Value = ReversalReport> {
        let state = prop_oneof![
            Just(DisputeState::Open),
            Just(DisputeState::Lost),
            Just(DisputeState::Won),
        ];
        prop_oneof![
            (0..4_u64, any::<bool>()).prop_map(|(n, failed)| refund(
                &format!("re_{n}"),
                100 * (n + 1),
                failed
            )),
            (0..3_u64, state).prop_map(|(n, state)| dispute(&format!("dp_{n}"), 200 * n, state)),
        ]
    }

    proptest! {
        /// Reports lead to the same state in any order and any number of times, one by one or
        /// together. The steps' amounts add up to the final one, and no step exceeds the price.
        #[test]
        fn the_order_of_the_reports_does_not_matter(
            (reports, shuffled) in prop::collection::vec(report(), 0..12).prop_flat_map(|reports| {
                let twice = [reports.clone(), reports.clone()].concat();
                (Just(reports), Just(twice).prop_shuffle())
            }),
            price in 0..1_000_u64,
        ) {
            let mut together = Reversals::default();
            together.apply(&reports, price);
            let mut one_by_one = Reversals::default();
            for report in &shuffled {
                let before = one_by_one.clone();
                one_by_one.apply(std::slice::from_ref(report), price);
                prop_assert!(one_by_one.undone_cents() <= price);
                let is_changed = one_by_one != before;
                prop_assert_eq!(one_by_one.version() - before.version(), u32::from(is_changed));
            }
            one_by_one.version = together.version;
            prop_assert_eq!(one_by_one, together);
        }
    }
}
