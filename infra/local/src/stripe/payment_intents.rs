//! PaymentIntents and their charges.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::card::{ChargeOutcome, decline_code, decline_message};
use super::error::ApiError;
use super::params::Params;
use super::state::{NotPossible, StripeState};

/// The minimum charge to a card, in US cents.
const MINIMUM_CENTS: i64 = 50;

pub(super) fn create(state: &mut StripeState, params: &Params) -> Result<String, ApiError> {
    params.only(
        "amount currency customer description metadata payment_method payment_method_types",
    )?;
    params.required("amount")?;
    let amount = chargeable(params.integer("amount")?.unwrap_or_default())?;
    let currency = params.required("currency")?;
    let customer = customer_param(state, params)?;
    let method = method_param(state, params, customer)?;
    let status = if method.is_some() { "requires_confirmation" } else { "requires_payment_method" };
    Ok(add(
        state,
        json!({
            "amount": amount,
            "currency": currency,
            "customer": customer,
            "metadata": params.map("metadata"),
            "payment_method": method,
            "status": status,
        }),
    ))
}

pub(super) fn add(state: &mut StripeState, members: Value) -> String {
    let empty = json!({
        "amount_received": 0,
        "canceled_at": null,
        "last_payment_error": null,
        "latest_charge": null,
        "metadata": {},
        "payment_method": null,
        "status": "requires_payment_method",
    });
    let id = state.add("pi", "payment_intent", empty);
    state.set(&id, members);
    id
}

pub(super) fn customer_param<'a>(
    state: &StripeState,
    params: &'a Params,
) -> Result<Option<&'a str>, ApiError> {
    match params.get("customer") {
        Some(id) if state.known("customer", id).is_err() || state.get(id)["deleted"] == true => {
            Err(ApiError::no_such_value("customer", id))
        }
        customer => Ok(customer),
    }
}

/// The payment method that the request names, if that customer may be charged with it.
fn method_param<'a>(
    state: &StripeState,
    params: &'a Params,
    customer: Option<&str>,
) -> Result<Option<&'a str>, ApiError> {
    let Some(id) = params.get("payment_method") else {
        return Ok(None);
    };
    if state.known("payment_method", id).is_err() {
        return Err(ApiError::no_such_value("payment_method", id));
    }
    let message = match (state.get(id)["customer"].as_str(), customer) {
        (Some(owner), Some(customer)) if owner == customer => return Ok(Some(id)),
        (None, _) => {
            "The provided PaymentMethod was previously used with a PaymentIntent without \
             Customer attachment, or was detached from a Customer. It may not be used again."
        }
        (Some(_), None) => {
            "The PaymentMethod belongs to a Customer. Please include the Customer in the \
             `customer` parameter on the PaymentIntent."
        }
        (Some(_), Some(_)) => "The PaymentMethod does not belong to the Customer you supplied.",
    };
    Err(ApiError::invalid("payment_method", message))
}

pub(super) fn confirm(
    state: &mut StripeState,
    id: &str,
    params: &Params,
) -> Result<String, ApiError> {
    params.only("off_session payment_method")?;
    let id = state.known("payment_intent", id)?;
    let off_session = params.boolean("off_session")?.unwrap_or_default();
    let intent = state.get(&id);
    let named = method_param(state, params, intent["customer"].as_str())?;
    let method = named.or(intent["payment_method"].as_str());
    let problem = match (intent["status"].as_str().unwrap_or_default(), method) {
        ("succeeded", _) => "it has already succeeded after being previously confirmed".to_owned(),
        (status @ ("processing" | "canceled"), _) => format!("it has a status of {status}"),
        _ if intent["_session"].is_string() => "it belongs to a Checkout Session".to_owned(),
        (_, None) => "it's missing a payment method".to_owned(),
        (_, Some(method)) => {
            let method = method.to_owned();
            return charge(state, id, &method, off_session);
        }
    };
    let message = format!("You cannot confirm this PaymentIntent because {problem}.");
    Err(unexpected_state(state, &id, &message))
}

/// Charges the payment method, as its card or the customer's script says.
fn charge(
    state: &mut StripeState,
    id: String,
    method: &str,
    off_session: bool,
) -> Result<String, ApiError> {
    let script = state.scripts.get_mut(&state.text(&id, "customer"));
    let scripted = script.and_then(VecDeque::pop_front);
    let card = scripted.unwrap_or_else(|| state.cards[method]);
    let outcome = card.charge(off_session);
    if matches!(outcome, ChargeOutcome::NoResponse) {
        return Err(ApiError::no_response());
    }
    attempt(state, &id, method, outcome);
    state.response_lost = card.loses_response();
    if !matches!(outcome, ChargeOutcome::Declined(_)) {
        return Ok(id);
    }
    let shown = state.shown(&id);
    let mut error = shown["last_payment_error"].clone();
    error["charge"] = shown["latest_charge"].clone();
    error["payment_intent"] = shown;
    Err(ApiError::declined(error))
}

