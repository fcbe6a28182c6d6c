//! The work of one account at one time, and its report.

use std::ops::AddAssign;

use account::{Account, Profile};
use jiff::{SignedDuration, Timestamp};
use payments::PaymentError;

use crate::context::Charging;
use crate::error::ChargingError;

/// The delay before a request that failed is sent again.
pub(crate) const RETRY_DELAY: SignedDuration = SignedDuration::from_mins(5);

/// The results of charging.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChargeReport {
    /// Periods paid.
    pub charged: u32,
    pub declined: u32,
    /// Outcomes that are not known yet.
    pub unknown: u32,
}

impl AddAssign for ChargeReport {
    fn add_assign(&mut self, other: Self) {
        self.charged += other.charged;
        self.declined += other.declined;
        self.unknown += other.unknown;
    }
}

pub(crate) struct Worker<'a> {
    pub(crate) charging: &'a Charging,
    pub(crate) now: Timestamp,
    pub(crate) report: ChargeReport,
}

impl Worker<'_> {
    pub(crate) async fn change(
        &self,
        account: &Account,
        change: impl FnMut(&mut Profile),
    ) -> Result<(), ChargingError> {
        let changed = self.charging.change(&account.id, self.now, change);
        changed.await.map(drop)
    }

    /// Retries the current task later if Stripe did not carry it out.
    pub(crate) async fn put_off(
        &self,
        account: &Account,
        error: ChargingError,
    ) -> Result<(), ChargingError> {
        let ChargingError::Stripe(cause) = &error else {
            return Err(error);
        };
        edge::log_error(&error, "Stripe did not carry out a task; retrying later");
        let wait = match cause {
            PaymentError::RateLimited {
                retry_after: Some(wait),
            } => SignedDuration::try_from(*wait).ok(),
            _ => None,
        };
        self.postpone(account, wait.unwrap_or(RETRY_DELAY)).await
    }

    pub(crate) async fn postpone(
        &self,
        account: &Account,
        delay: SignedDuration,
    ) -> Result<(), ChargingError> {
        let later = self.now.saturating_add(delay).unwrap_or(self.now);
        let postpone = |profile: &mut Profile| billing::postpone(profile, later);
        self.change(account, postpone).await
    }
}
