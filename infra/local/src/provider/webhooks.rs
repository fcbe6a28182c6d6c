//! Events on their way: signed, sent, sent again.

use std::fmt::Write;
use std::sync::{Arc, Weak};
use std::time::Duration;

use aws_lc_rs::hmac;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::Shared;
use super::state::Event;

/// How long an event that was not accepted waits before it is sent again.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(50),
    Duration::from_millis(500),
    Duration::from_secs(2),
];

/// How long a target may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What becomes of events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Delivery {
    /// Sent at once, and again while it is not accepted.
    #[default]
    AtOnce,
    /// The same, twice.
    Duplicate,
    /// Kept until a test delivers it.
    Hold,
    /// Never sent, nor kept.
    Drop,
}

/// Where events are sent to.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) url: String,
    pub(super) secret: String,
}

/// An event did not reach its target.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    #[error("no target is set; see set_webhook")]
    NoTarget,
    #[error("the target does not answer")]
    Unreachable(#[from] reqwest::Error),
}

/// The value of `Stripe-Signature`.
pub(super) fn signature(secret: &str, at: Timestamp, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let at = at.as_second();
    let tag = hmac::sign(&key, format!("{at}.{body}").as_bytes());
    let mut value = format!("t={at},v1=");
    for byte in tag.as_ref() {
        write!(value, "{byte:02x}").expect("a string takes any text");
    }
    value
}

/// An event as it is sent now.
fn request(shared: &Shared, event: &Event) -> Result<reqwest::RequestBuilder, DeliveryError> {
    let target = shared.target().ok_or(DeliveryError::NoTarget)?;
    let signature = signature(&target.secret, shared.now(), &event.body);
    let request = shared
        .client
        .post(&target.url)
        .timeout(PATIENCE)
        .header("content-type", "application/json; charset=utf-8")
        .header("stripe-signature", signature);
    Ok(request.body(event.body.clone()))
}

/// Sends an event once. Returns the target's status.
pub(super) async fn send(shared: &Shared, event: &Event) -> Result<u16, DeliveryError> {
    let response = request(shared, event)?.send().await?;
    Ok(response.status().as_u16())
}

/// Sends what it is given, all at the same time, until nobody gives it anything any more.
/// `under_way` counts what is not yet done.
pub(super) async fn work(
    shared: Weak<Shared>,
    mut events: mpsc::UnboundedReceiver<Event>,
    under_way: Arc<watch::Sender<usize>>,
) {
    let mut deliveries = JoinSet::new();
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => {
                    let shared = shared.clone();
                    deliveries.spawn(async move { send_until_accepted(&shared, &event).await });
                }
                None => break,
            },
            Some(_) = deliveries.join_next() => under_way.send_modify(|count| *count -= 1),
        }
    }
}

/// Once the provider is gone, nothing is sent any more.
async fn send_until_accepted(shared: &Weak<Shared>, event: &Event) {
    for pause in PAUSES.into_iter().map(Some).chain([None]) {
        let request = shared.upgrade().map(|shared| request(&shared, event));
        let Some(Ok(request)) = request else {
            return;
        };
        let response = request.send().await;
        if response.is_ok_and(|response| response.status().is_success()) {
            return;
        }
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
    }
    tracing::warn!(
        event = event.id,
        kind = event.kind,
        "a webhook was given up"
    );
}
