//! Refunds of payments that were not owed.

use payments::{IntentId, InvoiceId, PaymentError, Refund, SessionId};
use store::{Outcome, PaymentOrder, Purchase};

use crate::context::Charging;
use crate::error::ChargingError;

/// Refunds a payment that was not owed: of a Checkout Session, an invoice or a PaymentIntent. Safe to
/// do twice; after an error, it stays due.
pub async fn refund_unowed(charging: &Charging, stripe_id: &str) -> Result<(), ChargingError> {
    let refund = match paid_with(charging, stripe_id).await? {
        Some(intent) => {
            store_via_order(charging, stripe_id, &intent).await?;
            refund(charging, &intent).await?
        }
        // It was paid outside Stripe.
        None => Refund::Failed,
    };
    let outcome = match refund {
        Refund::Made | Refund::AlreadyMade => Outcome::Refunded,
        Refund::Failed => {
            report_failed_refund(stripe_id);
            Outcome::RefundFailed
        }
    };
    Ok(charging
        .store
        .payments
        .end_refund(stripe_id, outcome)
        .await?)
}

/// The PaymentIntent that made the payment. A subscription that the payment began is cancelled.
async fn paid_with(
    charging: &Charging,
    stripe_id: &str,
) -> Result<Option<IntentId>, ChargingError> {
    let stripe = &charging.stripe;
    let invoice = if stripe_id.starts_with("cs_") {
        let session = stripe.session(&SessionId::new(stripe_id)?).await?;
        let Some(subscription) = session.subscription else {
            return Ok(session.intent);
        };
        stripe.cancel_subscription(&subscription).await?;
        session.invoice
    } else if stripe_id.starts_with("in_") {
        Some(InvoiceId::new(stripe_id)?)
    } else {
        return Ok(Some(IntentId::new(stripe_id)?));
    };
    match invoice {
        Some(invoice) => Ok(stripe.invoice(&invoice).await?.intent),
        None => Ok(None),
    }
}

/// Stores the order of the PaymentIntent, which the refund's own events name, also for an account that
/// is deleted.
async fn store_via_order(
    charging: &Charging,
    stripe_id: &str,
    intent: &IntentId,
) -> Result<(), ChargingError> {
    let payments = &charging.store.payments;
    if stripe_id != intent.as_str()
        && let Some((order, _)) = payments.order(stripe_id).await?
    {
        let via = PaymentOrder {
            stripe_id: intent.to_string(),
            purchase: Purchase::Via {
                session: stripe_id.to_owned(),
            },
            ..order
        };
        payments.create_order(&via).await?;
    }
    Ok(())
}

async fn refund(charging: &Charging, intent: &IntentId) -> Result<Refund, ChargingError> {
    let idempotency = format!("{intent}-refund");
    match charging.stripe.refund(intent, &idempotency).await {
        // A repeated call would be refused again: the payment is disputed, or too old.
        Err(error @ PaymentError::Refused { .. }) => {
            edge::log_error(&error, "Stripe refuses to refund a payment");
            Ok(Refund::Failed)
        }
        refund => Ok(refund?),
    }
}

/// Alerts operators to a payment that was not refunded.
pub(crate) fn report_failed_refund(stripe_id: &str) {
    tracing::error!(
        stripe_id,
        "a payment cannot be refunded; an operator has to look"
    );
    edge::metric("refunds_failed", 1);
}
