//! The one clock, which tests and the local program can move.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};

/// The system's time plus a shift that a clock shares with its clones.
#[derive(Debug, Clone)]
pub struct Clock {
    shift_millis: Arc<AtomicI64>,
}

impl Clock {
    pub fn system() -> Self {
        Self { shift_millis: Arc::new(AtomicI64::new(0)) }
    }

    /// Now, in whole microseconds, the precision that the stores and the wire keep.
    #[expect(clippy::disallowed_methods, reason = "this is the one clock")]
    pub fn now(&self) -> Timestamp {
        let shift = SignedDuration::from_millis(self.shift_millis.load(Ordering::Relaxed));
        let now = Timestamp::now();
        let now = Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now);
        now.saturating_add(shift).unwrap_or(now)
    }

    /// Shifts this clock and its clones, in whole milliseconds.
    pub fn advance(&self, by: SignedDuration) {
        let millis = by.as_millis().clamp(i64::MIN.into(), i64::MAX.into());
        let millis = i64::try_from(millis).unwrap_or_default();
        self.shift_millis
            .update(Ordering::Relaxed, Ordering::Relaxed, |shift| shift.saturating_add(millis));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_move_together() {
        let clock = Clock::system();
        let clone = clock.clone();
        let before = clone.now();
        clock.advance(SignedDuration::from_hours(2));
        assert!(clone.now() >= before + SignedDuration::from_hours(2));
        clone.advance(-SignedDuration::from_hours(4));
        assert!(clock.now() < before);
    }

    #[test]
    fn it_stops_at_the_ends_of_time() {
        for (by, end) in
            [(SignedDuration::MAX, Timestamp::MAX), (SignedDuration::MIN, Timestamp::MIN)]
        {
            let clock = Clock::system();
            clock.advance(by);
            clock.advance(by);
            assert_eq!(clock.now(), end);
        }
    }
}
