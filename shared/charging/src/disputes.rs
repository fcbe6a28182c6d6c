//! Disputes of card payments.

use account::Profile;
use account::add_on::Fact;
use payments::{Cents, DisputeId, DisputeState, IntentId};
use store::{EntryKind, Purchase};

use crate::context::Context;
use crate::error::Result;
use crate::outcome::PaymentUpdate;
use crate::reversal::{order_paid_with, post, share};

/// Applies a cardholder's dispute of a payment, or its decision.
pub(crate) async fn apply_dispute(
    cx: Context<'_>,
    id: &DisputeId,
    intent: &IntentId,
    (amount, state): (Option<Cents>, DisputeState),
) -> Result<PaymentUpdate> {
    let won = match state {
        // No money has moved.
        DisputeState::Inquiry | DisputeState::Other => return Ok(PaymentUpdate::NoPayment),
        DisputeState::Open => None,
        DisputeState::Won => Some(true),
        DisputeState::Lost => Some(false),
    };
    let Some((order, _)) = order_paid_with(cx, intent).await? else {
        return Ok(PaymentUpdate::TooEarly);
    };
    let Some(account) = cx.store.accounts.by_number(&order.account_number).await? else {
        return Ok(PaymentUpdate::NoPayment);
    };
    if let Purchase::Credits { credits, .. } = &order.purchase {
        let cents = amount.map_or(order.amount_cents, Cents::get);
        let credits = share(*credits, cents, order.amount_cents);
        let reversal = (EntryKind::Reversal, credits);
        let note = "card payment disputed";
        post(cx, &account, id.as_str(), reversal, note).await?;
        if won == Some(true) {
            // A grant, because it also covers what the dispute left owed.
            let (entry, grant) = (format!("{id}-won"), (EntryKind::Grant, credits));
            post(cx, &account, &entry, grant, "dispute won").await?;
        }
    } else if let Some((generation, period)) = order.period() {
        let disputed = |profile: &mut Profile| {
            profile.add_on.apply(Fact::Disputed {
                generation: generation.clone(),
                period,
                dispute: id.to_string(),
            });
            if let Some(won) = won {
                profile.add_on.apply(Fact::DisputeClosed {
                    generation: generation.clone(),
                    dispute: id.to_string(),
                    won,
                    at: cx.now,
                });
            }
        };
        cx.change(&account.id, disputed).await?;
    }
    Ok(PaymentUpdate::NoPayment)
}
