//! Refunds made in Stripe's Dashboard, and refunds that fail.

use account::add_on::Fact;
use account::{Account, Credits, EntryId, Profile};
use payments::{Cents, IntentId};
use store::{EntryKind, Outcome, PaymentOrder, Purchase};

use crate::context::Context;
use crate::error::Result;
use crate::outcome::{PaymentUpdate, report_failed_refund};
use crate::reversal::{order_paid_with, post, share};

/// Applies a refund; `refunded` is the sum of all refunds so far.
pub(crate) async fn apply_refund(
    cx: Context<'_>,
    intent: &IntentId,
    refunded: Option<Cents>,
    full: bool,
) -> Result<PaymentUpdate> {
    let Some((order, outcome)) = order_paid_with(cx, intent).await? else {
        return Ok(PaymentUpdate::TooEarly);
    };
    if outcome.is_some_and(|outcome| outcome != Outcome::Counted) {
        return Ok(PaymentUpdate::NoPayment);
    }
    let Some(account) = cx.store.accounts.by_number(&order.account_number).await? else {
        return Ok(PaymentUpdate::NoPayment);
    };
    if let Purchase::Credits { entry, credits } = &order.purchase {
        let cents = if full {
            order.amount_cents
        } else {
            refunded.map_or(0, Cents::get).min(order.amount_cents)
        };
        reverse(cx, &account, &order, (entry, *credits), cents).await?;
    } else if let (true, Some((generation, period))) = (full, order.period()) {
        let refunded = |profile: &mut Profile| {
            profile.add_on.apply(Fact::RefundedInFull { generation: generation.clone(), period });
        };
        cx.change(&account.id, refunded).await?;
    }
    Ok(PaymentUpdate::NoPayment)
}

/// Reverses bought credits in proportion to the `cents` of their price refunded so far.
async fn reverse(
    cx: Context<'_>,
    account: &Account,
    order: &PaymentOrder,
    (entry, credits): (&EntryId, Credits),
    cents: u64,
) -> Result<()> {
    let payments = &cx.store.payments;
    // One step at a time; the next call finishes an interrupted step.
    while let Some(step) = payments.begin_reversal(&order.stripe_id, cents).await? {
        let before = share(credits, step.from, order.amount_cents);
        let after = share(credits, step.to, order.amount_cents);
        let amount = after.checked_sub(before).unwrap_or(Credits::ZERO);
        let reversal = (EntryKind::Reversal, amount);
        let entry = format!("{entry}-back-{}", step.to);
        post(cx, account, &entry, reversal, "card payment given back").await?;
        payments.end_reversal(&order.stripe_id, step.to).await?;
    }
    Ok(())
}

/// Applies a failed refund, ours or not: the payer lacks the money, and an operator has to look.
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
        Some(Outcome::RefundFailed) => return Ok(PaymentUpdate::NoPayment),
        Some(Outcome::Counted | Outcome::Refunded) => report_failed_refund(&order.stripe_id),
    }
    // Stored after the report, so that an interruption repeats the report instead of losing it.
    if outcome == Some(Outcome::Refunded) {
        let payments = &cx.store.payments;
        let failed = Outcome::RefundFailed;
        payments.end_refund(&order.stripe_id, failed).await?;
    }
    Ok(PaymentUpdate::NoPayment)
}
