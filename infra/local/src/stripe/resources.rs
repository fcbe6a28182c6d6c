//! Stripe's resources, as the simulator keeps them and as API version [`API_VERSION`] shows them.
//!
//! In that version an invoice names its subscription under `parent`, a period belongs to a
//! subscription's item, and neither PaymentIntents nor charges name their invoice.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::second::{optional as optional_seconds, required as seconds};
use serde::Serialize;
use serde_json::{Value, json};

use super::card::{Card, decline_code, decline_message};

pub const API_VERSION: &str = "2025-03-31.basil";

pub(super) type Metadata = BTreeMap<String, String>;

/// A resource as the API shows it: its own fields, and `more`.
fn shown(object: &str, resource: &impl Serialize, more: Value) -> Value {
    let mut shown = serde_json::to_value(resource).expect("resources can be written as JSON");
    shown["object"] = object.into();
    if let (Value::Object(shown), Value::Object(more)) = (&mut shown, more) {
        shown.extend(more);
    }
    shown
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Customer {
    pub id: String,
    #[serde(with = "seconds")]
    pub created: Timestamp,
    pub email: Option<String>,
    pub name: Option<String>,
    pub metadata: Metadata,
    /// How the next attempts to charge the customer end, whichever card is charged.
    #[serde(skip)]
    pub script: VecDeque<Card>,
}

impl Customer {
    pub(super) fn json(&self) -> Value {
        shown("customer", self, Value::Null)
    }
}

#[derive(Debug, Serialize)]
pub(super) struct PaymentMethod {
    pub id: String,
    #[serde(with = "seconds")]
    pub created: Timestamp,
    /// Its owner. Without one it can never be charged again.
    pub customer: Option<String>,
    #[serde(skip)]
    pub card: Card,
}

impl PaymentMethod {
    pub(super) fn json(&self) -> Value {
        let card = json!({"brand": "visa", "last4": "4242", "exp_month": 12, "exp_year": 2099});
        shown("payment_method", self, json!({"type": "card", "card": card}))
    }
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum IntentStatus {
    #[default]
    RequiresPaymentMethod,
    RequiresConfirmation,
    RequiresAction,
    Processing,
    Succeeded,
    Canceled,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct PaymentIntent {
    pub id: String,
    #[serde(with = "seconds")]
    pub created: Timestamp,
    pub amount: i64,
    pub currency: String,
    pub customer: Option<String>,
    pub payment_method: Option<String>,
    pub metadata: Metadata,
    pub status: IntentStatus,
    pub latest_charge: Option<String>,
    #[serde(with = "optional_seconds")]
    pub canceled_at: Option<Timestamp>,
    /// The reason of the last decline, and the payment method that was declined.
    #[serde(skip)]
    pub last_decline: Option<(&'static str, String)>,
    /// The Checkout Session that it belongs to.
    #[serde(skip)]
    pub session: Option<String>,
    /// The invoice that it pays.
    #[serde(skip)]
    pub invoice: Option<String>,
    #[serde(skip)]
    pub keeps_method: bool,
}

impl PaymentIntent {
    pub(super) fn json(&self) -> Value {
        let succeeded = self.status == IntentStatus::Succeeded;
        let action = (self.status == IntentStatus::RequiresAction)
            .then(|| json!({"type": "use_stripe_sdk", "use_stripe_sdk": {}}));
        let last_error = self.last_decline.as_ref().map(|(reason, method)| {
            json!({
                "type": "card_error",
                "code": decline_code(reason),
                "decline_code": reason,
                "message": decline_message(reason),
                "payment_method": {"id": method, "object": "payment_method"},
            })
        });
        let more = json!({
            "amount_received": if succeeded { self.amount } else { 0 },
            "capture_method": "automatic",
            "client_secret": format!("{}_secret_simulated", self.id),
            "last_payment_error": last_error,
            "next_action": action,
            "payment_method_types": ["card"],
            "setup_future_usage": self.keeps_method.then_some("off_session"),
        });
        shown("payment_intent", self, more)
    }
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Charge {
    pub id: String,
    #[serde(with = "seconds")]
    pub created: Timestamp,
    pub payment_intent: String,
    pub payment_method: String,
    pub amount: i64,
    #[serde(rename = "amount_refunded")]
    pub refunded: i64,
    pub disputed: bool,
    /// Why it failed.
    #[serde(skip)]
    pub failure: Option<&'static str>,
}

impl Charge {
    /// With the fields that it takes from its PaymentIntent.
    pub(super) fn json(&self, intent: &PaymentIntent) -> Value {
        let paid = self.failure.is_none();
        let more = json!({
            "amount_captured": if paid { self.amount } else { 0 },
            "captured": paid,
            "currency": intent.currency,
            "customer": intent.customer,
            "failure_code": self.failure.map(decline_code),
            "failure_message": self.failure.map(decline_message),
            "metadata": intent.metadata,
            "paid": paid,
            "refunded": paid && self.refunded == self.amount,
            "status": if paid { "succeeded" } else { "failed" },
        });
        shown("charge", self, more)
    }
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mode {
    #[default]
    Payment,
    Subscription,
    Setup,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SessionStatus {
    #[default]
    Open,
    Complete,
    Expired,
}

#[derive(Debug, Default, Clone, Serialize)]
pub(super) struct Session {
    pub id: String,
    #[serde(with = "seconds")]
    pub created: Timestamp,
    pub mode: Mode,
    pub status: SessionStatus,
    #[serde(with = "seconds")]
    pub expires_at: Timestamp,
    #[serde(rename = "amount_total")]
    pub amount: Option<i64>,
    pub currency: Option<String>,
    pub customer: Option<String>,
    #[serde(rename = "customer_email")]
    pub email: Option<String>,
    pub success_url: String,
    pub cancel_url: Option<String>,
    pub client_reference_id: Option<String>,
    pub metadata: Metadata,
    pub subscription: Option<String>,
    pub invoice: Option<String>,
    pub setup_intent: Option<String>,
    #[serde(skip)]
    pub payment_intent: Option<String>,
    #[serde(skip)]
    pub paid: bool,
    /// The product's name on the page.
    #[serde(skip)]
    pub product: String,
    /// The metadata of the PaymentIntent, SetupIntent or subscription that results.
    #[serde(skip)]
    pub inner_metadata: Metadata,
    #[serde(skip)]
    pub keeps_method: bool,
    #[serde(skip)]
    pub makes_customer: bool,
}

impl Session {
    pub(super) fn is_open(&self) -> bool {
        self.status == SessionStatus::Open
    }

    /// Where the browser goes after the payment.
    pub(super) fn return_url(&self) -> String {
        self.success_url.replace("{CHECKOUT_SESSION_ID}", &self.id)
    }

    pub(super) fn json(&self, base_url: &str) -> Value {
        let intent = self.payment_intent.as_ref();
        let payment_status = match (self.mode, self.paid) {
            (Mode::Setup, _) => "no_payment_required",
            (_, true) => "paid",
            (_, false) => "unpaid",
        };
        let more = json!({
            "amount_subtotal": self.amount,
            "payment_intent": intent.filter(|_| self.mode == Mode::Payment),
            "payment_method_types": ["card"],
            "payment_status": payment_status,
            "url": self.is_open().then(|| format!("{base_url}/checkout/{}", self.id)),
        });
        shown("checkout.session", self, more)
    }
}

/// Always succeeded: it results from a completed session.
#[derive(Debug, Serialize)]
pub(super) struct SetupIntent {
    pub id: String,
    #[serde(with = "seconds")]
    pub created: Timestamp,
    pub customer: Option<String>,
    pub payment_method: String,
    pub metadata: Metadata,
}

impl SetupIntent {
    pub(super) fn json(&self) -> Value {
        let more = json!({"status": "succeeded", "usage": "off_session"});
        shown("setup_intent", self, more)
    }
}

#[derive(Debug, Default, Clone, Serialize)]
pub(super) struct Subscription {
    pub id: String,
    /// The start of the first period; period n ends n months after it.
    #[serde(rename = "billing_cycle_anchor", with = "seconds")]
    pub anchor: Timestamp,
    pub currency: String,
    pub customer: String,
    #[serde(rename = "default_payment_method")]
    pub method: String,
    pub metadata: Metadata,
    pub cancel_at_period_end: bool,
    #[serde(with = "optional_seconds")]
    pub canceled_at: Option<Timestamp>,
    pub latest_invoice: String,
    /// The last invoiced period, counted from 1.
    #[serde(skip)]
    pub period: i32,
    #[serde(skip)]
    pub amount: i64,
    #[serde(skip)]
    pub past_due: bool,
    /// A subscription schedule made in the dashboard decides when it ends.
    #[serde(skip)]
    pub scheduled: bool,
}

impl Subscription {
    pub(super) fn end_of_period(&self, n: i32) -> Timestamp {
        let anchor = self.anchor.to_zoned(jiff::tz::TimeZone::UTC);
        let months = jiff::Span::new().months(n);
        anchor.saturating_add(months).timestamp()
    }

    pub(super) fn is_running(&self) -> bool {
        self.canceled_at.is_none()
    }

    pub(super) fn json(&self) -> Value {
        let status = match (self.is_running(), self.past_due) {
            (false, _) => "canceled",
            (true, true) => "past_due",
            (true, false) => "active",
        };
        let item = json!({
            "id": format!("si_{}", self.id),
            "object": "subscription_item",
            "current_period_start": self.end_of_period(self.period - 1).as_second(),
            "current_period_end": self.end_of_period(self.period).as_second(),
            "price": {
                "object": "price",
                "currency": self.currency,
                "unit_amount": self.amount,
                "recurring": {"interval": "month", "interval_count": 1},
            },
            "quantity": 1,
            "subscription": self.id,
        });
        let more = json!({
            "collection_method": "charge_automatically",
            "created": self.anchor.as_second(),
            "ended_at": self.canceled_at.map(Timestamp::as_second),
            "items": list(vec![item]),
            "start_date": self.anchor.as_second(),
            "status": status,
        });
        shown("subscription", self, more)
    }
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Invoice {
    pub id: String,
    #[serde(with = "seconds")]
    pub created: Timestamp,
    #[serde(rename = "attempt_count")]
    pub attempts: u32,
    /// A draft is finalized without being asked to.
    pub auto_advance: bool,
    #[serde(skip)]
    pub subscription: String,
    #[serde(skip)]
    pub period: i32,
    #[serde(skip)]
    pub payment_intent: String,
    #[serde(skip)]
    pub paid_at: Option<Timestamp>,
    #[serde(skip)]
    pub void: bool,
    #[serde(skip)]
    pub draft: bool,
}

impl Invoice {
    /// Can it be paid?
    pub(super) fn is_open(&self) -> bool {
        self.paid_at.is_none() && !self.void && !self.draft
    }

    /// With the fields that it takes from its subscription. Its page is below `base_url`.
    pub(super) fn json(&self, of: &Subscription, base_url: &str) -> Value {
        let paid = self.paid_at.is_some();
        let amount_paid = if paid { of.amount } else { 0 };
        let first = self.period == 1;
        let line = json!({
            "object": "line_item",
            "amount": of.amount,
            "currency": of.currency,
            "parent": {
                "type": "subscription_item_details",
                "subscription_item_details": {"subscription": of.id},
            },
            "period": {
                "start": of.end_of_period(self.period - 1).as_second(),
                "end": of.end_of_period(self.period).as_second(),
            },
        });
        let more = json!({
            "amount_due": of.amount,
            "amount_paid": amount_paid,
            "amount_remaining": of.amount - amount_paid,
            "attempted": true,
            "billing_reason": if first { "subscription_create" } else { "subscription_cycle" },
            "currency": of.currency,
            "customer": of.customer,
            "hosted_invoice_url": format!("{base_url}/invoice/{}", self.id),
            "lines": list(vec![line]),
            "metadata": {},
            "parent": {
                "type": "subscription_details",
                "subscription_details": {"subscription": of.id, "metadata": of.metadata},
            },
            "subtotal": of.amount,
            "status": match (paid, self.void, self.draft) {
                (true, ..) => "paid",
                (_, true, _) => "void",
                (_, _, true) => "draft",
                _ => "open",
            },
            "status_transitions": {"paid_at": self.paid_at.map(Timestamp::as_second)},
            "total": of.amount,
        });
        shown("invoice", self, more)
    }

    /// The link between the invoice and the PaymentIntent that pays it.
    pub(super) fn payment_json(&self, of: &Subscription, livemode: bool) -> Value {
        json!({
            "id": format!("inpay_{}", self.id),
            "object": "invoice_payment",
            "amount_paid": self.paid_at.map(|_| of.amount),
            "amount_requested": of.amount,
            "created": self.created.as_second(),
            "currency": of.currency,
            "invoice": self.id,
            "livemode": livemode,
            "payment": {"type": "payment_intent", "payment_intent": self.payment_intent},
            "status": if self.paid_at.is_some() { "paid" } else { "open" },
        })
    }
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Refund {
    pub id: String,
    #[serde(with = "seconds")]
    pub created: Timestamp,
    pub charge: String,
    pub payment_intent: String,
    pub amount: i64,
    pub currency: String,
    pub reason: Option<String>,
    pub metadata: Metadata,
    /// The bank rejected it.
    #[serde(skip)]
    pub failed: bool,
}

impl Refund {
    pub(super) fn json(&self) -> Value {
        let status = if self.failed { "failed" } else { "succeeded" };
        shown("refund", self, json!({"status": status}))
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Dispute {
    pub id: String,
    #[serde(with = "seconds")]
    pub created: Timestamp,
    pub charge: String,
    pub payment_intent: String,
    pub amount: i64,
    pub currency: String,
    #[serde(skip)]
    pub won: Option<bool>,
}

impl Dispute {
    pub(super) fn json(&self) -> Value {
        let status = match self.won {
            None => "needs_response",
            Some(true) => "won",
            Some(false) => "lost",
        };
        let more = json!({"metadata": {}, "reason": "fraudulent", "status": status});
        shown("dispute", self, more)
    }
}

pub(super) fn list(data: Vec<Value>) -> Value {
    json!({"object": "list", "has_more": false, "data": data})
}
