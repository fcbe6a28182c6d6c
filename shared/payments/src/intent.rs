//! Payment objects: made, confirmed, cancelled, looked up, paid back.
//!
//! Invariant: a charge is an object that is made first and confirmed afterwards, so that after any
//! lost answer there is an id to look up.

use account::add_on::GenerationId;
use account::{AccountNumber, Period};
use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::{Cents, CustomerId, IntentId, PaymentMethodId, SetupIntentId};
use crate::{Answer, CURRENCY, Decline, PaymentError, Refusal, Stripe, read};

/// Tells when it was paid, and why it was not.
const EXPAND: (&str, &str) = ("expand[]", "latest_charge");

/// Source: <https://docs.stripe.com/payments/paymentintents/lifecycle>.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntentStatus {
    /// It was declined, or never had a card.
    RequiresPaymentMethod,
    /// Nobody has confirmed it yet.
    RequiresConfirmation,
    /// The cardholder has to act.
    RequiresAction,
    /// The outcome is not known yet.
    Processing,
    Succeeded,
    Canceled,
    Other,
}

/// A payment object as it stands. What the wire left out is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    pub id: IntentId,
    pub status: IntentStatus,
    pub amount: Option<Cents>,
    pub amount_received: Option<Cents>,
    /// In lower case, `usd`.
    pub currency: Option<String>,
    pub customer: Option<CustomerId>,
    /// A decline takes the card off the object.
    pub payment_method: Option<PaymentMethodId>,
    pub livemode: Option<bool>,
    /// When it was paid, by Stripe's clock. An event does not tell; a look-up does.
    pub paid_at: Option<Timestamp>,
    /// Why the latest attempt failed.
    pub decline: Option<Decline>,
}

/// A charge to be made, of a kept card.
#[derive(Debug, Clone, Copy)]
pub struct NewIntent<'a> {
    pub amount: Cents,
    pub customer: &'a CustomerId,
    pub payment_method: &'a PaymentMethodId,
    /// Shown on the receipt.
    pub description: &'a str,
    /// What it is for; metadata, for people who look at the Dashboard.
    pub account: &'a AccountNumber,
    pub generation: &'a GenerationId,
    pub period: Period,
}

/// What became of a refund.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refund {
    /// The money is on its way back.
    Made,
    /// All of it was paid back before.
    AlreadyMade,
    /// It cannot be paid back this way: somebody has to look.
    Failed,
}

impl Stripe {
    /// Makes a payment object without confirming it: nothing is charged.
    ///
    /// # Errors
    /// [`PaymentError`].
    pub async fn create_intent(
        &self,
        key: &SecretString,
        new: &NewIntent<'_>,
        idempotency: &str,
    ) -> Result<Intent, PaymentError> {
        let form = vec![
            ("amount", new.amount.get().to_string()),
            ("currency", CURRENCY.to_owned()),
            ("customer", new.customer.to_string()),
            ("payment_method", new.payment_method.to_string()),
            ("payment_method_types[]", "card".to_owned()),
            ("description", new.description.to_owned()),
            ("metadata[account]", new.account.to_string()),
            ("metadata[generation]", new.generation.as_str().to_owned()),
            ("metadata[period]", new.period.number().to_string()),
            expand(),
        ];
        let made = self.post(key, "/v1/payment_intents", form, Some(idempotency));
        of(&made.await?.done()?)
    }

    /// Looks a payment object up.
    ///
    /// # Errors
    /// [`PaymentError`].
    pub async fn intent(&self, key: &SecretString, id: &IntentId) -> Result<Intent, PaymentError> {
        let (name, value) = EXPAND;
        let path = format!("/v1/payment_intents/{id}?{name}={value}");
        of(&self.get(key, &path).await?.done()?)
    }

    /// Charges the card in the user's absence. A decline is a result: an intent that says why. So is
    /// an object that cannot be confirmed any more: it is looked up and returned as it stands.
    ///
    /// Stripe remembers the answer by the idempotency key, a decline or a 500 included, for a day or
    /// longer (<https://docs.stripe.com/api/idempotent_requests>): the same key again is the same
    /// attempt, and its answer tells how the object stood then.
    ///
    /// # Errors
    /// [`PaymentError`]; after [`PaymentError::Unknown`] the card may have been charged.
    pub async fn confirm_intent(
        &self,
        key: &SecretString,
        id: &IntentId,
        payment_method: &PaymentMethodId,
        idempotency: &str,
    ) -> Result<Intent, PaymentError> {
        let path = format!("/v1/payment_intents/{id}/confirm");
        let form = vec![
            ("payment_method", payment_method.to_string()),
            ("off_session", "true".to_owned()),
            expand(),
        ];
        match self.post(key, &path, form, Some(idempotency)).await? {
            Answer::Done(intent) => of(&intent),
            Answer::Refused(refusal) if refusal.is_decline() => {
                let told = refusal.error.get("payment_intent").and_then(Intent::read);
                let mut intent = match told.filter(|intent| intent.id == *id) {
                    Some(intent) => intent,
                    None => self.intent_as_it_stands(key, id).await?,
                };
                if intent.status != IntentStatus::Succeeded && intent.decline.is_none() {
                    intent.decline = Decline::read(&refusal.error);
                }
                Ok(intent)
            }
            Answer::Refused(refusal) if refusal.is("payment_intent_unexpected_state") => {
                self.intent_as_it_stands(key, id).await
            }
            Answer::Refused(refusal) => Err(refusal.into()),
        }
    }

