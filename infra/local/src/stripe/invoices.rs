//! Invoices of subscriptions.

use serde_json::json;

use super::card::{Card, ChargeOutcome, PayError, decline_message};
use super::error::ApiError;
use super::params::Params;
use super::payment_intents;
use super::state::StripeState;

/// Records an attempt to collect the invoice.
pub(super) fn attempted(state: &mut StripeState, id: &str, is_paid: bool) {
    let attempts = state.integer(id, "attempt_count") + 1;
    state.set(id, json!({"attempt_count": attempts}));
    if is_paid {
        let transitions = json!({"paid_at": state.now.as_second()});
        state.set(id, json!({"status": "paid", "status_transitions": transitions}));
    }
    state.emit(if is_paid { "invoice.paid" } else { "invoice.payment_failed" }, id);
}

pub(super) fn update(
    state: &mut StripeState,
    id: &str,
    params: &Params,
) -> Result<String, ApiError> {
    params.only("auto_advance")?;
    let id = state.known("invoice", id)?;
    if let Some(advance) = params.boolean("auto_advance")? {
        state.set(&id, json!({"auto_advance": advance}));
    }
    Ok(id)
}

/// Pays the invoice with the subscription's card.
pub(super) fn pay(state: &mut StripeState, id: &str) -> Result<String, ApiError> {
    let id = state.known("invoice", id)?;
    let card = state.cards[&method_of(state, &state.text(&id, "_subscription"))];
    match pay_on_page(state, &id, card) {
        Ok(()) => Ok(id),
        Err(PayError::Declined(message)) => {
            let error = json!({"type": "card_error", "code": "card_declined", "message": message});
            Err(ApiError::declined(error))
        }
        Err(_) => Err(ApiError::state(None, "Invoice is already paid")),
    }
}

pub(super) fn void(state: &mut StripeState, id: &str) -> Result<String, ApiError> {
    let id = state.known("invoice", id)?;
    if state.get(&id)["status"] != "open" {
        let message = "You can only void open or uncollectible invoices.";
        return Err(ApiError::state(None, message));
    }
    state.set(&id, json!({"status": "void"}));
    state.emit("invoice.voided", &id);
    Ok(id)
}

/// The customer pays an open invoice on its page.
pub(super) fn pay_on_page(state: &mut StripeState, id: &str, card: Card) -> Result<(), PayError> {
    if state.known("invoice", id).is_err() {
        return Err(PayError::NotFound);
    }
    match state.text(id, "status").as_str() {
        "open" => {}
        "paid" => return Err(PayError::Complete),
        _ => return Err(PayError::Expired),
    }
    let method = state.add_method(Some(state.text(id, "customer")), card);
    let outcome = match card.charge(false) {
        declined @ ChargeOutcome::Declined(_) => declined,
        _ => ChargeOutcome::Succeeded,
    };
    payment_intents::attempt(state, &state.text(id, "_intent"), &method, outcome);
    if let ChargeOutcome::Declined(reason) = outcome {
        return Err(PayError::Declined(decline_message(reason)));
    }
    let subscription = state.text(id, "_subscription");
    let of = state.get(&subscription);
    if of["status"] == "past_due" && of["latest_invoice"] == id {
        state.set(&subscription, json!({"status": "active"}));
    }
    attempted(state, id, true);
    state.emit("customer.subscription.updated", &subscription);
    Ok(())
}

/// Makes one attempt to collect an invoice.
pub(super) fn charge(state: &mut StripeState, id: &str, outcome: ChargeOutcome) {
    let method = method_of(state, &state.text(id, "_subscription"));
    payment_intents::attempt(state, &state.text(id, "_intent"), &method, outcome);
    attempted(state, id, matches!(outcome, ChargeOutcome::Succeeded));
}

pub(super) fn method_of(state: &StripeState, subscription: &str) -> String {
    state.text(subscription, "default_payment_method")
}
