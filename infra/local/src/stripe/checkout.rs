//! Checkout Sessions: created through the API, paid on their page.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::card::{Card, ChargeOutcome, PayError, decline_message};
use super::error::ApiError;
use super::params::Params;
use super::state::StripeState;
use super::{payment_intents, subscriptions};

const SHORTEST_SESSION: SignedDuration = SignedDuration::from_mins(30);
const LONGEST_SESSION: SignedDuration = SignedDuration::from_hours(24);

pub(super) fn create(state: &mut StripeState, params: &Params) -> Result<String, ApiError> {
    params.only(
        "adaptive_pricing cancel_url client_reference_id currency customer expires_at \
         line_items mode payment_intent_data payment_method_types success_url",
    )?;
    let mode = params.required("mode")?;
    if !["payment", "subscription", "setup"].contains(&mode) {
        return Err(ApiError::invalid("mode", "Invalid mode"));
    }
    let customer = payment_intents::customer_param(state, params)?;
    let (product, amount, currency) = if mode == "setup" {
        ("A card for later payments", None, params.required("currency")?)
    } else {
        let (product, amount, currency) = line_item(params, mode)?;
        (product, Some(amount), currency)
    };
    let expires_at = expiry(params, state.now)?;
    let reuse = params.get("payment_intent_data[setup_future_usage]");
    let success_url = params.required("success_url")?;
    let session = json!({
        "amount_total": amount,
        "cancel_url": params.get("cancel_url"),
        "client_reference_id": params.get("client_reference_id"),
        "currency": currency,
        "customer": customer,
        "expires_at": expires_at,
        "invoice": null,
        "mode": mode,
        "payment_intent": null,
        "payment_status": if mode == "setup" { "no_payment_required" } else { "unpaid" },
        "setup_intent": null,
        "status": "open",
        "subscription": null,
        "success_url": success_url,
        "_keeps_card": mode != "payment" || reuse == Some("off_session"),
        "_product": product,
    });
    let prefix = if state.livemode { "cs_live" } else { "cs_test" };
    let id = state.add(prefix, "checkout.session", session);
    let url = format!("{}/checkout/{id}", state.base_url);
    // Where the browser goes after the payment.
    let return_url = success_url.replace("{CHECKOUT_SESSION_ID}", &id);
    state.set(&id, json!({"url": url, "_return_url": return_url}));
    state.open_sessions.insert((expires_at, id.clone()));
    Ok(id)
}

pub(super) fn expire(state: &mut StripeState, id: &str) -> Result<String, ApiError> {
    let id = state.known("checkout.session", id)?;
    if state.get(&id)["status"] != "open" {
        let message = "Only Checkout Sessions with a status in [\"open\"] can be expired.";
        return Err(ApiError::state(None, message));
    }
    end(state, &id);
    Ok(id)
}

/// Expires the sessions that are due.
pub(super) fn expire_due(state: &mut StripeState) {
    while let Some((at, id)) = state.open_sessions.first() {
        if *at > state.now.as_second() {
            break;
        }
        let id = id.clone();
        end(state, &id);
    }
}

/// Expires an open session, and cancels the PaymentIntent begun in it.
fn end(state: &mut StripeState, id: &str) {
    close(state, id, "expired");
    let intent = state.text(id, "_intent");
    if !intent.is_empty() {
        payment_intents::end(state, &intent);
    }
    state.emit("checkout.session.expired", id);
}

fn close(state: &mut StripeState, id: &str, status: &str) {
    state.open_sessions.remove(&(state.integer(id, "expires_at"), id.to_owned()));
    state.set(id, json!({"status": status, "url": null}));
}

/// The customer pays on the checkout page. Returns the URL to which the page redirects.
pub(super) fn pay(state: &mut StripeState, session: &str, card: Card) -> Result<String, PayError> {
    expire_due(state);
    if state.known("checkout.session", session).is_err() {
        return Err(PayError::NotFound);
    }
    match state.text(session, "status").as_str() {
        "open" => {}
        "complete" => return Err(PayError::Complete),
        _ => return Err(PayError::Expired),
    }
    let mode = state.text(session, "mode");
    let outcome = match card.charge(false) {
        ChargeOutcome::NoResponse => return Err(PayError::NoResponse),
        // The customer is present and authenticates.
        ChargeOutcome::RequiresAction => ChargeOutcome::Succeeded,
        // Only one-time payments take a while.
        ChargeOutcome::Processing if mode != "payment" => ChargeOutcome::Succeeded,
        outcome => outcome,
    };
    let result = if let ChargeOutcome::Declined(reason) = outcome {
        if mode != "setup" {
            let intent = intent_of(state, session);
            let method = state.add_method(None, card);
            payment_intents::attempt(state, &intent, &method, outcome);
        }
        Err(PayError::Declined(decline_message(reason)))
    } else {
        complete(state, session, &mode, card, outcome);
        Ok(state.text(session, "_return_url"))
    };
    if card.loses_response() {
        return Err(PayError::NoResponse);
    }
    result
}

