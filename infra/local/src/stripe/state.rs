//! The simulated Stripe's state, and the operations that its resources share.
//!
//! It has no I/O and no clock: callers set [`StripeState::now`], and ids are counted, so the same
//! operations lead to the same state. The modules beside this one implement one resource each.
//!
//! A resource is the JSON that API version [`API_VERSION`] shows, without members that the product
//! and the tests do not read. In that version an invoice names its subscription under `parent`, a
//! period belongs to a subscription's item, and neither PaymentIntents nor charges name their
//! invoice. Members that begin with `_` are the simulator's own.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::admission::{Admission, ApiRequest, RateLimit};
use super::card::Card;
use super::error::ApiError;

pub const API_VERSION: &str = "2025-03-31.basil";

/// An event, as webhooks deliver it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub id: String,
    /// For example `payment_intent.succeeded`.
    pub kind: &'static str,
    /// The id of the event's resource.
    pub object: String,
    /// Exactly what is sent.
    pub body: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    pub intent: String,
    /// The Checkout Session in which the payment was made.
    pub session: Option<String>,
    /// The invoice that the payment pays.
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

#[derive(Debug, Default)]
pub struct StripeState {
    /// The time, as Stripe sees it.
    pub now: Timestamp,
    pub(super) base_url: String,
    pub(super) livemode: bool,
    counters: HashMap<&'static str, u64>,
    /// By id.
    resources: BTreeMap<String, Value>,
    /// The card behind each payment method.
    pub(super) cards: HashMap<String, Card>,
    /// The outcomes of the next attempts to charge a customer, whichever card is charged.
    pub(super) scripts: HashMap<String, VecDeque<Card>>,
    /// The open sessions by expiry.
    pub(super) open_sessions: BTreeSet<(i64, String)>,
    /// The charges that succeeded, in order.
    pub(super) succeeded: Vec<(String, Timestamp)>,
    new_events: Vec<Event>,
    pub(super) admission: Admission,
    /// The idempotency key of the request in progress, for its events.
    pub(super) current_key: Option<String>,
    /// The request in progress is carried out, and its response is lost.
    pub(super) response_lost: bool,
    /// Failures to inject into coming POST requests, by path suffix, with their status.
    pub(super) failures: Vec<(&'static str, u16)>,
    /// The number of upcoming refunds that fail.
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

    /// Fails the next `times` POST requests whose path ends with `path_end`, without executing
    /// them.
    pub fn fail_next(&mut self, path_end: &'static str, status: u16, times: usize) {
        self.failures.extend(std::iter::repeat_n((path_end, status), times));
    }

    /// All requests to the API, in the order of their arrival.
    pub fn seen(&self) -> Vec<ApiRequest> {
        self.admission.seen.clone()
    }

    /// The payments that succeeded, in order.
    pub fn payments(&self) -> Vec<Payment> {
        let payment = |(charge, at): &(String, Timestamp)| {
            let charge = self.get(charge);
            let intent = self.get(charge["payment_intent"].as_str().unwrap_or_default());
            let text = |name: &str| intent[name].as_str().map(str::to_owned);
            Payment {
                intent: text("id").unwrap_or_default(),
                session: text("_session"),
                invoice: text("_invoice"),
                customer: text("customer"),
                amount: charge["amount"].as_i64().unwrap_or_default(),
                currency: text("currency").unwrap_or_default(),
                metadata: serde_json::from_value(intent["metadata"].clone()).unwrap_or_default(),
                at: *at,
                refunded: charge["amount_refunded"].as_i64().unwrap_or_default(),
                disputed: charge["disputed"] == true,
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
        let mut shown = self.resources.get(id)?.clone();
        shown.as_object_mut()?.retain(|name, _| !name.starts_with('_'));
        Some(shown)
    }

    pub(super) fn shown(&self, id: &str) -> Value {
        self.object(id).unwrap_or_default()
    }

    /// A resource with the simulator's own members; null if it does not exist.
    pub(super) fn get(&self, id: &str) -> &Value {
        self.resources.get(id).unwrap_or(&Value::Null)
    }

    pub(super) fn text(&self, id: &str, name: &str) -> String {
        self.get(id)[name].as_str().unwrap_or_default().to_owned()
    }

    pub(super) fn integer(&self, id: &str, name: &str) -> i64 {
        self.get(id)[name].as_i64().unwrap_or_default()
    }

    /// All resources whose ids begin with `prefix`, oldest first.
    pub(super) fn all(&self, prefix: &str) -> impl Iterator<Item = (&String, &Value)> {
        let from = self.resources.range(prefix.to_owned()..);
        from.take_while(move |(id, _)| id.starts_with(prefix))
    }

    /// Changes members of a resource.
    pub(super) fn set(&mut self, id: &str, members: Value) {
        let resource = self.resources.get_mut(id).expect("the id names a resource");
        if let (Value::Object(resource), Value::Object(members)) = (resource, members) {
            resource.extend(members);
        }
    }

    /// Adds a resource. Returns its id.
    pub(super) fn add(&mut self, prefix: &'static str, object: &str, members: Value) -> String {
        let id = self.new_id(prefix);
        let resource = json!({
            "id": id,
            "object": object,
            "created": self.now.as_second(),
            "livemode": self.livemode,
        });
        self.resources.insert(id.clone(), resource);
        self.set(&id, members);
        id
    }

    fn new_id(&mut self, prefix: &'static str) -> String {
        let count = self.counters.entry(prefix).or_default();
        *count += 1;
        format!("{prefix}_{count:06}")
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
        self.new_events.push(Event { id, kind, object: object.to_owned(), body: body.to_string() });
    }

    /// The id, if it names a resource of this kind.
    pub(super) fn known(&self, object: &str, id: &str) -> Result<String, ApiError> {
        if self.get(id)["object"] == object {
            Ok(id.to_owned())
        } else {
            Err(ApiError::no_such(object, id))
        }
    }

    pub(super) fn replace(&mut self, id: &str, resource: Value) {
        self.resources.insert(id.to_owned(), resource);
    }

    /// Removes a resource, as if it had never existed.
    pub fn forget(&mut self, id: &str) {
        self.resources.remove(id);
        self.open_sessions.retain(|(_, session)| session != id);
    }

    /// Adds a customer with a card that succeeds. Returns the ids of both.
    pub fn add_payer(&mut self) -> (String, String) {
        let customer = self.add("cus", "customer", json!({"metadata": {}}));
        let card = self.add_method(Some(customer.clone()), Card::Succeeds);
        (customer, card)
    }

    /// Adds a payment method; without a customer, it can be charged only once. Returns its id.
    pub fn add_method(&mut self, customer: Option<String>, card: Card) -> String {
        let id = self.add("pm", "payment_method", json!({"customer": customer, "type": "card"}));
        self.cards.insert(id.clone(), card);
        id
    }

    /// From now on, all cards of the customer behave like this.
    pub fn set_card(&mut self, customer: &str, card: Card) {
        let resources = &self.resources;
        for (id, known) in &mut self.cards {
            if resources[id]["customer"] == customer {
                *known = card;
            }
        }
    }

    /// The next attempts to charge the customer through the API end like this, one after another;
    /// later attempts end as the charged card says.
    pub fn script(&mut self, customer: &str, attempts: &[Card]) {
        self.scripts.insert(customer.to_owned(), attempts.iter().copied().collect());
    }
}

pub(super) fn list(item: Value) -> Value {
    json!({"object": "list", "has_more": false, "data": [item]})
}
