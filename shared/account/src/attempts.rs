//! Limits on key checks, so that the endpoint is not an oracle for stolen keys, and on Checkout
//! Sessions, because all accounts share Stripe's rate limit.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

const WINDOW: SignedDuration = SignedDuration::from_hours(1);
const MAX_CHECKS: usize = 10;
const MAX_SAVES: usize = 5;
const MAX_PAGES: usize = 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Saving a key. Counts as a check, and as a save unless it fails.
    Save,
    /// Testing the stored key.
    Test,
    /// Opening a Checkout Session.
    Page,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Attempts {
    checks: Vec<Timestamp>,
    saves: Vec<Timestamp>,
    #[serde(default)]
    pages: Vec<Timestamp>,
}

impl Attempts {
    /// The time until another attempt is allowed; `None` if it is allowed at `now`.
    pub fn wait(&self, purpose: Purpose, now: Timestamp) -> Option<SignedDuration> {
        let checks = || wait(&self.checks, MAX_CHECKS, now);
        match purpose {
            Purpose::Save => checks().max(wait(&self.saves, MAX_SAVES, now)),
            Purpose::Test => checks(),
            Purpose::Page => wait(&self.pages, MAX_PAGES, now),
        }
    }

    pub fn count(&mut self, purpose: Purpose, now: Timestamp) {
        let recent = |at: &Timestamp| now.duration_since(*at) < WINDOW;
        for counted in [&mut self.checks, &mut self.saves, &mut self.pages] {
            counted.retain(recent);
        }
        match purpose {
            Purpose::Save => {
                self.checks.push(now);
                self.saves.push(now);
            }
            Purpose::Test => self.checks.push(now),
            Purpose::Page => self.pages.push(now),
        }
    }

    /// Was an attempt counted at exactly this time?
    pub fn is_counted(&self, purpose: Purpose, at: Timestamp) -> bool {
        match purpose {
            Purpose::Save | Purpose::Test => self.checks.contains(&at),
            Purpose::Page => self.pages.contains(&at),
        }
    }

    /// Removes the failed save at `at` from the count. The check stays counted.
    pub fn uncount_save(&mut self, at: Timestamp) {
        if let Some(index) = self.saves.iter().position(|counted| *counted == at) {
            self.saves.remove(index);
        }
    }
}

/// The time until fewer than `max` of `counted` lie within the window; `None` if that is now.
fn wait(counted: &[Timestamp], max: usize, now: Timestamp) -> Option<SignedDuration> {
    let mut left: Vec<SignedDuration> = counted
        .iter()
        .map(|at| WINDOW.saturating_sub(now.duration_since(*at)))
        .filter(SignedDuration::is_positive)
        .collect();
    left.sort_unstable();
    let surplus = left.len().checked_sub(max)?;
    left.get(surplus).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minute(minute: i64) -> Timestamp {
        Timestamp::from_second(minute * 60).unwrap()
    }

    fn minutes(minutes: i64) -> SignedDuration {
        SignedDuration::from_mins(minutes)
    }

    #[test]
    fn ten_checks_in_any_hour() {
        let mut attempts = Attempts::default();
        for n in 0..10 {
            assert_eq!(attempts.wait(Purpose::Test, minute(n)), None);
            attempts.count(Purpose::Test, minute(n));
        }
        assert_eq!(attempts.wait(Purpose::Test, minute(10)), Some(minutes(50)));
        assert_eq!(attempts.wait(Purpose::Save, minute(59)), Some(minutes(1)));
        assert_eq!(attempts.wait(Purpose::Test, minute(60)), None);
        attempts.count(Purpose::Test, minute(60));
        assert_eq!(attempts.wait(Purpose::Test, minute(60)), Some(minutes(1)));
    }

    #[test]
    fn five_saves_of_them_and_only_successful_ones() {
        let mut attempts = Attempts::default();
        for n in 0..5 {
            attempts.count(Purpose::Save, minute(n));
        }
        assert_eq!(attempts.wait(Purpose::Save, minute(5)), Some(minutes(55)));
        assert_eq!(attempts.wait(Purpose::Test, minute(5)), None);
        attempts.uncount_save(minute(4));
        assert_eq!(attempts.wait(Purpose::Save, minute(5)), None);
    }

    #[test]
    fn sixty_pages_in_any_hour_beside_the_checks() {
        let mut attempts = Attempts::default();
        for n in 0..60 {
            assert_eq!(attempts.wait(Purpose::Page, minute(n)), None);
            attempts.count(Purpose::Page, minute(n));
            assert!(attempts.is_counted(Purpose::Page, minute(n)));
        }
        assert!(!attempts.is_counted(Purpose::Test, minute(0)));
        assert_eq!(attempts.wait(Purpose::Save, minute(59)), None);
        assert_eq!(attempts.wait(Purpose::Page, minute(59)), Some(minutes(1)));
        assert_eq!(attempts.wait(Purpose::Page, minute(60)), None);
    }

    #[test]
    fn attempts_stored_before_pages_were_counted_are_read() {
        let stored = r#"{"checks":["1970-01-01T00:00:00Z"],"saves":[]}"#;
        let attempts: Attempts = serde_json::from_str(stored).unwrap();
        assert!(attempts.is_counted(Purpose::Test, minute(0)));
        assert_eq!(attempts.wait(Purpose::Page, minute(0)), None);
    }
}