/// The session's PaymentIntent: one for all attempts.
fn intent_of(state: &mut StripeState, id: &str) -> String {
    let session = state.get(id);
    if let Some(intent) = session["_intent"].as_str() {
        return intent.to_owned();
    }
    let is_payment = session["mode"] == "payment";
    let intent = json!({
        "amount": session["amount_total"],
        "currency": session["currency"],
        "customer": session["customer"],
        "_session": id,
    });
    let intent = payment_intents::add(state, intent);
    let shown = is_payment.then_some(&intent);
    state.set(id, json!({"payment_intent": shown, "_intent": intent}));
    intent
}

fn complete(state: &mut StripeState, id: &str, mode: &str, card: Card, outcome: ChargeOutcome) {
    if mode == "subscription" && state.get(id)["customer"].is_null() {
        let customer = state.add("cus", "customer", json!({"metadata": {}}));
        state.set(id, json!({"customer": customer}));
    }
    let session = state.get(id);
    let customer = session["customer"].as_str().map(str::to_owned);
    let keeps_card = session["_keeps_card"] == true;
    let method = state.add_method(customer.clone().filter(|_| keeps_card), card);
    if mode == "setup" {
        let setup = json!({"customer": customer, "payment_method": method, "status": "succeeded"});
        let setup = state.add("seti", "setup_intent", setup);
        state.set(id, json!({"setup_intent": setup}));
    } else {
        let intent = intent_of(state, id);
        state.set(&intent, json!({"customer": customer}));
        payment_intents::attempt(state, &intent, &method, outcome);
        if matches!(outcome, ChargeOutcome::Succeeded) {
            state.set(id, json!({"payment_status": "paid"}));
        }
        if mode == "subscription" {
            subscriptions::start(state, id, &intent, &method);
        }
    }
    close(state, id, "complete");
    state.emit("checkout.session.completed", id);
}

/// Everything that can still be paid: open sessions, and unfinished PaymentIntents without an
/// open session.
pub(super) fn payable(state: &mut StripeState) -> Vec<String> {
    expire_due(state);
    let sessions = state.open_sessions.iter().map(|(_, id)| id);
    let intents = state.all("pi_").filter(|(_, intent)| {
        let session = intent["_session"].as_str().unwrap_or_default();
        let is_listed = state.get(session)["status"] == "open";
        !is_listed && intent["status"] != "canceled" && intent["status"] != "succeeded"
    });
    sessions.chain(intents.map(|(id, _)| id)).cloned().collect()
}

/// A session's product: its name, amount and currency.
fn line_item<'a>(params: &'a Params, mode: &str) -> Result<(&'a str, i64, &'a str), ApiError> {
    let price = |name: &str| format!("line_items[0][price_data]{name}");
    let currency = params.required(&price("[currency]"))?;
    let product = params.required(&price("[product_data][name]"))?;
    let interval = price("[recurring][interval]");
    match (mode, params.get(&interval)) {
        ("subscription", Some("month")) | ("payment", None) => {}
        ("subscription", None) => return Err(ApiError::missing(&interval)),
        _ => return Err(ApiError::invalid(&interval, "Invalid interval for this mode")),
    }
    let number = |name: &str| params.integer(name)?.ok_or_else(|| ApiError::missing(name));
    let amount = number(&price("[unit_amount]"))? * number("line_items[0][quantity]")?;
    Ok((product, payment_intents::chargeable(amount)?, currency))
}

/// When the session expires, in Unix seconds.
fn expiry(params: &Params, now: Timestamp) -> Result<i64, ApiError> {
    let latest = now.as_second() + LONGEST_SESSION.as_secs();
    let at = params.integer("expires_at")?.unwrap_or(latest);
    if (now.as_second() + SHORTEST_SESSION.as_secs()..=latest).contains(&at) {
        return Ok(at);
    }
    let message = "The `expires_at` timestamp must be from 30 minutes to 24 hours from Checkout \
                   Session creation.";
    Err(ApiError::invalid("expires_at", message))
}
