//! The rate limit of one process.

use std::time::{Duration, Instant};

use governor::clock::Clock as _;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::error::PaymentError;

/// Maximum wait for a call; a call that would wait longer is not made.
const MAX_WAIT: Duration = Duration::from_secs(30);

pub(crate) struct RateLimit(DefaultDirectRateLimiter);

impl RateLimit {
    /// One request per `interval`, without bursts. `None` if the interval is zero.
    pub(crate) fn new(interval: Duration) -> Option<Self> {
        Some(Self(RateLimiter::direct(Quota::with_period(interval)?)))
    }

    pub(crate) async fn wait(&self) -> Result<(), PaymentError> {
        let started = Instant::now();
        while let Err(too_early) = self.0.check() {
            let wait = too_early.wait_time_from(self.0.clock().now());
            if started.elapsed().saturating_add(wait) > MAX_WAIT {
                return Err(PaymentError::RateLimited { retry_after: Some(wait) });
            }
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_waits_for_the_one_before_it() {
        let interval = Duration::from_millis(20);
        let limit = RateLimit::new(interval).unwrap();
        let started = Instant::now();
        for _ in 0..4 {
            limit.wait().await.unwrap();
        }
        assert!(started.elapsed() >= interval * 3);
    }

    #[tokio::test]
    async fn a_wait_that_is_too_long_is_refused_at_once() {
        let hour = Duration::from_hours(1);
        let limit = RateLimit::new(hour).unwrap();
        limit.wait().await.unwrap();
        let Err(PaymentError::RateLimited { retry_after }) = limit.wait().await else {
            panic!("it has to wait")
        };
        let retry_after = retry_after.unwrap();
        assert!(retry_after <= hour && retry_after + MAX_WAIT > hour);
    }
}
