//! Attempts to charge a card: create, confirm, look up and cancel the period's PaymentIntent.
//!
//! Invariant: an attempt is stored as under way before it is sent, and the attempt number grows
//! only after a known decline.

use std::fmt::Write as _;

use account::add_on::GenerationId;
use account::billing::{IntentState, PRICE_CENTS};
use account::{Account, Period, Profile};
use payments::{
    Cents, CustomerId, IntentId, IntentStatus, NewIntent, PaymentError, PaymentIntent,
    PaymentMethodId,
};
use store::{Effect, Outcome, PaymentOrder, Purchase};

use crate::apply::apply_intent;
use crate::error::{ChargingError, Result};
use crate::outcome::PaymentUpdate;
use crate::worker::{RETRY_DELAY, Worker};

/// The text on the receipt.
const DESCRIPTION: &str = "Power your AI with OpenRouter";

enum Attempt {
    /// The payment succeeded.
    Paid(Box<PaymentIntent>),
    /// `is_final`: no further attempt can succeed.
    Declined { is_final: bool },
    /// The attempt did not take place.
    Failed(Failure),
    /// Stripe never received it.
    NeverArrived,
    /// The PaymentIntent can no longer be paid.
    Gone,
    /// The outcome is not known yet.
    Unknown,
}

/// Why an attempt did not take place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// Our request was wrong.
    Refused,
    /// The customer or the card no longer exists at Stripe.
    NoCard,
    /// Stripe only replays an earlier failure under this idempotency key.
    IdempotencyKeySpent,
}

impl From<PaymentIntent> for Attempt {
    fn from(intent: PaymentIntent) -> Self {
        match intent.status {
            IntentStatus::Succeeded => Self::Paid(Box::new(intent)),
            IntentStatus::RequiresPaymentMethod => {
                let decline = intent.decline;
                let is_final =
                    decline.is_some_and(|decline| decline.hard || decline.needs_authentication);
                Self::Declined { is_final }
            }
            // The cardholder is not present to act.
            IntentStatus::RequiresAction => Self::Declined { is_final: true },
            IntentStatus::RequiresConfirmation => Self::NeverArrived,
            IntentStatus::Canceled => Self::Gone,
            IntentStatus::Processing | IntentStatus::Other => Self::Unknown,
        }
    }
}

impl Attempt {
    fn of(called: Result<PaymentIntent, PaymentError>) -> Result<Self> {
        match called {
            Ok(intent) => Ok(intent.into()),
            // The request was not sent.
            Err(error @ (PaymentError::RateLimited { .. } | PaymentError::Key(_))) => {
                Err(error.into())
            }
            Err(error) => {
                edge::log_error(&error, "unknown outcome of a charge");
                edge::metric("charges_uncertain", 1);
                Ok(Self::Unknown)
            }
        }
    }
}

/// Whether the customer or the card no longer exists.
fn is_missing_card(error: &PaymentError) -> bool {
    error.is_missing("customer") || error.is_missing("payment_method")
}

