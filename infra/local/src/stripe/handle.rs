//! The simulated Stripe's clock, its locked state, and the delivery of its events.

use std::io;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use aws_lc_rs::hmac;
use edge::Clock;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::admission::ApiRequest;
use super::card::Card;
use super::checkout::PayError;
use super::state::{Event, NotPossible, Payment, StripeState};

/// The waits before each retry of an event that was not accepted.
const RETRY_DELAYS: [Duration; 3] =
    [Duration::from_millis(50), Duration::from_millis(500), Duration::from_secs(2)];

const RESPONSE_TIMEOUT: Duration = Duration::from_secs(20);

/// The delivery mode of events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Delivery {
    /// Sent at once, and retried until accepted.
    #[default]
    Immediate,
    /// Kept until a test delivers them.
    Hold,
    /// Never sent, nor kept.
    Drop,
}

/// A webhook endpoint, and the secret that signs its events.
#[derive(Debug, Clone)]
struct Endpoint {
    url: String,
    secret: String,
}

impl Endpoint {
    /// The value of `Stripe-Signature`.
    fn signature(&self, at: Timestamp, body: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.as_bytes());
        let at = at.as_second();
        let tag = hmac::sign(&key, format!("{at}.{body}").as_bytes());
        format!("t={at},v1={}", hex::encode(tag))
    }
}

/// A handle of the simulated Stripe. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StripeHandle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Clock,
    client: reqwest::Client,
    undelivered: watch::Sender<usize>,
    /// Requests wait if their path ends like this.
    paused: watch::Sender<Option<&'static str>>,
    waiting: watch::Sender<usize>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    state: StripeState,
    /// Replaces the clock.
    time: Option<Timestamp>,
    endpoint: Option<Endpoint>,
    delivery: Delivery,
    deliveries: JoinSet<()>,
    events: Vec<Event>,
    held: Vec<Event>,
}

impl StripeHandle {
    pub(super) fn new(state: StripeState, clock: Clock) -> io::Result<Self> {
        let client = reqwest::Client::builder().no_proxy().build();
        Ok(Self(Arc::new(Shared {
            clock,
            client: client.map_err(io::Error::other)?,
            undelivered: watch::Sender::default(),
            paused: watch::Sender::default(),
            waiting: watch::Sender::default(),
            inner: Mutex::new(Inner { state, ..Inner::default() }),
        })))
    }

    /// Uses the state at the current time, and delivers the resulting events.
    pub fn act<T>(&self, use_state: impl FnOnce(&mut StripeState) -> T) -> T {
        let mut inner = self.0.inner.lock().unwrap();
        inner.state.now = inner.time.unwrap_or_else(|| self.0.clock.now());
        let result = use_state(&mut inner.state);
        self.dispatch(&mut inner);
        result
    }

    fn dispatch(&self, inner: &mut Inner) {
        let new = inner.state.take_events();
        while inner.deliveries.try_join_next().is_some() {}
        match inner.delivery {
            Delivery::Drop => return,
            Delivery::Hold => inner.held.extend(new.iter().cloned()),
            Delivery::Immediate if inner.endpoint.is_none() => {}
            Delivery::Immediate => {
                for event in &new {
                    self.0.undelivered.send_modify(|count| *count += 1);
                    let delivery = deliver_until_accepted(Arc::downgrade(&self.0), event.clone());
                    inner.deliveries.spawn(delivery);
                }
            }
        }
        inner.events.extend(new);
    }

    /// Stops Stripe's clock at `now`; sessions that are due by then expire.
    pub fn set_time(&self, now: Timestamp) {
        self.0.inner.lock().unwrap().time = Some(now);
        self.act(StripeState::expire_sessions);
    }

    /// Renews subscriptions as of `at`; returns once their events are delivered.
    pub async fn renew_due_at(&self, at: Timestamp) {
        self.act(|state| {
            state.now = at;
            state.renew_due();
        });
        self.until_delivered().await;
    }

    /// From now on, POST requests to paths that end like this, for example with `/confirm`, wait
    /// for [`resume`](Self::resume), even if their callers go away.
    pub fn pause_at(&self, path_end: &'static str) {
        self.0.paused.send_replace(Some(path_end));
    }

    /// Carries out the requests that wait.
    pub fn resume(&self) {
        self.0.paused.send_replace(None);
    }

    /// Returns once a request waits.
    pub async fn until_paused(&self) {
        let mut waiting = self.0.waiting.subscribe();
        let _ = waiting.wait_for(|count| *count > 0).await;
    }

    pub(super) async fn until_resumed(&self, path: &str) {
        let may_pass = |paused: Option<&str>| paused.is_none_or(|end| !path.ends_with(end));
        let mut paused = self.0.paused.subscribe();
        if may_pass(*paused.borrow_and_update()) {
            return;
        }
        self.0.waiting.send_modify(|count| *count += 1);
        let _ = paused.wait_for(|paused| may_pass(*paused)).await;
        self.0.waiting.send_modify(|count| *count -= 1);
    }

