//! JSON objects as maps of raw members.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Maximum number of members of an object; no request or response has as many.
const MAX_MEMBERS: usize = 1_000;
/// Size limit of a JSON text that becomes a [`Value`], which takes a multiple of its size.
pub(crate) const MAX_VALUE: usize = 64 * 1024;

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
                    if members.len() >= MAX_MEMBERS {
                        return Err(A::Error::custom("too many members"));
                    }
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

impl<'a> UniqueMembers<'a> {
    pub(crate) fn parse(json: &'a [u8]) -> Option<Members<'a>> {
        let Self(members) = serde_json::from_slice(json).ok()?;
        Some(members)
    }
}

/// A member that is present and not `null`.
pub(crate) fn member<'a>(members: &Members<'a>, name: &str) -> Option<&'a RawValue> {
    members.get(name).copied().filter(|raw| raw.get() != "null")
}

pub(crate) fn string(members: &Members<'_>, name: &str) -> Option<String> {
    serde_json::from_str(members.get(name)?.get()).ok()
}

/// An object as a whole; `None` if it is too long or too deep.
pub(crate) fn object(members: &Members<'_>) -> Option<Value> {
    let length: usize = members.values().map(|raw| raw.get().len()).sum();
    let members = members.iter().map(|(name, raw)| Some((name.clone(), value(raw)?)));
    (length <= MAX_VALUE).then(|| members.collect::<Option<Map<_, _>>>())?.map(Value::Object)
}

pub(crate) fn is_object_or_array(json: &[u8]) -> bool {
    matches!(json.trim_ascii_start().first(), Some(b'{' | b'['))
}

/// `None` if the text is too long or too deep.
pub(crate) fn value(raw: &RawValue) -> Option<Value> {
    let is_short = raw.get().len() <= MAX_VALUE;
    is_short.then(|| serde_json::from_str(raw.get()).ok())?
}
