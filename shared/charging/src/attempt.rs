//! An attempt to charge a card: the payment object of the period is made, confirmed, looked up and called
//! off.
//!
//! Invariant: an attempt is written down as under way before it is sent, and its number grows only by a
//! known decline.

use std::fmt::Write as _;

use account::billing::{IntentState, PRICE_CENTS};
use account::{Account, Period, add_on::GenerationId};
use jiff::Timestamp;
use payments::{
    Cents, CustomerId, Intent, IntentId, IntentStatus, NewIntent, PaymentError, PaymentMethodId,
};
use store::{Applied, Effect, Outcome, PaymentOrder, Purchase, UpdateError};

use crate::rate_limit::RequestKind;
use crate::run_due::{AGAIN, ChargeReport};
use crate::{Charging, ChargingError, PaymentUpdate};

/// Shown on the receipt.
const DESCRIPTION: &str = "Power your AI with OpenRouter";

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
    /// Makes the payment object of a period, the `object`-th, and confirms it.
    pub(crate) async fn begin(
        &self,
        account: &Account,
        (generation, period): (&GenerationId, Period),
        object: u32,
        attempt: u32,
        now: Timestamp,
        report: &mut ChargeReport,
    ) -> Result<(), ChargingError> {
        let made = self.create(account, generation, period, object);
        let intent = match made.await {
            Ok(Some(intent)) => intent,
            // Refused, or nothing to charge: it did not take place, and never will.
            Ok(None) => {
                report.declined += 1;
                return self.declined(account, None, attempt, true, now).await;
            }
            Err(error) => return self.put_off(account, error, now).await,
        };
        let id = intent.as_str().to_owned();
        let order = PaymentOrder {
            stripe_id: id.clone(),
            account_number: account.number.clone(),
            purchase: Purchase::Period {
                generation: generation.clone(),
                period,
            },
            amount_cents: PRICE_CENTS,
            created_at: now,
        };
        let mut attempt = None;
        let stored = self
            .store
            .accounts
            .update(&account.id, None, now, |profile| {
                let before = profile.clone();
                attempt = billing::intent_created(profile, generation, period, &id, now);
                let is_new = *profile != before;
                let order = is_new.then(|| Effect::PaymentOrder(order.clone()));
                Ok::<_, std::convert::Infallible>(order.into_iter().collect())
            });
        let account = match stored.await {
            Ok(account) => account,
            Err(UpdateError::NotFound) => {
                self.call_off_unwritten(&id).await;
                return Err(ChargingError::Gone);
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(attempt) = attempt {
            return self.confirm(&account, &id, attempt, now, report).await;
        }
        if !account.profile.billing.open_payments().contains(&id) {
            self.call_off_unwritten(&id).await;
        }
        Ok(())
    }

    /// A payment object of the period, not confirmed. `None` if it can never be had.
    async fn create(
        &self,
        account: &Account,
        generation: &GenerationId,
        period: Period,
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
        let (generation, period) = (generation.as_str(), period.number());
        let name = format!("{}-{generation}-{period}-create", account.number);
        let key = if object > 1 {
            format!("{name}-{object}")
        } else {
            name
        };
        let secret = self.key().await?;
        let stripe = self.ask(RequestKind::Create).await?;
        match stripe.create_intent(&secret, &new, &key).await {
            Ok(intent) => Ok(Some(intent.id)),
            Err(error @ (PaymentError::Missing { .. } | PaymentError::Refused { .. })) => {
                edge::log_error(&error, "the provider makes no payment object");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the attempt that is written down as under way.
    pub(crate) async fn confirm(
        &self,
        account: &Account,
        id: &str,
        attempt: u32,
        now: Timestamp,
        report: &mut ChargeReport,
    ) -> Result<(), ChargingError> {
        let Some(charge) = account.profile.billing.charge.as_ref() else {
            return Ok(());
        };
        let IntentState::Confirming {
            card: Some(card), ..
        } = &charge.intent
        else {
            return self.declined(account, Some(id), attempt, true, now).await;
        };
        let card = PaymentMethodId::new(card.as_str())?;
        let (generation, period) = (charge.generation.as_str(), charge.period.number());
        let mut name = format!("{}-{generation}-{period}-{attempt}", account.number);
        if charge.intents > 1 {
            // The provider takes a key for one object only.
            let _ = write!(name, "-object-{}", charge.intents);
        }
        let confirmed = self
            .ask(RequestKind::Confirm)
            .await?
            .confirm_intent(&*self.key().await?, &IntentId::new(id)?, &card, &name)
            .await;
        let came = match confirmed {
            Ok(intent) => Attempt::of(intent),
            Err(error @ (PaymentError::Missing { .. } | PaymentError::Refused { .. })) => {
                edge::log_error(&error, "the provider does not charge the card");
                Attempt::Declined { no_more: true }
            }
            Err(error @ PaymentError::RateLimited { .. }) => return Err(error.into()),
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
        self.take_in(account, id, attempt, came, now, report).await
    }

    pub(crate) async fn look_up(
        &self,
        account: &Account,
        id: &str,
        now: Timestamp,
        report: &mut ChargeReport,
    ) -> Result<(), ChargingError> {
        let found = self
            .ask(RequestKind::LookUp)
            .await?
            .intent(&*self.key().await?, &IntentId::new(id)?)
            .await;
        let came = match found {
            Ok(intent) => Attempt::of(intent),
            Err(error @ PaymentError::RateLimited { .. }) => return Err(error.into()),
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
                    attempt = billing::never_confirmed(profile, id, now);
                })
                .await?;
            return match attempt {
                Some(attempt) => self.confirm(&account, id, attempt, now, report).await,
                None => Ok(()),
            };
        }
        self.take_in(account, id, attempt, came, now, report).await
    }

    pub(crate) async fn cancel(
        &self,
        account: &Account,
        id: &str,
        now: Timestamp,
        report: &mut ChargeReport,
    ) -> Result<(), ChargingError> {
        let cancelled = self
            .ask(RequestKind::Other)
            .await?
            .cancel_intent(&*self.key().await?, &IntentId::new(id)?)
            .await;
        let came = match cancelled {
            Ok(intent) => Attempt::of(intent),
            Err(PaymentError::Missing { .. }) => Attempt::Gone,
            Err(error) => return self.put_off(account, error.into(), now).await,
        };
        match came {
            Attempt::Paid(_) | Attempt::Gone => {
                self.take_in(account, id, 0, came, now, report).await
            }
            _ => {
                report.unknown += 1;
                let later = now.saturating_add(AGAIN).unwrap_or(now);
                self.change(&account.id, now, |profile| {
                    billing::postpone(profile, later)
                })
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
        report: &mut ChargeReport,
    ) -> Result<(), ChargingError> {
        match came {
            Attempt::Paid(intent) => {
                // The webhook may have been faster.
                let news = self.apply_intent(&intent, now).await?;
                let counted = |applied: &Applied| applied.outcome == Outcome::Counted;
                report.charged +=
                    u32::from(matches!(&news, PaymentUpdate::Taken(applied) if counted(applied)));
                Ok(())
            }
            Attempt::Declined { no_more } => {
                report.declined += 1;
                self.declined(account, Some(id), attempt, no_more, now)
                    .await
            }
            Attempt::Gone => self
                .change(&account.id, now, |profile| {
                    billing::intent_cancelled(profile, id)
                })
                .await
                .map(drop),
            Attempt::NeverArrived | Attempt::Unknown => {
                report.unknown += 1;
                self.change(&account.id, now, |profile| {
                    billing::still_unknown(profile, id, now)
                })
                .await
                .map(drop)
            }
        }
    }

    pub(crate) async fn declined(
        &self,
        account: &Account,
        id: Option<&str>,
        attempt: u32,
        no_more: bool,
        now: Timestamp,
    ) -> Result<(), ChargingError> {
        self.change(&account.id, now, |profile| {
            billing::declined(profile, id, attempt, no_more, now, self.dunning());
        })
        .await
        .map(drop)
    }

    /// Nobody wants the object that was just made, and nothing is written down of it. If it cannot be
    /// cancelled it stays: nobody but us could confirm it.
    async fn call_off_unwritten(&self, id: &str) {
        let cancel = async {
            let (key, id) = (self.key().await?, IntentId::new(id)?);
            self.stripe.cancel_intent(&key, &id).await?;
            Ok::<_, ChargingError>(())
        };
        if let Err(error) = cancel.await {
            edge::log_error(&error, "a payment object that nobody wants is left");
        }
    }
}
