//! PaymentIntents and their charges.

use super::card::ChargeOutcome;
use super::error::ApiError;
use super::params::Params;
use super::resources::{Charge, IntentStatus, PaymentIntent};
use super::state::{NotPossible, StripeState, existing};

/// The least that a card can be charged, in US cents.
const MINIMUM_CENTS: i64 = 50;

impl StripeState {
    pub(super) fn create_intent(&mut self, params: &Params) -> Result<String, ApiError> {
        params.only(
            "amount automatic_payment_methods confirm currency customer description metadata \
             payment_method payment_method_types receipt_email setup_future_usage \
             statement_descriptor_suffix",
        )?;
        if params.boolean("confirm")? == Some(true) {
            let message = "The simulator creates PaymentIntents unconfirmed; confirm separately.";
            return Err(ApiError::invalid("confirm", message));
        }
        params.required("amount")?;
        let amount = chargeable(params.integer("amount")?.unwrap_or_default())?;
        let currency = params.required("currency")?.to_owned();
        let customer = self.customer_param(params)?;
        let method = self.method_param(params, customer.as_ref())?;
        let id = self.new_intent(amount, currency, customer);
        let intent = existing(&mut self.intents, &id);
        if method.is_some() {
            intent.status = IntentStatus::RequiresConfirmation;
        }
        intent.payment_method = method;
        intent.metadata = params.map("metadata");
        intent.keeps_method = params.get("setup_future_usage") == Some("off_session");
        Ok(id)
    }

    pub(super) fn new_intent(
        &mut self,
        amount: i64,
        currency: String,
        customer: Option<String>,
    ) -> String {
        let id = self.new_id("pi");
        let intent = PaymentIntent {
            id: id.clone(),
            created: self.now,
            amount,
            currency,
            customer,
            ..PaymentIntent::default()
        };
        self.intents.insert(id.clone(), intent);
        id
    }

    pub(super) fn customer_param(&self, params: &Params) -> Result<Option<String>, ApiError> {
        match params.owned("customer") {
            Some(id) if !self.customers.contains_key(&id) => {
                Err(ApiError::no_such_value("customer", &id))
            }
            customer => Ok(customer),
        }
    }

