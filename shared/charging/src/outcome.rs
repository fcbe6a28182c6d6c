//! The outcome of a payment: it counts for its order, or it is refunded.

use account::Profile;
use account::add_on::GenerationId;
use jiff::Timestamp;
use payments::{Cents, Currency, IntentId, InvoiceId, PaymentError, Refund, SessionId};
use store::{Applied, Effect, Outcome, PaymentOrder, Purchase};

use crate::context::Context;
use crate::error::{ChargingError, Result};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PaymentUpdate {
    Applied(Applied),
    /// The update reports no new payment.
    NoPayment,
    /// The payment is not known yet.
    TooEarly,
    /// The payment is not ours, or not what we ordered; the reason is stored.
    Ignored(&'static str),
}

/// Applies the payment of the order `stripe_id`, made at `paid_at`. `on_paid` changes the profile
/// if the payment counts. `via` lists the payment's other Stripe objects, which later updates may
/// name.
pub(crate) async fn apply_payment(
    cx: Context<'_>,
    stripe_id: &str,
    paid_at: Timestamp,
    via: &[PaymentOrder],
    on_paid: impl Fn(&mut Profile),
) -> Result<PaymentUpdate> {
    let applied = cx.store.payments.apply(stripe_id, cx.now, |order, profile| {
        let counts = match &order.purchase {
            Purchase::Generation { collection } => {
                billing::activate(profile, GenerationId::new(stripe_id), paid_at, *collection)
            }
            Purchase::Period { generation, period } => {
                billing::period_paid(profile, generation, *period, stripe_id)
            }
            Purchase::Credits { .. } | Purchase::Card | Purchase::Via { .. } => false,
        };
        if counts {
            on_paid(profile);
        }
        (counts, via.iter().cloned().map(Effect::PaymentOrder).collect())
    });
    match applied.await? {
        Some(applied) => Ok(finish(cx, applied).await),
        None => Ok(PaymentUpdate::Ignored("not a payment of ours")),
    }
}

/// Refunds the payment if it was not owed. If the refund fails, the billing tick retries it.
pub(crate) async fn finish(cx: Context<'_>, applied: Applied) -> PaymentUpdate {
    if applied.outcome == Outcome::RefundDue {
        let stripe_id = applied.order.stripe_id.as_str();
        if applied.by_this_call {
            tracing::error!(stripe_id, "refunding a payment that was not owed");
            edge::metric("payments_not_owed", 1);
        }
        if let Err(error) = refund_unowed(cx, stripe_id).await {
            edge::log_error(&error, "could not refund a payment; the billing tick retries");
        }
    }
    PaymentUpdate::Applied(applied)
}

/// Why a payment differs from its order. The payer gets nothing; an operator must act.
pub(crate) fn mismatch(
    cx: Context<'_>,
    order: &PaymentOrder,
    amount: Option<Cents>,
    currency: Currency,
    livemode: Option<bool>,
) -> Option<&'static str> {
    let reason = if livemode.is_some_and(|livemode| livemode != cx.settings.livemode) {
        "a payment of the other mode (live or test)"
    } else if currency != Currency::Usd {
        "a payment in another currency than we asked for"
    } else if amount != Some(Cents::new(order.amount_cents)) {
        "a payment of another amount than we asked for"
    } else {
        return None;
    };
    let stripe_id = order.stripe_id.as_str();
    tracing::error!(stripe_id, reason, "a payment is not what we ordered");
    edge::metric("payments_not_as_asked", 1);
    Some(reason)
}

/// Refunds a Checkout Session, invoice or PaymentIntent. Safe to repeat; due until it succeeds.
pub async fn refund_unowed(cx: Context<'_>, stripe_id: &str) -> Result<()> {
    let intent = match paid_with(cx, stripe_id).await {
        // A payment that no longer exists at Stripe cannot be refunded.
        Err(ChargingError::Stripe(PaymentError::Missing { .. })) => None,
        found => found?,
    };
    let refund = match intent {
        Some(intent) => {
            let payments = &cx.store.payments;
            if stripe_id != intent.as_str()
                && let Some((order, _)) = payments.order(stripe_id).await?
            {
                // The refund's own events name the PaymentIntent, even after a deletion.
                payments.create_order(&via(&order, intent.to_string())).await?;
            }
            let idempotency = format!("{intent}-refund");
            match cx.stripe.refund(&intent, &idempotency).await {
                // Stripe would refuse again: the payment is disputed, too old, or gone.
                Err(error @ (PaymentError::Refused { .. } | PaymentError::Missing { .. })) => {
                    edge::log_error(&error, "Stripe refused to refund a payment");
                    Refund::Failed
                }
                refund => refund?,
            }
        }
        // The payment was made outside Stripe.
        None => Refund::Failed,
    };
    let outcome = match refund {
        Refund::Made | Refund::AlreadyMade => Outcome::Refunded,
        Refund::Failed => {
            report_failed_refund(stripe_id);
            Outcome::RefundFailed
        }
    };
    Ok(cx.store.payments.end_refund(stripe_id, outcome).await?)
}

/// The PaymentIntent that made the payment. Cancels the subscription that the payment began.
async fn paid_with(cx: Context<'_>, stripe_id: &str) -> Result<Option<IntentId>> {
    let stripe = &cx.stripe;
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

/// The order that a PaymentIntent paid, directly or through a session or invoice.
pub(crate) async fn order_paid_with(
    cx: Context<'_>,
    intent: &IntentId,
) -> Result<Option<(PaymentOrder, Option<Outcome>)>> {
    let payments = &cx.store.payments;
    match payments.order(intent.as_str()).await? {
        Some((PaymentOrder { purchase: Purchase::Via { session }, .. }, _)) => {
            Ok(payments.order(&session).await?)
        }
        found => Ok(found),
    }
}

/// Alerts operators to a payment that was not refunded.
pub(crate) fn report_failed_refund(stripe_id: &str) {
    tracing::error!(stripe_id, "a payment cannot be refunded; an operator must act");
    edge::metric("refunds_failed", 1);
}

/// An order for another Stripe object that pays `order`.
pub(crate) fn via(order: &PaymentOrder, stripe_id: String) -> PaymentOrder {
    PaymentOrder {
        stripe_id,
        purchase: Purchase::Via { session: order.stripe_id.clone() },
        ..order.clone()
    }
}
