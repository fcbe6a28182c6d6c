//! The delivery of events to a webhook endpoint.

use std::io;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use aws_lc_rs::hmac;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::state::Event;
use super::time::StripeTime;

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

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Webhooks(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    time: Arc<StripeTime>,
    client: reqwest::Client,
    undelivered: watch::Sender<usize>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    endpoint: Option<Endpoint>,
    delivery: Delivery,
    deliveries: JoinSet<()>,
    events: Vec<Event>,
    held: Vec<Event>,
}

impl Webhooks {
    pub(super) fn new(time: Arc<StripeTime>) -> io::Result<Self> {
        let client = reqwest::Client::builder().no_proxy().build();
        Ok(Self(Arc::new(Shared {
            time,
            client: client.map_err(io::Error::other)?,
            undelivered: watch::Sender::default(),
            inner: Mutex::default(),
        })))
    }

    pub(super) fn dispatch(&self, new: Vec<Event>) {
        let mut inner = self.0.inner.lock().unwrap();
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

    /// From now on, events are sent to `url`, signed with `secret`.
    pub fn set_endpoint(&self, url: &str, secret: &str) {
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
        let endpoint = inner.endpoint.as_ref()?;
        let request = self.0.client.post(&endpoint.url).timeout(RESPONSE_TIMEOUT);
        let request = request
            .header("content-type", "application/json; charset=utf-8")
            .header("stripe-signature", endpoint.signature(self.0.time.now(), &event.body));
        Some(request.body(event.body.clone()))
    }

    /// Sends an event once, whether or not it was sent before. Returns the endpoint's status.
    pub async fn deliver(&self, event: &Event) -> reqwest::Result<u16> {
        let request = self.request(event).expect("a webhook endpoint is set");
        Ok(request.send().await?.status().as_u16())
    }

    /// The value of `Stripe-Signature` for an event sent now. `None` without an endpoint.
    pub fn signature(&self, event: &Event) -> Option<String> {
        let inner = self.0.inner.lock().unwrap();
        Some(inner.endpoint.as_ref()?.signature(self.0.time.now(), &event.body))
    }

    /// Returns once every event was accepted or its delivery was given up.
    pub async fn until_delivered(&self) {
        let mut undelivered = self.0.undelivered.subscribe();
        let _ = undelivered.wait_for(|count| *count == 0).await;
    }
}

/// Sends an event, with retries, as long as the simulated Stripe exists.
async fn deliver_until_accepted(shared: Weak<Shared>, event: Event) {
    for delay in RETRY_DELAYS.into_iter().map(Some).chain([None]) {
        let webhooks = shared.upgrade().map(Webhooks);
        let Some(request) = webhooks.and_then(|webhooks| webhooks.request(&event)) else {
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
