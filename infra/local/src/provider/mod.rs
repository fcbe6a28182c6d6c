//! The payment provider as it behaves and misbehaves, on a listener of its own: the part of Stripe's
//! API that is used here, its checkout page, and its webhooks.
//!
//! [`ProviderState`] is all of it without I/O and without a clock, and can be driven alone;
//! [`PaymentProvider`] puts HTTP around it. What a card does is the payer's choice on the page
//! ([`Card`]) or a test's, through [`PaymentProvider::set_card`] and [`PaymentProvider::script`].

mod acts;
mod api;
mod card;
mod endpoints;
mod form;
mod http_api;
mod objects;
mod page;
mod refusal;
mod state;
mod webhooks;

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use edge::Clock;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{mpsc, watch};

pub use acts::{Impossible, PayError};
pub use api::{ApiReply, ApiRequest, SeenRequest};
pub use card::{Card, UnknownCard};
pub use form::Form;
pub use objects::API_VERSION;
pub use state::{Event, Payment, ProviderState};
pub use webhooks::{Delivery, DeliveryError};

use crate::serve::{self, Server};
use webhooks::Target;

/// Makes a payer: a customer, and the id of a card.
pub type NewPayer = Arc<dyn Fn() -> (String, String) + Send + Sync>;
/// Has subscriptions go on.
pub type Renewals =
    Arc<dyn Fn(Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// How a provider is set up.
#[derive(Debug, Clone)]
pub struct ProviderOptions {
    /// The only key that callers may use; without one, any will do.
    pub api_key: Option<String>,
    pub clock: Clock,
    pub livemode: bool,
    /// Part of all ids, unless 0.
    pub seed: u64,
}

impl Default for ProviderOptions {
    fn default() -> Self {
        Self {
            api_key: None,
            clock: Clock::system(),
            livemode: false,
            seed: 0,
        }
    }
}

/// A running provider, until stopped or dropped.
#[derive(Debug)]
pub struct PaymentProvider {
    shared: Arc<Shared>,
    under_way: Arc<watch::Sender<usize>>,
    server: Server,
}

impl PaymentProvider {
    /// Starts one on a free port, with nothing in it.
    ///
    /// # Errors
    /// If no port can be opened.
    pub async fn start(options: ProviderOptions) -> io::Result<Self> {
        let listener = serve::listener().await?;
        let base_url = format!("http://{}", listener.local_addr()?);
        let state = ProviderState::new(options.seed, &base_url, options.api_key, options.livemode);
        let (outgoing, events) = mpsc::unbounded_channel();
        let under_way = Arc::new(watch::Sender::new(0));
        let client = reqwest::Client::builder().no_proxy().build();
        let shared = Arc::new(Shared {
            clock: options.clock,
            client: client.map_err(io::Error::other)?,
            under_way: Arc::clone(&under_way),
            paused: watch::Sender::new(None),
            held_back: watch::Sender::new(0),
            outgoing,
            inner: Mutex::new(Inner {
                state,
                time: None,
                target: None,
                delivery: Delivery::default(),
                events: Vec::new(),
                held: Vec::new(),
            }),
        });
        let worker = webhooks::work(Arc::downgrade(&shared), events, Arc::clone(&under_way));
        serve::spawn(worker);
        let server = Server::on(listener, http_api::router(Arc::clone(&shared)))?;
        Ok(Self {
            shared,
            under_way,
            server,
        })
    }

    /// `http://127.0.0.1:PORT`; the API is below `/v1`.
    pub fn base_url(&self) -> String {
        self.server.url()
    }

    /// The same routes without a listener.
    pub fn router(&self) -> Router {
        http_api::router(Arc::clone(&self.shared))
    }

    /// Does something with the state, at the provider's time; what comes of it is sent to the
    /// webhook.
    pub fn act<T>(&self, what: impl FnOnce(&mut ProviderState, Timestamp) -> T) -> T {
        self.shared.act(what)
    }

    /// See [`ProviderState::pay`].
    ///
    /// # Errors
    /// [`PayError`]
    pub fn pay(&self, session: &str, card: Card) -> Result<String, PayError> {
        self.act(|state, now| state.pay(session, card, now))
    }

    /// See [`ProviderState::decline`].
    ///
    /// # Errors
    /// Always.
    pub fn decline(&self, session: &str) -> Result<String, PayError> {
        self.act(|state, now| state.decline(session, now))
    }

    /// See [`ProviderState::finish`].
    ///
    /// # Errors
    /// If the intent is not under way.
    pub fn finish(&self, intent: &str, succeeded: bool) -> Result<(), Impossible> {
        self.act(|state, now| state.finish(intent, succeeded, now))
    }

    /// Makes payers whose card succeeds: a customer, and the card's id.
    ///
    /// # Panics
    /// Never: the customer was just made.
    pub fn payers(&self) -> NewPayer {
        let shared = Arc::clone(&self.shared);
        Arc::new(move || {
            shared.act(|state, now| {
                let customer = state.add_customer(now);
                let card = state.add_card(&customer, Card::Succeeds, now);
                (customer, card.expect("the customer was just made"))
            })
        })
    }

    /// See [`ProviderState::add_card`].
    ///
    /// # Errors
    /// If there is no such customer.
    pub fn add_card(&self, customer: &str, card: Card) -> Result<String, Impossible> {
        self.act(|state, now| state.add_card(customer, card, now))
    }

    /// See [`ProviderState::set_card`].
    pub fn set_card(&self, customer: &str, card: Card) {
        self.act(|state, _| state.set_card(customer, card));
    }

    /// See [`ProviderState::script`].
    pub fn script(&self, customer: &str, attempts: &[Card]) {
        self.act(|state, _| state.script(customer, attempts));
    }

    /// See [`ProviderState::refund_from_outside`].
    ///
    /// # Errors
    /// If so much is not left of a payment.
    pub fn refund_from_outside(&self, intent: &str, cents: i64) -> Result<(), Impossible> {
        self.act(|state, now| state.refund_from_outside(intent, cents, now))
    }

    /// See [`ProviderState::bounce_refund`].
    ///
    /// # Errors
    /// If nothing was given back.
    pub fn bounce_refund(&self, intent: &str) -> Result<(), Impossible> {
        self.act(|state, now| state.bounce_refund(intent, now))
    }

    /// See [`ProviderState::fail_refunds`].
    pub fn fail_refunds(&self, next: u32) {
        self.act(|state, _| state.fail_refunds(next));
    }

    /// See [`ProviderState::dispute`].
    ///
    /// # Errors
    /// If it cannot be disputed.
    pub fn dispute(&self, intent: &str) -> Result<String, Impossible> {
        self.act(|state, now| state.dispute(intent, now))
    }

    /// See [`ProviderState::close_dispute`].
    ///
    /// # Errors
    /// If there is no such open dispute.
    pub fn close_dispute(&self, id: &str, won: bool) -> Result<(), Impossible> {
        self.act(|state, now| state.close_dispute(id, won, now))
    }

    /// See [`ProviderState::renew`].
    ///
    /// # Errors
    /// If the subscription does not run.
    pub fn renew(&self, subscription: &str) -> Result<(), Impossible> {
        self.act(|state, now| state.renew(subscription, now))
    }

    /// See [`ProviderState::fail_renewal`].
    ///
    /// # Errors
    /// If the subscription does not run.
    pub fn fail_renewal(&self, subscription: &str) -> Result<(), Impossible> {
        self.act(|state, now| state.fail_renewal(subscription, now))
    }

    /// Has subscriptions go on at a time that it is given, as [`ProviderState::renew_due`] does; done
    /// once their events are delivered.
    pub fn renewals(&self) -> Renewals {
        let (shared, under_way) = (Arc::clone(&self.shared), Arc::clone(&self.under_way));
        Arc::new(move |at| {
            shared.act(|state, _| state.renew_due(at));
            let mut under_way = under_way.subscribe();
            Box::pin(async move {
                let done = under_way.wait_for(|count| *count == 0).await;
                drop(done);
            })
        })
    }

    /// See [`ProviderState::pay_open_invoice`].
    ///
    /// # Errors
    /// [`PayError`]
    pub fn pay_open_invoice(&self, invoice: &str, card: Card) -> Result<(), PayError> {
        self.act(|state, now| state.pay_open_invoice(invoice, card, now))
    }

    /// See [`ProviderState::renew_due`].
    pub fn renew_due(&self) {
        self.act(ProviderState::renew_due);
    }

    /// See [`ProviderState::retry_due`].
    pub fn retry_due(&self) {
        self.act(ProviderState::retry_due);
    }

    /// See [`ProviderState::renew_ended`].
    pub fn renew_ended(&self) {
        self.act(ProviderState::renew_ended);
    }

    /// See [`ProviderState::draft_ended`].
    pub fn draft_ended(&self) {
        self.act(ProviderState::draft_ended);
    }

    /// See [`ProviderState::finalize_drafts`].
    pub fn finalize_drafts(&self) {
        self.act(ProviderState::finalize_drafts);
    }

    /// See [`ProviderState::limit_rate`].
    pub fn limit_rate(&self, next: u32, per_second: Option<usize>) {
        self.act(|state, _| state.limit_rate(next, per_second));
    }

    /// See [`ProviderState::roll_api_key`].
    pub fn roll_api_key(&self, key: &str) {
        self.act(|state, _| state.roll_api_key(key));
    }

    /// Its time stands at `now` from here on; sessions that are over by then expire.
    pub fn set_time(&self, now: Timestamp) {
        self.shared.inner().time = Some(now);
        self.act(ProviderState::advance_to);
    }

    /// POST requests that begin from now on are carried out only after [`resume`](Self::resume),
    /// whether their callers wait or not.
    pub fn pause(&self) {
        self.pause_at("");
    }

    /// The same for those whose path ends so, for example with `/confirm`.
    pub fn pause_at(&self, path_end: &'static str) {
        self.shared.paused.send_replace(Some(path_end));
    }

    /// Waits until a request is held back.
    ///
    /// # Panics
    /// Never: this provider holds what it waits for.
    pub async fn until_held_back(&self) {
        let mut held_back = self.shared.held_back.subscribe();
        let some = held_back.wait_for(|count| *count > 0).await;
        some.expect("the sender is held by this provider");
    }

    /// Carries out what waits.
    pub fn resume(&self) {
        self.shared.paused.send_replace(None);
    }

    /// An object as the API shows it.
    pub fn object(&self, id: &str) -> Option<Value> {
        self.act(|state, _| state.object(id))
    }

    /// All payments that succeeded, in their order.
    pub fn payments(&self) -> Vec<Payment> {
        self.act(|state, _| state.payments().collect())
    }

    /// See [`ProviderState::payable`].
    pub fn payable(&self) -> Vec<String> {
        self.act(|state, now| {
            state.advance_to(now);
            state.payable()
        })
    }

    /// All requests to the API, in the order of their arrival.
    pub fn seen(&self) -> Vec<SeenRequest> {
        self.act(|state, _| state.seen().to_vec())
    }

    /// From now on events are sent there, signed with `secret`.
    pub fn set_webhook(&self, url: &str, secret: &str) {
        self.shared.inner().target = Some(Target {
            url: url.to_owned(),
            secret: secret.to_owned(),
        });
    }

    /// What becomes of events from now on.
    pub fn set_delivery(&self, delivery: Delivery) {
        self.shared.inner().delivery = delivery;
    }

    /// All events but those that were dropped, also those that were sent.
    pub fn events(&self) -> Vec<Event> {
        self.shared.inner().events.clone()
    }

    /// The events that are held back, which from here on are the caller's.
    pub fn take_held(&self) -> Vec<Event> {
        std::mem::take(&mut self.shared.inner().held)
    }

    /// Forgets all events that are not held back, for runs that make very many of them.
    pub fn forget_events(&self) {
        self.shared.inner().events.clear();
    }

    /// Sends an event once, whether or not it was sent before. Returns the target's status.
    ///
    /// # Errors
    /// If there is no target or it does not answer.
    pub async fn deliver(&self, event: &Event) -> Result<u16, DeliveryError> {
        webhooks::send(&self.shared, event).await
    }

    /// The value of `Stripe-Signature` for an event that is sent now. `None` without a target.
    pub fn signature(&self, event: &Event) -> Option<String> {
        let target = self.shared.target()?;
        let now = self.shared.now();
        Some(webhooks::signature(&target.secret, now, &event.body))
    }

    /// Sends the events that are held back, each once, in an order that depends on `seed` only.
    /// Returns the target's statuses.
    ///
    /// # Errors
    /// At the first one that does not get an answer.
    pub async fn deliver_all_shuffled(&self, seed: u64) -> Result<Vec<u16>, DeliveryError> {
        let mut held = self.take_held();
        fastrand::Rng::with_seed(seed).shuffle(&mut held);
        let mut statuses = Vec::with_capacity(held.len());
        for event in &held {
            statuses.push(self.deliver(event).await?);
        }
        Ok(statuses)
    }

    /// Waits until no event is on its way any more: accepted, or given up.
    ///
    /// # Panics
    /// Never: this provider holds what it waits for.
    pub async fn until_delivered(&self) {
        let mut under_way = self.under_way.subscribe();
        let done = under_way.wait_for(|count| *count == 0).await;
        done.expect("the sender is held by this provider");
    }

    /// Stops, and returns once the port is closed; what is on its way is dropped.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}

/// What the handlers share.
#[derive(Debug)]
struct Shared {
    clock: Clock,
    client: reqwest::Client,
    outgoing: mpsc::UnboundedSender<Event>,
    under_way: Arc<watch::Sender<usize>>,
    /// Requests whose path ends so wait.
    paused: watch::Sender<Option<&'static str>>,
    /// How many wait.
    held_back: watch::Sender<usize>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: ProviderState,
    /// Stands in the clock's place.
    time: Option<Timestamp>,
    target: Option<Target>,
    delivery: Delivery,
    events: Vec<Event>,
    held: Vec<Event>,
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        let set = self.inner().time;
        set.unwrap_or_else(|| self.clock.now())
    }

    fn target(&self) -> Option<Target> {
        self.inner().target.clone()
    }

    fn act<T>(&self, what: impl FnOnce(&mut ProviderState, Timestamp) -> T) -> T {
        let mut inner = self.inner();
        let now = inner.time.unwrap_or_else(|| self.clock.now());
        let result = what(&mut inner.state, now);
        let happened = inner.state.take_events();
        let copies = match (inner.delivery, &inner.target) {
            (Delivery::Drop, _) => return result,
            (Delivery::Hold, _) => {
                inner.held.extend(happened.iter().cloned());
                0
            }
            (_, None) => 0,
            (Delivery::AtOnce, Some(_)) => 1,
            (Delivery::Duplicate, Some(_)) => 2,
        };
        for event in std::iter::repeat_n(&happened, copies).flatten() {
            self.under_way.send_modify(|count| *count += 1);
            // It fails only while the provider stops.
            let _ = self.outgoing.send(event.clone());
        }
        inner.events.extend(happened);
        result
    }

    async fn until_resumed(&self, path: &str) {
        let gets_through =
            |paused: Option<&'static str>| paused.is_none_or(|end| !path.ends_with(end));
        let mut paused = self.paused.subscribe();
        if gets_through(*paused.borrow_and_update()) {
            return;
        }
        self.held_back.send_modify(|count| *count += 1);
        let resumed = paused.wait_for(|paused| gets_through(*paused)).await;
        resumed.expect("the sender is held by this provider");
        self.held_back.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests;
