//! Asking the provider no more often than it allows, all workers together.
//!
//! A permit is for a time, and lost if it is not used then: what a worker has in store can never come as
//! a burst.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use edge::Clock;
use jiff::{SignedDuration, Timestamp};
use payments::PaymentError;
use store::{Pace, Store};
use tokio::sync::Mutex;

use crate::ChargingError;

/// Permits that are taken at once, if so many are waited for.
const A_GROUP: u32 = 5;
/// What would have to wait longer is not begun.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_secs(30);
/// A permit that is so late is lost.
const TOO_LATE: SignedDuration = SignedDuration::from_secs(1);

/// What the provider is asked, as far as it is counted together. Stripe allows 25 requests a second of
/// each kind, and 100 in all (<https://docs.stripe.com/rate-limits>): four kinds at 20 leave 20 for those
/// who do not wait, the users and the webhook. (Of the five, the first three are for those who pay us by card,
/// and the fourth for those whom the provider collects from.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestKind {
    Create,
    Confirm,
    LookUp,
    /// Subscriptions that the provider runs, and their invoices.
    Subscription,
    /// All else, together: seldom.
    Other,
}

impl RequestKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Create => "create_intent",
            Self::Confirm => "confirm_intent",
            Self::LookUp => "look_up_intent",
            Self::Subscription => "subscription",
            Self::Other => "other",
        }
    }
}

/// Gives permits to ask, for all that this process does.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    store: Store,
    /// The time that passes, not that of a tick.
    clock: Clock,
    pace: Pace,
    create: Line,
    confirm: Line,
    look_up: Line,
    subscription: Line,
    other: Line,
}

/// Those who want the same.
#[derive(Debug, Default)]
struct Line {
    waiting: AtomicU32,
    permits: Mutex<VecDeque<Timestamp>>,
}

/// Somebody who is counted as waiting.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl RateLimiter {
    pub(crate) fn new(store: Store, requests_per_second: u32) -> Self {
        Self {
            store,
            clock: Clock::system(),
            pace: Pace::new(requests_per_second, LONGEST_WAIT),
            create: Line::default(),
            confirm: Line::default(),
            look_up: Line::default(),
            subscription: Line::default(),
            other: Line::default(),
        }
    }

    /// Waits until the provider may be asked.
    ///
    /// # Errors
    /// [`PaymentError::RateLimited`], as if it was the provider's word, if the wait would be too long;
    /// and if DynamoDB does not answer.
    pub(crate) async fn permit(&self, asked: RequestKind) -> Result<(), ChargingError> {
        let at = self.next(asked).await?;
        let wait = at.duration_since(self.clock.now());
        // What is past is not waited for.
        tokio::time::sleep(Duration::try_from(wait).unwrap_or_default()).await;
        Ok(())
    }

    async fn next(&self, asked: RequestKind) -> Result<Timestamp, ChargingError> {
        let line = match asked {
            RequestKind::Create => &self.create,
            RequestKind::Confirm => &self.confirm,
            RequestKind::LookUp => &self.look_up,
            RequestKind::Subscription => &self.subscription,
            RequestKind::Other => &self.other,
        };
        let _waiting = Waiting::new(&line.waiting);
        let mut permits = line.permits.lock().await;
        loop {
            while let Some(permit) = permits.pop_front() {
                if self.clock.now().duration_since(permit) < TOO_LATE {
                    return Ok(permit);
                }
            }
            let wanted = line.waiting.load(Ordering::Relaxed).clamp(1, A_GROUP);
            let now = self.clock.now();
            let reserved = self
                .store
                .reserve_slots(asked.name(), wanted, self.pace, now);
            match reserved.await? {
                Ok(times) => permits.extend(times),
                Err(wait) => {
                    let retry_after = Duration::try_from(wait).ok();
                    return Err(PaymentError::RateLimited { retry_after }.into());
                }
            }
        }
    }
}
