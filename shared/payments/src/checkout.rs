//! Checkout: Stripe's own page, on which a user pays or gives a card.

use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use crate::ids::{
    Cents, CustomerId, IntentId, InvoiceId, SessionId, SetupIntentId, SubscriptionId,
};
use crate::{Answer, CURRENCY, Form, PaymentError, Stripe, read};

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    Payment,
    Setup,
    Subscription,
    /// One that we do not make.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckoutStatus {
    /// It can still be paid.
    Open,
    /// The user is done; the money may still be on its way.
    Complete,
    Expired,
    Other,
}

/// A session as it stands. What the wire left out is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkout {
    pub id: SessionId,
    pub status: CheckoutStatus,
    /// The money is there; of a setup session: the user is done, and nothing was to be paid.
    pub paid: bool,
    pub mode: Mode,
    /// Where the user pays; only while the session is open.
    pub url: Option<String>,
    pub expires_at: Option<Timestamp>,
    /// In the smallest unit of `currency`.
    pub amount_total: Option<Cents>,
    /// In lower case, `usd`.
    pub currency: Option<String>,
    pub customer: Option<CustomerId>,
    pub intent: Option<IntentId>,
    pub subscription: Option<SubscriptionId>,
    /// The first one of the subscription.
    pub invoice: Option<InvoiceId>,
    pub setup_intent: Option<SetupIntentId>,
    pub livemode: Option<bool>,
    pub client_reference_id: Option<String>,
}

/// What is sold, once or each month.
#[derive(Debug, Clone, Copy)]
pub struct Price<'a> {
    /// The product's name, as the page and the receipt show it.
    pub product: &'a str,
    pub amount: Cents,
}

#[derive(Debug, Clone, Copy)]
pub enum Purpose<'a> {
    /// One payment. `keep_card`: the card is kept for charges in the user's absence, which needs a
    /// customer to keep it with.
    Payment { price: Price<'a>, keep_card: bool },
    /// A subscription that Stripe charges each month.
    Subscription { price: Price<'a> },
    /// A card is given, and nothing paid.
    Setup,
}

/// A session to be made. It takes cards only, because only cards are charged later.
#[derive(Debug, Clone, Copy)]
pub struct NewCheckout<'a> {
    pub purpose: Purpose<'a>,
    pub customer: Option<&'a CustomerId>,
    pub success_url: &'a Url,
    pub cancel_url: &'a Url,
    /// Ours, at most 200 letters, digits, `_` and `-`. It is a help for people; nothing is decided
    /// by it.
    pub client_reference_id: &'a str,
    /// From 30 minutes to 24 hours after the session is made.
    pub expires_at: Timestamp,
}

impl Stripe {
    /// Makes a session.
    ///
    /// # Errors
    /// [`PaymentError`].
    pub async fn create_checkout(
        &self,
        key: &SecretString,
        new: &NewCheckout<'_>,
        idempotency: &str,
    ) -> Result<Checkout, PaymentError> {
        let made = self.post(key, "/v1/checkout/sessions", new.form(), Some(idempotency));
        of(&made.await?.done()?)
    }

    /// Looks a session up.
    ///
    /// # Errors
    /// [`PaymentError`].
    pub async fn checkout(
        &self,
        key: &SecretString,
        id: &SessionId,
    ) -> Result<Checkout, PaymentError> {
        let path = format!("/v1/checkout/sessions/{id}");
        of(&self.get(key, &path).await?.done()?)
    }

    /// Closes a session, so that it cannot be paid any more, and returns it as it then stands: it
    /// may have been paid before. Stripe refuses to expire a session that is not open, with a
    /// message and no code.
    ///
    /// # Errors
    /// [`PaymentError`].
    pub async fn expire_checkout(
        &self,
        key: &SecretString,
        id: &SessionId,
    ) -> Result<Checkout, PaymentError> {
        let path = format!("/v1/checkout/sessions/{id}/expire");
        match self.post(key, &path, Form::new(), None).await? {
            Answer::Done(session) => of(&session),
            Answer::Refused(_) => {
                let found = self.checkout(key, id).await;
                found.map_err(PaymentError::after_a_call)
            }
        }
    }
}

fn of(session: &Value) -> Result<Checkout, PaymentError> {
    Checkout::read(session).ok_or_else(PaymentError::unreadable)
}

impl NewCheckout<'_> {
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
        // The price is in dollars for everybody, whatever the Dashboard says.
        push("adaptive_pricing[enabled]", "false");
        let amount = price.amount.get().to_string();
        push("line_items[0][quantity]", "1");
        push("line_items[0][price_data][currency]", CURRENCY);
        push("line_items[0][price_data][unit_amount]", &amount);
        push(
            "line_items[0][price_data][product_data][name]",
            price.product,
        );
        form
    }
}

impl Checkout {
    /// `None` without an id.
    pub(crate) fn read(session: &Value) -> Option<Self> {
        let mode = match read::text(session, "mode") {
            Some("payment") => Mode::Payment,
            Some("setup") => Mode::Setup,
            Some("subscription") => Mode::Subscription,
            _ => Mode::Other,
        };
        let status = match read::text(session, "status") {
            Some("open") => CheckoutStatus::Open,
            Some("complete") => CheckoutStatus::Complete,
            Some("expired") => CheckoutStatus::Expired,
            _ => CheckoutStatus::Other,
        };
        let paid = match read::text(session, "payment_status") {
            Some("paid") => true,
            // An open setup session says so, too.
            Some("no_payment_required") => {
                mode == Mode::Setup && status == CheckoutStatus::Complete
            }
            _ => false,
        };
        Some(Self {
            id: read::id(session, "id")?,
            status,
            paid,
            mode,
            url: read::owned(session, "url"),
            expires_at: read::time(session, "expires_at"),
            amount_total: read::cents(session, "amount_total"),
            currency: read::owned(session, "currency"),
            customer: read::id(session, "customer"),
            intent: read::id(session, "payment_intent"),
            subscription: read::id(session, "subscription"),
            invoice: read::id(session, "invoice"),
            setup_intent: read::id(session, "setup_intent"),
            livemode: read::flag(session, "livemode"),
            client_reference_id: read::owned(session, "client_reference_id"),
        })
    }
}
