//! What is due for one account, carried out step by step.

use std::ops::AddAssign;

use account::billing::{Object, PRICE_CENTS, Task};
use account::{Account, AccountId, Period, Profile, add_on::GenerationId};
use jiff::{SignedDuration, Timestamp};
use payments::{
    Cents, CheckoutStatus, CustomerId, Intent, IntentId, IntentStatus, NewIntent, PaymentError,
    PaymentMethodId, SessionId,
};
use store::{Buys, CreditPayment, DueWindUp, Effect, Heard, Outcome, Payable};

use crate::{Charging, ChargingError, News};

/// Steps of one account at one time: a bound against a mistake.
const MOST_STEPS: usize = 12;
/// When something that could not be asked is asked again.
const AGAIN: SignedDuration = SignedDuration::from_mins(5);
/// From when on an unknown outcome is one that people are to look at.
const TOO_LONG_UNKNOWN: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Shown on the receipt.
const DESCRIPTION: &str = "Power your AI with OpenRouter";

/// What was done for an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Worked {
    /// Periods paid by it.
    pub charged: u32,
    pub declined: u32,
    /// Outcomes that are not known yet.
    pub unknown: u32,
}

impl AddAssign for Worked {
    fn add_assign(&mut self, other: Self) {
        self.charged += other.charged;
        self.declined += other.declined;
        self.unknown += other.unknown;
    }
}

/// What became of an attempt.
enum Attempt {
    Paid(Box<Intent>),
    /// `no_more`: no further one can succeed.
    Declined {
        no_more: bool,
    },
    /// The provider never got it.
    NeverArrived,
    /// The object cannot be paid any more.
    Gone,
    Unknown,
}

impl Attempt {
    fn of(intent: Intent) -> Self {
        match intent.status {
            IntentStatus::Succeeded => Self::Paid(Box::new(intent)),
            IntentStatus::RequiresPaymentMethod => {
                let decline = intent.decline;
                let no_more =
                    decline.is_some_and(|decline| decline.hard || decline.needs_authentication);
                Self::Declined { no_more }
            }
            // Nobody is there to act.
            IntentStatus::RequiresAction => Self::Declined { no_more: true },
            IntentStatus::RequiresConfirmation => Self::NeverArrived,
            IntentStatus::Canceled => Self::Gone,
            IntentStatus::Processing | IntentStatus::Other => Self::Unknown,
        }
    }
}

impl Charging {
    /// Does what is due for the account at `now`. Safe to do late, twice, or twice at once.
    ///
    /// # Errors
    /// [`ChargingError`]; what was begun stays due.
    pub async fn work(&self, id: &AccountId, now: Timestamp) -> Result<Worked, ChargingError> {
        let mut worked = Worked::default();
        for _ in 0..MOST_STEPS {
            let mut task = None;
            let account = self.change(id, now, |profile| {
                task = profile.take_on(now, self.dunning());
            });
            let account = match account.await {
                // The provider is told by what the deletion left.
                Err(ChargingError::Gone) => return Ok(worked),
                account => account?,
            };
            let Some(task) = task else {
                return Ok(worked);
            };
            Box::pin(self.carry_out(&account, task, now, &mut worked)).await?;
        }
        Err(ChargingError::Contended)
    }

    /// Calls off what a deleted account left at the provider; what turns out to be paid is given back.
    ///
    /// # Errors
    /// [`ChargingError`]; it comes up again.
    pub async fn wind_up(&self, due: &DueWindUp, now: Timestamp) -> Result<(), ChargingError> {
        let mut left = Vec::new();
        for object in &due.objects {
            let called_off = Box::pin(self.call_off(object, now)).await;
            let is_done = called_off.unwrap_or_else(|error| {
                edge::log_error(
                    &error,
                    "a deleted account's payment could not be called off",
                );
                false
            });
            if !is_done {
                left.push(object.clone());
            }
        }
        let again = now.saturating_add(AGAIN).unwrap_or(now);
        Ok(self
            .store
            .wound_up(&due.account_number, &left, again)
            .await?)
    }

