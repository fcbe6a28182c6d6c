//! PaymentIntents and their charges.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::card::{ChargeOutcome, decline_code, decline_message};
use super::error::ApiError;
use super::params::Params;
use super::state::{NotPossible, StripeState};

/// The minimum charge to a card, in US cents.
const MINIMUM_CENTS: i64 = 50;

impl StripeState {
    pub(super) fn create_intent(&mut self, params: &Params) -> Result<String, ApiError> {
        params.only(
            "amount currency customer description metadata payment_method payment_method_types",
        )?;
        params.required("amount")?;
        let amount = chargeable(params.integer("amount")?.unwrap_or_default())?;
        let currency = params.required("currency")?;
        let customer = self.customer_param(params)?;
        let method = self.method_param(params, customer)?;
        let status =
            if method.is_some() { "requires_confirmation" } else { "requires_payment_method" };
        Ok(self.new_intent(json!({
            "amount": amount,
            "currency": currency,
            "customer": customer,
            "metadata": params.map("metadata"),
            "payment_method": method,
            "status": status,
        })))
    }

    pub(super) fn new_intent(&mut self, members: Value) -> String {
        let empty = json!({
            "amount_received": 0,
            "canceled_at": null,
            "last_payment_error": null,
            "latest_charge": null,
            "metadata": {},
            "payment_method": null,
            "status": "requires_payment_method",
        });
        let id = self.add("pi", "payment_intent", empty);
        self.set(&id, members);
        id
    }

