//! What the provider keeps, and how API version [`API_VERSION`] shows it.
//!
//! Of that version: an invoice names its subscription under `parent`, a period is an item's and not
//! the subscription's, and neither intents nor charges name their invoice.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::card::{Card, Decline};

pub const API_VERSION: &str = "2025-03-31.basil";

pub(super) type Metadata = BTreeMap<String, String>;

#[derive(Debug)]
pub(super) struct Customer {
    pub(super) id: String,
    pub(super) created: Timestamp,
    pub(super) email: Option<String>,
    pub(super) name: Option<String>,
    pub(super) metadata: Metadata,
    pub(super) methods: Vec<String>,
    /// What the next attempts do, whatever card is charged.
    pub(super) script: VecDeque<Card>,
}

impl Customer {
    pub(super) fn json(&self, livemode: bool) -> Value {
        json!({
            "id": self.id,
            "object": "customer",
            "created": self.created.as_second(),
            "email": self.email,
            "name": self.name,
            "livemode": livemode,
            "metadata": self.metadata,
        })
    }
}

#[derive(Debug)]
pub(super) struct PaymentMethod {
    pub(super) id: String,
    pub(super) created: Timestamp,
    /// Whose it is. One that was not kept for later can never be charged again.
    pub(super) customer: Option<String>,
    pub(super) card: Card,
}

