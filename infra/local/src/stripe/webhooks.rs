//! Signed webhook requests.

use std::time::Duration;

use aws_lc_rs::hmac;
use jiff::Timestamp;

/// How long an event that was not accepted waits before each retry.
pub(super) const RETRY_DELAYS: [Duration; 3] =
    [Duration::from_millis(50), Duration::from_millis(500), Duration::from_secs(2)];

pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(20);

/// What becomes of events.
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
pub(super) struct Endpoint {
    pub(super) url: String,
    pub(super) secret: String,
}

impl Endpoint {
    /// The value of `Stripe-Signature`.
    pub(super) fn signature(&self, at: Timestamp, body: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.as_bytes());
        let at = at.as_second();
        let tag = hmac::sign(&key, format!("{at}.{body}").as_bytes());
        format!("t={at},v1={}", hex::encode(tag))
    }
}
