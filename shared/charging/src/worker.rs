//! One run of an account's due tasks, and its report.

use std::ops::AddAssign;

use account::{Account, Profile};
use jiff::SignedDuration;
use payments::PaymentError;

use crate::context::Context;
use crate::error::{ChargingError, Result};

/// The delay before a failed request is sent again.
pub(crate) const RETRY_DELAY: SignedDuration = SignedDuration::from_mins(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChargeReport {
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
    pub(crate) cx: Context<'a>,
    pub(crate) report: ChargeReport,
}

impl Worker<'_> {
    /// Schedules a retry of the current task if Stripe did not carry it out. An unreadable Stripe
    /// key stops every account, so it fails the queue's message, which raises an alarm.
    pub(crate) async fn put_off(&self, account: &Account, error: ChargingError) -> Result<()> {
        let cause = match &error {
            ChargingError::Stripe(PaymentError::Key(_)) => return Err(error),
            ChargingError::Stripe(cause) => cause,
            _ => return Err(error),
        };
        edge::log_error(&error, "Stripe did not carry out a task; retrying later");
        let wait = match cause {
            PaymentError::RateLimited { retry_after: Some(wait) } => {
                SignedDuration::try_from(*wait).ok()
            }
            _ => None,
        };
        self.postpone(account, wait.unwrap_or(RETRY_DELAY)).await
    }

    pub(crate) async fn postpone(&self, account: &Account, delay: SignedDuration) -> Result<()> {
        let later = self.cx.later(delay);
        let postpone = |profile: &mut Profile| billing::postpone(profile, later);
        self.cx.change(&account.id, postpone).await.map(drop)
    }
}
