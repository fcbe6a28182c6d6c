//! Between DynamoDB's items and our types.

use std::collections::HashMap;

use account::{Account, AccountId, AccountNumber, Balance, Credits, Profile};
use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::StoreError;

pub(crate) type Item = HashMap<String, AttributeValue>;

/// The range key of the item that holds the profile and the balance.
pub(crate) const ACCOUNT: &str = "account";

/// How many partitions the sparse indexes are spread over.
pub(crate) const SHARDS: u8 = 16;

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
    parts
        .into_iter()
        .map(|(name, value)| (name.to_owned(), text(value)))
        .collect()
}

/// Which of the [`SHARDS`] the items of `id` are in.
pub(crate) fn shard_of(id: &str) -> u8 {
    let sum = id
        .bytes()
        .fold(0_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
    sum % SHARDS
}

pub(crate) fn to_attribute<T: Serialize>(
    what: &'static str,
    value: &T,
) -> Result<AttributeValue, StoreError> {
    serde_dynamo::to_attribute_value(value).map_err(|error| StoreError::unreadable(what, error))
}

pub(crate) fn from_attribute<T: DeserializeOwned>(
    what: &'static str,
    value: AttributeValue,
) -> Result<T, StoreError> {
    serde_dynamo::from_attribute_value(value).map_err(|error| StoreError::unreadable(what, error))
}

pub(crate) fn get_text(item: &Item, name: &str, what: &'static str) -> Result<String, StoreError> {
    let value = item.get(name).and_then(|value| value.as_s().ok());
    value.cloned().ok_or_else(|| StoreError::corrupt(what))
}

pub(crate) fn get_time(
    item: &Item,
    name: &str,
    what: &'static str,
) -> Result<Timestamp, StoreError> {
    let text = get_text(item, name, what)?;
    text.parse().map_err(|_| StoreError::corrupt(what))
}

pub(crate) fn get_number<T: std::str::FromStr>(
    item: &Item,
    name: &str,
    what: &'static str,
) -> Result<T, StoreError> {
    let value = item.get(name).and_then(|value| value.as_n().ok());
    value
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| StoreError::corrupt(what))
}

pub(crate) fn get_credits(
    item: &Item,
    name: &str,
    what: &'static str,
) -> Result<Credits, StoreError> {
    get_number(item, name, what).map(Credits::from_micros)
}

/// The balance attributes of an account item.
pub(crate) fn get_balance(item: &Item) -> Result<Balance, StoreError> {
    const WHAT: &str = "balance";
    let balance = Balance::new(
        get_credits(item, "balance", WHAT)?,
        get_credits(item, "held", WHAT)?,
        get_credits(item, "owed", WHAT)?,
        get_number(item, "open_holds", WHAT)?,
    );
    balance.ok_or_else(|| StoreError::corrupt(WHAT))
}

/// The profile as an attribute: one text of JSON, because every call reads it, and a map of maps takes the SDK
/// ten times as long. It is written as a whole, under the condition of its revision.
pub(crate) fn profile(profile: &Profile) -> Result<AttributeValue, StoreError> {
    let mut json =
        serde_json::to_value(profile).map_err(|error| StoreError::unreadable("account", error))?;
    drop_nulls(&mut json);
    let json = json.to_string();
    debug_assert_eq!(
        serde_json::from_str::<Profile>(&json).ok().as_ref(),
        Some(profile),
        "what is written is read"
    );
    Ok(text(json))
}

/// To whoever reads a profile, a member that is `null` is one that is not there; DynamoDB bills each kilobyte.
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

/// The profile's switch, which conditions name, as an attribute beside it.
pub(crate) fn switch(profile: &Profile) -> AttributeValue {
    AttributeValue::Bool(profile.always_use_key)
}

pub(crate) fn always_use_key(item: &Item) -> bool {
    let switch = item.get("always_use_key");
    switch.and_then(|value| value.as_bool().ok()) == Some(&true)
}

pub(crate) fn account_from_item(id: &AccountId, item: &Item) -> Result<Account, StoreError> {
    const WHAT: &str = "account";
    let profile = item.get("profile").and_then(|value| value.as_s().ok());
    let profile = profile.ok_or_else(|| StoreError::corrupt(WHAT))?;
    let number = AccountNumber::new(get_text(item, "account_number", WHAT)?);
    Ok(Account {
        id: id.clone(),
        number: number.map_err(|_| StoreError::corrupt(WHAT))?,
        profile: serde_json::from_str(profile)
            .map_err(|error| StoreError::unreadable(WHAT, error))?,
        revision: get_number(item, "revision", WHAT)?,
        balance: get_balance(item)?,
        created_at: get_time(item, "created_at", WHAT)?,
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
