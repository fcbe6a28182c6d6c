//! Invoices of subscriptions, one for each period.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::client::{Decided, Form, Stripe, parse};
use crate::error::PaymentError;
use crate::ids::{Cents, IntentId, InvoiceId};
use crate::read::{self, Currency};

/// Source: <https://docs.stripe.com/invoicing/overview#invoice-statuses>.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InvoiceStatus {
    /// Not final, for about an hour after it is created.
    Draft,
    Open,
    Paid,
    /// It can no longer be paid.
    Void,
    /// Stripe has stopped collecting it, but it can still be paid.
    Uncollectible,
    #[default]
    #[serde(other)]
    Other,
}

/// An invoice in its current state. Fields that the response leaves out are absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoice {
    pub id: InvoiceId,
    pub status: InvoiceStatus,
    /// Before discounts, taxes and the customer's balance.
    pub subtotal: Option<Cents>,
    pub currency: Currency,
    pub livemode: Option<bool>,
    pub attempted: bool,
    pub paid_at: Option<Timestamp>,
    pub period_end: Option<Timestamp>,
    /// The PaymentIntent that paid or will pay the invoice.
    pub intent: Option<IntentId>,
    /// The page where the customer can pay it.
    pub payment_url: Option<String>,
}

impl Stripe {
    pub async fn invoice(&self, id: &InvoiceId) -> Result<Invoice, PaymentError> {
        // Since 2025-03-31, only an invoice's payments name the PaymentIntent.
        let path = format!("/v1/invoices/{id}?expand[]=payments");
        self.get(&path, Invoice::read).await
    }

    /// Charges an open invoice to the subscription's card. A decline is no error: look it up.
    pub async fn pay_invoice(&self, id: &InvoiceId) -> Result<(), PaymentError> {
        let path = format!("/v1/invoices/{id}/pay");
        self.post(&path, Form::new(), None).await.map(drop)
    }

    /// Keeps a draft from becoming final
    /// (<https://docs.stripe.com/invoicing/integration/automatic-advancement-collection>). An
    /// invoice that is not a draft any more is refused.
    pub async fn hold_invoice(&self, id: &InvoiceId) -> Result<Invoice, PaymentError> {
        let path = format!("/v1/invoices/{id}");
        let form = vec![("auto_advance", "false".to_owned())];
        self.post(&path, form, None).await?.done(Invoice::read)
    }

    /// Voids the invoice, so that it can no longer be paid, and returns its resulting state: it may
    /// have been paid before (<https://docs.stripe.com/api/invoices/void>).
    pub async fn void_invoice(&self, id: &InvoiceId) -> Result<Invoice, PaymentError> {
        let path = format!("/v1/invoices/{id}/void");
        match self.post(&path, Form::new(), None).await? {
            Decided::Done(invoice) => parse(&invoice, Invoice::read),
            Decided::Refused(_) => {
                let found = self.invoice(id).await;
                found.map_err(PaymentError::after_a_call)
            }
        }
    }
}

impl Invoice {
    fn read(invoice: &Value) -> Option<Self> {
        let list = |path| invoice.pointer(path).and_then(Value::as_array);
        let lines = list("/lines/data").into_iter().flatten();
        let ends = lines.filter_map(|line| read::time(line.get("period")?, "end"));
        let attempts = invoice.get("attempt_count").and_then(Value::as_u64);
        let transitions = invoice.get("status_transitions");
        Some(Self {
            id: read::id(invoice, "id")?,
            status: read::name(invoice, "status"),
            subtotal: read::cents(invoice, "subtotal"),
            currency: read::currency(invoice),
            livemode: read::flag(invoice, "livemode"),
            attempted: attempts > Some(0),
            paid_at: transitions.and_then(|times| read::time(times, "paid_at")),
            period_end: ends.max(),
            intent: list("/payments/data").and_then(|payments| paid_with(payments)),
            payment_url: read::owned(invoice, "hosted_invoice_url"),
        })
    }
}

/// The PaymentIntent that paid, or else the first that will.
fn paid_with(payments: &[Value]) -> Option<IntentId> {
    let intent = |payment: &&Value| read::id(payment.get("payment")?, "payment_intent");
    let is_paid = |payment: &&Value| read::text(payment, "status") == Some("paid");
    let mut paid = payments.iter().filter(is_paid);
    paid.find_map(|payment| intent(&payment))
        .or_else(|| payments.iter().find_map(|payment| intent(&payment)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_invoice_tells_what_it_is_for_and_what_paid_it() {
        let payment = |status: &str, intent: &str| {
            json!({"status": status,
                "payment": {"type": "payment_intent", "payment_intent": intent}})
        };
        let wire = json!({
            "id": "in_1", "object": "invoice", "status": "paid", "subtotal": 500,
            "currency": "usd", "livemode": false, "attempt_count": 2,
            "status_transitions": {"paid_at": 1_780_000_000},
            "lines": {"data": [{"period": {"start": 1, "end": 1_780_000_100}}, {"period": null}]},
            "payments": {"data": [payment("canceled", "pi_1"), payment("paid", "pi_2")]},
            "hosted_invoice_url": "https://invoice.stripe.com/i/1",
        });
        let read = Invoice::read(&wire).unwrap();
        assert_eq!(read.status, InvoiceStatus::Paid);
        assert_eq!(read.subtotal, Some(Cents::new(500)));
        assert!(read.attempted);
        assert_eq!(read.paid_at, Timestamp::from_second(1_780_000_000).ok());
        assert_eq!(read.period_end, Timestamp::from_second(1_780_000_100).ok());
        assert_eq!(read.intent, IntentId::new("pi_2").ok());
        assert_eq!(read.payment_url.as_deref(), Some("https://invoice.stripe.com/i/1"));
    }

    #[test]
    fn what_the_wire_leaves_out_is_absent() {
        let read = Invoice::read(&json!({"id": "in_1", "status": "new", "lines": []})).unwrap();
        assert_eq!(read.status, InvoiceStatus::Other);
        assert!(!read.attempted && read.intent.is_none() && read.period_end.is_none());
        assert_eq!(Invoice::read(&json!({"status": "paid"})), None);
        let open = json!({"id": "in_1", "payments": {"data": [
            {"status": "open", "payment": {"payment_intent": {"id": "pi_3"}}}]}});
        let read = Invoice::read(&open).unwrap();
        assert_eq!(read.intent, IntentId::new("pi_3").ok());
    }
}
