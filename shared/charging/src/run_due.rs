//! What is due for one account, carried out step by step.

use std::ops::AddAssign;

use account::billing::IntentState;
use account::{Account, AccountId, AccountNumber, Profile};
use billing::Task;
use jiff::{SignedDuration, Timestamp};
use payments::{CheckoutStatus, IntentId, IntentStatus, PaymentError, SessionId};
use store::{CreditPayment, Effect, HistoryEntry};

use crate::credits::ACTOR;
use crate::rate_limit::RequestKind;
use crate::{Charging, ChargingError};

/// Steps of one account at one time: a bound against a mistake.
const MOST_STEPS: usize = 12;
/// When something that could not be asked is asked again.
pub(crate) const AGAIN: SignedDuration = SignedDuration::from_mins(5);
/// From when on an unknown outcome is one that people are to look at.
const TOO_LONG_UNKNOWN: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What was done for an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChargeReport {
    /// Periods paid by it.
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

impl Charging {
    /// Does what is due for the account at `now`. Safe to do late, twice, or twice at once.
    ///
    /// # Errors
    /// [`ChargingError`]; what was begun stays due.
    pub async fn work(
        &self,
        id: &AccountId,
        now: Timestamp,
    ) -> Result<ChargeReport, ChargingError> {
        let mut report = ChargeReport::default();
        for _ in 0..MOST_STEPS {
            let mut task = None;
            let account = self.store.accounts.update(id, None, now, |profile| {
                let before = profile.clone();
                task = billing::take_task(profile, now, self.dunning());
                Ok::<_, std::convert::Infallible>(waived(&before, profile, now))
            });
            let account = match account.await.map_err(ChargingError::from) {
                // The provider is told by what the deletion left.
                Err(ChargingError::Gone) => return Ok(report),
                account => account?,
            };
            let Some(task) = task else {
                return Ok(report);
            };
            let done = Box::pin(self.carry_out(&account, task, now, &mut report)).await;
            match done {
                Err(ChargingError::Gone) => return Ok(report),
                // Whatever was asked, it was not done.
                Err(error @ ChargingError::Provider(PaymentError::RateLimited { .. })) => {
                    self.put_off(&account, error, now).await?;
                }
                done => done?,
            }
        }
        Err(ChargingError::Contended)
    }

    /// Calls off what a deleted account left at the provider; what turns out to be paid is given back.
    ///
    /// # Errors
    /// [`ChargingError`]; it comes up again.
    pub async fn cleanup_payments(
        &self,
        account: &AccountNumber,
        now: Timestamp,
    ) -> Result<(), ChargingError> {
        let mut left = Vec::new();
        for object in self.store.cleanups.stripe_ids(account).await? {
            let called_off = Box::pin(self.call_off(&object, now)).await;
            let is_done = called_off.unwrap_or_else(|error| {
                edge::log_error(
                    &error,
                    "a deleted account's payment could not be called off",
                );
                false
            });
            if !is_done {
                left.push(object);
            }
        }
        let again = now.saturating_add(AGAIN).unwrap_or(now);
        Ok(self.store.cleanups.keep(account, &left, again).await?)
    }

    /// True if the object cannot be paid any more.
    async fn call_off(&self, object: &str, now: Timestamp) -> Result<bool, ChargingError> {
        let key = self.key().await?;
        if object.starts_with("sub_") {
            self.stop(object, now).await?;
            return Ok(true);
        }
        if object.starts_with("cs_") {
            let found = self
                .ask(RequestKind::Other)
                .await?
                .expire_checkout(&key, &SessionId::new(object)?)
                .await?;
            if found.paid {
                self.apply_checkout(&found, now).await?;
            }
            return Ok(found.paid || found.status == CheckoutStatus::Expired);
        }
        let found = self
            .ask(RequestKind::Other)
            .await?
            .cancel_intent(&key, &IntentId::new(object)?)
            .await?;
        if found.status == IntentStatus::Succeeded {
            self.apply_intent(&found, now).await?;
        }
        Ok(matches!(
            found.status,
            IntentStatus::Succeeded | IntentStatus::Canceled
        ))
    }

    async fn carry_out(
        &self,
        account: &Account,
        task: Task,
        now: Timestamp,
        report: &mut ChargeReport,
    ) -> Result<(), ChargingError> {
        match task {
            Task::Create {
                generation,
                period,
                intent,
                attempt,
            } => {
                let of = (&generation, period);
                self.begin(account, of, intent, attempt, now, report).await
            }
            Task::Confirm { id, attempt, .. } => {
                self.confirm(account, &id, attempt, now, report).await
            }
            Task::LookUp { id, since } => {
                if now.duration_since(since) > TOO_LONG_UNKNOWN {
                    tracing::error!(object = id, %since, "the outcome of a payment is still not known");
                    edge::metric("charges_unknown_for_long", 1);
                }
                self.look_up(account, &id, now, report).await
            }
            Task::Cancel { id } => self.cancel(account, &id, now, report).await,
            Task::ExpireCheckout { session } => self.close(account, &session, now).await,
            Task::CheckSubscription { subscription } => {
                let followed = self.follow(&subscription, now, report).await;
                self.or_put_off(account, followed, now).await
            }
            Task::UpdateSubscription { subscription, ends } => {
                let told = self.tell(account, &subscription, ends, now, report).await;
                self.or_put_off(account, told, now).await
            }
            Task::CancelSubscription { subscription } => {
                let stopped = self.stop(&subscription, now).await;
                self.or_put_off(account, stopped, now).await
            }
            Task::TakeCredits {
                generation,
                period,
                attempt,
            } => {
                match self.pay_period(account, &generation, period, now).await? {
                    CreditPayment::Paid => report.charged += 1,
                    CreditPayment::NotOwed => {}
                    CreditPayment::Insufficient => {
                        report.declined += 1;
                        self.declined(account, None, attempt, false, now).await?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Closes a checkout that nobody is to pay any more; a paid one is the payment.
    async fn close(
        &self,
        account: &Account,
        session: &str,
        now: Timestamp,
    ) -> Result<(), ChargingError> {
        let key = self.key().await?;
        let found = self
            .ask(RequestKind::Other)
            .await?
            .expire_checkout(&key, &SessionId::new(session)?)
            .await;
        let found = match found {
            Ok(found) => found,
            Err(PaymentError::Missing { .. }) => return self.closed(account, session, now).await,
            Err(error) => return self.put_off(account, error.into(), now).await,
        };
        if found.paid {
            self.apply_checkout(&found, now).await?;
            return Ok(());
        }
        match found.status {
            CheckoutStatus::Expired => self.closed(account, session, now).await,
            // Its money is on its way.
            _ => {
                let later = now.saturating_add(AGAIN).unwrap_or(now);
                self.change(&account.id, now, |profile| {
                    billing::postpone(profile, later)
                })
                .await
                .map(drop)
            }
        }
    }

    pub(crate) async fn closed(
        &self,
        account: &Account,
        session: &str,
        now: Timestamp,
    ) -> Result<(), ChargingError> {
        self.change(&account.id, now, |profile| {
            billing::checkout_closed(profile, session)
        })
        .await
        .map(drop)
    }

    async fn or_put_off(
        &self,
        account: &Account,
        done: Result<(), ChargingError>,
        now: Timestamp,
    ) -> Result<(), ChargingError> {
        match done {
            Ok(()) => Ok(()),
            Err(error) => self.put_off(account, error, now).await,
        }
    }

    /// The provider could not be asked: later again.
    pub(crate) async fn put_off(
        &self,
        account: &Account,
        error: ChargingError,
        now: Timestamp,
    ) -> Result<(), ChargingError> {
        edge::log_error(&error, "the payment provider could not be asked");
        let wait = match &error {
            ChargingError::Provider(PaymentError::RateLimited { retry_after }) => {
                retry_after.and_then(|wait| SignedDuration::try_from(wait).ok())
            }
            ChargingError::Provider(_) | ChargingError::Key(_) => None,
            _ => return Err(error),
        };
        let later = now.saturating_add(wait.unwrap_or(AGAIN)).unwrap_or(now);
        self.change(&account.id, now, |profile| {
            billing::postpone(profile, later)
        })
        .await
        .map(drop)
    }

    pub(crate) async fn change(
        &self,
        id: &AccountId,
        now: Timestamp,
        mut change: impl FnMut(&mut Profile),
    ) -> Result<Account, ChargingError> {
        let changed = self.store.accounts.update(id, None, now, |profile| {
            change(profile);
            Ok::<_, std::convert::Infallible>(Vec::new())
        });
        Ok(changed.await?)
    }

    /// The object of the account's charge, as far as it is not done with.
    pub(crate) fn open_object(profile: &Profile) -> Option<&IntentState> {
        let charge = profile.billing.charge.as_ref()?;
        Some(&charge.intent).filter(|object| **object != IntentState::None)
    }
}

/// What the change from `before` to `after` gives up for ever: a record of each period, and a line in the
/// account's history.
fn waived(before: &Profile, after: &Profile, at: Timestamp) -> Vec<Effect> {
    let periods = billing::waived_since(after, before);
    let (Some(first), Some(last), Some(generation)) =
        (periods.first(), periods.last(), after.add_on.generation())
    else {
        return Vec::new();
    };
    let (first, last) = (first.number(), last.number());
    tracing::warn!(
        first,
        last,
        "periods of the add-on were missed, and are waived"
    );
    edge::metric(
        "periods_waived",
        u64::from(last.saturating_sub(first)).saturating_add(1),
    );
    let entry = HistoryEntry {
        id: format!("waived-{}-{last}", generation.as_str()),
        at,
        actor: ACTOR.to_owned(),
        what: format!("add-on: periods {first} to {last} were missed, and are waived"),
    };
    let waived = periods.iter().map(|period| Effect::Waived {
        generation: generation.clone(),
        period: *period,
        at,
    });
    waived.chain([Effect::History(entry)]).collect()
}
