//! Disputes of card payments.

use account::Profile;
use account::add_on::Fact;
use jiff::Timestamp;
use payments::{Cents, DisputeId, DisputeState, IntentId};
use store::{EntryKind, Purchase};

use crate::context::Charging;
use crate::error::ChargingError;
use crate::outcome::PaymentUpdate;
use crate::reversal::{order_paid_with, period_paid_by, post, share};

/// Applies that the cardholder disputes a payment, or that the dispute is decided.
pub(crate) async fn apply_dispute(
    charging: &Charging,
    id: &DisputeId,
    intent: &IntentId,
    (amount, state): (Option<Cents>, DisputeState),
    now: Timestamp,
) -> Result<PaymentUpdate, ChargingError> {
    let won = match state {
        // No money has moved.
        DisputeState::Inquiry | DisputeState::Other => return Ok(PaymentUpdate::NoPayment),
        DisputeState::Open => None,
        DisputeState::Won => Some(true),
        DisputeState::Lost => Some(false),
    };
    let Some((order, _)) = order_paid_with(charging, intent).await? else {
        return Ok(PaymentUpdate::TooEarly);
    };
    let Some(account) = charging
        .store
        .accounts
        .by_number(&order.account_number)
        .await?
    else {
        return Ok(PaymentUpdate::NoPayment);
    };
    if let Purchase::Credits { credits, .. } = &order.purchase {
        let cents = amount.map_or(order.amount_cents, Cents::get);
        let credits = share(*credits, cents, order.amount_cents);
        let reversal = (EntryKind::Reversal, credits);
        let note = "card payment disputed";
        post(charging, &account, id.as_str(), reversal, note, now).await?;
        if won == Some(true) {
            // A grant, because it also pays what the dispute left owed.
            let (entry, grant) = (format!("{id}-won"), (EntryKind::Grant, credits));
            post(charging, &account, &entry, grant, "dispute won", now).await?;
        }
    } else if let Some((generation, period)) = period_paid_by(&order) {
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
                    at: now,
                });
            }
        };
        charging.change(&account.id, now, disputed).await?;
    }
    Ok(PaymentUpdate::NoPayment)
}
