//! Stripe's ids, none of which can change the path of a request, and amounts.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a Stripe id has 1 to 255 letters, digits or `_`")]
pub struct IdError;

// The prefix is not checked: Stripe may change it.
account::ids! {
    IdError, 255, b'_' =>
    /// A customer (`cus_…`).
    CustomerId,
    /// A Checkout Session (`cs_…`).
    SessionId,
    /// A PaymentIntent (`pi_…`).
    IntentId,
    /// A SetupIntent, which saves a card without charging it (`seti_…`).
    SetupIntentId,
    /// A saved card (`pm_…`).
    PaymentMethodId,
    /// A subscription (`sub_…`).
    SubscriptionId,
    /// An invoice of a subscription (`in_…`).
    InvoiceId,
    /// A dispute (`dp_…`, formerly `du_…`).
    DisputeId,
    /// A refund (`re_…`).
    RefundId,
    /// A request (`req_…`), for Stripe's support.
    RequestId,
    /// An event (`evt_…`); the same in each of its deliveries.
    EventId,
}

/// An amount in US cents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cents(u64);

impl Cents {
    pub const fn new(cents: u64) -> Self {
        Self(cents)
    }

    pub const fn get(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_keep_to_their_alphabet_and_length() {
        for good in ["cs_test_a1B2", "_", &"x".repeat(255)] {
            assert_eq!(SessionId::new(good).unwrap().as_str(), good);
            let json = serde_json::to_string(good).unwrap();
            let read: SessionId = serde_json::from_str(&json).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), json);
        }
        for bad in ["", "a/b", "a-b", "../x", "a b", "ä", "a\n", &"x".repeat(256)] {
            assert_eq!(SessionId::new(bad), Err(IdError), "{bad:?}");
            let json = serde_json::to_string(bad).unwrap();
            assert!(serde_json::from_str::<SessionId>(&json).is_err(), "{bad:?}");
        }
    }
}
