//! All that the provider knows, and the steps that change it.
//!
//! No I/O and no clock: the time comes in as an argument, ids are counted, and so the same
//! operations give the same state. [`super::endpoints`] has what the API's callers may do,
//! [`super::acts`] what the customer and the bank may.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::api::{KeyUse, RateLimit, SeenRequest};
use super::card::{Card, Decline, Verdict};
use super::objects::{
    API_VERSION, Charge, Customer, Dispute, Intent, IntentStatus, Invoice, Metadata, PaymentMethod,
    Refund, Session, SessionStatus, SetupIntent, Subscription,
};
use super::refusal::Refusal;

/// Something that happened, as webhooks tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub id: String,
    /// For example `payment_intent.succeeded`.
    pub kind: &'static str,
    pub created: Timestamp,
    /// Whom it is about.
    pub object: String,
    /// Exactly what is sent.
    pub body: String,
}

/// A payment that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    pub intent: String,
    /// The checkout session in which it was made.
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

/// Objects are never removed: what has an id can be found.
pub(super) fn kept<'a, T>(objects: &'a mut HashMap<String, T>, id: &str) -> &'a mut T {
    objects.get_mut(id).expect("the id is an object's")
}

/// The whole state.
#[derive(Debug)]
pub struct ProviderState {
    pub(super) base_url: String,
    pub(super) livemode: bool,
    seed: u64,
    counters: HashMap<&'static str, u64>,
    pub(super) customers: HashMap<String, Customer>,
    pub(super) methods: HashMap<String, PaymentMethod>,
    pub(super) intents: HashMap<String, Intent>,
    pub(super) charges: HashMap<String, Charge>,
    pub(super) sessions: HashMap<String, Session>,
    pub(super) setup_intents: HashMap<String, SetupIntent>,
    pub(super) subscriptions: HashMap<String, Subscription>,
    pub(super) invoices: HashMap<String, Invoice>,
    pub(super) refunds: HashMap<String, Refund>,
    pub(super) disputes: HashMap<String, Dispute>,
    /// When each open session expires.
    pub(super) open_sessions: BTreeSet<(Timestamp, String)>,
    /// The charges that succeeded, in their order.
    successes: Vec<String>,
    fresh_events: Vec<Event>,
    pub(super) seen: Vec<SeenRequest>,
    pub(super) keys: HashMap<String, KeyUse>,
    pub(super) keys_by_age: VecDeque<(Timestamp, String)>,
    pub(super) rate_limit: RateLimit,
    pub(super) api_key: Option<String>,
    /// The key of the request under way, for the events that come of it.
    pub(super) current_key: Option<String>,
    /// The request under way is carried out, and its answer is lost.
    pub(super) answer_is_lost: bool,
    /// So many of the next refunds fail.
    pub(super) failing_refunds: u32,
}

impl ProviderState {
    /// An empty state. `seed` makes its ids differ from another one's, but for seed 0; `base_url` is
    /// where the checkout pages are; `api_key`, if given, is the only one that callers may use.
    pub fn new(seed: u64, base_url: &str, api_key: Option<String>, livemode: bool) -> Self {
        Self {
            base_url: base_url.to_owned(),
            livemode,
            seed,
            counters: HashMap::new(),
            customers: HashMap::new(),
            methods: HashMap::new(),
            intents: HashMap::new(),
            charges: HashMap::new(),
            sessions: HashMap::new(),
            setup_intents: HashMap::new(),
            subscriptions: HashMap::new(),
            invoices: HashMap::new(),
            refunds: HashMap::new(),
            disputes: HashMap::new(),
            open_sessions: BTreeSet::new(),
            successes: Vec::new(),
            fresh_events: Vec::new(),
            seen: Vec::new(),
            keys: HashMap::new(),
            keys_by_age: VecDeque::new(),
            rate_limit: RateLimit::default(),
            api_key,
            current_key: None,
            answer_is_lost: false,
            failing_refunds: 0,
        }
    }

    /// From now on callers may use this key only.
    pub fn roll_api_key(&mut self, key: &str) {
        self.api_key = Some(key.to_owned());
    }

    /// The payments that succeeded, in their order.
    pub fn payments(&self) -> impl Iterator<Item = Payment> {
        self.successes.iter().map(|id| {
            let charge = &self.charges[id];
            let intent = &self.intents[&charge.intent];
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
        })
    }

    /// What could still be paid: open sessions, and intents beyond them that did not end.
    pub fn payable(&self) -> Vec<String> {
        let sessions = self.open_sessions.iter().map(|(_, id)| id.clone());
        let is_open = |intent: &&Intent| {
            use IntentStatus::{Canceled, Succeeded};
            let session = intent.session.as_ref();
            let is_told_of = session.is_some_and(|id| self.sessions[id].is_open());
            !is_told_of && !matches!(intent.status, Canceled | Succeeded)
        };
        let intents = self.intents.values().filter(is_open);
        let mut payable: Vec<_> = intents.map(|intent| intent.id.clone()).collect();
        payable.sort();
        sessions.chain(payable).collect()
    }

