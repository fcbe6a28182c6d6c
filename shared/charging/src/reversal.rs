//! Reversals of bought credits whose payment is refunded or disputed.

use account::{Account, Credits, EntryId};
use payments::IntentId;
use store::{EntryKind, Outcome, PaymentOrder, Posting, Purchase};

use crate::context::Context;
use crate::error::Result;

/// The ledger's actor for postings that follow from a Stripe payment.
const STRIPE: &str = "stripe";

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

/// Posts the credits that a payment moves. A reversal subtracts them.
pub(crate) async fn post(
    cx: Context<'_>,
    account: &Account,
    entry: &str,
    (kind, amount): (EntryKind, Credits),
    note: &str,
) -> Result<()> {
    let posting = Posting {
        id: &EntryId::new(entry)?,
        kind,
        amount: match kind {
            EntryKind::Reversal => amount.checked_neg().unwrap_or(Credits::ZERO),
            _ => amount,
        },
        at: cx.now,
        note,
        actor: STRIPE,
    };
    cx.store.ledger.post(&account.id, &posting).await?;
    Ok(())
}

/// The part of `credits` that corresponds to `cents` of their full price `of`, rounded up.
pub(crate) fn share(credits: Credits, cents: u64, of: u64) -> Credits {
    let micros = u128::try_from(credits.micros()).unwrap_or(0);
    let part = micros.saturating_mul(u128::from(cents)).div_ceil(u128::from(of.max(1)));
    Credits::from_micros(i64::try_from(part.min(micros)).unwrap_or(credits.micros()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_up_and_never_more_than_all() {
        let table =
            [(100, 0, 300, 0), (100, 100, 300, 34), (100, 300, 300, 100), (100, 900, 300, 100)];
        for (credits, cents, of, expected) in table {
            let credits = Credits::from_micros(credits);
            assert_eq!(share(credits, cents, of).micros(), expected, "{cents} of {of}");
        }
    }
}
