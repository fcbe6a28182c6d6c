//! Invoices of subscriptions that Stripe runs: one for each period.

use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::Value;

use crate::ids::{Cents, IntentId, InvoiceId};
use crate::{Answer, Form, PaymentError, Stripe, read};

/// Source: <https://docs.stripe.com/invoicing/overview#invoice-statuses>.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvoiceStatus {
    /// It is not asked for yet: for about an hour after it is made.
    Draft,
    /// It is asked for, and can be paid.
    Open,
    Paid,
    /// Nobody can pay it any more.
    Void,
    /// Given up, though it can still be paid.
    Uncollectible,
    Other,
}

/// An invoice as it stands. What the wire left out is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoice {
    pub id: InvoiceId,
    pub status: InvoiceStatus,
    /// What it asks for, before what the provider takes off or adds: discounts, taxes, a balance.
    pub subtotal: Option<Cents>,
    /// In lower case, `usd`.
    pub currency: Option<String>,
    pub livemode: Option<bool>,
    /// It was tried to collect it.
    pub attempted: bool,
    pub paid_at: Option<Timestamp>,
    /// The end of the period that it is for.
    pub period_end: Option<Timestamp>,
    /// What paid it, or is to pay it.
    pub intent: Option<IntentId>,
    /// Where the customer can pay it.
    pub page: Option<String>,
}

impl Stripe {
    /// Looks an invoice up.
    ///
    /// # Errors
    /// [`PaymentError`].
    pub async fn invoice(
        &self,
        key: &SecretString,
        id: &InvoiceId,
    ) -> Result<Invoice, PaymentError> {
        // Its payments tell what paid it: an invoice itself does not since 2025-03-31.
        let path = format!("/v1/invoices/{id}?expand[]=payments");
        of(&self.get(key, &path).await?.done()?)
    }

    /// Has the invoice be paid with the subscription's card now, if it is open. What came of it, it tells
    /// itself: a decline is no error.
    ///
    /// # Errors
    /// [`PaymentError`]; it may have been paid.
    pub async fn pay_invoice(
        &self,
        key: &SecretString,
        id: &InvoiceId,
    ) -> Result<(), PaymentError> {
        let path = format!("/v1/invoices/{id}/pay");
        match self.post(key, &path, Form::new(), None).await? {
            Answer::Done(_) | Answer::Refused(_) => Ok(()),
        }
    }

    /// Has a draft stay one: it is asked for by nobody
    /// (<https://docs.stripe.com/invoicing/integration/automatic-advancement-collection>).
    ///
    /// # Errors
    /// [`PaymentError`]; one that is no draft any more is refused.
    pub async fn hold_invoice(
        &self,
        key: &SecretString,
        id: &InvoiceId,
    ) -> Result<Invoice, PaymentError> {
        let path = format!("/v1/invoices/{id}");
        let form = vec![("auto_advance", "false".to_owned())];
        of(&self.post(key, &path, form, None).await?.done()?)
    }

    /// Sees to it that nobody can pay the invoice any more, and returns it as it then stands: it may
    /// have been paid before (<https://docs.stripe.com/api/invoices/void>).
    ///
    /// # Errors
    /// [`PaymentError`].
    pub async fn void_invoice(
        &self,
        key: &SecretString,
        id: &InvoiceId,
    ) -> Result<Invoice, PaymentError> {
        let path = format!("/v1/invoices/{id}/void");
        match self.post(key, &path, Form::new(), None).await? {
            Answer::Done(invoice) => of(&invoice),
            Answer::Refused(_) => {
                let found = self.invoice(key, id).await;
                found.map_err(PaymentError::after_a_call)
            }
        }
    }
}

fn of(invoice: &Value) -> Result<Invoice, PaymentError> {
    Invoice::read(invoice).ok_or_else(PaymentError::unreadable)
}

impl Invoice {
    /// `None` without an id.
    fn read(invoice: &Value) -> Option<Self> {
        let status = match read::text(invoice, "status") {
            Some("draft") => InvoiceStatus::Draft,
            Some("open") => InvoiceStatus::Open,
            Some("paid") => InvoiceStatus::Paid,
            Some("void") => InvoiceStatus::Void,
            Some("uncollectible") => InvoiceStatus::Uncollectible,
            _ => InvoiceStatus::Other,
        };
        let list = |path| invoice.pointer(path).and_then(Value::as_array);
        let lines = list("/lines/data").into_iter().flatten();
        let ends = lines.filter_map(|line| read::time(line.get("period")?, "end"));
        let attempts = invoice.get("attempt_count").and_then(Value::as_u64);
        let paid_at = invoice.get("status_transitions");
        Some(Self {
            id: read::id(invoice, "id")?,
            status,
            subtotal: read::cents(invoice, "subtotal"),
            currency: read::owned(invoice, "currency"),
            livemode: read::flag(invoice, "livemode"),
            attempted: attempts > Some(0),
            paid_at: paid_at.and_then(|times| read::time(times, "paid_at")),
            period_end: ends.max(),
            intent: list("/payments/data").and_then(|payments| paid_with(payments)),
            page: read::owned(invoice, "hosted_invoice_url"),
        })
    }
}

/// The intent that paid; else the first that is to.
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
        assert_eq!(read.page.as_deref(), Some("https://invoice.stripe.com/i/1"));
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
