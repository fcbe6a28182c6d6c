//! Disputes of card payments.

use account::add_on::Fact;
use account::{DisputeState as Known, Profile, ReversalReport};
use payments::{Cents, DisputeId, DisputeState, IntentId};
use store::{Outcome, Purchase};

use crate::context::Context;
use crate::error::Result;
use crate::outcome::{PaymentUpdate, order_paid_with};

/// Applies a cardholder's dispute of a payment that counted, or its decision.
pub(crate) async fn apply_dispute(
    cx: Context<'_>,
    id: &DisputeId,
    intent: &IntentId,
    (amount, state): (Option<Cents>, DisputeState),
) -> Result<PaymentUpdate> {
    let (known, won) = match state {
        // No money has moved.
        DisputeState::Inquiry | DisputeState::Other => return Ok(PaymentUpdate::NoPayment),
        DisputeState::Open => (Known::Open, None),
        DisputeState::Won => (Known::Won, Some(true)),
        DisputeState::Lost => (Known::Lost, Some(false)),
    };
    let Some((order, outcome)) = order_paid_with(cx, intent).await? else {
        return Ok(PaymentUpdate::TooEarly);
    };
    match outcome {
        None => return Ok(PaymentUpdate::TooEarly),
        Some(Outcome::Counted) => {}
        // The payment bought nothing, so there is nothing to undo.
        Some(_) => return Ok(PaymentUpdate::NoPayment),
    }
    if let Purchase::Credits { .. } = &order.purchase {
        let cents = amount.map_or(order.amount_cents, Cents::get);
        let report = ReversalReport::Dispute { id: id.to_string(), cents, state: known };
        cx.store.ledger.apply_reversals(&order, &[report], cx.now).await?;
    } else if let Some((generation, period)) = order.period()
        && let Some(account) = cx.store.accounts.by_number(&order.account_number).await?
    {
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