    /// The API's requests, in the order of their arrival.
    pub fn seen(&self) -> &[SeenRequest] {
        &self.seen
    }

    /// What happened since this was last asked.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.fresh_events)
    }

    /// Any object, as the API shows it.
    pub fn object(&self, id: &str) -> Option<Value> {
        let live = self.livemode;
        let shown = match id.split('_').next()? {
            "cus" => self.customers.get(id)?.json(live),
            "pm" => self.methods.get(id)?.json(live),
            "pi" => self.intents.get(id)?.json(live),
            "ch" => {
                let charge = self.charges.get(id)?;
                charge.json(&self.intents[&charge.intent], live)
            }
            "cs" => self.sessions.get(id)?.json(&self.base_url, live),
            "seti" => self.setup_intents.get(id)?.json(live),
            "sub" => self.subscriptions.get(id)?.json(live),
            "in" => {
                let invoice = self.invoices.get(id)?;
                let of = &self.subscriptions[&invoice.subscription];
                invoice.json(of, &self.base_url, live)
            }
            "re" => self.refunds.get(id)?.json(),
            "du" => self.disputes.get(id)?.json(live),
            _ => return None,
        };
        Some(shown)
    }

    pub(super) fn shown(&self, id: &str) -> Value {
        self.object(id).unwrap_or_default()
    }

    pub(super) fn new_id(&mut self, kind: &'static str) -> String {
        let count = self.counters.entry(kind).or_default();
        *count += 1;
        match self.seed {
            0 => format!("{kind}_{count:06}"),
            seed => format!("{kind}_{seed}_{count:06}"),
        }
    }

    pub(super) fn tell(&mut self, kind: &'static str, object: &str, now: Timestamp) {
        let id = self.new_id("evt");
        let body = json!({
            "id": id,
            "object": "event",
            "api_version": API_VERSION,
            "created": now.as_second(),
            "data": {"object": self.shown(object)},
            "livemode": self.livemode,
            "pending_webhooks": 1,
            "request": {"id": null, "idempotency_key": self.current_key},
            "type": kind,
        });
        self.fresh_events.push(Event {
            id,
            kind,
            created: now,
            object: object.to_owned(),
            body: body.to_string(),
        });
    }

    /// What time alone does: sessions expire.
    pub fn advance_to(&mut self, now: Timestamp) {
        while let Some((at, id)) = self.open_sessions.first() {
            if *at > now {
                break;
            }
            let id = id.clone();
            self.end_session(&id, now);
        }
    }

    pub(super) fn open_session(&mut self, session: Session) {
        let due = (session.expires_at, session.id.clone());
        self.open_sessions.insert(due);
        self.sessions.insert(session.id.clone(), session);
    }

    /// An open session expires; what was begun in it is canceled.
    pub(super) fn end_session(&mut self, id: &str, now: Timestamp) {
        let session = kept(&mut self.sessions, id);
        self.open_sessions
            .remove(&(session.expires_at, id.to_owned()));
        session.status = SessionStatus::Expired;
        if let Some(intent) = session.intent.clone() {
            self.cancel_intent(&intent, now);
        }
        self.tell("checkout.session.expired", id, now);
    }

    pub(super) fn cancel_intent(&mut self, id: &str, now: Timestamp) {
        let intent = kept(&mut self.intents, id);
        intent.status = IntentStatus::Canceled;
        intent.canceled_at = Some(now);
        self.tell("payment_intent.canceled", id, now);
    }

    pub(super) fn new_customer(&mut self, email: Option<String>, now: Timestamp) -> &mut Customer {
        let id = self.new_id("cus");
        self.customers.entry(id.clone()).or_insert(Customer {
            id,
            created: now,
            email,
            name: None,
            metadata: Metadata::new(),
            methods: Vec::new(),
            script: VecDeque::new(),
        })
    }

    pub(super) fn new_method(
        &mut self,
        customer: Option<String>,
        card: Card,
        now: Timestamp,
    ) -> String {
        let id = self.new_id("pm");
        let owner = customer.as_ref().and_then(|id| self.customers.get_mut(id));
        if let Some(owner) = owner {
            owner.methods.push(id.clone());
        }
        let method = PaymentMethod {
            id: id.clone(),
            created: now,
            customer,
            card,
        };
        self.methods.insert(id.clone(), method);
        id
    }

    pub(super) fn next_attempt(&mut self, customer: Option<&String>, method: &str) -> Card {
        let owner = customer.and_then(|id| self.customers.get_mut(id));
        let scripted = owner.and_then(|owner| owner.script.pop_front());
        scripted.unwrap_or_else(|| self.methods[method].card)
    }

    fn new_charge(&mut self, intent: &str, failure: Option<&'static Decline>, now: Timestamp) {
        let id = self.new_id("ch");
        let intent = kept(&mut self.intents, intent);
        intent.latest_charge = Some(id.clone());
        let charge = Charge {
            id: id.clone(),
            created: now,
            intent: intent.id.clone(),
            method: intent.method.clone().unwrap_or_default(),
            amount: intent.amount,
            refunded: 0,
            failure,
            disputed: false,
        };
        if failure.is_none() {
            self.successes.push(id.clone());
        }
        self.charges.insert(id, charge);
    }

    /// One attempt to charge `method`, as the bank decides.
    pub(super) fn attempt(&mut self, id: &str, method: &str, verdict: Verdict, now: Timestamp) {
        let intent = kept(&mut self.intents, id);
        intent.method = Some(method.to_owned());
        let told = match verdict {
            Verdict::Nothing => return,
            Verdict::Charge => {
                intent.status = IntentStatus::Succeeded;
                intent.last_error = None;
                self.new_charge(id, None, now);
                "payment_intent.succeeded"
            }
            Verdict::Decline(decline) => {
                self.new_charge(id, Some(decline), now);
                let intent = kept(&mut self.intents, id);
                intent.status = IntentStatus::RequiresPaymentMethod;
                intent.last_error = intent.method.take().map(|method| (decline, method));
                "payment_intent.payment_failed"
            }
            Verdict::Authenticate => {
                intent.status = IntentStatus::RequiresAction;
                "payment_intent.requires_action"
            }
            Verdict::Process => {
                intent.status = IntentStatus::Processing;
                "payment_intent.processing"
            }
        };
        self.tell(told, id, now);
    }

    pub(super) fn new_intent(
        &mut self,
        amount: i64,
        currency: String,
        customer: Option<String>,
        now: Timestamp,
    ) -> String {
        let id = self.new_id("pi");
        let intent = Intent {
            id: id.clone(),
            created: now,
            amount,
            currency,
            customer,
            method: None,
            metadata: Metadata::new(),
            status: IntentStatus::RequiresPaymentMethod,
            last_error: None,
            latest_charge: None,
            canceled_at: None,
            session: None,
            invoice: None,
            keeps_method: false,
        };
        self.intents.insert(id.clone(), intent);
        id
    }

    pub(super) fn end_subscription(&mut self, id: &str, now: Timestamp) {
        let running = kept(&mut self.subscriptions, id);
        running.canceled_at = Some(now);
        self.tell("customer.subscription.deleted", id, now);
    }

    /// The next refunds fail: the bank does not take the money.
    pub fn fail_refunds(&mut self, next: u32) {
        self.failing_refunds = next;
    }

    /// Gives money back: all that is left, or `amount`. Returns the refund's id.
    pub(super) fn refund(
        &mut self,
        intent: &str,
        amount: Option<i64>,
        now: Timestamp,
    ) -> Result<String, Refusal> {
        let found = self
            .intents
            .get(intent)
            .ok_or_else(|| Refusal::no_such_value("payment_intent", intent))?;
        let charge = found.latest_charge.as_ref();
        let charge = charge.filter(|_| found.status == IntentStatus::Succeeded);
        let Some(charge) = charge.and_then(|id| self.charges.get_mut(id)) else {
            let message = format!(
                "This PaymentIntent ({intent}) does not have a successful charge to refund."
            );
            return Err(Refusal::state(None, &message));
        };
        let left = charge.amount - charge.refunded;
        let id = charge.id.clone();
        if charge.disputed {
            let message = format!("Charge {id} has been charged back; cannot issue a refund.");
            return Err(Refusal::state(Some("charge_disputed"), &message));
        }
        if left == 0 {
            let message = format!("Charge {id} has already been refunded.");
            return Err(Refusal::state(Some("charge_already_refunded"), &message));
        }
        let amount = amount.unwrap_or(left);
        if !(1..=left).contains(&amount) {
            let message = format!(
                "Refund amount ({amount}) is not between 1 and the unrefunded amount on charge ({left})."
            );
            return Err(Refusal::state(None, &message).with("param", json!("amount")));
        }
        let currency = found.currency.clone();
        charge.refunded += amount;
        self.tell("charge.refunded", &id, now);
        let refund = Refund {
            id: self.new_id("re"),
            created: now,
            charge: id,
            intent: intent.to_owned(),
            amount,
            currency,
            reason: None,
            metadata: Metadata::new(),
            failed: false,
        };
        let id = refund.id.clone();
        self.refunds.insert(id.clone(), refund);
        if self.failing_refunds > 0 {
            self.failing_refunds -= 1;
            self.bounce(&id, now);
        }
        Ok(id)
    }

    /// The bank does not take what was given back: the money is here again.
    pub(super) fn bounce(&mut self, refund: &str, now: Timestamp) {
        let bounced = kept(&mut self.refunds, refund);
        bounced.failed = true;
        kept(&mut self.charges, &bounced.charge).refunded -= bounced.amount;
        self.tell("refund.failed", refund, now);
    }
}