    /// From now on, events are sent to `url`, signed with `secret`.
    pub fn set_webhook(&self, url: &str, secret: &str) {
        self.0.inner.lock().unwrap().endpoint =
            Some(Endpoint { url: url.to_owned(), secret: secret.to_owned() });
    }

    /// Sets the delivery mode of events from now on.
    pub fn set_delivery(&self, delivery: Delivery) {
        self.0.inner.lock().unwrap().delivery = delivery;
    }

    /// All events except dropped ones, whether or not they were sent.
    pub fn events(&self) -> Vec<Event> {
        self.0.inner.lock().unwrap().events.clone()
    }

    /// Takes the events that are held back.
    pub fn take_held(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.inner.lock().unwrap().held)
    }

    /// Forgets all events that are not held back, for runs with many events.
    pub fn forget_events(&self) {
        self.0.inner.lock().unwrap().events.clear();
    }

    fn request(&self, event: &Event) -> Option<reqwest::RequestBuilder> {
        let inner = self.0.inner.lock().unwrap();
        let now = inner.time.unwrap_or_else(|| self.0.clock.now());
        let endpoint = inner.endpoint.as_ref()?;
        let request = self.0.client.post(&endpoint.url).timeout(RESPONSE_TIMEOUT);
        let request = request
            .header("content-type", "application/json; charset=utf-8")
            .header("stripe-signature", endpoint.signature(now, &event.body));
        Some(request.body(event.body.clone()))
    }

    /// Sends an event once, whether or not it was sent before. Returns the endpoint's status.
    pub async fn deliver(&self, event: &Event) -> reqwest::Result<u16> {
        let request = self.request(event).expect("a webhook endpoint is set");
        Ok(request.send().await?.status().as_u16())
    }

    /// The value of `Stripe-Signature` for an event sent now. `None` without an endpoint.
    pub fn signature(&self, event: &Event) -> Option<String> {
        let now = self.act(|state| state.now);
        let inner = self.0.inner.lock().unwrap();
        Some(inner.endpoint.as_ref()?.signature(now, &event.body))
    }

    /// Returns once every event was accepted or its delivery was given up.
    pub async fn until_delivered(&self) {
        let mut undelivered = self.0.undelivered.subscribe();
        let _ = undelivered.wait_for(|count| *count == 0).await;
    }
}

macro_rules! delegate {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $returned:ty)?;)*) => {
        impl StripeHandle {$(
            #[doc = concat!("[`StripeState::", stringify!($name), "`] at the current time.")]
            pub fn $name(&self, $($argument: $type),*) $(-> $returned)? {
                self.act(|state| state.$name($($argument),*))
            }
        )*}
    };
}

delegate! {
    add_method(customer: Option<String>, card: Card) -> String;
    add_payer() -> (String, String);
    bounce_refund(intent: &str) -> Result<(), NotPossible>;
    close_dispute(id: &str, won: bool) -> Result<(), NotPossible>;
    dispute(intent: &str) -> Result<String, NotPossible>;
    draft_ended();
    draft_renewal(subscription: &str) -> Result<(), NotPossible>;
    fail_refunds(next: u32);
    finalize_drafts();
    finish(intent: &str, succeeded: bool) -> Result<(), NotPossible>;
    limit_rate(next: u32, per_second: Option<usize>);
    object(id: &str) -> Option<Value>;
    pay(session: &str, card: Card) -> Result<String, PayError>;
    pay_open_invoice(id: &str, card: Card) -> Result<(), PayError>;
    payable() -> Vec<String>;
    payments() -> Vec<Payment>;
    refund_in_dashboard(intent: &str, cents: i64) -> Result<(), NotPossible>;
    renew_due();
    renew_ended();
    retry_due();
    schedule(subscription: &str, scheduled: bool);
    script(customer: &str, attempts: &[Card]);
    seen() -> Vec<ApiRequest>;
    set_api_key(key: &str);
    set_card(customer: &str, card: Card);
}

/// Sends an event, with retries, as long as the simulated Stripe exists.
async fn deliver_until_accepted(shared: Weak<Shared>, event: Event) {
    for delay in RETRY_DELAYS.into_iter().map(Some).chain([None]) {
        let handle = shared.upgrade().map(StripeHandle);
        let Some(request) = handle.and_then(|handle| handle.request(&event)) else {
            break;
        };
        let response = request.send().await;
        if response.is_ok_and(|response| response.status().is_success()) {
            break;
        }
        match delay {
            Some(delay) => tokio::time::sleep(delay).await,
            None => tracing::warn!(event = event.id, kind = event.kind, "gave up on a webhook"),
        }
    }
    if let Some(shared) = shared.upgrade() {
        shared.undelivered.send_modify(|count| *count -= 1);
    }
}