fn unexpected_state(state: &StripeState, intent: &str, message: &str) -> ApiError {
    let error = ApiError::state(Some("payment_intent_unexpected_state"), message);
    error.with("payment_intent", state.shown(intent))
}

pub(super) fn cancel(state: &mut StripeState, id: &str) -> Result<String, ApiError> {
    let id = state.known("payment_intent", id)?;
    let intent = state.get(&id);
    let message = match intent["status"].as_str().unwrap_or_default() {
        status @ ("succeeded" | "canceled" | "processing") => {
            format!("You cannot cancel this PaymentIntent because it has a status of {status}.")
        }
        _ if intent["_session"].is_string() => {
            "You cannot cancel the PaymentIntent for a Checkout Session. Expire the Checkout \
             Session instead."
                .to_owned()
        }
        _ => {
            end(state, &id);
            return Ok(id);
        }
    };
    Err(unexpected_state(state, &id, &message))
}

pub(super) fn end(state: &mut StripeState, id: &str) {
    let now = state.now.as_second();
    state.set(id, json!({"status": "canceled", "canceled_at": now}));
    state.emit("payment_intent.canceled", id);
}

/// One attempt to charge `method`, and its outcome.
pub(super) fn attempt(state: &mut StripeState, id: &str, method: &str, outcome: ChargeOutcome) {
    state.set(id, json!({"payment_method": method}));
    let (event, changes) = match outcome {
        ChargeOutcome::NoResponse => return,
        ChargeOutcome::Succeeded => {
            let charge = add_charge(state, id, None);
            state.succeeded.push((charge.clone(), state.now));
            let changes = json!({
                "amount_received": state.get(id)["amount"],
                "last_payment_error": null,
                "latest_charge": charge,
                "status": "succeeded",
            });
            ("payment_intent.succeeded", changes)
        }
        ChargeOutcome::Declined(reason) => {
            let error = json!({
                "type": "card_error",
                "code": decline_code(reason),
                "decline_code": reason,
                "message": decline_message(reason),
                "payment_method": {"id": method, "object": "payment_method"},
            });
            let changes = json!({
                "last_payment_error": error,
                "latest_charge": add_charge(state, id, Some(reason)),
                "payment_method": null,
                "status": "requires_payment_method",
            });
            ("payment_intent.payment_failed", changes)
        }
        ChargeOutcome::RequiresAction => {
            ("payment_intent.requires_action", json!({"status": "requires_action"}))
        }
        ChargeOutcome::Processing => ("payment_intent.processing", json!({"status": "processing"})),
    };
    state.set(id, changes);
    state.emit(event, id);
}

fn add_charge(state: &mut StripeState, intent: &str, failure: Option<&'static str>) -> String {
    let of = state.get(intent);
    let charge = json!({
        "amount": of["amount"],
        "amount_refunded": 0,
        "currency": of["currency"],
        "customer": of["customer"],
        "disputed": false,
        "failure_code": failure.map(decline_code),
        "payment_intent": intent,
        "payment_method": of["payment_method"],
        "refunded": false,
        "status": if failure.is_none() { "succeeded" } else { "failed" },
    });
    state.add("ch", "charge", charge)
}

/// Ends a PaymentIntent that is processing or waits for the customer's authentication.
pub(super) fn finish(
    state: &mut StripeState,
    intent: &str,
    succeeded: bool,
) -> Result<(), NotPossible> {
    let status = state.text(intent, "status");
    if !matches!(status.as_str(), "processing" | "requires_action") {
        return Err(NotPossible(format!("{intent} is not in progress")));
    }
    let method = state.text(intent, "payment_method");
    let (outcome, payment_status, event) = if succeeded {
        (ChargeOutcome::Succeeded, "paid", "checkout.session.async_payment_succeeded")
    } else {
        (ChargeOutcome::DECLINED, "unpaid", "checkout.session.async_payment_failed")
    };
    attempt(state, intent, &method, outcome);
    let session = state.text(intent, "_session");
    if !session.is_empty() {
        state.set(&session, json!({"payment_status": payment_status}));
        state.emit(event, &session);
    }
    Ok(())
}

/// The payment method's reaction to a charge while the customer is absent.
pub(super) fn unattended(state: &StripeState, method: &str) -> ChargeOutcome {
    match state.cards[method].charge(true) {
        outcome @ (ChargeOutcome::Succeeded | ChargeOutcome::Declined(_)) => outcome,
        _ => ChargeOutcome::DECLINED,
    }
}

pub(super) fn chargeable(cents: i64) -> Result<i64, ApiError> {
    if cents < MINIMUM_CENTS {
        let error = ApiError::invalid("amount", "Amount must be at least $0.50 usd");
        return Err(error.with("code", "amount_too_small"));
    }
    Ok(cents)
}
