//! Runs one account's due tasks, one by one.

use account::{Account, AccountId, Profile};
use billing::Task;
use jiff::{SignedDuration, Timestamp};
use payments::{PaymentError, SessionId, SessionStatus, SubscriptionId};
use store::{CreditPayment, Effect, HistoryEntry, Outcome};

use crate::apply::apply_session;
use crate::context::{Context, MONTHLY_CHARGE};
use crate::credits::pay_period;
use crate::error::{ChargingError, Result};
use crate::outcome::PaymentUpdate;
use crate::stripe_subscription::{apply_subscription, cancel_subscription};
use crate::worker::{ChargeReport, RETRY_DELAY, Worker};

/// Maximum number of tasks of one account in one run, as a safety net.
const MAX_TASKS: usize = 12;
/// The age at which an unknown outcome raises an alarm.
const TOO_LONG_UNKNOWN: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Runs the account's due tasks. Safe to run late, twice or concurrently; a failed task stays due.
pub async fn run_due(cx: Context<'_>, id: &AccountId) -> Result<ChargeReport> {
    let mut worker = Worker { cx, report: ChargeReport::default() };
    for _ in 0..MAX_TASKS {
        match Box::pin(worker.run_next_task(id)).await {
            Ok(true) => {}
            // For a deleted account, the clean-up cancels everything left at Stripe.
            Ok(false) | Err(ChargingError::Gone) => return Ok(worker.report),
            Err(error) => return Err(error),
        }
    }
    Err(ChargingError::Contended)
}

impl Worker<'_> {
    /// False if nothing is due.
    async fn run_next_task(&mut self, id: &AccountId) -> Result<bool> {
        let (mut task, cx) = (None, self.cx);
        let take_task = |profile: &mut Profile| {
            let before = profile.clone();
            task = billing::take_task(profile, cx.now, &cx.settings.dunning);
            waived(&before, profile, cx.now)
        };
        let account = cx.change_with_effects(id, take_task).await?;
        let Some(task) = task else {
            return Ok(false);
        };
        if let Err(error) = self.run(&account, task).await {
            self.put_off(&account, error).await?;
        }
        Ok(true)
    }

    async fn run(&mut self, account: &Account, task: Task) -> Result<()> {
        match task {
            Task::Create { generation, period, intent, .. } => {
                self.begin(account, (&generation, period), intent).await
            }
            Task::Confirm { id, attempt, .. } => self.confirm(account, &id, attempt).await,
            Task::LookUp { id, since } => {
                if self.cx.now.duration_since(since) > TOO_LONG_UNKNOWN {
                    tracing::error!(stripe_id = id, %since, "a payment's outcome is still unknown");
                    edge::metric("charges_unknown_for_long", 1);
                }
                self.look_up(account, &id).await
            }
            Task::Cancel { id } => self.cancel(account, &id).await,
            Task::ExpireCheckout { session } => self.expire_session(account, &session).await,
            Task::CheckSubscription { subscription } => {
                self.check_subscription(&subscription).await
            }
            Task::UpdateSubscription { subscription, ends } => {
                self.update_subscription(account, &subscription, ends).await
            }
            Task::CancelSubscription { subscription } => {
                cancel_subscription(self.cx, &subscription).await
            }
            Task::TakeCredits { generation, period, attempt } => {
                match pay_period(self.cx, account, &generation, period).await? {
                    CreditPayment::Paid => self.report.charged += 1,
                    CreditPayment::NotOwed => {}
                    CreditPayment::Insufficient => {
                        self.report.declined += 1;
                        self.declined(account, None, attempt, false).await?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Closes a Checkout Session that must no longer be paid, or applies its payment if paid.
    async fn expire_session(&self, account: &Account, session: &str) -> Result<()> {
        let closed = |profile: &mut Profile| billing::checkout_closed(profile, session);
        let id = SessionId::new(session)?;
        match self.cx.stripe.expire_session(&id).await {
            Ok(found) if found.paid => {
                apply_session(self.cx, &found).await?;
                Ok(())
            }
            Ok(found) if found.status == SessionStatus::Expired => {
                self.cx.change(&account.id, closed).await.map(drop)
            }
            // The payment is still processing.
            Ok(_) => self.postpone(account, RETRY_DELAY).await,
            Err(PaymentError::Missing { .. }) => {
                self.cx.change(&account.id, closed).await.map(drop)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn check_subscription(&mut self, subscription: &str) -> Result<()> {
        let id = SubscriptionId::new(subscription)?;
        let update = apply_subscription(self.cx, &id, None).await?;
        if let PaymentUpdate::Applied(applied) = update
            && applied.by_this_call
            && applied.outcome == Outcome::Counted
        {
            self.report.charged += 1;
        }
        Ok(())
    }

    async fn update_subscription(
        &mut self,
        account: &Account,
        subscription: &str,
        ends: bool,
    ) -> Result<()> {
        let (stripe, id) = (&self.cx.stripe, SubscriptionId::new(subscription)?);
        let updated = stripe.end_subscription_with_its_period(&id, ends).await;
        let Err(error) = updated else {
            let updated = |profile: &mut Profile| {
                billing::subscription_updated(profile, subscription, ends);
            };
            return self.cx.change(&account.id, updated).await.map(drop);
        };
        match &error {
            // The subscription is over, or Stripe still collects and decides its end differently.
            PaymentError::Missing { .. } | PaymentError::Refused { .. } => {
                self.check_subscription(subscription).await?;
                let stored = self.cx.store.accounts.get(&account.id).await?;
                let billing = stored.map(|stored| stored.profile.billing);
                if !billing.is_some_and(|billing| billing.has_subscription(subscription)) {
                    return Ok(());
                }
            }
            // Another update may have taken effect in the meantime.
            PaymentError::Unknown(_) => {
                let uncertain = |profile: &mut Profile| {
                    billing::subscription_uncertain(profile, subscription);
                };
                self.cx.change(&account.id, uncertain).await.map(drop)?;
            }
            _ => {}
        }
        Err(error.into())
    }
}

/// A record of each period that the change waives, and an entry in the account's history.
fn waived(before: &Profile, after: &Profile, at: Timestamp) -> Vec<Effect> {
    let periods = billing::waived_since(after, before);
    let (Some(first), Some(last), Some(generation)) =
        (periods.first(), periods.last(), after.add_on.generation())
    else {
        return Vec::new();
    };
    let (first, last) = (first.number(), last.number());
    tracing::warn!(first, last, "waiving missed periods of the add-on");
    let count = u64::from(last.saturating_sub(first)).saturating_add(1);
    edge::metric("periods_waived", count);
    let entry = HistoryEntry {
        id: format!("waived-{}-{last}", generation.as_str()),
        at,
        actor: MONTHLY_CHARGE.to_owned(),
        what: format!("add-on: periods {first} to {last} were missed, and are waived"),
    };
    let waived = periods.iter().map(|period| Effect::Waived {
        generation: generation.clone(),
        period: *period,
        at,
    });
    waived.chain([Effect::History(entry)]).collect()
}
