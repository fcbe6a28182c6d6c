//! The outcome of a payment: it counts for its order, or it is refunded.

use account::Profile;
use account::add_on::GenerationId;
use jiff::Timestamp;
use payments::Cents;
use store::{Applied, Effect, Outcome, PaymentOrder, Purchase};

use crate::context::Charging;
use crate::error::ChargingError;
use crate::unowed::refund_unowed;

/// The currency of all our orders.
const CURRENCY: &str = "usd";

/// The result of an update about a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PaymentUpdate {
    Applied(Applied),
    /// Nothing was paid by it.
    NoPayment,
    /// It concerns a payment that we do not know yet.
    TooEarly,
    /// It is not ours, or not what we ordered; the reason is stored.
    Ignored(&'static str),
}

/// Applies the payment of the order `stripe_id`, made at `paid_at`. `on_paid` changes the profile if
/// the payment counts. `via` are the other Stripe objects of this payment, which later updates may
/// name.
pub(crate) async fn apply_payment(
    charging: &Charging,
    stripe_id: &str,
    paid_at: Timestamp,
    via: &[PaymentOrder],
    on_paid: impl Fn(&mut Profile),
    now: Timestamp,
) -> Result<PaymentUpdate, ChargingError> {
    let applied = charging
        .store
        .payments
        .apply(stripe_id, now, |order, profile| {
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
            (
                counts,
                via.iter().cloned().map(Effect::PaymentOrder).collect(),
            )
        });
    match applied.await? {
        Some(applied) => finish(charging, applied).await,
        None => Ok(PaymentUpdate::Ignored("not a payment of ours")),
    }
}

/// Refunds the payment if it was not owed.
pub(crate) async fn finish(
    charging: &Charging,
    applied: Applied,
) -> Result<PaymentUpdate, ChargingError> {
    if applied.outcome == Outcome::RefundDue {
        let stripe_id = applied.order.stripe_id.as_str();
        if applied.by_this_call {
            tracing::error!(stripe_id, "a payment was not owed and is refunded");
            edge::metric("payments_not_owed", 1);
        }
        if let Err(error) = refund_unowed(charging, stripe_id).await {
            edge::log_error(&error, "a refund is left to the billing tick");
        }
    }
    Ok(PaymentUpdate::Applied(applied))
}

/// The order of another Stripe object with which `order` is paid.
pub(crate) fn via(order: &PaymentOrder, stripe_id: String) -> PaymentOrder {
    PaymentOrder {
        stripe_id,
        purchase: Purchase::Via {
            session: order.stripe_id.clone(),
        },
        ..order.clone()
    }
}

/// Why a payment is not the one that we ordered. It then changes nothing, and an operator has to look:
/// the payer gets nothing for it.
pub(crate) fn mismatch(
    charging: &Charging,
    order: &PaymentOrder,
    amount: Option<Cents>,
    currency: Option<&str>,
    livemode: Option<bool>,
) -> Option<&'static str> {
    let reason = if livemode.is_some_and(|livemode| livemode != charging.settings.livemode) {
        "a payment of the other mode (live or test)"
    } else if currency != Some(CURRENCY) {
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
