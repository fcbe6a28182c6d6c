//! Months of the add-on, counted from the anchor.

use jiff::{Span, Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};

/// The number of a paid month; the first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Period(u32);

impl Period {
    pub const FIRST: Self = Self(1);

    /// `None` for zero: periods are counted from 1.
    pub const fn new(number: u32) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    pub const fn number(self) -> u32 {
        self.0
    }

    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    pub const fn before(self) -> Option<Self> {
        Self::new(self.0.saturating_sub(1))
    }
}

/// The end of `period`: `anchor` + that many months in UTC, with the day clamped to the end of the
/// month (31 January → 28 February → 31 March). Always computed from the anchor, so that a clamped
/// day does not stick. Saturates at the last timestamp.
pub fn end_of_period(anchor: Timestamp, period: Period) -> Timestamp {
    let months = Span::new().try_months(i64::from(period.number()));
    months
        .and_then(|months| anchor.to_zoned(TimeZone::UTC).checked_add(months))
        .map_or(Timestamp::MAX, |end| end.timestamp())
}

/// The period that contains `at`; the first one if `at` is before the anchor.
pub fn period_at(anchor: Timestamp, at: Timestamp) -> Period {
    let (from, to) = (anchor.to_zoned(TimeZone::UTC), at.to_zoned(TimeZone::UTC));
    let years = i32::from(to.year()).saturating_sub(i32::from(from.year()));
    let months = i32::from(to.month()).saturating_sub(i32::from(from.month()));
    // The difference in months is the period's number or one less.
    let months = years.saturating_mul(12).saturating_add(months);
    let number = u32::try_from(months).unwrap_or(0);
    match Period::new(number) {
        Some(period) if at < end_of_period(anchor, period) => period,
        _ => Period(number.saturating_add(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_counted_from_the_anchor_and_clamped() {
        let table = [
            ("2026-01-29T10:00:00Z", 1, "2026-02-28T10:00:00Z"),
            ("2026-01-29T10:00:00Z", 2, "2026-03-29T10:00:00Z"),
            ("2026-01-30T10:00:00Z", 2, "2026-03-30T10:00:00Z"),
            ("2028-01-29T10:00:00Z", 2, "2028-03-29T10:00:00Z"),
            ("2028-01-30T10:00:00Z", 1, "2028-02-29T10:00:00Z"),
            ("2028-01-30T10:00:00Z", 2, "2028-03-30T10:00:00Z"),
            ("2028-02-29T10:00:00Z", 1, "2028-03-29T10:00:00Z"),
            ("2026-01-30T10:00:00Z", 1, "2026-02-28T10:00:00Z"),
            ("2026-01-31T10:00:00Z", 1, "2026-02-28T10:00:00Z"),
            ("2026-01-31T10:00:00Z", 2, "2026-03-31T10:00:00Z"),
            ("2026-01-31T10:00:00Z", 3, "2026-04-30T10:00:00Z"),
            ("2028-01-29T10:00:00Z", 1, "2028-02-29T10:00:00Z"),
            ("2028-01-31T10:00:00Z", 1, "2028-02-29T10:00:00Z"),
            ("2028-01-31T10:00:00Z", 2, "2028-03-31T10:00:00Z"),
            ("2028-02-29T10:00:00Z", 12, "2029-02-28T10:00:00Z"),
            ("2028-02-29T10:00:00Z", 48, "2032-02-29T10:00:00Z"),
            ("2026-11-30T23:59:59Z", 3, "2027-02-28T23:59:59Z"),
        ];
        for (anchor, period, end) in table {
            let anchor: Timestamp = anchor.parse().unwrap();
            let period = Period::new(period).unwrap();
            assert_eq!(end_of_period(anchor, period).to_string(), end, "{anchor}");
        }
    }

    /// Each day that a month may lack, from January to March, in a common year and a leap year.
    #[test]
    fn the_last_days_of_january_come_back_in_march() {
        for (year, last_of_february) in [(2026, 28), (2028, 29), (2100, 28)] {
            for day in [29, 30, 31] {
                let anchor: Timestamp = format!("{year}-01-{day}T00:00:00Z").parse().unwrap();
                let ends = [1, 2].map(|number| {
                    let end = end_of_period(anchor, Period::new(number).unwrap());
                    end.to_string()
                });
                let expected = [
                    format!("{year}-02-{last_of_february}T00:00:00Z"),
                    format!("{year}-03-{day}T00:00:00Z"),
                ];
                assert_eq!(ends, expected, "{anchor}");
            }
        }
    }

    #[test]
    fn the_29th_of_february_is_clamped_only_where_there_is_none() {
        let anchor: Timestamp = "2028-02-29T12:00:00Z".parse().unwrap();
        let ends = (1..=12).map(|number| {
            let end = end_of_period(anchor, Period::new(number).unwrap());
            end.to_string()
        });
        let months = [
            "2028-03-29",
            "2028-04-29",
            "2028-05-29",
            "2028-06-29",
            "2028-07-29",
            "2028-08-29",
            "2028-09-29",
            "2028-10-29",
            "2028-11-29",
            "2028-12-29",
            "2029-01-29",
            "2029-02-28",
        ];
        assert!(ends.eq(months.map(|date| format!("{date}T12:00:00Z"))));
    }

    #[test]
    fn a_time_is_in_the_period_that_ends_after_it() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        for anchor in ["2026-01-31T10:00:00Z", "2028-02-29T23:59:59Z", "2026-03-01T00:00:00Z"] {
            let anchor = at(anchor);
            assert_eq!(period_at(anchor, anchor), Period::FIRST);
            assert_eq!(period_at(anchor, at("2020-01-01T00:00:00Z")), Period::FIRST);
            for number in 1..=60 {
                let period = Period::new(number).unwrap();
                let end = end_of_period(anchor, period);
                let before = end - jiff::SignedDuration::from_micros(1);
                assert_eq!(period_at(anchor, before), period, "{before}");
                assert_eq!(period_at(anchor, end), period.next(), "{end}");
            }
        }
    }

    #[test]
    fn the_end_saturates_at_the_last_timestamp() {
        let last = Period::new(u32::MAX).unwrap();
        assert_eq!(end_of_period(Timestamp::UNIX_EPOCH, last), Timestamp::MAX);
    }
}
