//! How often an account may have a key checked: the endpoint must be no oracle for stolen keys.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

const WINDOW: SignedDuration = SignedDuration::from_hours(1);
const MAX_CHECKS: usize = 10;
const MAX_SAVES: usize = 5;

/// What a check is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Saving a key; takes one of the hour's saves, given back if the save fails.
    Save,
    /// Testing the stored key.
    Test,
}

/// The checks and saves of the last hour.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Attempts {
    checks: Vec<Timestamp>,
    saves: Vec<Timestamp>,
}

impl Attempts {
    /// Is another check allowed at `now`?
    ///
    /// # Errors
    /// How long to wait, where the sliding hour is full.
    pub fn allowed(&self, purpose: Purpose, now: Timestamp) -> Result<(), SignedDuration> {
        let checks = wait(&self.checks, MAX_CHECKS, now);
        let saves = match purpose {
            Purpose::Save => wait(&self.saves, MAX_SAVES, now),
            Purpose::Test => None,
        };
        checks.max(saves).map_or(Ok(()), Err)
    }

    /// Counts a check that is about to be made.
    pub fn count(&mut self, purpose: Purpose, now: Timestamp) {
        let recent = |at: &Timestamp| now.duration_since(*at) < WINDOW;
        self.checks.retain(recent);
        self.saves.retain(recent);
        self.checks.push(now);
        if purpose == Purpose::Save {
            self.saves.push(now);
        }
    }

    /// Was a check counted at exactly this moment?
    pub fn is_counted(&self, at: Timestamp) -> bool {
        self.checks.contains(&at)
    }

    /// Gives back the save counted at `at`, which did not come about. The check stays counted.
    pub fn give_back_save(&mut self, at: Timestamp) {
        if let Some(index) = self.saves.iter().position(|counted| *counted == at) {
            self.saves.remove(index);
        }
    }
}

/// How long until fewer than `max` of `counted` lie within the window; `None` if that is so now.
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
            assert_eq!(attempts.allowed(Purpose::Test, minute(n)), Ok(()));
            attempts.count(Purpose::Test, minute(n));
        }
        assert_eq!(
            attempts.allowed(Purpose::Test, minute(10)),
            Err(minutes(50))
        );
        assert_eq!(attempts.allowed(Purpose::Save, minute(59)), Err(minutes(1)));
        assert_eq!(attempts.allowed(Purpose::Test, minute(60)), Ok(()));
        attempts.count(Purpose::Test, minute(60));
        assert_eq!(attempts.allowed(Purpose::Test, minute(60)), Err(minutes(1)));
    }

    #[test]
    fn five_saves_of_them_and_only_successful_ones() {
        let mut attempts = Attempts::default();
        for n in 0..5 {
            attempts.count(Purpose::Save, minute(n));
        }
        assert_eq!(attempts.allowed(Purpose::Save, minute(5)), Err(minutes(55)));
        assert_eq!(attempts.allowed(Purpose::Test, minute(5)), Ok(()));
        attempts.give_back_save(minute(4));
        assert_eq!(attempts.allowed(Purpose::Save, minute(5)), Ok(()));
    }
}
