//! What the API's callers may do.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::acts::PayError;
use super::api::ApiRequest;
use super::card::Verdict;
use super::form::Form;
use super::objects::{IntentStatus, Mode, Session, SessionStatus};
use super::refusal::Refusal;
use super::state::{ProviderState, kept};

/// The least that a card can be charged, in US cents.
const LEAST_AMOUNT: i64 = 50;
/// The members that name another object.
const EXPANDABLE: [&str; 10] = [
    "customer",
    "default_payment_method",
    "invoice",
    "latest_charge",
    "latest_invoice",
    "payment_intent",
    "payment_method",
    "payments",
    "setup_intent",
    "subscription",
];
const SHORTEST_SESSION: SignedDuration = SignedDuration::from_mins(30);
const LONGEST_SESSION: SignedDuration = SignedDuration::from_hours(24);

/// Why a request has no result.
pub(super) enum Failure {
    Refused(Refusal),
    /// The connection is closed, and nothing was done.
    Unheard,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl ProviderState {
    /// Finds the endpoint and has it answer.
    pub(super) fn dispatch(
        &mut self,
        request: &ApiRequest,
        now: Timestamp,
    ) -> Result<Value, Failure> {
        let form = &request.form;
        // Before anything is done.
        let names = form.list("expand");
        let mut names = names.iter().flat_map(|path| path.split('.'));
        if let Some(name) = names.find(|name| !EXPANDABLE.contains(name)) {
            let message = format!("This property cannot be expanded ({name}).");
            return Err(Refusal::invalid("expand", &message).into());
        }
        let path = request.path.strip_prefix("/v1/").unwrap_or_default();
        let parts: Vec<&str> = path.split('/').collect();
        let id = match (request.method.as_str(), parts.as_slice()) {
            ("GET", ["customers", id]) => self.known("customer", id)?,
            ("GET", ["checkout", "sessions", id]) => self.known("checkout.session", id)?,
            ("GET", ["payment_intents", id]) => self.known("payment_intent", id)?,
            ("GET", ["setup_intents", id]) => self.known("setup_intent", id)?,
            ("GET", ["subscriptions", id]) => self.known("subscription", id)?,
            ("GET", ["invoices", id]) => self.known("invoice", id)?,
            ("GET", ["invoice_payments"]) => return Ok(self.invoice_payments(form)?),
            ("POST", ["customers"]) => self.create_customer(form, now)?,
            ("POST", ["checkout", "sessions"]) => self.create_session(form, now)?,
            ("POST", ["checkout", "sessions", id, "expire"]) => self.expire(id, now)?,
            ("POST", ["payment_intents"]) => self.create_intent(form, now)?,
            ("POST", ["payment_intents", id, "confirm"]) => self.confirm(id, form, now)?,
            ("POST", ["payment_intents", id, "cancel"]) => self.cancel(id, now)?,
            ("POST", ["invoices", id]) => self.update_invoice(id, form)?,
            ("POST", ["invoices", id, "pay"]) => self.pay_invoice_now(id, now)?,
            ("POST", ["invoices", id, "void"]) => self.void_invoice(id, now)?,
            ("POST", ["refunds"]) => return Ok(self.create_refund(form, now)?),
            ("POST", ["subscriptions", id]) => self.update_subscription(id, form, now)?,
            ("DELETE", ["subscriptions", id]) => self.cancel_subscription(id, now)?,
            (method, _) => return Err(Refusal::no_route(method, &request.path).into()),
        };
        let mut shown = self.shown(&id);
        for path in form.list("expand") {
            self.expand(&mut shown, path);
        }
        Ok(shown)
    }

    /// An id in the path, of an object of this kind.
    fn known(&self, kind: &str, id: &str) -> Result<String, Refusal> {
        let exists = match kind {
            "customer" => self.customers.contains_key(id),
            "checkout.session" => self.sessions.contains_key(id),
            "payment_intent" => self.intents.contains_key(id),
            "setup_intent" => self.setup_intents.contains_key(id),
            "invoice" => self.invoices.contains_key(id),
            _ => self.subscriptions.contains_key(id),
        };
        if exists {
            Ok(id.to_owned())
        } else {
            Err(Refusal::no_such(kind, id))
        }
    }

    /// Puts an object in the place of its id, where there is one.
    fn expand(&self, shown: &mut Value, path: &str) {
        let (name, rest) = path.split_once('.').unwrap_or((path, ""));
        // A list that is left out unless it is asked for.
        let invoice = shown["id"].as_str().and_then(|id| self.invoices.get(id));
        if let ("payments", Some(invoice)) = (name, invoice) {
            let of = &self.subscriptions[&invoice.subscription];
            let data = [invoice.payment_json(of, self.livemode)];
            shown[name] = json!({"object": "list", "has_more": false, "data": data});
            return;
        }
        let Some(place) = shown.get_mut(name) else {
            return;
        };
        if let Some(object) = place.as_str().and_then(|id| self.object(id)) {
            *place = object;
        }
        if !rest.is_empty() {
            self.expand(place, rest);
        }
    }

    fn customer_of(&self, form: &Form) -> Result<Option<String>, Refusal> {
        match form.owned("customer") {
            Some(id) if !self.customers.contains_key(&id) => {
                Err(Refusal::no_such_value("customer", &id))
            }
            customer => Ok(customer),
        }
    }

    fn create_customer(&mut self, form: &Form, now: Timestamp) -> Result<String, Failure> {
        form.only("description email metadata name")?;
        let customer = self.new_customer(form.owned("email"), now);
        customer.name = form.owned("name");
        customer.metadata = form.map("metadata");
        Ok(customer.id.clone())
    }

    fn create_session(&mut self, form: &Form, now: Timestamp) -> Result<String, Failure> {
        form.only(
            "adaptive_pricing allow_promotion_codes automatic_tax billing_address_collection cancel_url \
             client_reference_id currency customer customer_creation customer_email \
             customer_update expires_at line_items locale metadata mode \
             payment_intent_data payment_method_types saved_payment_method_options \
             setup_intent_data submit_type subscription_data success_url",
        )?;
        let mode = match form.required("mode")? {
            "payment" => Mode::Payment,
            "subscription" => Mode::Subscription,
            "setup" => Mode::Setup,
            _ => return Err(Refusal::invalid("mode", "Invalid mode").into()),
        };
        let customer = self.customer_of(form)?;
        let bought = match mode {
            Mode::Setup => None,
            Mode::Payment | Mode::Subscription => Some(line_items(form, mode)?),
        };
        let currency = bought
            .as_ref()
            .map(|bought| bought.currency.clone())
            .or(form.owned("currency"));
        if currency.is_none() && form.list("payment_method_types").is_empty() {
            return Err(Refusal::missing("currency").into());
        }
        let data = match mode {
            Mode::Payment => "payment_intent_data",
            Mode::Subscription => "subscription_data",
            Mode::Setup => "setup_intent_data",
        };
        let reuse = form.get("payment_intent_data[setup_future_usage]");
        let creation = form.get("customer_creation") == Some("always");
        let session = Session {
            id: self.new_id(if self.livemode { "cs_live" } else { "cs_test" }),
            created: now,
            mode,
            status: SessionStatus::Open,
            paid: false,
            expires_at: expiry(form, now)?,
            product: bought.as_ref().map_or_else(
                || "A card for later payments".to_owned(),
                |bought| bought.product.clone(),
            ),
            amount: bought.as_ref().map(|bought| bought.amount),
            currency,
            customer,
            email: form.owned("customer_email"),
            success_url: form.required("success_url")?.to_owned(),
            cancel_url: form.owned("cancel_url"),
            reference: form.owned("client_reference_id"),
            metadata: form.map("metadata"),
            inner_metadata: form.map(&format!("{data}[metadata]")),
            keeps_method: mode != Mode::Payment || reuse == Some("off_session"),
            makes_customer: mode == Mode::Subscription || creation,
            intent: None,
            subscription: None,
            invoice: None,
            setup_intent: None,
        };
        let id = session.id.clone();
        self.open_session(session);
        Ok(id)
    }

    fn expire(&mut self, id: &str, now: Timestamp) -> Result<String, Failure> {
        let id = self.known("checkout.session", id)?;
        let session = &self.sessions[&id];
        if !session.is_open() {
            let message = "Only Checkout Sessions with a status in [\"open\"] can be expired.";
            return Err(Refusal::state(None, message).into());
        }
        self.end_session(&id, now);
        Ok(id)
    }

    fn create_intent(&mut self, form: &Form, now: Timestamp) -> Result<String, Failure> {
        form.only(
            "amount automatic_payment_methods confirm currency customer description \
             metadata payment_method payment_method_types receipt_email \
             setup_future_usage statement_descriptor_suffix",
        )?;
        if form.flag("confirm")? == Some(true) {
            let message = "the simulator creates payment intents unconfirmed; confirm them apart";
            return Err(Refusal::invalid("confirm", message).into());
        }
        form.required("amount")?;
        let amount = enough(form.whole("amount")?.unwrap_or_default())?;
        let currency = form.required("currency")?.to_owned();
        let customer = self.customer_of(form)?;
        let method = self.usable_method(form, customer.as_ref())?;
        let id = self.new_intent(amount, currency, customer, now);
        let intent = kept(&mut self.intents, &id);
        if method.is_some() {
            intent.status = IntentStatus::RequiresConfirmation;
        }
        intent.method = method;
        intent.metadata = form.map("metadata");
        intent.keeps_method = form.get("setup_future_usage") == Some("off_session");
        Ok(id)
    }

    /// The payment method that the request names, if it may be charged for that customer.
    fn usable_method(
        &self,
        form: &Form,
        customer: Option<&String>,
    ) -> Result<Option<String>, Refusal> {
        let Some(id) = form.get("payment_method") else {
            return Ok(None);
        };
        let known = self.methods.get(id);
        let method = known.ok_or_else(|| Refusal::no_such_value("payment_method", id))?;
        let message = match (&method.customer, customer) {
            (Some(owner), Some(customer)) if owner == customer => {
                return Ok(Some(id.to_owned()));
            }
            (None, _) => {
                "The provided PaymentMethod was previously used with a PaymentIntent without Customer attachment, or was detached from a Customer. It may not be used again."
            }
            (Some(_), None) => {
                "The PaymentMethod belongs to a Customer. Please include the Customer in the `customer` parameter on the PaymentIntent."
            }
            (Some(_), Some(_)) => "The PaymentMethod does not belong to the Customer you supplied.",
        };
        Err(Refusal::invalid("payment_method", message))
    }

    fn confirm(&mut self, id: &str, form: &Form, now: Timestamp) -> Result<String, Failure> {
        form.only("off_session payment_method return_url")?;
        let id = self.known("payment_intent", id)?;
        let off_session = form.flag("off_session")?.unwrap_or_default();
        let intent = &self.intents[&id];
        let named = self.usable_method(form, intent.customer.as_ref())?;
        let status = intent.status;
        let (IntentStatus::RequiresPaymentMethod
        | IntentStatus::RequiresConfirmation
        | IntentStatus::RequiresAction) = status
        else {
            let message = match status {
                IntentStatus::Succeeded => "You cannot confirm this PaymentIntent because it has already succeeded after being previously confirmed.".to_owned(),
                _ => format!("You cannot confirm this PaymentIntent because it has a status of {}.", status.name()),
            };
            return Err(self.unexpected_state(&id, &message).into());
        };
        if intent.session.is_some() {
            let message =
                "You cannot confirm this PaymentIntent because it belongs to a Checkout Session.";
            return Err(self.unexpected_state(&id, message).into());
        }
        let Some(method) = named.or_else(|| intent.method.clone()) else {
            let message =
                "You cannot confirm this PaymentIntent because it's missing a payment method.";
            return Err(self.unexpected_state(&id, message).into());
        };
        let customer = intent.customer.clone();
        let card = self.next_attempt(customer.as_ref(), &method);
        let verdict = card.verdict(off_session);
        if matches!(verdict, Verdict::Nothing) {
            return Err(Failure::Unheard);
        }
        self.attempt(&id, &method, verdict, now);
        self.answer_is_lost = card.loses_the_answer();
        match verdict {
            Verdict::Decline(_) => Err(self.declined(&id).into()),
            _ => Ok(id),
        }
    }

    /// The last decline of an intent, as the answer to its confirmation.
    fn declined(&self, id: &str) -> Refusal {
        let shown = self.shown(id);
        let mut error = shown["last_payment_error"].clone();
        error["charge"] = shown["latest_charge"].clone();
        error["payment_intent"] = shown;
        Refusal::declined(error)
    }

    fn unexpected_state(&self, intent: &str, message: &str) -> Refusal {
        let refusal = Refusal::state(Some("payment_intent_unexpected_state"), message);
        refusal.with("payment_intent", self.shown(intent))
    }

    fn cancel(&mut self, id: &str, now: Timestamp) -> Result<String, Failure> {
        let id = self.known("payment_intent", id)?;
        let intent = &self.intents[&id];
        let status = intent.status;
        if matches!(
            status,
            IntentStatus::Succeeded | IntentStatus::Canceled | IntentStatus::Processing
        ) {
            let message = format!(
                "You cannot cancel this PaymentIntent because it has a status of {}.",
                status.name()
            );
            return Err(self.unexpected_state(&id, &message).into());
        }
        if intent.session.is_some() {
            let message = "You cannot cancel the PaymentIntent for a Checkout Session. Expire the Checkout Session instead.";
            return Err(self.unexpected_state(&id, message).into());
        }
        self.cancel_intent(&id, now);
        Ok(id)
    }

    /// Which invoice an intent paid: neither of the two names the other.
    fn invoice_payments(&self, form: &Form) -> Result<Value, Refusal> {
        form.only("invoice payment")?;
        let (invoice, intent) = (form.get("invoice"), form.get("payment[payment_intent]"));
        if intent.is_some() {
            form.required("payment[type]")?;
        }
        let found = self.invoices.values().filter(|it| {
            invoice.is_none_or(|id| id == it.id) && intent.is_none_or(|id| id == it.intent)
        });
        let shown = found.map(|it| {
            let of = &self.subscriptions[&it.subscription];
            it.payment_json(of, self.livemode)
        });
        let shown: Vec<Value> = shown.collect();
        Ok(json!({"object": "list", "has_more": false, "data": shown}))
    }

    fn create_refund(&mut self, form: &Form, now: Timestamp) -> Result<Value, Refusal> {
        form.only("amount metadata payment_intent reason")?;
        let intent = form.required("payment_intent")?;
        let id = self.refund(intent, form.whole("amount")?, now)?;
        let refund = kept(&mut self.refunds, &id);
        refund.reason = form.owned("reason");
        refund.metadata = form.map("metadata");
        Ok(refund.json())
    }

    /// A subscription that has not ended: one that has is as good as gone.
    fn running(&self, id: &str) -> Result<String, Refusal> {
        let found = self.subscriptions.get(id);
        match found.filter(|it| it.canceled_at.is_none()) {
            Some(_) => Ok(id.to_owned()),
            None => Err(Refusal::no_such("subscription", id)),
        }
    }

    fn update_subscription(
        &mut self,
        id: &str,
        form: &Form,
        now: Timestamp,
    ) -> Result<String, Failure> {
        form.only("cancel_at_period_end default_payment_method metadata")?;
        let id = self.running(id)?;
        let at_end = form.flag("cancel_at_period_end")?;
        if at_end.is_some() && self.subscriptions[&id].scheduled {
            let message = "The subscription is managed by the subscription schedule, and updating any cancelation behavior directly is not allowed.";
            return Err(Refusal::state(None, message).into());
        }
        let customer = self.subscriptions[&id].customer.clone();
        if let Some(method) = form.owned("default_payment_method") {
            let known = self.methods.get(&method);
            if known.is_none_or(|known| known.customer.as_ref() != Some(&customer)) {
                return Err(Refusal::no_such_value("default_payment_method", &method).into());
            }
            kept(&mut self.subscriptions, &id).method = method;
        }
        let running = kept(&mut self.subscriptions, &id);
        running.cancel_at_period_end = at_end.unwrap_or(running.cancel_at_period_end);
        running.metadata.extend(form.map("metadata"));
        self.tell("customer.subscription.updated", &id, now);
        Ok(id)
    }

    fn update_invoice(&mut self, id: &str, form: &Form) -> Result<String, Failure> {
        form.only("auto_advance")?;
        let id = self.known("invoice", id)?;
        let advances = form.flag("auto_advance")?;
        let invoice = kept(&mut self.invoices, &id);
        invoice.advances = advances.unwrap_or(invoice.advances);
        Ok(id)
    }

    /// With the subscription's card.
    fn pay_invoice_now(&mut self, id: &str, now: Timestamp) -> Result<String, Failure> {
        let id = self.known("invoice", id)?;
        let method = &self.subscriptions[&self.invoices[&id].subscription].method;
        let card = self.methods[method].card;
        match self.pay_open_invoice(&id, card, now) {
            Ok(()) => Ok(id),
            Err(PayError::Declined(message)) => {
                Err(Refusal::state(Some("card_declined"), message).into())
            }
            Err(_) => Err(Refusal::state(None, "Invoice is already paid").into()),
        }
    }

    fn void_invoice(&mut self, id: &str, now: Timestamp) -> Result<String, Failure> {
        let id = self.known("invoice", id)?;
        if !self.invoices[&id].is_open() {
            let message = "You can only void open or uncollectible invoices.";
            return Err(Refusal::state(None, message).into());
        }
        kept(&mut self.invoices, &id).void = true;
        self.tell("invoice.voided", &id, now);
        Ok(id)
    }

    fn cancel_subscription(&mut self, id: &str, now: Timestamp) -> Result<String, Failure> {
        let id = self.running(id)?;
        self.end_subscription(&id, now);
        Ok(id)
    }
}

/// What a session sells.
struct Bought {
    product: String,
    amount: i64,
    currency: String,
}

fn line_items(form: &Form, mode: Mode) -> Result<Bought, Refusal> {
    let first = "line_items[0][price_data]";
    if let Some(price) = form.get("line_items[0][price]") {
        // It knows no prices but those that the session itself names.
        return Err(Refusal::no_such_value("price", price));
    }
    let currency = form.required(&format!("{first}[currency]"))?.to_owned();
    let product = form.required(&format!("{first}[product_data][name]"))?;
    let mut amount = 0;
    for n in 0.. {
        let item = format!("line_items[{n}]");
        let price = format!("{item}[price_data][unit_amount]");
        if n > 0 && form.get(&price).is_none() {
            break;
        }
        form.required(&price)?;
        let interval = format!("{item}[price_data][recurring][interval]");
        match (mode, form.get(&interval)) {
            (Mode::Subscription, Some("month")) | (Mode::Payment, None) => {}
            (Mode::Subscription, None) => return Err(Refusal::missing(&interval)),
            _ => {
                return Err(Refusal::invalid(
                    &interval,
                    "Invalid interval for this mode",
                ));
            }
        }
        let unit = form.whole(&price)?.unwrap_or_default();
        let quantity = form.whole(&format!("{item}[quantity]"))?;
        amount += unit * quantity.ok_or_else(|| Refusal::missing(&format!("{item}[quantity]")))?;
    }
    Ok(Bought {
        product: product.to_owned(),
        amount: enough(amount)?,
        currency,
    })
}

fn enough(amount: i64) -> Result<i64, Refusal> {
    if amount < LEAST_AMOUNT {
        let refusal = Refusal::invalid("amount", "Amount must be at least $0.50 usd");
        return Err(refusal.with("code", json!("amount_too_small")));
    }
    Ok(amount)
}

fn expiry(form: &Form, now: Timestamp) -> Result<Timestamp, Refusal> {
    let Some(second) = form.whole("expires_at")? else {
        return Ok(now + LONGEST_SESSION);
    };
    let after = SignedDuration::from_secs(second.saturating_sub(now.as_second()));
    let at = Timestamp::from_second(second).ok();
    let at = at.filter(|_| (SHORTEST_SESSION..=LONGEST_SESSION).contains(&after));
    at.ok_or_else(|| {
        let message = "The `expires_at` timestamp must be from 30 minutes to 24 hours from Checkout Session creation.";
        Refusal::invalid("expires_at", message)
    })
}
