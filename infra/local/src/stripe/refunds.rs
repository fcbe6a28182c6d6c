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
    let refund = state.add("re", "refund", part_of_charge(state, &id, amount, "succeeded"));
    state.emit("refund.created", &refund);
    state.emit("charge.refunded", &id);
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
    for kind in ["refund.updated", "charge.refund.updated", "refund.failed"] {
        state.emit(kind, id);
    }
}

/// The refunds of a PaymentIntent, newest first.
pub(super) fn list_of(state: &StripeState, params: &Params) -> Result<Value, ApiError> {
    params.only("limit payment_intent starting_after")?;
    let intent = params.required("payment_intent")?;
    if state.known("payment_intent", intent).is_err() {
        return Err(ApiError::no_such_value("payment_intent", intent));
    }
    let limit = params.integer("limit")?.unwrap_or(10);
    if !(1..=100).contains(&limit) {
        return Err(ApiError::invalid("limit", "Invalid limit: it must be from 1 to 100."));
    }
    let ids = state.all("re_").filter(|(_, refund)| refund["payment_intent"] == intent);
    let mut ids: Vec<&String> = ids.map(|(id, _)| id).collect();
    ids.reverse();
    if let Some(after) = params.get("starting_after") {
        let place = ids.iter().position(|id| *id == after);
        let place = place.ok_or_else(|| ApiError::no_such_value("starting_after", after))?;
        ids.drain(..=place);
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = ids.len() > limit;
    ids.truncate(limit);
    let data: Vec<Value> = ids.into_iter().map(|id| state.shown(id)).collect();
    Ok(json!({"object": "list", "url": "/v1/refunds", "has_more": has_more, "data": data}))
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

/// The cardholder disputes what is not refunded yet, or the whole payment if all of it was
/// refunded. Returns the dispute's id.
pub(super) fn dispute(state: &mut StripeState, intent: &str) -> Result<String, NotPossible> {
    let id = add_dispute(state, intent, "needs_response")?;
    withdraw(state, &id);
    Ok(id)
}

/// The cardholder's bank asks about a payment; no money moves. Returns the dispute's id.
pub(super) fn inquire(state: &mut StripeState, intent: &str) -> Result<String, NotPossible> {
    add_dispute(state, intent, "warning_needs_response")
}

/// An inquiry becomes a dispute, under the same id.
pub(super) fn escalate(state: &mut StripeState, id: &str) -> Result<(), NotPossible> {
    if !is_inquiry(state, id) {
        return Err(NotPossible(format!("{id} is not an open inquiry")));
    }
    state.set(id, json!({"status": "needs_response"}));
    state.emit("charge.dispute.updated", id);
    withdraw(state, id);
    Ok(())
}

fn add_dispute(state: &mut StripeState, intent: &str, status: &str) -> Result<String, NotPossible> {
    let charge = state.text(intent, "latest_charge");
    let found = state.get(&charge);
    if found["status"] != "succeeded" || found["disputed"] == true {
        let message = format!("{intent} is not a payment that can be disputed");
        return Err(NotPossible(message));
    }
    let amount = match unrefunded(state, &charge) {
        0 => state.integer(&charge, "amount"),
        left => left,
    };
    let id = state.add("du", "dispute", part_of_charge(state, &charge, amount, status));
    state.emit("charge.dispute.created", &id);
    Ok(id)
}

fn withdraw(state: &mut StripeState, id: &str) {
    state.set(&state.text(id, "charge"), json!({"disputed": true}));
    state.emit("charge.dispute.funds_withdrawn", id);
}

fn is_inquiry(state: &StripeState, id: &str) -> bool {
    state.text(id, "status") == "warning_needs_response"
}

/// Closes a dispute: if `won`, the merchant keeps the money. An inquiry closes without a decision.
pub(super) fn close_dispute(
    state: &mut StripeState,
    id: &str,
    won: bool,
) -> Result<(), NotPossible> {
    if is_inquiry(state, id) {
        state.set(id, json!({"status": "warning_closed"}));
    } else if state.get(id)["status"] == "needs_response" {
        state.set(id, json!({"status": if won { "won" } else { "lost" }}));
        state.set(&state.text(id, "charge"), json!({"disputed": !won}));
    } else {
        return Err(NotPossible(format!("{id} is not an open dispute")));
    }
    if state.get(id)["status"] == "won" {
        state.emit("charge.dispute.funds_reinstated", id);
    }
    state.emit("charge.dispute.closed", id);
    Ok(())
}
