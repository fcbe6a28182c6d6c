//! What the API's callers may do: one request in, one reply out, still without any I/O.

use std::collections::VecDeque;

use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::card::Verdict;
use super::form::Form;
use super::objects::{IntentStatus, Mode, Session, SessionStatus};
use super::refusal::Refusal;
use super::state::{ProviderState, kept};

/// How long idempotency keys are remembered
/// (<https://docs.stripe.com/api/idempotent_requests>: at least so long).
const KEY_LIFE: SignedDuration = SignedDuration::from_hours(24);
/// The least that a card can be charged, in US cents.
const LEAST_AMOUNT: i64 = 50;
const SHORTEST_SESSION: SignedDuration = SignedDuration::from_mins(30);
const LONGEST_SESSION: SignedDuration = SignedDuration::from_hours(24);

/// A request to the API.
#[derive(Debug, Clone)]
pub struct ApiRequest {
    pub method: Method,
    /// For example `/v1/customers`.
    pub path: String,
    /// The secret key that it is made with.
    pub api_key: Option<String>,
    pub idempotency_key: Option<String>,
    pub form: Form,
}

/// The reply to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiReply {
    pub status: u16,
    /// JSON.
    pub body: String,
    /// It is the first reply to its idempotency key, once more.
    pub replayed: bool,
    /// The connection is closed instead.
    pub lost: bool,
}

/// A request on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenRequest {
    pub method: Method,
    pub path: String,
    pub idempotency_key: Option<String>,
}

/// Which requests are answered 429.
#[derive(Debug, Default)]
pub(super) struct RateLimit {
    /// So many of the next ones.
    next: u32,
    /// Those after so many in one second.
    per_second: Option<usize>,
    window: VecDeque<Timestamp>,
}

impl RateLimit {
    fn refuses(&mut self, now: Timestamp) -> bool {
        if self.next > 0 {
            self.next -= 1;
            return true;
        }
        let Some(limit) = self.per_second else {
            return false;
        };
        let second_ago = now - SignedDuration::from_secs(1);
        while self.window.front().is_some_and(|at| *at <= second_ago) {
            self.window.pop_front();
        }
        if self.window.len() >= limit {
            return true;
        }
        self.window.push_back(now);
        false
    }
}

/// What is remembered of an idempotency key.
#[derive(Debug)]
pub(super) struct KeyUse {
    fingerprint: u64,
    /// Status and body; `None` while the first request is under way.
    first: Option<(u16, String)>,
}

/// Why a request has no result.
enum Failure {
    Refused(Refusal),
    /// The connection is closed, and nothing was done.
    Unheard,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Refusal> for ApiReply {
    fn from(refusal: Refusal) -> Self {
        Self {
            status: refusal.status,
            body: json!({"error": refusal.error}).to_string(),
            replayed: false,
            lost: false,
        }
    }
}

impl ApiRequest {
    /// Only POST requests have keys: the others are idempotent by themselves.
    fn key(&self) -> Option<&String> {
        let key = self.idempotency_key.as_ref();
        key.filter(|key| self.method == Method::POST && !key.is_empty())
    }
}

impl ProviderState {
    /// Which requests are answered 429 from now on: the `next` ones, then those that exceed so many
    /// in a second.
    pub fn limit_rate(&mut self, next: u32, per_second: Option<usize>) {
        self.rate_limit = RateLimit {
            next,
            per_second,
            window: VecDeque::new(),
        };
    }

    /// Answers a request at once.
    pub fn call(&mut self, request: &ApiRequest, now: Timestamp) -> ApiReply {
        match self.begin(request, now) {
            Some(reply) => reply,
            None => self.execute(request, now),
        }
    }

    /// What comes before the execution. Without a reply the request is under way, and
    /// [`execute`](Self::execute) has to follow.
    pub fn begin(&mut self, request: &ApiRequest, now: Timestamp) -> Option<ApiReply> {
        self.advance_to(now);
        self.seen.push(SeenRequest {
            method: request.method.clone(),
            path: request.path.clone(),
            idempotency_key: request.idempotency_key.clone(),
        });
        let Some(api_key) = &request.api_key else {
            return Some(Refusal::no_key().into());
        };
        if self.api_key.as_ref().is_some_and(|known| known != api_key) {
            return Some(Refusal::wrong_key().into());
        }
        if self.rate_limit.refuses(now) {
            return Some(Refusal::too_many().into());
        }
        while let Some((at, key)) = self.keys_by_age.front() {
            if *at + KEY_LIFE > now {
                break;
            }
            self.keys.remove(key);
            self.keys_by_age.pop_front();
        }
        let key = request.key()?;
        let fingerprint = request.form.fingerprint(&request.path);
        match self.keys.get(key) {
            Some(used) if used.fingerprint != fingerprint => {
                Some(Refusal::other_parameters(key).into())
            }
            Some(KeyUse { first: None, .. }) => Some(Refusal::key_in_use(key).into()),
            Some(KeyUse {
                first: Some((status, body)),
                ..
            }) => Some(ApiReply {
                status: *status,
                body: body.clone(),
                replayed: true,
                lost: false,
            }),
            None => {
                let used = KeyUse {
                    fingerprint,
                    first: None,
                };
                self.keys.insert(key.clone(), used);
                None
            }
        }
    }