impl Worker<'_> {
    /// Creates the period's PaymentIntent with this number, and confirms it.
    pub(crate) async fn begin(
        &mut self,
        account: &Account,
        (generation, period): (&GenerationId, Period),
        number: u32,
    ) -> Result<()> {
        let intent = match self.create(account, generation, period, number).await? {
            Ok(intent) => intent,
            Err(failure) => return self.failed(account, None, failure).await,
        };
        let id = intent.as_str();
        let order = PaymentOrder {
            stripe_id: id.to_owned(),
            account_number: account.number.clone(),
            purchase: Purchase::Period { generation: generation.clone(), period },
            amount_cents: PRICE_CENTS,
            created_at: self.cx.now,
        };
        let (mut attempt, cx) = (None, self.cx);
        let store_intent = |profile: &mut Profile| {
            let before = profile.clone();
            attempt = billing::intent_created(profile, generation, period, id, cx.now);
            let is_new = *profile != before;
            let order = is_new.then(|| Effect::PaymentOrder(order.clone()));
            order.into_iter().collect()
        };
        let stored = cx.change_with_effects(&account.id, store_intent);
        let account = match stored.await {
            Ok(account) => account,
            Err(ChargingError::Gone) => {
                self.cancel_unstored(&intent).await;
                return Err(ChargingError::Gone);
            }
            Err(error) => return Err(error),
        };
        if let Some(attempt) = attempt {
            return self.confirm(&account, id, attempt).await;
        }
        if !account.profile.billing.open_payments().contains(&id.to_owned()) {
            self.cancel_unstored(&intent).await;
        }
        Ok(())
    }

    /// Creates a PaymentIntent without confirming it.
    async fn create(
        &self,
        account: &Account,
        generation: &GenerationId,
        period: Period,
        number: u32,
    ) -> Result<Result<IntentId, Failure>> {
        let billing = &account.profile.billing;
        let (Some(customer), Some(card)) = (&billing.customer, &billing.card) else {
            tracing::warn!("a due account has no card");
            return Ok(Err(Failure::NoCard));
        };
        let card = card.payment_method.as_str();
        let new = NewIntent {
            amount: Cents::new(PRICE_CENTS),
            customer: &CustomerId::new(customer.as_str())?,
            payment_method: &PaymentMethodId::new(card)?,
            description: DESCRIPTION,
            account: &account.number,
            generation,
            period,
        };
        let (generation, period) = (generation.as_str(), period.number());
        let mut key = format!("{}-{generation}-{period}-create", account.number);
        if number > 1 {
            let _ = write!(key, "-{number}");
        }
        match self.cx.stripe.create_intent(&new, &key).await {
            Ok(intent) => Ok(Ok(intent.id)),
            Err(error) if error.is_idempotency_key_spent() => Ok(Err(Failure::IdempotencyKeySpent)),
            Err(error @ (PaymentError::Missing { .. } | PaymentError::Refused { .. })) => {
                Ok(Err(self.why_refused(account, card, &error).await))
            }
            Err(error) => {
                edge::metric("charges_uncertain", 1);
                Err(error.into())
            }
        }
    }

    /// Why Stripe refused to charge `card`: the card is gone, or our request is wrong.
    async fn why_refused(&self, account: &Account, card: &str, error: &PaymentError) -> Failure {
        let customer = account.profile.billing.customer.as_deref().map(CustomerId::new);
        let is_gone = match (customer, PaymentMethodId::new(card)) {
            _ if is_missing_card(error) => true,
            (Some(Ok(customer)), Ok(card)) => {
                let is_ours = self.cx.stripe.is_card_of(&card, &customer).await;
                matches!(is_ours, Ok(false))
            }
            _ => true,
        };
        if is_gone {
            edge::log_error(error, "a due account's card no longer exists at Stripe");
            return Failure::NoCard;
        }
        edge::log_error(error, "Stripe refused a charge without asking the bank");
        edge::metric("charges_refused", 1);
        Failure::Refused
    }

    /// Makes the attempt that is stored as under way.
    pub(crate) async fn confirm(
        &mut self,
        account: &Account,
        id: &str,
        attempt: u32,
    ) -> Result<()> {
        let Some(charge) = account.profile.billing.charge.as_ref() else {
            return Ok(());
        };
        let IntentState::Confirming { card: Some(card), .. } = &charge.intent else {
            return self.apply(account, id, attempt, Attempt::Failed(Failure::NoCard)).await;
        };
        let (generation, period) = (charge.generation.as_str(), charge.period.number());
        let mut key = format!("{}-{generation}-{period}-{attempt}", account.number);
        if charge.intents > 1 {
            // Stripe accepts an idempotency key for one PaymentIntent only.
            let _ = write!(key, "-object-{}", charge.intents);
        }
        let payment_method = PaymentMethodId::new(card.as_str())?;
        let (stripe, intent) = (&self.cx.stripe, IntentId::new(id)?);
        let outcome = match stripe.confirm_intent(&intent, &payment_method, &key).await {
            Err(error) if error.is_idempotency_key_spent() => {
                edge::log_error(&error, "Stripe replayed an earlier failure of a charge");
                Attempt::Failed(Failure::IdempotencyKeySpent)
            }
            Err(error @ PaymentError::Missing { .. }) if !is_missing_card(&error) => {
                edge::log_error(&error, "a PaymentIntent no longer exists at Stripe");
                Attempt::Gone
            }
            Err(error @ (PaymentError::Missing { .. } | PaymentError::Refused { .. })) => {
                Attempt::Failed(self.why_refused(account, card, &error).await)
            }
            confirmed => match Attempt::of(confirmed)? {
                // The attempt was just sent: look it up before sending it again.
                Attempt::NeverArrived => Attempt::Unknown,
                outcome => outcome,
            },
        };
        self.apply(account, id, attempt, outcome).await
    }

    pub(crate) async fn look_up(&mut self, account: &Account, id: &str) -> Result<()> {
        let found = match self.cx.stripe.intent(&IntentId::new(id)?).await {
            Err(PaymentError::Missing { .. }) => return self.gone(account, id).await,
            found => found,
        };
        let charge = account.profile.billing.charge.as_ref();
        let attempt = charge.map_or(1, |charge| charge.declines.saturating_add(1));
        let outcome = match Attempt::of(found)? {
            // The decline may be an earlier attempt's, and this attempt may never have arrived.
            // Repeating it under the same number shows which.
            Attempt::Declined { .. } if attempt > 1 => Attempt::NeverArrived,
            outcome => outcome,
        };
        if !matches!(outcome, Attempt::NeverArrived) {
            return self.apply(account, id, attempt, outcome).await;
        }
        let (mut attempt, cx) = (None, self.cx);
        let never_arrived = |profile: &mut Profile| {
            attempt = billing::never_confirmed(profile, id, cx.now);
        };
        let account = cx.change(&account.id, never_arrived).await?;
        match attempt {
            Some(attempt) => self.confirm(&account, id, attempt).await,
            None => Ok(()),
        }
    }

    pub(crate) async fn cancel(&mut self, account: &Account, id: &str) -> Result<()> {
        let outcome = self.cancel_intent(id).await?;
        if let Attempt::Paid(_) | Attempt::Gone = outcome {
            return self.apply(account, id, 0, outcome).await;
        }
        self.report.unknown += 1;
        self.postpone(account, RETRY_DELAY).await
    }

    async fn apply(
        &mut self,
        account: &Account,
        id: &str,
        attempt: u32,
        outcome: Attempt,
    ) -> Result<()> {
        match outcome {
            Attempt::Paid(intent) => {
                let update = apply_intent(self.cx, &intent).await?;
                // Counted even if the webhook was faster: the payment is this attempt's.
                if let PaymentUpdate::Applied(applied) = update
                    && applied.outcome == Outcome::Counted
                {
                    self.report.charged += 1;
                }
                Ok(())
            }
            Attempt::Declined { is_final } => {
                self.report.declined += 1;
                self.declined(account, Some(id), attempt, is_final).await
            }
            Attempt::Gone => self.gone(account, id).await,
            // Until the PaymentIntent is cancelled, the request may still arrive.
            Attempt::Failed(failure) => match self.cancel_intent(id).await? {
                Attempt::Gone => self.failed(account, Some(id), failure).await,
                Attempt::Paid(intent) => {
                    Box::pin(self.apply(account, id, attempt, Attempt::Paid(intent))).await
                }
                _ => Box::pin(self.apply(account, id, attempt, Attempt::Unknown)).await,
            },
            Attempt::NeverArrived | Attempt::Unknown => {
                self.report.unknown += 1;
                let unknown = |profile: &mut Profile| {
                    billing::still_unknown(profile, id, self.cx.now);
                };
                self.cx.change(&account.id, unknown).await.map(drop)
            }
        }
    }

    /// Cancels the PaymentIntent. Returns its state afterwards.
    async fn cancel_intent(&self, id: &str) -> Result<Attempt> {
        match self.cx.stripe.cancel_intent(&IntentId::new(id)?).await {
            Err(PaymentError::Missing { .. }) => Ok(Attempt::Gone),
            cancelled => Ok(Attempt::from(cancelled?)),
        }
    }

    async fn gone(&self, account: &Account, id: &str) -> Result<()> {
        let gone = |profile: &mut Profile| billing::intent_cancelled(profile, id);
        self.cx.change(&account.id, gone).await.map(drop)
    }

    /// Stores that an attempt did not take place, and that its PaymentIntent `id`, if any, can no
    /// longer be paid.
    async fn failed(
        &mut self,
        account: &Account,
        id: Option<&str>,
        failure: Failure,
    ) -> Result<()> {
        let (now, dunning) = (self.cx.now, &self.cx.settings.dunning);
        let billing = &account.profile.billing;
        let card = match billing.charge.as_ref().map(|charge| &charge.intent) {
            Some(IntentState::Confirming { card, .. }) => card.clone(),
            _ => billing.payment_method(),
        };
        let retry_at = self.cx.later(RETRY_DELAY);
        match failure {
            Failure::NoCard => self.report.declined += 1,
            Failure::Refused | Failure::IdempotencyKeySpent => self.report.unknown += 1,
        }
        let failed = |profile: &mut Profile| match failure {
            Failure::Refused => billing::attempt_refused(profile, id, now, dunning),
            Failure::NoCard => billing::card_missing(profile, id, card.as_deref(), now),
            Failure::IdempotencyKeySpent => billing::retry_with_new_intent(profile, id, retry_at),
        };
        self.cx.change(&account.id, failed).await.map(drop)
    }

    pub(crate) async fn declined(
        &self,
        account: &Account,
        id: Option<&str>,
        attempt: u32,
        is_final: bool,
    ) -> Result<()> {
        let dunning = &self.cx.settings.dunning;
        let declined = |profile: &mut Profile| {
            billing::declined(profile, id, attempt, is_final, self.cx.now, dunning);
        };
        self.cx.change(&account.id, declined).await.map(drop)
    }

    /// If cancelling fails, the PaymentIntent may stay at Stripe: only we could confirm it.
    async fn cancel_unstored(&self, id: &IntentId) {
        if let Err(error) = self.cx.stripe.cancel_intent(id).await {
            edge::log_error(&error, "orphaned PaymentIntent left at Stripe");
        }
    }
}
