//! When a period is collected that is not paid at once.

use jiff::{SignedDuration, Timestamp};

use super::later;

/// How a period is collected that is not paid at once (`ADD_ON_ATTEMPT_DAYS`, `ADD_ON_GRACE_DAYS`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dunning {
    attempt_days: Vec<u32>,
    grace_days: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the days of attempts must begin with 0, rise, and end before the grace period does")]
pub struct DunningError;

impl Default for Dunning {
    /// Attempts on the days 0, 1, 3, 5 and 7, and 8 days of grace.
    fn default() -> Self {
        Self {
            attempt_days: vec![0, 1, 3, 5, 7],
            grace_days: 8,
        }
    }
}

impl Dunning {
    /// Attempts on `attempt_days` after a period's start, access until `grace_days` after it.
    ///
    /// # Errors
    /// [`DunningError`] unless the days begin with 0, rise, and end before the grace period.
    pub fn new(attempt_days: Vec<u32>, grace_days: u32) -> Result<Self, DunningError> {
        let rise = attempt_days.is_sorted_by(|before, after| before < after);
        let ends = attempt_days.last().is_some_and(|last| *last < grace_days);
        if rise && ends && attempt_days.first() == Some(&0) {
            Ok(Self {
                attempt_days,
                grace_days,
            })
        } else {
            Err(DunningError)
        }
    }

    /// The first attempt day of a period begun at `start` that comes after `tried_at`.
    pub(super) fn attempt_after(&self, start: Timestamp, tried_at: Timestamp) -> Option<Timestamp> {
        let days = self.attempt_days.iter();
        days.map(|days| days_after(start, *days))
            .find(|day| *day > tried_at)
    }

    pub(super) fn grace_ends(&self, start: Timestamp) -> Timestamp {
        days_after(start, self.grace_days)
    }
}

fn days_after(start: Timestamp, days: u32) -> Timestamp {
    later(
        start,
        SignedDuration::from_hours(i64::from(days).saturating_mul(24)),
    )
}