    /// Carries out a request that has begun.
    pub fn execute(&mut self, request: &ApiRequest, now: Timestamp) -> ApiReply {
        self.advance_to(now);
        self.current_key = request.key().cloned();
        let result = self.dispatch(request, now);
        self.current_key = None;
        let lost = std::mem::take(&mut self.answer_is_lost);
        let (mut reply, is_result) = match result {
            Ok(value) => {
                let reply = ApiReply {
                    status: 200,
                    body: value.to_string(),
                    replayed: false,
                    lost: false,
                };
                (reply, true)
            }
            Err(Failure::Refused(refusal)) => {
                let is_result = refusal.is_result;
                (refusal.into(), is_result)
            }
            Err(Failure::Unheard) => {
                let reply = ApiReply {
                    status: 504,
                    body: String::new(),
                    replayed: false,
                    lost: true,
                };
                (reply, false)
            }
        };
        reply.lost |= lost;
        if let Some(key) = request.key() {
            match self.keys.get_mut(key).filter(|_| is_result) {
                Some(used) => {
                    used.first = Some((reply.status, reply.body.clone()));
                    self.keys_by_age.push_back((now, key.clone()));
                }
                None => drop(self.keys.remove(key)),
            }
        }
        reply
    }

    fn dispatch(&mut self, request: &ApiRequest, now: Timestamp) -> Result<Value, Failure> {
        let form = &request.form;
        let path = request.path.strip_prefix("/v1/").unwrap_or_default();
        let parts: Vec<&str> = path.split('/').collect();
        let id = match (request.method.as_str(), parts.as_slice()) {
            ("GET", ["customers", id]) => self.known("customer", id)?,
            ("GET", ["checkout", "sessions", id]) => self.known("checkout.session", id)?,
            ("GET", ["payment_intents", id]) => self.known("payment_intent", id)?,
            ("GET", ["setup_intents", id]) => self.known("setup_intent", id)?,
            ("GET", ["subscriptions", id]) => self.known("subscription", id)?,
            ("POST", ["customers"]) => self.create_customer(form, now)?,
            ("POST", ["checkout", "sessions"]) => self.create_session(form, now)?,
            ("POST", ["checkout", "sessions", id, "expire"]) => self.expire(id, now)?,
            ("POST", ["payment_intents"]) => self.create_intent(form, now)?,
            ("POST", ["payment_intents", id, "confirm"]) => self.confirm(id, form, now)?,
            ("POST", ["payment_intents", id, "cancel"]) => self.cancel(id, now)?,
            ("POST", ["refunds"]) => return Ok(self.create_refund(form, now)?),
            ("POST", ["subscriptions", id]) => self.update_subscription(id, form, now)?,
            ("DELETE", ["subscriptions", id]) => self.cancel_subscription(id, now)?,
            (method, _) => return Err(Refusal::no_route(method, &request.path).into()),
        };
        let mut shown = self.shown(&id);
        for path in form.list("expand") {
            self.expand(&mut shown, path)?;
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
            _ => self.subscriptions.contains_key(id),
        };
        if exists {
            Ok(id.to_owned())
        } else {
            Err(Refusal::no_such(kind, id))
        }
    }

    /// Puts an object in the place of its id.
    fn expand(&self, shown: &mut Value, path: &str) -> Result<(), Refusal> {
        let (name, rest) = path.split_once('.').unwrap_or((path, ""));
        let cannot = || {
            let message = format!("This property cannot be expanded ({name}).");
            Refusal::invalid("expand", &message)
        };
        let place = shown.get_mut(name).ok_or_else(cannot)?;
        if let Some(id) = place.as_str() {
            *place = self.object(id).ok_or_else(cannot)?;
        }
        match (place.is_object(), rest) {
            (true, rest) if !rest.is_empty() => self.expand(place, rest),
            _ => Ok(()),
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
            "allow_promotion_codes automatic_tax billing_address_collection cancel_url \
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

    fn create_refund(&mut self, form: &Form, now: Timestamp) -> Result<Value, Refusal> {
        form.only("amount metadata payment_intent reason")?;
        let intent = form.required("payment_intent")?;
        let mut refund = self.refund(intent, form.whole("amount")?, now)?;
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
