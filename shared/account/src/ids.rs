//! Ids. Each kind has its own type, so that one cannot take the place of another.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id has 1 to 64 letters, digits, `_` or `-`")]
pub struct IdError;

/// Defines types of ids: texts of 1 to `$max` ASCII letters, digits and `$others`.
#[macro_export]
macro_rules! ids {
    ($error:ident, $max:literal, $others:pat => $($(#[$doc:meta])* $name:ident,)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub fn new(text: impl Into<String>) -> Result<Self, $error> {
                let text = text.into();
                let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, $others);
                if (1..=$max).contains(&text.len()) && text.bytes().all(allowed) {
                    Ok(Self(text))
                } else {
                    Err($error)
                }
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = $error;
            fn try_from(text: String) -> Result<Self, $error> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

ids! {
    IdError, 64, b'_' | b'-' =>
    /// A Greta customer, as tokens name it.
    AccountId,
    /// The account's internal name in the ledger, holds and charges; random, never shown.
    AccountNumber,
    /// A saved key; each save has a new one.
    KeyId,
    /// An AI call; also the id of its hold and its ledger entry.
    CallId,
    EntryId,
}

impl From<&CallId> for EntryId {
    /// A call has at most one ledger entry, and it has the call's id.
    fn from(call: &CallId) -> Self {
        Self(call.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_keep_to_their_alphabet_and_length() {
        for good in ["a", "A-Z_09", &"x".repeat(64)] {
            assert_eq!(AccountId::new(good).map(|id| id.as_str().to_owned()), Ok(good.to_owned()));
        }
        for bad in ["", "a b", "a/b", "ä", "a\n", "a.b", &"x".repeat(65)] {
            assert_eq!(AccountId::new(bad), Err(IdError), "{bad:?}");
        }
    }
}
