//! Refunds made in Stripe's Dashboard, and refunds that fail.

use account::add_on::Fact;
use account::{Profile, ReversalReport};
use payments::IntentId;
use store::{Outcome, PaymentOrder, Purchase};

use crate::context::Context;
use crate::error::Result;
use crate::outcome::{PaymentUpdate, order_paid_with, report_failed_refund};

/// Applies a refund of a payment that counted. `full`: the whole payment was refunded.
pub(crate) async fn apply_refund(
    cx: Context<'_>,
    intent: &IntentId,
    full: bool,
) -> Result<PaymentUpdate> {
    let Some((order, outcome)) = order_paid_with(cx, intent).await? else {
        return Ok(PaymentUpdate::TooEarly);
    };
    match outcome {
        None => return Ok(PaymentUpdate::TooEarly),
        Some(Outcome::Counted) => {}
        // Our own refund of a payment that was not owed.
        Some(_) => return Ok(PaymentUpdate::NoPayment),
    }
    if let Purchase::Credits { .. } = &order.purchase {
        apply_listed(cx, intent, &order).await?;
    } else if let (true, Some((generation, period))) = (full, order.period())
        && let Some(account) = cx.store.accounts.by_number(&order.account_number).await?
    {
        let refunded = |profile: &mut Profile| {
            profile.add_on.apply(Fact::RefundedInFull { generation: generation.clone(), period });
        };
        cx.change(&account.id, refunded).await?;
    }
    Ok(PaymentUpdate::NoPayment)
}

/// Applies a failed refund, ours or not: the payer did not get the money, and an operator must act.
pub(crate) async fn apply_failed_refund(
    cx: Context<'_>,
    intent: &IntentId,
) -> Result<PaymentUpdate> {
    let Some((order, outcome)) = order_paid_with(cx, intent).await? else {
        return Ok(PaymentUpdate::TooEarly);
    };
    match outcome {
        // The refund itself is not stored yet.
        None | Some(Outcome::RefundDue) => return Ok(PaymentUpdate::TooEarly),
        Some(Outcome::RefundFailed) => {}
        Some(Outcome::Counted) => apply_listed(cx, intent, &order).await?,
        Some(Outcome::Refunded) => {
            report_failed_refund(&order.stripe_id);
            // Stored after the report, so that a crash repeats the report and does not lose it.
            let failed = Outcome::RefundFailed;
            cx.store.payments.end_refund(&order.stripe_id, failed).await?;
        }
    }
    Ok(PaymentUpdate::NoPayment)
}

/// Applies all refunds of a payment that counted, as Stripe lists them: an event about a charge
/// says only how much was refunded at that time.
async fn apply_listed(cx: Context<'_>, intent: &IntentId, order: &PaymentOrder) -> Result<()> {
    let listed = cx.stripe.refunds(intent).await?.into_iter();
    let reports = listed.map(|refund| ReversalReport::Refund {
        id: refund.id.to_string(),
        cents: refund.amount.get(),
        failed: refund.failed,
    });
    let reports: Vec<_> = reports.collect();
    let known = cx.store.payments.reversals(&order.stripe_id).await?;
    if reports.iter().any(|report| known.is_new_failure(report)) {
        report_failed_refund(&order.stripe_id);
    }
    Ok(cx.store.ledger.apply_reversals(order, &reports, cx.now).await?)
}
