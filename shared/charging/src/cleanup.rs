//! Payments that a deleted account left open at Stripe.

use account::AccountNumber;
use payments::{IntentId, IntentStatus, PaymentError, SessionId, SessionStatus};

use crate::apply::{apply_intent, apply_session};
use crate::context::Context;
use crate::error::{ChargingError, Result};
use crate::stripe_subscription::cancel_subscription;
use crate::worker::RETRY_DELAY;

/// Cancels the account's open payments, or refunds those already paid. A failed one stays due.
pub async fn cleanup_payments(cx: Context<'_>, account: &AccountNumber) -> Result<()> {
    let payments = &cx.store.payments;
    let mut left = Vec::new();
    for stripe_id in payments.left_open(account).await? {
        let is_done = match cancel(cx, &stripe_id).await {
            Ok(is_done) => is_done,
            // A PaymentIntent or session that no longer exists cannot be paid.
            Err(ChargingError::Stripe(PaymentError::Missing { .. })) => true,
            Err(error) => {
                edge::log_error(&error, "could not cancel a deleted account's payment");
                false
            }
        };
        if !is_done {
            left.push(stripe_id);
        }
    }
    let retry_at = cx.later(RETRY_DELAY);
    Ok(payments.set_left_open(account, &left, retry_at).await?)
}

/// True if the payment is no longer possible.
async fn cancel(cx: Context<'_>, stripe_id: &str) -> Result<bool> {
    if stripe_id.starts_with("sub_") {
        cancel_subscription(cx, stripe_id).await?;
        return Ok(true);
    }
    if stripe_id.starts_with("cs_") {
        let id = SessionId::new(stripe_id)?;
        let found = cx.stripe.expire_session(&id).await?;
        if found.paid {
            apply_session(cx, &found).await?;
        }
        return Ok(found.paid || found.status == SessionStatus::Expired);
    }
    let id = IntentId::new(stripe_id)?;
    let found = cx.stripe.cancel_intent(&id).await?;
    if found.status == IntentStatus::Succeeded {
        apply_intent(cx, &found).await?;
    }
    Ok(matches!(found.status, IntentStatus::Succeeded | IntentStatus::Canceled))
}