    /// True if the object cannot be paid any more.
    async fn call_off(&self, object: &str, now: Timestamp) -> Result<bool, ChargingError> {
        let key = self.key().await?;
        if object.starts_with("cs_") {
            let found = self
                .stripe
                .expire_checkout(&key, &SessionId::new(object)?)
                .await?;
            if found.paid {
                self.heard_checkout(&found, now).await?;
            }
            return Ok(found.paid || found.status == CheckoutStatus::Expired);
        }
        let found = self
            .stripe
            .cancel_intent(&key, &IntentId::new(object)?)
            .await?;
        if found.status == IntentStatus::Succeeded {
            self.heard_intent(&found, now).await?;
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
        worked: &mut Worked,
    ) -> Result<(), ChargingError> {
        match task {
            Task::Create {
                generation,
                period,
                object,
                attempt,
            } => {
                let name = format!(
                    "{}-{}-{}",
                    account.number,
                    generation.as_str(),
                    period.number()
                );
                let made = self.create(account, &generation, period, &name, object);
                let intent = match made.await {
                    Ok(Some(intent)) => intent,
                    // Refused, or nothing to charge: it did not take place, and never will.
                    Ok(None) => {
                        worked.declined += 1;
                        return self.declined(account, None, attempt, true, now).await;
                    }
                    Err(error) => return self.put_off(account, error, now).await,
                };
                let id = intent.as_str().to_owned();
                let payable = Payable {
                    object: id.clone(),
                    account_number: account.number.clone(),
                    buys: Buys::Period {
                        generation: generation.clone(),
                        period,
                    },
                    amount_cents: PRICE_CENTS,
                    asked_at: now,
                };
                let mut attempt = None;
                let stored = self.store.update(&account.id, None, now, |profile| {
                    let before = profile.clone();
                    attempt = profile.object_made(&generation, period, &id, now);
                    let is_new = *profile != before;
                    let payable = is_new.then(|| Effect::Payable(payable.clone()));
                    Ok::<_, std::convert::Infallible>(payable.into_iter().collect())
                });
                let account = &stored.await?;
                match attempt {
                    Some(attempt) => self.confirm(account, &id, attempt, now, worked).await,
                    None => Ok(()),
                }
            }
            Task::Confirm { id, attempt, .. } => {
                self.confirm(account, &id, attempt, now, worked).await
            }
            Task::LookUp { id, since } => {
                if now.duration_since(since) > TOO_LONG_UNKNOWN {
                    tracing::error!(object = id, %since, "the outcome of a payment is still not known");
                    edge::metric("charges_unknown_for_long", 1);
                }
                self.look_up(account, &id, now, worked).await
            }
            Task::Cancel { id } => self.cancel(account, &id, now, worked).await,
            Task::Close { session } => self.close(account, &session, now).await,
            Task::Post {
                generation,
                period,
                attempt,
            } => {
                match self.pay_period(account, &generation, period, now).await? {
                    CreditPayment::Paid => worked.charged += 1,
                    CreditPayment::NotOwed => {}
                    CreditPayment::Insufficient => {
                        worked.declined += 1;
                        self.declined(account, None, attempt, false, now).await?;
                    }
                }
                Ok(())
            }
        }
    }

    /// A payment object of the period, not confirmed. `None` if it can never be had.
    async fn create(
        &self,
        account: &Account,
        generation: &GenerationId,
        period: Period,
        name: &str,
        object: u32,
    ) -> Result<Option<IntentId>, ChargingError> {
        let billing = &account.profile.billing;
        let (Some(customer), Some(card)) = (&billing.customer, &billing.card) else {
            tracing::warn!("an account is due and has no card");
            return Ok(None);
        };
        let new = NewIntent {
            amount: Cents::new(PRICE_CENTS),
            customer: &CustomerId::new(customer.as_str())?,
            payment_method: &PaymentMethodId::new(card.payment_method.as_str())?,
            description: DESCRIPTION,
            account: &account.number,
            generation,
            period,
        };
        let key = if object > 1 {
            format!("{name}-create-{object}")
        } else {
            format!("{name}-create")
        };
        let secret = self.key().await?;
        match self.stripe.create_intent(&secret, &new, &key).await {
            Ok(intent) => Ok(Some(intent.id)),
            Err(error @ (PaymentError::Missing { .. } | PaymentError::Refused { .. })) => {
                edge::log_error(&error, "the provider makes no payment object");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the attempt that is written down as under way.
    async fn confirm(
        &self,
        account: &Account,
        id: &str,
        attempt: u32,
        now: Timestamp,
        worked: &mut Worked,
    ) -> Result<(), ChargingError> {
        let Some(charge) = account.profile.billing.charge.as_ref() else {
            return Ok(());
        };
        let Object::Confirming {
            card: Some(card), ..
        } = &charge.object
        else {
            return self.declined(account, Some(id), attempt, true, now).await;
        };
        let card = PaymentMethodId::new(card.as_str())?;
        let (generation, period) = (charge.generation.as_str(), charge.period.number());
        let name = format!("{}-{generation}-{period}-{attempt}", account.number);
        let confirmed = self
            .stripe
            .confirm_intent(&*self.key().await?, &IntentId::new(id)?, &card, &name)
            .await;
        let came = match confirmed {
            Ok(intent) => Attempt::of(intent),
            Err(error @ (PaymentError::Missing { .. } | PaymentError::Refused { .. })) => {
                edge::log_error(&error, "the provider does not charge the card");
                Attempt::Declined { no_more: true }
            }
            Err(error) => {
                edge::log_error(&error, "the outcome of a charge is not known");
                Attempt::Unknown
            }
        };
        // What was sent just now is not sent again before it was looked up.
        let came = match came {
            Attempt::NeverArrived => Attempt::Unknown,
            came => came,
        };
        self.take_in(account, id, attempt, came, now, worked).await
    }

    async fn look_up(
        &self,
        account: &Account,
        id: &str,
        now: Timestamp,
        worked: &mut Worked,
    ) -> Result<(), ChargingError> {
        let found = self
            .stripe
            .intent(&*self.key().await?, &IntentId::new(id)?)
            .await;
        let came = match found {
            Ok(intent) => Attempt::of(intent),
            Err(error) => {
                edge::log_error(&error, "a payment could not be looked up");
                Attempt::Unknown
            }
        };
        let charge = account.profile.billing.charge.as_ref();
        let attempt = charge.map_or(1, |charge| charge.declines.saturating_add(1));
        let came = match came {
            // It may be an earlier attempt that was declined, and this one never arrived: made again
            // under its number, it tells.
            Attempt::Declined { .. } if attempt > 1 => Attempt::NeverArrived,
            came => came,
        };
        if let Attempt::NeverArrived = came {
            let mut attempt = None;
            let account = self
                .change(&account.id, now, |profile| {
                    attempt = profile.never_confirmed(id, now);
                })
                .await?;
            return match attempt {
                Some(attempt) => self.confirm(&account, id, attempt, now, worked).await,
                None => Ok(()),
            };
        }
        self.take_in(account, id, attempt, came, now, worked).await
    }

    async fn cancel(
        &self,
        account: &Account,
        id: &str,
        now: Timestamp,
        worked: &mut Worked,
    ) -> Result<(), ChargingError> {
        let cancelled = self
            .stripe
            .cancel_intent(&*self.key().await?, &IntentId::new(id)?)
            .await;
        let came = match cancelled {
            Ok(intent) => Attempt::of(intent),
            Err(PaymentError::Missing { .. }) => Attempt::Gone,
            Err(error) => return self.put_off(account, error.into(), now).await,
        };
        match came {
            Attempt::Paid(_) | Attempt::Gone => {
                self.take_in(account, id, 0, came, now, worked).await
            }
            _ => {
                worked.unknown += 1;
                let later = now.saturating_add(AGAIN).unwrap_or(now);
                self.change(&account.id, now, |profile| profile.put_off(later))
                    .await
                    .map(drop)
            }
        }
    }

    /// Writes down what became of an attempt.
    async fn take_in(
        &self,
        account: &Account,
        id: &str,
        attempt: u32,
        came: Attempt,
        now: Timestamp,
        worked: &mut Worked,
    ) -> Result<(), ChargingError> {
        match came {
            Attempt::Paid(intent) => {
                // The webhook may have been faster.
                let news = self.heard_intent(&intent, now).await?;
                let counted = |heard: &Heard| heard.outcome == Outcome::Counted;
                worked.charged += u32::from(matches!(&news, News::Taken(heard) if counted(heard)));
                Ok(())
            }
            Attempt::Declined { no_more } => {
                worked.declined += 1;
                self.declined(account, Some(id), attempt, no_more, now)
                    .await
            }
            Attempt::Gone => self
                .change(&account.id, now, |profile| profile.object_gone(id))
                .await
                .map(drop),
            Attempt::NeverArrived | Attempt::Unknown => {
                worked.unknown += 1;
                self.change(&account.id, now, |profile| profile.still_unknown(id, now))
                    .await
                    .map(drop)
            }
        }
    }

    async fn declined(
        &self,
        account: &Account,
        id: Option<&str>,
        attempt: u32,
        no_more: bool,
        now: Timestamp,
    ) -> Result<(), ChargingError> {
        self.change(&account.id, now, |profile| {
            profile.declined(id, attempt, no_more, now, self.dunning());
        })
        .await
        .map(drop)
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
            .stripe
            .expire_checkout(&key, &SessionId::new(session)?)
            .await;
        let found = match found {
            Ok(found) => found,
            Err(PaymentError::Missing { .. }) => return self.closed(account, session, now).await,
            Err(error) => return self.put_off(account, error.into(), now).await,
        };
        if found.paid {
            self.heard_checkout(&found, now).await?;
            return Ok(());
        }
        match found.status {
            CheckoutStatus::Expired => self.closed(account, session, now).await,
            // Its money is on its way.
            _ => {
                let later = now.saturating_add(AGAIN).unwrap_or(now);
                self.change(&account.id, now, |profile| profile.put_off(later))
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
        self.change(&account.id, now, |profile| profile.checkout_closed(session))
            .await
            .map(drop)
    }

    /// The provider could not be asked: later again.
    async fn put_off(
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
        self.change(&account.id, now, |profile| profile.put_off(later))
            .await
            .map(drop)
    }

    pub(crate) async fn change(
        &self,
        id: &AccountId,
        now: Timestamp,
        mut change: impl FnMut(&mut Profile),
    ) -> Result<Account, ChargingError> {
        let changed = self.store.update(id, None, now, |profile| {
            change(profile);
            Ok::<_, std::convert::Infallible>(Vec::new())
        });
        Ok(changed.await?)
    }

    /// The object of the account's charge, as far as it is not done with.
    pub(crate) fn open_object(profile: &Profile) -> Option<&Object> {
        let charge = profile.billing.charge.as_ref()?;
        Some(&charge.object).filter(|object| **object != Object::None)
    }
}
