//! The content of events. Verify the signature first.
//!
//! Invariant: an event of an unknown type or shape is not an error, because Stripe would deliver it
//! again and again. Only the needed fields are read, in the shape of any API version, and nothing
//! is concluded from the order or the creation times of events.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::checkout::CheckoutSession;
use crate::ids::{Cents, DisputeId, EventId, IdError, IntentId, InvoiceId, SubscriptionId};
use crate::intent::PaymentIntent;
use crate::json::JsonError;
use crate::known::OTHER;
use crate::read;
use crate::refund::is_failed;

/// The types of the events that we use.
const KINDS: [&str; 23] = [
    "checkout.session.completed",
    "checkout.session.async_payment_succeeded",
    "checkout.session.async_payment_failed",
    "checkout.session.expired",
    "payment_intent.succeeded",
    "payment_intent.payment_failed",
    "payment_intent.requires_action",
    "payment_intent.canceled",
    "payment_intent.processing",
    "invoice.paid",
    "invoice.payment_failed",
    "customer.subscription.created",
    "customer.subscription.updated",
    "customer.subscription.deleted",
    "charge.refunded",
    "refund.failed",
    "refund.updated",
    "charge.refund.updated",
    "charge.dispute.created",
    "charge.dispute.updated",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.funds_reinstated",
    "charge.dispute.closed",
];

#[derive(Debug, thiserror::Error)]
pub enum EventError {
    #[error("an event's body is not JSON")]
    NotJson(#[source] JsonError),
    #[error("an event has no id")]
    NoId(#[source] IdError),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub id: EventId,
    pub livemode: bool,
    /// The event's type, for example `checkout.session.completed`; `other` if we do not use it.
    pub kind: &'static str,
    pub notice: Notice,
}

/// The subject of an event, in its state at the time of the event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// A Checkout Session was paid or has expired, or its payment failed.
    Checkout { session: Box<CheckoutSession> },
    /// A PaymentIntent changed its status.
    Intent(Box<PaymentIntent>),
    /// An invoice was paid, or collecting it failed: look it up.
    Invoice {
        id: InvoiceId,
        /// `None`: the invoice belongs to no subscription.
        subscription: Option<SubscriptionId>,
    },
    /// A subscription was created, changed or ended: look it up.
    Subscription { id: SubscriptionId },
    /// A card payment was refunded, by us or by others.
    Refunded {
        intent: Option<IntentId>,
        /// The whole charge was refunded.
        full: bool,
    },
    /// A refund failed: the bank did not accept it.
    RefundFailed { intent: Option<IntentId> },
    /// A cardholder disputes a payment, or the dispute changed its status.
    Dispute { id: DisputeId, intent: Option<IntentId>, amount: Option<Cents>, state: DisputeState },
    /// Not used by us.
    Other,
}

/// Source: <https://docs.stripe.com/api/disputes/object#dispute_object-status>.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisputeState {
    /// An inquiry before a dispute, open or closed. No money has moved; an open inquiry can still
    /// become a dispute.
    Inquiry,
    /// The money was taken from us until the dispute is decided.
    Open,
    /// The money was returned to us.
    Won,
    /// The money went to the cardholder, even if that prevented a dispute.
    Lost,
    /// An unknown status: nothing is concluded.
    Other,
}

impl Event {
    pub fn parse(body: &[u8]) -> Result<Self, EventError> {
        let event: Value =
            serde_json::from_slice(body).map_err(|error| EventError::NotJson(error.into()))?;
        let id = read::text(&event, "id").unwrap_or_default();
        let id = EventId::new(id).map_err(EventError::NoId)?;
        let kind = read::text(&event, "type").unwrap_or_default();
        let kind = KINDS.iter().find(|known| **known == kind).copied().unwrap_or(OTHER);
        let object = event.pointer("/data/object").unwrap_or(&Value::Null);
        Ok(Self {
            id,
            livemode: read::flag(&event, "livemode").unwrap_or_default(),
            kind,
            notice: Notice::read(kind, object).unwrap_or(Notice::Other),
        })
    }
}

impl Notice {
    fn read(kind: &str, object: &Value) -> Option<Self> {
        match kind {
            "checkout.session.completed"
            | "checkout.session.async_payment_succeeded"
            | "checkout.session.async_payment_failed"
            | "checkout.session.expired" => {
                // A closed session has no URL.
                let session = CheckoutSession { url: None, ..CheckoutSession::read(object)? };
                Some(Self::Checkout { session: Box::new(session) })
            }
            "payment_intent.succeeded"
            | "payment_intent.payment_failed"
            | "payment_intent.requires_action"
            | "payment_intent.canceled"
            | "payment_intent.processing" => {
                Some(Self::Intent(Box::new(PaymentIntent::read(object)?)))
            }
            "invoice.paid" | "invoice.payment_failed" => Some(Self::Invoice {
                id: read::id(object, "id")?,
                subscription: subscription_of(object),
            }),
            "customer.subscription.created"
            | "customer.subscription.updated"
            | "customer.subscription.deleted" => {
                Some(Self::Subscription { id: read::id(object, "id")? })
            }
            "charge.refunded" => object.is_object().then(|| Self::Refunded {
                intent: read::id(object, "payment_intent"),
                full: read::flag(object, "refunded").unwrap_or_default(),
            }),
            // All three report the same failure; older API versions send only the second.
            "refund.failed" | "charge.refund.updated" | "refund.updated" => is_failed(object)
                .then(|| Self::RefundFailed { intent: read::id(object, "payment_intent") }),
            // An inquiry that becomes a dispute is updated, not created again; then the funds are
            // withdrawn.
            "charge.dispute.created"
            | "charge.dispute.updated"
            | "charge.dispute.funds_withdrawn"
            | "charge.dispute.funds_reinstated"
            | "charge.dispute.closed" => Some(Self::Dispute {
                id: read::id(object, "id")?,
                intent: read::id(object, "payment_intent"),
                amount: read::cents(object, "amount"),
                state: DisputeState::of(read::text(object, "status")),
            }),
            _ => None,
        }
    }
}

/// The id is in `parent` since API version 2025-03-31, and was on the invoice itself before.
fn subscription_of(invoice: &Value) -> Option<SubscriptionId> {
    let details = invoice.pointer("/parent/subscription_details");
    let now = details.and_then(|details| read::id(details, "subscription"));
    now.or_else(|| read::id(invoice, "subscription"))
}

impl DisputeState {
    fn of(status: Option<&str>) -> Self {
        match status {
            Some("warning_needs_response" | "warning_under_review" | "warning_closed") => {
                Self::Inquiry
            }
            Some("needs_response" | "under_review") => Self::Open,
            Some("won") => Self::Won,
            Some("lost" | "charge_refunded" | "prevented") => Self::Lost,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests;
