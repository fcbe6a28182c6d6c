//! Checkout Sessions: created through the API, paid on their page.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::card::{Card, ChargeOutcome, decline_message};
use super::error::ApiError;
use super::params::Params;
use super::payment_intents::chargeable;
use super::state::StripeState;

const SHORTEST_SESSION: SignedDuration = SignedDuration::from_mins(30);
const LONGEST_SESSION: SignedDuration = SignedDuration::from_hours(24);

/// Why a page was not paid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayError {
    #[error("there is no such page")]
    NotFound,
    #[error("this was already paid")]
    Complete,
    #[error("this page has expired")]
    Expired,
    #[error("{0}")]
    Declined(&'static str),
    /// The payer's browser gets no response; the page may have been paid all the same.
    #[error("the connection was closed")]
    NoResponse,
}

impl StripeState {
    pub(super) fn create_session(&mut self, params: &Params) -> Result<String, ApiError> {
        params.only(
            "adaptive_pricing cancel_url client_reference_id currency customer expires_at \
             line_items mode payment_intent_data payment_method_types success_url",
        )?;
        let mode = params.required("mode")?;
        if !["payment", "subscription", "setup"].contains(&mode) {
            return Err(ApiError::invalid("mode", "Invalid mode"));
        }
        let customer = self.customer_param(params)?;
        let (product, amount, currency) = if mode == "setup" {
            ("A card for later payments", None, params.required("currency")?)
        } else {
            let (product, amount, currency) = line_item(params, mode)?;
            (product, Some(amount), currency)
        };
        let expires_at = expiry(params, self.now)?;
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
        let prefix = if self.livemode { "cs_live" } else { "cs_test" };
        let id = self.add(prefix, "checkout.session", session);
        let url = format!("{}/checkout/{id}", self.base_url);
        // Where the browser goes after the payment.
        let return_url = success_url.replace("{CHECKOUT_SESSION_ID}", &id);
        self.set(&id, json!({"url": url, "_return_url": return_url}));
        self.open_sessions.insert((expires_at, id.clone()));
        Ok(id)
    }

    pub(super) fn expire_session(&mut self, id: &str) -> Result<String, ApiError> {
        let id = self.known("checkout.session", id)?;
        if self.get(&id)["status"] != "open" {
            let message = "Only Checkout Sessions with a status in [\"open\"] can be expired.";
            return Err(ApiError::state(None, message));
        }
        self.end_session(&id);
        Ok(id)
    }

    /// Expires the sessions that are due.
    pub fn expire_sessions(&mut self) {
        while let Some((at, id)) = self.open_sessions.first() {
            if *at > self.now.as_second() {
                break;
            }
            let id = id.clone();
            self.end_session(&id);
        }
    }

    /// Expires an open session, and cancels the PaymentIntent begun in it.
    fn end_session(&mut self, id: &str) {
        self.close_session(id, "expired");
        let intent = self.text(id, "_intent");
        if !intent.is_empty() {
            self.end_intent(&intent);
        }
        self.emit("checkout.session.expired", id);
    }

    fn close_session(&mut self, id: &str, status: &str) {
        self.open_sessions.remove(&(self.integer(id, "expires_at"), id.to_owned()));
        self.set(id, json!({"status": status, "url": null}));
    }

    /// The customer pays on the checkout page. Returns the URL to which the page redirects.
    pub fn pay(&mut self, session: &str, card: Card) -> Result<String, PayError> {
        self.expire_sessions();
        if self.known("checkout.session", session).is_err() {
            return Err(PayError::NotFound);
        }
        match self.text(session, "status").as_str() {
            "open" => {}
            "complete" => return Err(PayError::Complete),
            _ => return Err(PayError::Expired),
        }
        let mode = self.text(session, "mode");
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
                let intent = self.session_intent(session);
                let method = self.add_method(None, card);
                self.attempt(&intent, &method, outcome);
            }
            Err(PayError::Declined(decline_message(reason)))
        } else {
            self.complete_session(session, &mode, card, outcome);
            Ok(self.text(session, "_return_url"))
        };
        if card.loses_response() {
            return Err(PayError::NoResponse);
        }
        result
    }

    /// The session's PaymentIntent: one for all attempts.
    fn session_intent(&mut self, id: &str) -> String {
        let session = self.get(id);
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
        let intent = self.new_intent(intent);
        let shown = is_payment.then_some(&intent);
        self.set(id, json!({"payment_intent": shown, "_intent": intent}));
        intent
    }

    fn complete_session(&mut self, id: &str, mode: &str, card: Card, outcome: ChargeOutcome) {
        if mode == "subscription" && self.get(id)["customer"].is_null() {
            let customer = self.add("cus", "customer", json!({"metadata": {}}));
            self.set(id, json!({"customer": customer}));
        }
        let session = self.get(id);
        let customer = session["customer"].as_str().map(str::to_owned);
        let keeps_card = session["_keeps_card"] == true;
        let method = self.add_method(customer.clone().filter(|_| keeps_card), card);
        if mode == "setup" {
            let setup =
                json!({"customer": customer, "payment_method": method, "status": "succeeded"});
            let setup = self.add("seti", "setup_intent", setup);
            self.set(id, json!({"setup_intent": setup}));
        } else {
            let intent = self.session_intent(id);
            self.set(&intent, json!({"customer": customer}));
            self.attempt(&intent, &method, outcome);
            if matches!(outcome, ChargeOutcome::Succeeded) {
                self.set(id, json!({"payment_status": "paid"}));
            }
            if mode == "subscription" {
                self.subscribe(id, &intent, &method);
            }
        }
        self.close_session(id, "complete");
        self.emit("checkout.session.completed", id);
    }
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
    Ok((product, chargeable(amount)?, currency))
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
