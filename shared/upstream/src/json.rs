//! JSON objects as maps of raw members.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// The members of an object, each as its JSON text.
pub type Members<'a> = BTreeMap<String, &'a RawValue>;

/// The members of a JSON object without duplicate keys. Of two duplicates, we would read one, and
/// upstream might read the other.
pub struct UniqueMembers<'a>(pub Members<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for UniqueMembers<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Unique;

        impl<'de> Visitor<'de> for Unique {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Members::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    if members.insert(name, value).is_some() {
                        return Err(A::Error::custom("duplicate key"));
                    }
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(Unique).map(Self)
    }
}
