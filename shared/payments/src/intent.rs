//! PaymentIntents. Invariant: a charge is created first and confirmed afterwards, so that after any
//! lost response there is an id to look up.

use account::add_on::GenerationId;
use account::{AccountNumber, Period};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::client::{Decided, Stripe, parse};
use crate::decline::Decline;
use crate::error::PaymentError;
use crate::ids::{Cents, CustomerId, IntentId, PaymentMethodId, SetupIntentId};
use crate::read::{self, CURRENCY, Currency};

/// The charge, which shows when a PaymentIntent was paid, or why not.
const EXPAND: (&str, &str) = ("expand[]", "latest_charge");

/// Source: <https://docs.stripe.com/payments/paymentintents/lifecycle>.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntentStatus {
    /// The payment was declined, or never had a card.
    RequiresPaymentMethod,
    RequiresConfirmation,
    /// The cardholder has to act.
    RequiresAction,
    Processing,
    Succeeded,
    Canceled,
    #[default]
    #[serde(other)]
    Other,
}

/// A PaymentIntent in its current state. Fields that the response leaves out are absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentIntent {
    pub id: IntentId,
    pub status: IntentStatus,
    pub amount: Option<Cents>,
    pub amount_received: Option<Cents>,
    pub currency: Currency,
    pub customer: Option<CustomerId>,
    /// A decline removes it.
    pub payment_method: Option<PaymentMethodId>,
    pub livemode: Option<bool>,
    /// The time of the payment, by Stripe's clock; absent in events.
    pub paid_at: Option<Timestamp>,
    pub decline: Option<Decline>,
}

#[derive(Debug, Clone, Copy)]
pub struct NewIntent<'a> {
    pub amount: Cents,
    pub customer: &'a CustomerId,
    pub payment_method: &'a PaymentMethodId,
    /// The text on the receipt.
    pub description: &'a str,
    /// Metadata, for people who look at the Dashboard.
    pub account: &'a AccountNumber,
    pub generation: &'a GenerationId,
    pub period: Period,
}

impl Stripe {
    pub async fn create_intent(
        &self,
        new: &NewIntent<'_>,
        idempotency: &str,
    ) -> Result<PaymentIntent, PaymentError> {
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
        let created = self.post("/v1/payment_intents", form, Some(idempotency));
        created.await?.done(PaymentIntent::read)
    }

    pub async fn intent(&self, id: &IntentId) -> Result<PaymentIntent, PaymentError> {
        let (name, value) = EXPAND;
        let path = format!("/v1/payment_intents/{id}?{name}={value}");
        self.get(&path, PaymentIntent::read).await
    }

    /// Charges the card in the user's absence. A decline is a result: a PaymentIntent that says
    /// why. A PaymentIntent that can no longer be confirmed is looked up and returned.
    ///
    /// Stripe remembers the response by the idempotency key, a decline or a 500 included, for a day
    /// or longer (<https://docs.stripe.com/api/idempotent_requests>): the same key again is the
    /// same attempt, and its response shows the state of that time. After
    /// [`PaymentError::Unknown`] the card may have been charged.
    pub async fn confirm_intent(
        &self,
        id: &IntentId,
        payment_method: &PaymentMethodId,
        idempotency: &str,
    ) -> Result<PaymentIntent, PaymentError> {
        let path = format!("/v1/payment_intents/{id}/confirm");
        let form = vec![
            ("payment_method", payment_method.to_string()),
            ("off_session", "true".to_owned()),
            expand(),
        ];
        match self.post(&path, form, Some(idempotency)).await? {
            Decided::Done(intent) => parse(&intent, PaymentIntent::read),
            Decided::Refused(refusal) if refusal.is_decline() => {
                let declined = refusal.error.get("payment_intent");
                let declined = declined.and_then(PaymentIntent::read);
                let mut intent = match declined.filter(|intent| intent.id == *id) {
                    Some(intent) => intent,
                    None => self.intent_after_refusal(id).await?,
                };
                if intent.status != IntentStatus::Succeeded && intent.decline.is_none() {
                    intent.decline = Decline::read(&refusal.error);
                }
                Ok(intent)
            }
            Decided::Refused(refusal) if refusal.is("payment_intent_unexpected_state") => {
                self.intent_after_refusal(id).await
            }
            Decided::Refused(refusal) => Err(refusal.into()),
        }
    }

    /// Cancels a PaymentIntent, and returns its resulting state: it may have been paid or cancelled
    /// before, or belong to a session, which has to be expired instead
    /// (<https://docs.stripe.com/api/payment_intents/cancel>).
    pub async fn cancel_intent(&self, id: &IntentId) -> Result<PaymentIntent, PaymentError> {
        let path = format!("/v1/payment_intents/{id}/cancel");
        match self.post(&path, vec![expand()], None).await? {
            Decided::Done(intent) => parse(&intent, PaymentIntent::read),
            Decided::Refused(_) => self.intent_after_refusal(id).await,
        }
    }

    /// Whether this card can be charged for the customer: not once it is detached or deleted.
    pub async fn is_card_of(
        &self,
        card: &PaymentMethodId,
        customer: &CustomerId,
    ) -> Result<bool, PaymentError> {
        let path = format!("/v1/payment_methods/{card}");
        let owner = self.get(&path, |found| {
            let _: PaymentMethodId = read::id(found, "id")?;
            Some(read::id::<CustomerId>(found, "customer"))
        });
        match owner.await {
            Ok(owner) => Ok(owner.as_ref() == Some(customer)),
            Err(PaymentError::Missing { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn intent_after_refusal(&self, id: &IntentId) -> Result<PaymentIntent, PaymentError> {
        let found = self.intent(id).await;
        found.map_err(PaymentError::after_a_call)
    }

    /// The card that a setup session saved; `None` until then.
    pub async fn setup_intent(
        &self,
        id: &SetupIntentId,
    ) -> Result<Option<PaymentMethodId>, PaymentError> {
        let path = format!("/v1/setup_intents/{id}");
        self.get(&path, |found| {
            let _: SetupIntentId = read::id(found, "id")?;
            let is_done = read::text(found, "status") == Some("succeeded");
            Some(read::id(found, "payment_method").filter(|_| is_done))
        })
        .await
    }
}

fn expand() -> (&'static str, String) {
    let (name, value) = EXPAND;
    (name, value.to_owned())
}

impl PaymentIntent {
    pub(crate) fn read(intent: &Value) -> Option<Self> {
        let status = read::name(intent, "status");
        let charge = intent.get("latest_charge");
        let charge = charge.filter(|charge| {
            status == IntentStatus::Succeeded && read::text(charge, "status") == Some("succeeded")
        });
        Some(Self {
            id: read::id(intent, "id")?,
            status,
            amount: read::cents(intent, "amount"),
            amount_received: read::cents(intent, "amount_received"),
            currency: read::currency(intent),
            customer: read::id(intent, "customer"),
            payment_method: read::id(intent, "payment_method"),
            livemode: read::flag(intent, "livemode"),
            paid_at: charge.and_then(|charge| read::time(charge, "created")),
            decline: intent.get("last_payment_error").and_then(Decline::read),
        })
    }
}
