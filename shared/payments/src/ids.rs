//! Stripe's ids, and amounts. Each kind of id is a type of its own, so that one cannot take the
//! place of another, and none can change the path of a request.

use std::fmt;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a Stripe id has 1 to 255 letters, digits or `_`")]
pub struct IdError;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident,)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Accepts `^[A-Za-z0-9_]{1,255}$`. The prefix is not checked: Stripe may change it.
            pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
                if (1..=255).contains(&text.len()) && text.bytes().all(allowed) {
                    Ok(Self(text))
                } else {
                    Err(IdError)
                }
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

ids! {
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
    /// An event (`evt_…`); the same in each of its deliveries.
    EventId,
}

/// An amount in US cents.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
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