    /// Cancels a payment object that was not paid, and returns it as it then stands: it may have
    /// been paid or cancelled before, or belong to a session, which is to be expired instead
    /// (<https://docs.stripe.com/api/payment_intents/cancel>).
    ///
    /// # Errors
    /// [`PaymentError`].
    pub async fn cancel_intent(
        &self,
        key: &SecretString,
        id: &IntentId,
    ) -> Result<Intent, PaymentError> {
        let path = format!("/v1/payment_intents/{id}/cancel");
        match self.post(key, &path, vec![expand()], None).await? {
            Answer::Done(intent) => of(&intent),
            Answer::Refused(_) => self.intent_as_it_stands(key, id).await,
        }
    }

    /// After a refusal: whatever goes wrong now, the call before it did arrive.
    async fn intent_as_it_stands(
        &self,
        key: &SecretString,
        id: &IntentId,
    ) -> Result<Intent, PaymentError> {
        let found = self.intent(key, id).await;
        found.map_err(PaymentError::after_a_call)
    }

    /// The card that a setup session kept; `None` until it is done.
    ///
    /// # Errors
    /// [`PaymentError`].
    pub async fn setup_intent(
        &self,
        key: &SecretString,
        id: &SetupIntentId,
    ) -> Result<Option<PaymentMethodId>, PaymentError> {
        let path = format!("/v1/setup_intents/{id}");
        let found = self.get(key, &path).await?.done()?;
        let _: SetupIntentId = read::id(&found, "id").ok_or_else(PaymentError::unreadable)?;
        let is_done = read::text(&found, "status") == Some("succeeded");
        Ok(read::id(&found, "payment_method").filter(|_| is_done))
    }

    /// Pays back what is left of a payment.
    ///
    /// # Errors
    /// [`PaymentError`]; a charge under dispute is refused with the code `charge_disputed`.
    pub async fn refund(
        &self,
        key: &SecretString,
        intent: &IntentId,
        idempotency: &str,
    ) -> Result<Refund, PaymentError> {
        let form = vec![("payment_intent", intent.to_string())];
        match self
            .post(key, "/v1/refunds", form, Some(idempotency))
            .await?
        {
            Answer::Done(refund) => match read::text(&refund, "status") {
                Some("succeeded" | "pending" | "requires_action") => Ok(Refund::Made),
                Some("failed" | "canceled") => Ok(Refund::Failed),
                _ => Err(PaymentError::unreadable()),
            },
            Answer::Refused(refusal) => already_refunded(refusal),
        }
    }
}

fn already_refunded(refusal: Refusal) -> Result<Refund, PaymentError> {
    if refusal.is("charge_already_refunded") {
        Ok(Refund::AlreadyMade)
    } else {
        Err(refusal.into())
    }
}

fn expand() -> (&'static str, String) {
    let (name, value) = EXPAND;
    (name, value.to_owned())
}

fn of(intent: &Value) -> Result<Intent, PaymentError> {
    Intent::read(intent).ok_or_else(PaymentError::unreadable)
}

impl Intent {
    /// `None` without an id.
    pub(crate) fn read(intent: &Value) -> Option<Self> {
        let status = match read::text(intent, "status") {
            Some("requires_payment_method") => IntentStatus::RequiresPaymentMethod,
            Some("requires_confirmation") => IntentStatus::RequiresConfirmation,
            Some("requires_action") => IntentStatus::RequiresAction,
            Some("processing") => IntentStatus::Processing,
            Some("succeeded") => IntentStatus::Succeeded,
            Some("canceled") => IntentStatus::Canceled,
            _ => IntentStatus::Other,
        };
        let charge = intent.get("latest_charge");
        let charge = charge.filter(|charge| {
            status == IntentStatus::Succeeded && read::text(charge, "status") == Some("succeeded")
        });
        Some(Self {
            id: read::id(intent, "id")?,
            status,
            amount: read::cents(intent, "amount"),
            amount_received: read::cents(intent, "amount_received"),
            currency: read::owned(intent, "currency"),
            customer: read::id(intent, "customer"),
            payment_method: read::id(intent, "payment_method"),
            livemode: read::flag(intent, "livemode"),
            paid_at: charge.and_then(|charge| read::time(charge, "created")),
            decline: intent.get("last_payment_error").and_then(Decline::read),
        })
    }
}
