//! Everything that the simulated Stripe knows, and what its resources have in common.
//!
//! No I/O and no clock: its user sets [`StripeState::now`], ids are counted, and so the
//! same operations lead to the same state. The modules beside this one implement one resource each.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::admission::{Admission, ApiRequest, RateLimit};
use super::card::Card;
use super::error::ApiError;
use super::params::Params;
use super::resources::{
    API_VERSION, Charge, Customer, Dispute, Invoice, PaymentIntent, PaymentMethod, Refund, Session,
    SetupIntent, Subscription,
};

/// An event, as webhooks deliver it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub id: String,
    /// For example `payment_intent.succeeded`.
    pub kind: &'static str,
    pub created: Timestamp,
    /// The id of the resource that it is about.
    pub object: String,
    /// Exactly what is sent.
    pub body: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    pub intent: String,
    /// The Checkout Session in which it was made.
    pub session: Option<String>,
    /// The invoice that it pays.
    pub invoice: Option<String>,
    pub customer: Option<String>,
    /// In the currency's smallest unit.
    pub amount: i64,
    pub currency: String,
    pub metadata: BTreeMap<String, String>,
    pub at: Timestamp,
    pub refunded: i64,
    pub disputed: bool,
}

/// The resource's state does not allow this, or there is no such resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotPossible(pub(super) String);

/// Resources are never removed: every id that was given out can be found.
pub(super) fn existing<'a, T>(resources: &'a mut HashMap<String, T>, id: &str) -> &'a mut T {
    resources.get_mut(id).expect("the id names a resource")
}

#[derive(Debug, Default)]
pub struct StripeState {
    /// The time, as Stripe sees it.
    pub now: Timestamp,
    pub(super) base_url: String,
    pub(super) livemode: bool,
    counters: HashMap<&'static str, u64>,
    pub(super) customers: HashMap<String, Customer>,
    pub(super) methods: HashMap<String, PaymentMethod>,
    pub(super) intents: HashMap<String, PaymentIntent>,
    pub(super) charges: HashMap<String, Charge>,
    pub(super) sessions: HashMap<String, Session>,
    pub(super) setup_intents: HashMap<String, SetupIntent>,
    pub(super) subscriptions: HashMap<String, Subscription>,
    pub(super) invoices: HashMap<String, Invoice>,
    pub(super) refunds: HashMap<String, Refund>,
    pub(super) disputes: HashMap<String, Dispute>,
    /// The open sessions by expiry.
    pub(super) open_sessions: BTreeSet<(Timestamp, String)>,
    /// The charges that succeeded, in order.
    pub(super) succeeded: Vec<String>,
    new_events: Vec<Event>,
    pub(super) admission: Admission,
    /// The idempotency key of the request in progress, for its events.
    pub(super) current_key: Option<String>,
    /// The request in progress is carried out, and its response is lost.
    pub(super) response_lost: bool,
    /// How many of the next refunds fail.
    pub(super) failing_refunds: u32,
}

impl StripeState {
    /// An empty state, whose pages are below `base_url`.
    pub fn new(base_url: &str, livemode: bool) -> Self {
        Self { base_url: base_url.to_owned(), livemode, ..Self::default() }
    }

    /// From now on, callers need this secret key.
    pub fn set_api_key(&mut self, key: &str) {
        self.admission.api_key = Some(key.to_owned());
    }

    /// From now on, the `next` requests get a 429, then those above `per_second`.
    pub fn limit_rate(&mut self, next: u32, per_second: Option<usize>) {
        self.admission.rate_limit = RateLimit { next, per_second, ..RateLimit::default() };
    }

    /// All requests to the API, in the order of their arrival.
    pub fn seen(&self) -> Vec<ApiRequest> {
        self.admission.seen.clone()
    }

    /// The payments that succeeded, in order.
    pub fn payments(&self) -> Vec<Payment> {
        let payment = |id: &String| {
            let charge = &self.charges[id];
            let intent = &self.intents[&charge.payment_intent];
            Payment {
                intent: intent.id.clone(),
                session: intent.session.clone(),
                invoice: intent.invoice.clone(),
                customer: intent.customer.clone(),
                amount: charge.amount,
                currency: intent.currency.clone(),
                metadata: intent.metadata.clone(),
                at: charge.created,
                refunded: charge.refunded,
                disputed: charge.disputed,
            }
        };
        self.succeeded.iter().map(payment).collect()
    }