    pub(super) fn customer_param<'a>(
        &self,
        params: &'a Params,
    ) -> Result<Option<&'a str>, ApiError> {
        match params.get("customer") {
            Some(id) if self.known("customer", id).is_err() => {
                Err(ApiError::no_such_value("customer", id))
            }
            customer => Ok(customer),
        }
    }

    /// The payment method that the request names, if that customer may be charged with it.
    fn method_param<'a>(
        &self,
        params: &'a Params,
        customer: Option<&str>,
    ) -> Result<Option<&'a str>, ApiError> {
        let Some(id) = params.get("payment_method") else {
            return Ok(None);
        };
        if self.known("payment_method", id).is_err() {
            return Err(ApiError::no_such_value("payment_method", id));
        }
        let message = match (self.get(id)["customer"].as_str(), customer) {
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

    pub(super) fn confirm_intent(&mut self, id: &str, params: &Params) -> Result<String, ApiError> {
        params.only("off_session payment_method")?;
        let id = self.known("payment_intent", id)?;
        let off_session = params.boolean("off_session")?.unwrap_or_default();
        let intent = self.get(&id);
        let named = self.method_param(params, intent["customer"].as_str())?;
        let method = named.or(intent["payment_method"].as_str());
        let problem = match (intent["status"].as_str().unwrap_or_default(), method) {
            ("succeeded", _) => {
                "it has already succeeded after being previously confirmed".to_owned()
            }
            (status @ ("processing" | "canceled"), _) => format!("it has a status of {status}"),
            _ if intent["_session"].is_string() => "it belongs to a Checkout Session".to_owned(),
            (_, None) => "it's missing a payment method".to_owned(),
            (_, Some(method)) => {
                let method = method.to_owned();
                return self.charge_intent(id, &method, off_session);
            }
        };
        let message = format!("You cannot confirm this PaymentIntent because {problem}.");
        Err(self.unexpected_state(&id, &message))
    }

    /// Charges the payment method, as its card or the customer's script says.
    fn charge_intent(
        &mut self,
        id: String,
        method: &str,
        off_session: bool,
    ) -> Result<String, ApiError> {
        let script = self.scripts.get_mut(&self.text(&id, "customer"));
        let scripted = script.and_then(VecDeque::pop_front);
        let card = scripted.unwrap_or_else(|| self.cards[method]);
        let outcome = card.charge(off_session);
        if matches!(outcome, ChargeOutcome::NoResponse) {
            return Err(ApiError::no_response());
        }
        self.attempt(&id, method, outcome);
        self.response_lost = card.loses_response();
        if !matches!(outcome, ChargeOutcome::Declined(_)) {
            return Ok(id);
        }
        let shown = self.shown(&id);
        let mut error = shown["last_payment_error"].clone();
        error["charge"] = shown["latest_charge"].clone();
        error["payment_intent"] = shown;
        Err(ApiError::declined(error))
    }

    fn unexpected_state(&self, intent: &str, message: &str) -> ApiError {
        let error = ApiError::state(Some("payment_intent_unexpected_state"), message);
        error.with("payment_intent", self.shown(intent))
    }

    pub(super) fn cancel_intent(&mut self, id: &str) -> Result<String, ApiError> {
        let id = self.known("payment_intent", id)?;
        let intent = self.get(&id);
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
                self.end_intent(&id);
                return Ok(id);
            }
        };
        Err(self.unexpected_state(&id, &message))
    }

    pub(super) fn end_intent(&mut self, id: &str) {
        let now = self.now.as_second();
        self.set(id, json!({"status": "canceled", "canceled_at": now}));
        self.emit("payment_intent.canceled", id);
    }

    /// One attempt to charge `method`, and its outcome.
    pub(super) fn attempt(&mut self, id: &str, method: &str, outcome: ChargeOutcome) {
        self.set(id, json!({"payment_method": method}));
        let (event, changes) = match outcome {
            ChargeOutcome::NoResponse => return,
            ChargeOutcome::Succeeded => {
                let charge = self.new_charge(id, None);
                self.succeeded.push((charge.clone(), self.now));
                let changes = json!({
                    "amount_received": self.get(id)["amount"],
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
                    "latest_charge": self.new_charge(id, Some(reason)),
                    "payment_method": null,
                    "status": "requires_payment_method",
                });
                ("payment_intent.payment_failed", changes)
            }
            ChargeOutcome::RequiresAction => {
                ("payment_intent.requires_action", json!({"status": "requires_action"}))
            }
            ChargeOutcome::Processing => {
                ("payment_intent.processing", json!({"status": "processing"}))
            }
        };
        self.set(id, changes);
        self.emit(event, id);
    }

    fn new_charge(&mut self, intent: &str, failure: Option<&'static str>) -> String {
        let of = self.get(intent);
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
        self.add("ch", "charge", charge)
    }

    /// Ends a PaymentIntent that is processing or waits for the customer's authentication.
    pub fn finish(&mut self, intent: &str, succeeded: bool) -> Result<(), NotPossible> {
        let status = self.text(intent, "status");
        if !matches!(status.as_str(), "processing" | "requires_action") {
            return Err(NotPossible(format!("{intent} is not in progress")));
        }
        let method = self.text(intent, "payment_method");
        let (outcome, payment_status, event) = if succeeded {
            (ChargeOutcome::Succeeded, "paid", "checkout.session.async_payment_succeeded")
        } else {
            (ChargeOutcome::DECLINED, "unpaid", "checkout.session.async_payment_failed")
        };
        self.attempt(intent, &method, outcome);
        let session = self.text(intent, "_session");
        if !session.is_empty() {
            self.set(&session, json!({"payment_status": payment_status}));
            self.emit(event, &session);
        }
        Ok(())
    }

    /// Everything that can still be paid: open sessions, and unfinished PaymentIntents without an
    /// open session.
    pub fn payable(&mut self) -> Vec<String> {
        self.expire_sessions();
        let sessions = self.open_sessions.iter().map(|(_, id)| id);
        let intents = self.all("pi_").filter(|(_, intent)| {
            let session = intent["_session"].as_str().unwrap_or_default();
            let is_listed = self.get(session)["status"] == "open";
            !is_listed && intent["status"] != "canceled" && intent["status"] != "succeeded"
        });
        sessions.chain(intents.map(|(id, _)| id)).cloned().collect()
    }

    /// The payment method's reaction to a charge while the customer is absent.
    pub(super) fn unattended(&self, method: &str) -> ChargeOutcome {
        match self.cards[method].charge(true) {
            outcome @ (ChargeOutcome::Succeeded | ChargeOutcome::Declined(_)) => outcome,
            _ => ChargeOutcome::DECLINED,
        }
    }
}

pub(super) fn chargeable(cents: i64) -> Result<i64, ApiError> {
    if cents < MINIMUM_CENTS {
        let error = ApiError::invalid("amount", "Amount must be at least $0.50 usd");
        return Err(error.with("code", "amount_too_small"));
    }
    Ok(cents)
}