impl PaymentMethod {
    pub(super) fn json(&self, livemode: bool) -> Value {
        json!({
            "id": self.id,
            "object": "payment_method",
            "type": "card",
            "card": {"brand": "visa", "last4": "4242", "exp_month": 12, "exp_year": 2099},
            "created": self.created.as_second(),
            "customer": self.customer,
            "livemode": livemode,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IntentStatus {
    RequiresPaymentMethod,
    RequiresConfirmation,
    RequiresAction,
    Processing,
    Succeeded,
    Canceled,
}

impl IntentStatus {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RequiresPaymentMethod => "requires_payment_method",
            Self::RequiresConfirmation => "requires_confirmation",
            Self::RequiresAction => "requires_action",
            Self::Processing => "processing",
            Self::Succeeded => "succeeded",
            Self::Canceled => "canceled",
        }
    }
}

#[derive(Debug)]
pub(super) struct Intent {
    pub(super) id: String,
    pub(super) created: Timestamp,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) customer: Option<String>,
    pub(super) method: Option<String>,
    pub(super) metadata: Metadata,
    pub(super) status: IntentStatus,
    /// The last decline, and the method that it was about.
    pub(super) last_error: Option<(&'static Decline, String)>,
    pub(super) latest_charge: Option<String>,
    pub(super) canceled_at: Option<Timestamp>,
    /// The checkout session that it belongs to.
    pub(super) session: Option<String>,
    /// The invoice that it pays.
    pub(super) invoice: Option<String>,
    pub(super) keeps_method: bool,
}

impl Intent {
    pub(super) fn json(&self, livemode: bool) -> Value {
        let received = match self.status {
            IntentStatus::Succeeded => self.amount,
            _ => 0,
        };
        let action = (self.status == IntentStatus::RequiresAction)
            .then(|| json!({"type": "use_stripe_sdk", "use_stripe_sdk": {}}));
        let last_error = self.last_error.as_ref().map(|(decline, method)| {
            json!({
                "type": "card_error",
                "code": decline.code,
                "decline_code": decline.reason,
                "message": decline.message,
                "payment_method": {"id": method, "object": "payment_method"},
            })
        });
        json!({
            "id": self.id,
            "object": "payment_intent",
            "amount": self.amount,
            "amount_received": received,
            "canceled_at": self.canceled_at.map(Timestamp::as_second),
            "capture_method": "automatic",
            "client_secret": format!("{}_secret_simulated", self.id),
            "created": self.created.as_second(),
            "currency": self.currency,
            "customer": self.customer,
            "last_payment_error": last_error,
            "latest_charge": self.latest_charge,
            "livemode": livemode,
            "metadata": self.metadata,
            "next_action": action,
            "payment_method": self.method,
            "payment_method_types": ["card"],
            "setup_future_usage": self.keeps_method.then_some("off_session"),
            "status": self.status.name(),
        })
    }
}

#[derive(Debug)]
pub(super) struct Charge {
    pub(super) id: String,
    pub(super) created: Timestamp,
    pub(super) intent: String,
    pub(super) method: String,
    pub(super) amount: i64,
    pub(super) refunded: i64,
    /// Why there is no money in it.
    pub(super) failure: Option<&'static Decline>,
    /// The bank took the money back, or may yet.
    pub(super) disputed: bool,
}

impl Charge {
    /// With the facts that are its intent's.
    pub(super) fn json(&self, intent: &Intent, livemode: bool) -> Value {
        let paid = self.failure.is_none();
        json!({
            "id": self.id,
            "object": "charge",
            "amount": self.amount,
            "amount_captured": if paid { self.amount } else { 0 },
            "amount_refunded": self.refunded,
            "captured": paid,
            "created": self.created.as_second(),
            "currency": intent.currency,
            "customer": intent.customer,
            "disputed": self.disputed,
            "failure_code": self.failure.map(|decline| decline.code),
            "failure_message": self.failure.map(|decline| decline.message),
            "livemode": livemode,
            "metadata": intent.metadata,
            "paid": paid,
            "payment_intent": self.intent,
            "payment_method": self.method,
            "refunded": paid && self.refunded == self.amount,
            "status": if paid { "succeeded" } else { "failed" },
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Payment,
    Subscription,
    Setup,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionStatus {
    Open,
    Complete,
    Expired,
}

#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) id: String,
    pub(super) created: Timestamp,
    pub(super) mode: Mode,
    pub(super) status: SessionStatus,
    pub(super) paid: bool,
    pub(super) expires_at: Timestamp,
    /// What is bought, as the page names it.
    pub(super) product: String,
    pub(super) amount: Option<i64>,
    pub(super) currency: Option<String>,
    pub(super) customer: Option<String>,
    pub(super) email: Option<String>,
    pub(super) success_url: String,
    pub(super) cancel_url: Option<String>,
    pub(super) reference: Option<String>,
    pub(super) metadata: Metadata,
    /// Of the intent or subscription that comes of it.
    pub(super) inner_metadata: Metadata,
    pub(super) keeps_method: bool,
    pub(super) makes_customer: bool,
    pub(super) intent: Option<String>,
    pub(super) subscription: Option<String>,
    pub(super) invoice: Option<String>,
    pub(super) setup_intent: Option<String>,
}

impl Session {
    pub(super) fn is_open(&self) -> bool {
        self.status == SessionStatus::Open
    }

    pub(super) fn json(&self, base_url: &str, livemode: bool) -> Value {
        let url = self
            .is_open()
            .then(|| format!("{base_url}/checkout/{}", self.id));
        let payment = match (self.mode, self.paid) {
            (Mode::Setup, _) => "no_payment_required",
            (_, true) => "paid",
            (_, false) => "unpaid",
        };
        json!({
            "id": self.id,
            "object": "checkout.session",
            "amount_subtotal": self.amount,
            "amount_total": self.amount,
            "cancel_url": self.cancel_url,
            "client_reference_id": self.reference,
            "created": self.created.as_second(),
            "currency": self.currency,
            "customer": self.customer,
            "customer_email": self.email,
            "expires_at": self.expires_at.as_second(),
            "invoice": self.invoice,
            "livemode": livemode,
            "metadata": self.metadata,
            "mode": match self.mode {
                Mode::Payment => "payment",
                Mode::Subscription => "subscription",
                Mode::Setup => "setup",
            },
            "payment_intent": self.intent.as_ref().filter(|_| self.mode == Mode::Payment),
            "payment_method_types": ["card"],
            "payment_status": payment,
            "setup_intent": self.setup_intent,
            "status": match self.status {
                SessionStatus::Open => "open",
                SessionStatus::Complete => "complete",
                SessionStatus::Expired => "expired",
            },
            "subscription": self.subscription,
            "success_url": self.success_url,
            "url": url,
        })
    }
}

/// Always one that succeeded: it comes of a completed session.
#[derive(Debug)]
pub(super) struct SetupIntent {
    pub(super) id: String,
    pub(super) created: Timestamp,
    pub(super) customer: Option<String>,
    pub(super) method: String,
    pub(super) metadata: Metadata,
}

impl SetupIntent {
    pub(super) fn json(&self, livemode: bool) -> Value {
        json!({
            "id": self.id,
            "object": "setup_intent",
            "created": self.created.as_second(),
            "customer": self.customer,
            "livemode": livemode,
            "metadata": self.metadata,
            "payment_method": self.method,
            "status": "succeeded",
            "usage": "off_session",
        })
    }
}

#[derive(Debug, Clone)]
pub(super) struct Subscription {
    pub(super) id: String,
    /// The first period begins here; period n ends n months after it.
    pub(super) anchor: Timestamp,
    /// The period that was last invoiced, from 1 on.
    pub(super) period: i32,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) customer: String,
    pub(super) method: String,
    pub(super) metadata: Metadata,
    pub(super) past_due: bool,
    pub(super) cancel_at_period_end: bool,
    pub(super) canceled_at: Option<Timestamp>,
    pub(super) latest_invoice: String,
    /// A plan that somebody made in the dashboard says when it ends.
    pub(super) scheduled: bool,
}

impl Subscription {
    /// The end of period `n`, or the beginning of the next.
    pub(super) fn end_of(&self, n: i32) -> Timestamp {
        let anchor = self.anchor.to_zoned(jiff::tz::TimeZone::UTC);
        let months = jiff::Span::new().months(n);
        anchor.saturating_add(months).timestamp()
    }

    pub(super) fn json(&self, livemode: bool) -> Value {
        let status = match (self.canceled_at, self.past_due) {
            (Some(_), _) => "canceled",
            (None, true) => "past_due",
            (None, false) => "active",
        };
        json!({
            "id": self.id,
            "object": "subscription",
            "billing_cycle_anchor": self.anchor.as_second(),
            "cancel_at_period_end": self.cancel_at_period_end,
            "canceled_at": self.canceled_at.map(Timestamp::as_second),
            "collection_method": "charge_automatically",
            "created": self.anchor.as_second(),
            "currency": self.currency,
            "customer": self.customer,
            "default_payment_method": self.method,
            "ended_at": self.canceled_at.map(Timestamp::as_second),
            "items": {"object": "list", "has_more": false, "data": [{
                "id": format!("si_{}", self.id),
                "object": "subscription_item",
                "current_period_start": self.end_of(self.period - 1).as_second(),
                "current_period_end": self.end_of(self.period).as_second(),
                "price": {
                    "object": "price",
                    "currency": self.currency,
                    "unit_amount": self.amount,
                    "recurring": {"interval": "month", "interval_count": 1},
                },
                "quantity": 1,
                "subscription": self.id,
            }]},
            "latest_invoice": self.latest_invoice,
            "livemode": livemode,
            "metadata": self.metadata,
            "start_date": self.anchor.as_second(),
            "status": status,
        })
    }
}

#[derive(Debug)]
pub(super) struct Invoice {
    pub(super) id: String,
    pub(super) created: Timestamp,
    pub(super) subscription: String,
    pub(super) period: i32,
    pub(super) intent: String,
    pub(super) attempts: u32,
    pub(super) paid_at: Option<Timestamp>,
    pub(super) void: bool,
    /// It is not asked for yet.
    pub(super) draft: bool,
    /// A draft is asked for by itself.
    pub(super) advances: bool,
}

impl Invoice {
    /// Can it be paid?
    pub(super) fn is_open(&self) -> bool {
        self.paid_at.is_none() && !self.void && !self.draft
    }

    /// With the facts that are its subscription's; `base_url` is where its page is.
    pub(super) fn json(&self, of: &Subscription, base_url: &str, livemode: bool) -> Value {
        let paid = self.paid_at.is_some();
        let amount_paid = if paid { of.amount } else { 0 };
        let first = self.period == 1;
        json!({
            "id": self.id,
            "object": "invoice",
            "amount_due": of.amount,
            "amount_paid": amount_paid,
            "amount_remaining": of.amount - amount_paid,
            "attempt_count": self.attempts,
            "attempted": true,
            "billing_reason": if first { "subscription_create" } else { "subscription_cycle" },
            "created": self.created.as_second(),
            "currency": of.currency,
            "customer": of.customer,
            "hosted_invoice_url": format!("{base_url}/invoice/{}", self.id),
            "lines": {"object": "list", "has_more": false, "data": [{
                "object": "line_item",
                "amount": of.amount,
                "currency": of.currency,
                "parent": {
                    "type": "subscription_item_details",
                    "subscription_item_details": {"subscription": of.id},
                },
                "period": {
                    "start": of.end_of(self.period - 1).as_second(),
                    "end": of.end_of(self.period).as_second(),
                },
            }]},
            "livemode": livemode,
            "metadata": {},
            "parent": {
                "type": "subscription_details",
                "subscription_details": {"subscription": of.id, "metadata": of.metadata},
            },
            "subtotal": of.amount,
            "auto_advance": self.advances,
            "status": match (paid, self.void, self.draft) {
                (true, ..) => "paid",
                (_, true, _) => "void",
                (_, _, true) => "draft",
                _ => "open",
            },
            "status_transitions": {"paid_at": self.paid_at.map(Timestamp::as_second)},
            "total": of.amount,
        })
    }

    /// What joins it with the intent that pays it.
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
            "payment": {"type": "payment_intent", "payment_intent": self.intent},
            "status": if self.paid_at.is_some() { "paid" } else { "open" },
        })
    }
}

#[derive(Debug)]
pub(super) struct Refund {
    pub(super) id: String,
    pub(super) created: Timestamp,
    pub(super) charge: String,
    pub(super) intent: String,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) reason: Option<String>,
    pub(super) metadata: Metadata,
    /// The bank did not take it.
    pub(super) failed: bool,
}

impl Refund {
    pub(super) fn json(&self) -> Value {
        json!({
            "id": self.id,
            "object": "refund",
            "amount": self.amount,
            "charge": self.charge,
            "created": self.created.as_second(),
            "currency": self.currency,
            "metadata": self.metadata,
            "payment_intent": self.intent,
            "reason": self.reason,
            "status": if self.failed { "failed" } else { "succeeded" },
        })
    }
}

#[derive(Debug)]
pub(super) struct Dispute {
    pub(super) id: String,
    pub(super) created: Timestamp,
    pub(super) charge: String,
    pub(super) intent: String,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) won: Option<bool>,
}

impl Dispute {
    pub(super) fn json(&self, livemode: bool) -> Value {
        json!({
            "id": self.id,
            "object": "dispute",
            "amount": self.amount,
            "charge": self.charge,
            "created": self.created.as_second(),
            "currency": self.currency,
            "livemode": livemode,
            "metadata": {},
            "payment_intent": self.intent,
            "reason": "fraudulent",
            "status": match self.won {
                None => "needs_response",
                Some(true) => "won",
                Some(false) => "lost",
            },
        })
    }
}
