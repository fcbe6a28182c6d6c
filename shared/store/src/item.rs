//! Conversions between DynamoDB's items and our types.

use std::collections::HashMap;

use account::{Account, AccountId, AccountNumber, Balance, Credits, Profile};
use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::StoreError;

pub(crate) type Item = HashMap<String, AttributeValue>;

/// The range key of the item that holds the profile and the balance.
pub(crate) const ACCOUNT: &str = "account";

pub(crate) fn text(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

pub(crate) fn number(number: impl ToString) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

pub(crate) fn micros(credits: Credits) -> AttributeValue {
    number(credits.micros())
}

/// Fixed width, so that the text sorts as the time does.
pub(crate) fn time_text(at: Timestamp) -> String {
    format!("{at:.6}")
}

pub(crate) fn time(at: Timestamp) -> AttributeValue {
    text(time_text(at))
}

pub(crate) fn key<const N: usize>(parts: [(&str, &str); N]) -> Item {
    with(Item::new(), parts.map(|(name, value)| (name, text(value))))
}

pub(crate) fn account_key(id: &AccountId) -> Item {
    key([("account_id", id.as_str()), ("item", ACCOUNT)])
}

/// The item with these attributes as well.
pub(crate) fn with<'a>(
    mut item: Item,
    attributes: impl IntoIterator<Item = (&'a str, AttributeValue)>,
) -> Item {
    let attributes = attributes.into_iter();
    item.extend(attributes.map(|(name, value)| (name.to_owned(), value)));
    item
}

pub(crate) fn to_attribute<T: Serialize>(
    what: &'static str,
    value: &T,
) -> Result<AttributeValue, StoreError> {
    serde_dynamo::to_attribute_value(value).map_err(|error| StoreError::unreadable(what, error))
}

pub(crate) fn write<T: Serialize>(what: &'static str, value: &T) -> Result<Item, StoreError> {
    serde_dynamo::to_item(value).map_err(|error| StoreError::unreadable(what, error))
}

pub(crate) fn read<T: DeserializeOwned>(what: &'static str, item: Item) -> Result<T, StoreError> {
    serde_dynamo::from_item(item).map_err(|error| StoreError::unreadable(what, error))
}

/// Reads credits that are stored as whole micro-credits.
pub(crate) fn credits_of_micros<'de, D>(deserializer: D) -> Result<Credits, D::Error>
where
    D: serde::Deserializer<'de>,
{
    i64::deserialize(deserializer).map(Credits::from_micros)
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a> {
    item: &'a Item,
    /// The item's name in errors.
    what: &'static str,
}

impl<'a> Attributes<'a> {
    pub(crate) fn of(what: &'static str, item: &'a Item) -> Self {
        Self { item, what }
    }

    pub(crate) fn corrupt(self) -> StoreError {
        StoreError::corrupt(self.what)
    }

    pub(crate) fn get<T: DeserializeOwned>(self, name: &str) -> Result<T, StoreError> {
        self.optional(name)?.ok_or_else(|| self.corrupt())
    }

    pub(crate) fn optional<T: DeserializeOwned>(self, name: &str) -> Result<Option<T>, StoreError> {
        let value = self.item.get(name).cloned();
        let value = value.map(serde_dynamo::from_attribute_value).transpose();
        value.map_err(|error| StoreError::unreadable(self.what, error))
    }

    pub(crate) fn credits(self, name: &str) -> Result<Credits, StoreError> {
        self.get(name).map(Credits::from_micros)
    }

    pub(crate) fn text(self, name: &str) -> Result<&'a str, StoreError> {
        let value = self.item.get(name).and_then(|value| value.as_s().ok());
        value.map(String::as_str).ok_or_else(|| self.corrupt())
    }
}

pub(crate) fn balance(item: &Item) -> Result<Balance, StoreError> {
    let item = Attributes::of("balance", item);
    let balance = Balance::new(
        item.credits("balance")?,
        item.credits("held")?,
        item.credits("owed")?,
        item.get("open_holds")?,
    );
    balance.ok_or_else(|| item.corrupt())
}

/// The profile as an attribute: one JSON text, because every call reads it, and the SDK takes ten
/// times as long for a map of maps. It is written as a whole, on the condition of its revision.
pub(crate) fn profile(profile: &Profile) -> Result<AttributeValue, StoreError> {
    let mut json =
        serde_json::to_value(profile).map_err(|error| StoreError::unreadable(ACCOUNT, error))?;
    drop_nulls(&mut json);
    let json = json.to_string();
    debug_assert_eq!(
        serde_json::from_str::<Profile>(&json).ok().as_ref(),
        Some(profile),
        "the profile is read as it was written"
    );
    Ok(text(json))
}

/// A `null` member reads like a missing one, and DynamoDB bills each kilobyte.
fn drop_nulls(json: &mut Value) {
    match json {
        Value::Object(members) => {
            members.retain(|_, value| !value.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(elements) => elements.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// The profile's switch as an attribute beside it, so that conditions can name it.
pub(crate) fn switch(profile: &Profile) -> AttributeValue {
    AttributeValue::Bool(profile.always_use_key)
}

pub(crate) fn account(id: &AccountId, item: &Item) -> Result<Account, StoreError> {
    let attributes = Attributes::of(ACCOUNT, item);
    Ok(Account {
        id: id.clone(),
        number: attributes.get::<AccountNumber>("account_number")?,
        profile: serde_json::from_str(attributes.text("profile")?)
            .map_err(|error| StoreError::unreadable(ACCOUNT, error))?,
        revision: attributes.get("revision")?,
        balance: balance(item)?,
        created_at: attributes.get("created_at")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_sort_as_text() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let times = [
            at("2026-01-01T00:00:00Z"),
            at("2026-01-01T00:00:00.000001Z"),
            at("2026-01-01T00:00:00.1Z"),
            at("2026-01-01T00:00:01Z"),
        ];
        let texts: Vec<String> = times.iter().map(|at| time_text(*at)).collect();
        let mut sorted = texts.clone();
        sorted.sort();
        assert_eq!(texts, sorted);
        assert!(texts.iter().all(|text| text.len() == 27), "{texts:?}");
    }
}
