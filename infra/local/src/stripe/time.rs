//! Stripe's time.

use std::sync::Mutex;

use edge::Clock;
use jiff::Timestamp;

/// The clock, which can be stopped.
#[derive(Debug)]
pub(super) struct StripeTime {
    clock: Clock,
    stopped_at: Mutex<Option<Timestamp>>,
}

impl StripeTime {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, stopped_at: Mutex::default() }
    }

    pub(super) fn stop_at(&self, now: Timestamp) {
        *self.stopped_at.lock().unwrap() = Some(now);
    }

    pub(super) fn now(&self) -> Timestamp {
        self.stopped_at.lock().unwrap().unwrap_or_else(|| self.clock.now())
    }
}
