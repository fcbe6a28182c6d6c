//! The schedule of attempts to collect a period, and the grace period.

use jiff::{SignedDuration, Timestamp};

use crate::task::later;

/// Number of days in the shortest month.
const SHORTEST_PERIOD_DAYS: u32 = 28;

/// Days of attempts and of grace, counted from the start of the period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dunning {
    attempt_days: Vec<u32>,
    grace_days: u32,
}

impl Default for Dunning {
    /// Attempts on days 0, 1, 3, 5 and 7, and 8 days of grace.
    fn default() -> Self {
        Self { attempt_days: vec![0, 1, 3, 5, 7], grace_days: 8 }
    }
}

impl Dunning {
    /// `None` unless the attempt days start with 0, increase, and end before the grace period does,
    /// and the grace period fits within the shortest period.
    pub fn new(attempt_days: Vec<u32>, grace_days: u32) -> Option<Self> {
        let increases = attempt_days.is_sorted_by(|before, after| before < after);
        let ends = attempt_days.last().is_some_and(|last| *last < grace_days);
        let is_sound = increases
            && ends
            && attempt_days.first() == Some(&0)
            && grace_days <= SHORTEST_PERIOD_DAYS;
        is_sound.then_some(Self { attempt_days, grace_days })
    }

    /// The first attempt after `tried_at` in the period that started at `start`.
    pub(crate) fn attempt_after(&self, start: Timestamp, tried_at: Timestamp) -> Option<Timestamp> {
        let days = self.attempt_days.iter();
        days.map(|days| days_after(start, *days)).find(|day| *day > tried_at)
    }

    pub(crate) fn grace_ends(&self, start: Timestamp) -> Timestamp {
        days_after(start, self.grace_days)
    }
}

fn days_after(start: Timestamp, days: u32) -> Timestamp {
    later(start, SignedDuration::from_hours(i64::from(days).saturating_mul(24)))
}