    /// The payment method that the request names, if that customer may be charged with it.
    fn method_param(
        &self,
        params: &Params,
        customer: Option<&String>,
    ) -> Result<Option<String>, ApiError> {
        let Some(id) = params.get("payment_method") else {
            return Ok(None);
        };
        let known = self.methods.get(id);
        let method = known.ok_or_else(|| ApiError::no_such_value("payment_method", id))?;
        let message = match (&method.customer, customer) {
            (Some(owner), Some(customer)) if owner == customer => return Ok(Some(id.to_owned())),
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
        params.only("off_session payment_method return_url")?;
        let id = self.known("payment_intent", id)?;
        let off_session = params.boolean("off_session")?.unwrap_or_default();
        let intent = &self.intents[&id];
        let named = self.method_param(params, intent.customer.as_ref())?;
        let method = named.or_else(|| intent.payment_method.clone());
        let problem = match (intent.status, method) {
            (IntentStatus::Succeeded, _) => {
                "it has already succeeded after being previously confirmed".to_owned()
            }
            (status @ (IntentStatus::Processing | IntentStatus::Canceled), _) => {
                format!("it has a status of {}", name(status))
            }
            _ if intent.session.is_some() => "it belongs to a Checkout Session".to_owned(),
            (_, None) => "it's missing a payment method".to_owned(),
            (_, Some(method)) => return self.charge_intent(id, &method, off_session),
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
        let customer = self.intents[&id].customer.as_ref();
        let customer = customer.and_then(|id| self.customers.get_mut(id));
        let scripted = customer.and_then(|customer| customer.script.pop_front());
        let card = scripted.unwrap_or_else(|| self.methods[method].card);
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
        let intent = &self.intents[&id];
        let message = match intent.status {
            status @ (IntentStatus::Succeeded
            | IntentStatus::Canceled
            | IntentStatus::Processing) => format!(
                "You cannot cancel this PaymentIntent because it has a status of {}.",
                name(status)
            ),
            _ if intent.session.is_some() => {
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
        let intent = existing(&mut self.intents, id);
        intent.status = IntentStatus::Canceled;
        intent.canceled_at = Some(self.now);
        self.emit("payment_intent.canceled", id);
    }

    /// One attempt to charge `method`, and its outcome.
    pub(super) fn attempt(&mut self, id: &str, method: &str, outcome: ChargeOutcome) {
        let intent = existing(&mut self.intents, id);
        intent.payment_method = Some(method.to_owned());
        let event = match outcome {
            ChargeOutcome::NoResponse => return,
            ChargeOutcome::Succeeded => {
                intent.status = IntentStatus::Succeeded;
                intent.last_decline = None;
                self.new_charge(id, None);
                "payment_intent.succeeded"
            }
            ChargeOutcome::Declined(reason) => {
                self.new_charge(id, Some(reason));
                let intent = existing(&mut self.intents, id);
                intent.status = IntentStatus::RequiresPaymentMethod;
                intent.last_decline = intent.payment_method.take().map(|method| (reason, method));
                "payment_intent.payment_failed"
            }
            ChargeOutcome::RequiresAction => {
                intent.status = IntentStatus::RequiresAction;
                "payment_intent.requires_action"
            }
            ChargeOutcome::Processing => {
                intent.status = IntentStatus::Processing;
                "payment_intent.processing"
            }
        };
        self.emit(event, id);
    }

    fn new_charge(&mut self, intent: &str, failure: Option<&'static str>) {
        let id = self.new_id("ch");
        let intent = existing(&mut self.intents, intent);
        intent.latest_charge = Some(id.clone());
        let charge = Charge {
            id: id.clone(),
            created: self.now,
            payment_intent: intent.id.clone(),
            payment_method: intent.payment_method.clone().unwrap_or_default(),
            amount: intent.amount,
            failure,
            ..Charge::default()
        };
        if failure.is_none() {
            self.succeeded.push(id.clone());
        }
        self.charges.insert(id, charge);
    }

    /// The end of a PaymentIntent that is processing or waits for the customer's authentication.
    pub fn finish(&mut self, intent: &str, succeeded: bool) -> Result<(), NotPossible> {
        let found = self.intents.get(intent).filter(|intent| {
            use IntentStatus::{Processing, RequiresAction};
            matches!(intent.status, Processing | RequiresAction)
        });
        let Some(found) = found else {
            return Err(NotPossible(format!("{intent} is not in progress")));
        };
        let method = found.payment_method.clone().unwrap_or_default();
        let session = found.session.clone();
        let (outcome, session_event) = if succeeded {
            let event = "checkout.session.async_payment_succeeded";
            (ChargeOutcome::Succeeded, event)
        } else {
            let event = "checkout.session.async_payment_failed";
            (ChargeOutcome::DECLINED, event)
        };
        self.attempt(intent, &method, outcome);
        if let Some(session) = session {
            existing(&mut self.sessions, &session).paid = succeeded;
            self.emit(session_event, &session);
        }
        Ok(())
    }

    /// What can still be paid: open sessions, and unfinished PaymentIntents without an open
    /// session.
    pub fn payable(&mut self) -> Vec<String> {
        self.expire_sessions();
        let sessions = self.open_sessions.iter().map(|(_, id)| id.clone());
        let is_open = |intent: &&PaymentIntent| {
            use IntentStatus::{Canceled, Succeeded};
            let session = intent.session.as_ref();
            let is_listed = session.is_some_and(|id| self.sessions[id].is_open());
            !is_listed && !matches!(intent.status, Canceled | Succeeded)
        };
        let intents = self.intents.values().filter(is_open);
        let mut intents: Vec<_> = intents.map(|intent| intent.id.clone()).collect();
        intents.sort();
        sessions.chain(intents).collect()
    }

    /// How the payment method's card reacts while nobody is present to authenticate.
    pub(super) fn unattended(&self, method: &str) -> ChargeOutcome {
        match self.methods[method].card.charge(true) {
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

/// The status, as the API spells it.
fn name(status: IntentStatus) -> String {
    let name = serde_json::to_value(status).unwrap_or_default();
    name.as_str().unwrap_or_default().to_owned()
}
