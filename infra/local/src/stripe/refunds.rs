//! Refunds and disputes.

use serde_json::{Value, json};

use super::error::ApiError;
use super::params::Params;
use super::state::{NotPossible, StripeState};

pub(super) fn create(state: &mut StripeState, params: &Params) -> Result<String, ApiError> {
    params.only("amount payment_intent")?;
    refund(state, params.required("payment_intent")?, params.integer("amount")?)
}

/// Makes the `next` refunds fail: the bank rejects the money.
pub(super) fn fail_next(state: &mut StripeState, next: u32) {
    state.failing_refunds = next;
}

/// Refunds `amount`, or the rest. Returns the refund's id.
fn refund(state: &mut StripeState, intent: &str, amount: Option<i64>) -> Result<String, ApiError> {
    if state.known("payment_intent", intent).is_err() {
        return Err(ApiError::no_such_value("payment_intent", intent));
    }
    if state.get(intent)["status"] != "succeeded" {
        let message =
            format!("This PaymentIntent ({intent}) does not have a successful charge to refund.");
        return Err(ApiError::state(None, &message));
    }
    let id = state.text(intent, "latest_charge");
    if state.get(&id)["disputed"] == true {
        let message = format!("Charge {id} has been charged back; cannot issue a refund.");
        return Err(ApiError::state(Some("charge_disputed"), &message));
    }
    let left = unrefunded(state, &id);
    if left == 0 {
        let message = format!("Charge {id} has already been refunded.");
        return Err(ApiError::state(Some("charge_already_refunded"), &message));
    }
    let amount = amount.unwrap_or(left);
    if !(1..=left).contains(&amount) {
        let message = format!(
            "Refund amount ({amount}) is not between 1 and the unrefunded amount on charge \
             ({left})."
        );
        return Err(ApiError::state(None, &message).with("param", "amount"));
    }
    add_refunded(state, &id, amount);
    state.emit("charge.refunded", &id);
    let refund = state.add("re", "refund", part_of_charge(state, &id, amount, "succeeded"));
    if state.failing_refunds > 0 {
        state.failing_refunds -= 1;
        fail(state, &refund);
    }
    Ok(refund)
}

fn unrefunded(state: &StripeState, charge: &str) -> i64 {
    state.integer(charge, "amount") - state.integer(charge, "amount_refunded")
}

fn add_refunded(state: &mut StripeState, charge: &str, cents: i64) {
    let refunded = state.integer(charge, "amount_refunded") + cents;
    let is_full = refunded == state.integer(charge, "amount");
    state.set(charge, json!({"amount_refunded": refunded, "refunded": is_full}));
}

/// The members that refunds and disputes share.
fn part_of_charge(state: &StripeState, charge: &str, amount: i64, status: &str) -> Value {
    let of = state.get(charge);
    json!({
        "amount": amount,
        "charge": charge,
        "currency": of["currency"],
        "payment_intent": of["payment_intent"],
        "status": status,
    })
}

/// The bank rejects the refund, and the money comes back.
fn fail(state: &mut StripeState, id: &str) {
    state.set(id, json!({"status": "failed"}));
    add_refunded(state, &state.text(id, "charge"), -state.integer(id, "amount"));
    state.emit("refund.failed", id);
}

/// The merchant makes a refund in Stripe's dashboard.
pub(super) fn refund_in_dashboard(
    state: &mut StripeState,
    intent: &str,
    cents: i64,
) -> Result<(), NotPossible> {
    let refund = refund(state, intent, Some(cents));
    refund.map(drop).map_err(|error| {
        let message = error.error["message"].as_str();
        NotPossible(message.unwrap_or_default().to_owned())
    })
}

/// The bank rejects the first refund of a PaymentIntent, days later.
pub(super) fn bounce(state: &mut StripeState, intent: &str) -> Result<(), NotPossible> {
    let made =
        |refund: &Value| refund["payment_intent"] == intent && refund["status"] == "succeeded";
    let Some((first, _)) = state.all("re_").find(|(_, refund)| made(refund)) else {
        return Err(NotPossible(format!("{intent} was not refunded")));
    };
    let first = first.clone();
    fail(state, &first);
    Ok(())
}

/// The cardholder disputes the amount not refunded yet. Returns the dispute's id.
pub(super) fn dispute(state: &mut StripeState, intent: &str) -> Result<String, NotPossible> {
    let charge = state.text(intent, "latest_charge");
    let found = state.get(&charge);
    let left = unrefunded(state, &charge);
    if found["status"] != "succeeded" || found["disputed"] == true || left == 0 {
        let message = format!("{intent} is not a payment that can be disputed");
        return Err(NotPossible(message));
    }
    state.set(&charge, json!({"disputed": true}));
    let dispute = part_of_charge(state, &charge, left, "needs_response");
    let id = state.add("du", "dispute", dispute);
    state.emit("charge.dispute.created", &id);
    Ok(id)
}

/// The bank decides a dispute: if it is `won`, the merchant keeps the money.
pub(super) fn close_dispute(
    state: &mut StripeState,
    id: &str,
    won: bool,
) -> Result<(), NotPossible> {
    if state.get(id)["status"] != "needs_response" {
        return Err(NotPossible(format!("{id} is not an open dispute")));
    }
    state.set(id, json!({"status": if won { "won" } else { "lost" }}));
    state.set(&state.text(id, "charge"), json!({"disputed": !won}));
    state.emit("charge.dispute.closed", id);
    Ok(())
}
