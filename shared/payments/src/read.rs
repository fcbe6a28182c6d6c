//! Lenient reading of Stripe's JSON: a field that is missing, `null` or of another type is absent.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::{Cents, IdError};

/// The only currency that we charge.
pub(crate) const CURRENCY: &str = "usd";

pub(crate) fn text<'a>(object: &'a Value, field: &str) -> Option<&'a str> {
    object.get(field)?.as_str()
}

pub(crate) fn owned(object: &Value, field: &str) -> Option<String> {
    text(object, field).map(str::to_owned)
}

pub(crate) fn flag(object: &Value, field: &str) -> Option<bool> {
    object.get(field)?.as_bool()
}

/// The currency of an amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Currency {
    Usd,
    /// Another currency, or none.
    #[serde(other)]
    Other,
}

pub(crate) fn currency(object: &Value) -> Currency {
    match text(object, "currency") {
        Some(CURRENCY) => Currency::Usd,
        _ => Currency::Other,
    }
}

/// A negative amount is absent.
pub(crate) fn cents(object: &Value, field: &str) -> Option<Cents> {
    object.get(field)?.as_u64().map(Cents::new)
}

/// A time in seconds since the Unix epoch.
pub(crate) fn time(object: &Value, field: &str) -> Option<Timestamp> {
    Timestamp::from_second(object.get(field)?.as_i64()?).ok()
}

/// A reference: an id, or the object with this id if it was expanded.
pub(crate) fn id<T: TryFrom<String, Error = IdError>>(object: &Value, field: &str) -> Option<T> {
    let reference = object.get(field)?;
    let id = reference.as_str().or_else(|| text(reference, "id"))?;
    T::try_from(id.to_owned()).ok()
}

/// One of the names that we know; the default for any other.
pub(crate) fn name<'a, T: Deserialize<'a> + Default>(object: &'a Value, field: &str) -> T {
    let name = object.get(field).and_then(|name| T::deserialize(name).ok());
    name.unwrap_or_default()
}