    /// The events since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.new_events)
    }

    /// Any resource, as the API shows it.
    pub fn object(&self, id: &str) -> Option<Value> {
        let mut shown = match id.split('_').next()? {
            "cus" => self.customers.get(id)?.json(),
            "pm" => self.methods.get(id)?.json(),
            "pi" => self.intents.get(id)?.json(),
            "ch" => {
                let charge = self.charges.get(id)?;
                charge.json(&self.intents[&charge.payment_intent])
            }
            "cs" => self.sessions.get(id)?.json(&self.base_url),
            "seti" => self.setup_intents.get(id)?.json(),
            "sub" => self.subscriptions.get(id)?.json(),
            "in" => {
                let invoice = self.invoices.get(id)?;
                invoice.json(&self.subscriptions[&invoice.subscription], &self.base_url)
            }
            // The one resource without `livemode`.
            "re" => return Some(self.refunds.get(id)?.json()),
            "du" => self.disputes.get(id)?.json(),
            _ => return None,
        };
        shown["livemode"] = self.livemode.into();
        Some(shown)
    }

    pub(super) fn shown(&self, id: &str) -> Value {
        self.object(id).unwrap_or_default()
    }

    pub(super) fn new_id(&mut self, kind: &'static str) -> String {
        let count = self.counters.entry(kind).or_default();
        *count += 1;
        format!("{kind}_{count:06}")
    }

    /// Emits an event about a resource as it is now.
    pub(super) fn emit(&mut self, kind: &'static str, object: &str) {
        let id = self.new_id("evt");
        let body = json!({
            "id": id,
            "object": "event",
            "api_version": API_VERSION,
            "created": self.now.as_second(),
            "data": {"object": self.shown(object)},
            "livemode": self.livemode,
            "pending_webhooks": 1,
            "request": {"id": null, "idempotency_key": self.current_key},
            "type": kind,
        });
        self.new_events.push(Event {
            id,
            kind,
            created: self.now,
            object: object.to_owned(),
            body: body.to_string(),
        });
    }

    /// The id, if it names a resource of this kind.
    pub(super) fn known(&self, kind: &str, id: &str) -> Result<String, ApiError> {
        match self.object(id) {
            Some(found) if found["object"] == kind => Ok(id.to_owned()),
            _ => Err(ApiError::no_such(kind, id)),
        }
    }

    pub(super) fn create_customer(&mut self, params: &Params) -> Result<String, ApiError> {
        params.only("description email metadata name")?;
        let id = self.add_customer(params.owned("email"));
        let customer = existing(&mut self.customers, &id);
        customer.name = params.owned("name");
        customer.metadata = params.map("metadata");
        Ok(id)
    }

    pub fn add_customer(&mut self, email: Option<String>) -> String {
        let id = self.new_id("cus");
        let customer = Customer { id: id.clone(), created: self.now, email, ..Customer::default() };
        self.customers.insert(id.clone(), customer);
        id
    }

    /// Adds a customer with a card that succeeds. Returns the ids of both.
    pub fn add_payer(&mut self) -> (String, String) {
        let customer = self.add_customer(None);
        let card = self.add_method(Some(customer.clone()), Card::Succeeds);
        (customer, card)
    }

    /// Adds a payment method; without a customer, it can be charged only once. Returns its id.
    pub fn add_method(&mut self, customer: Option<String>, card: Card) -> String {
        let id = self.new_id("pm");
        let method = PaymentMethod { id: id.clone(), created: self.now, customer, card };
        self.methods.insert(id.clone(), method);
        id
    }

    /// From now on, all cards of the customer behave like this.
    pub fn set_card(&mut self, customer: &str, card: Card) {
        let of_customer =
            |method: &&mut PaymentMethod| method.customer.as_deref() == Some(customer);
        for method in self.methods.values_mut().filter(of_customer) {
            method.card = card;
        }
    }

    /// The next attempts to charge the customer through the API end like this, one after another;
    /// later attempts end as the charged card says.
    pub fn script(&mut self, customer: &str, attempts: &[Card]) {
        if let Some(owner) = self.customers.get_mut(customer) {
            owner.script = attempts.iter().copied().collect();
        }
    }
}
