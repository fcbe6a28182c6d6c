//! Checkout Sessions: Stripe's own page, where a user pays or saves a card.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use crate::client::{Decided, Form, Stripe, parse};
use crate::error::PaymentError;
use crate::ids::{
    Cents, CustomerId, IntentId, InvoiceId, SessionId, SetupIntentId, SubscriptionId,
};
use crate::read::{self, CURRENCY, Currency};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionStatus {
    Open,
    /// The user is done; the money may still be on its way.
    Complete,
    Expired,
    #[default]
    #[serde(other)]
    Other,
}

/// A Checkout Session in its current state. Fields that the response leaves out are absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckoutSession {
    pub id: SessionId,
    pub status: SessionStatus,
    /// The money has arrived; for a setup session: the user is done, and nothing was to be paid.
    pub paid: bool,
    /// The page where the user pays; only while the session is open.
    pub url: Option<String>,
    pub expires_at: Option<Timestamp>,
    /// In the smallest unit of `currency`.
    pub amount_total: Option<Cents>,
    pub currency: Currency,
    pub customer: Option<CustomerId>,
    pub intent: Option<IntentId>,
    pub subscription: Option<SubscriptionId>,
    /// The subscription's first invoice.
    pub invoice: Option<InvoiceId>,
    pub setup_intent: Option<SetupIntentId>,
    pub livemode: Option<bool>,
}

/// A product and its price, paid once or each month.
#[derive(Debug, Clone, Copy)]
pub struct Price<'a> {
    /// The product's name, as the session and the receipt show it.
    pub product: &'a str,
    pub amount: Cents,
}

#[derive(Debug, Clone, Copy)]
pub enum Purpose<'a> {
    /// One payment. `keep_card` saves the card, for charges in the user's absence.
    Payment { price: Price<'a>, keep_card: bool },
    /// A subscription that Stripe charges each month.
    Subscription { price: Price<'a> },
    /// A card is saved, and nothing is paid.
    Setup,
}

/// A session to create. It accepts cards only, because only cards can be charged later.
#[derive(Debug, Clone, Copy)]
pub struct NewSession<'a> {
    pub purpose: Purpose<'a>,
    pub customer: Option<&'a CustomerId>,
    pub success_url: &'a Url,
    pub cancel_url: &'a Url,
    /// Our reference: at most 200 letters, digits, `_` and `-`. For people only; nothing reads it.
    pub client_reference_id: &'a str,
    /// From 30 minutes to 24 hours after the session is created.
    pub expires_at: Timestamp,
}

impl Stripe {
    pub async fn create_session(
        &self,
        new: &NewSession<'_>,
        idempotency: &str,
    ) -> Result<CheckoutSession, PaymentError> {
        let created = self.post("/v1/checkout/sessions", new.form(), Some(idempotency));
        created.await?.done(CheckoutSession::read)
    }

    pub async fn session(&self, id: &SessionId) -> Result<CheckoutSession, PaymentError> {
        let path = format!("/v1/checkout/sessions/{id}");
        self.get(&path, CheckoutSession::read).await
    }

    /// Closes a session, and returns its state afterwards: it may have been paid before. Stripe
    /// refuses to expire a session that is not open, with a message and no code.
    pub async fn expire_session(&self, id: &SessionId) -> Result<CheckoutSession, PaymentError> {
        let path = format!("/v1/checkout/sessions/{id}/expire");
        match self.post(&path, Form::new(), None).await? {
            Decided::Done(session) => parse(&session, CheckoutSession::read),
            Decided::Refused(_) => {
                let found = self.session(id).await;
                found.map_err(PaymentError::after_a_call)
            }
        }
    }
}

impl NewSession<'_> {
    fn form(&self) -> Form {
        let mut form = vec![
            ("success_url", self.success_url.to_string()),
            ("cancel_url", self.cancel_url.to_string()),
            ("client_reference_id", self.client_reference_id.to_owned()),
            ("expires_at", self.expires_at.as_second().to_string()),
            ("payment_method_types[]", "card".to_owned()),
        ];
        if let Some(customer) = self.customer {
            form.push(("customer", customer.to_string()));
        }
        let mut push = |name, value: &str| form.push((name, value.to_owned()));
        let price = match self.purpose {
            Purpose::Payment { price, keep_card } => {
                push("mode", "payment");
                if keep_card {
                    push("payment_intent_data[setup_future_usage]", "off_session");
                }
                price
            }
            Purpose::Subscription { price } => {
                push("mode", "subscription");
                push("line_items[0][price_data][recurring][interval]", "month");
                price
            }
            Purpose::Setup => {
                push("mode", "setup");
                push("currency", CURRENCY);
                return form;
            }
        };
        // The price is in dollars for all customers, whatever the Dashboard says.
        push("adaptive_pricing[enabled]", "false");
        let amount = price.amount.get().to_string();
        push("line_items[0][quantity]", "1");
        push("line_items[0][price_data][currency]", CURRENCY);
        push("line_items[0][price_data][unit_amount]", &amount);
        push("line_items[0][price_data][product_data][name]", price.product);
        form
    }
}

impl CheckoutSession {
    pub(crate) fn read(session: &Value) -> Option<Self> {
        let status = read::name(session, "status");
        let paid = match read::text(session, "payment_status") {
            Some("paid") => true,
            // An open setup session also has this status.
            Some("no_payment_required") => {
                read::text(session, "mode") == Some("setup") && status == SessionStatus::Complete
            }
            _ => false,
        };
        Some(Self {
            id: read::id(session, "id")?,
            status,
            paid,
            url: read::owned(session, "url"),
            expires_at: read::time(session, "expires_at"),
            amount_total: read::cents(session, "amount_total"),
            currency: read::currency(session),
            customer: read::id(session, "customer"),
            intent: read::id(session, "payment_intent"),
            subscription: read::id(session, "subscription"),
            invoice: read::id(session, "invoice"),
            setup_intent: read::id(session, "setup_intent"),
            livemode: read::flag(session, "livemode"),
        })
    }
}
