//! DynamoDB's own notation, of what is read without the SDK.
//!
//! Source: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.LowLevelAPI.html>.

use std::collections::BTreeMap;
use std::fmt;

use aws_sdk_dynamodb::types::AttributeValue;
use serde::de::{MapAccess, Visitor};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::item::Item;

/// The body of a strongly consistent read.
///
/// # Errors
/// If the key is of anything but texts, as none of ours is.
pub(crate) fn get_item(table: &str, key: &Item) -> serde_json::Result<Vec<u8>> {
    let mut texts = BTreeMap::new();
    for (name, value) in key {
        let text = value.as_s();
        let text = text.map_err(|_| serde_json::Error::custom("the key is not of texts"))?;
        texts.insert(name.as_str(), Text { text });
    }
    serde_json::to_vec(&GetItem {
        table_name: table,
        key: texts,
        consistent_read: true,
    })
}

/// The item of an answer; `None` if there is none.
///
/// # Errors
/// If it is no such answer, or the item has an attribute of a kind that none of ours has (bytes, sets): where, but not
/// what is there.
pub(crate) fn item(answer: &[u8]) -> Result<Option<Item>, String> {
    let answer: Answer = serde_json::from_slice(answer).map_err(|error| {
        let (category, line, column) = (error.classify(), error.line(), error.column());
        format!("no item is answered: {category:?}, line {line}, column {column}")
    })?;
    Ok(answer.item.map(|Attributes(item)| item))
}

/// What DynamoDB calls the reason for which it refuses; the rest of what it says may repeat the request.
pub(crate) fn refusal(answer: &[u8]) -> String {
    let refusal: Result<Refusal, _> = serde_json::from_slice(answer);
    refusal.map_or_else(|_| "with no reason".to_owned(), |refusal| refusal.reason)
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct GetItem<'a> {
    table_name: &'a str,
    key: BTreeMap<&'a str, Text<'a>>,
    consistent_read: bool,
}

#[derive(Serialize)]
struct Text<'a> {
    #[serde(rename = "S")]
    text: &'a str,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Item")]
    item: Option<Attributes>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(rename = "__type")]
    reason: String,
}

struct Attributes(Item);

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ByName)
    }
}

struct ByName;

impl<'de> Visitor<'de> for ByName {
    type Value = Attributes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("attributes by their names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Attributes, A::Error> {
        let mut item = Item::new();
        while let Some((name, value)) = members.next_entry::<_, Attribute>()? {
            item.insert(name, value.into());
        }
        Ok(Attributes(item))
    }
}

#[derive(Deserialize)]
enum Attribute {
    #[serde(rename = "S")]
    Text(String),
    #[serde(rename = "N")]
    Number(String),
    #[serde(rename = "BOOL")]
    Bool(bool),
    #[serde(rename = "NULL")]
    Null(bool),
    #[serde(rename = "L")]
    List(Vec<Attribute>),
    #[serde(rename = "M")]
    Map(Attributes),
}

impl From<Attribute> for AttributeValue {
    fn from(attribute: Attribute) -> Self {
        match attribute {
            Attribute::Text(text) => Self::S(text),
            Attribute::Number(number) => Self::N(number),
            Attribute::Bool(value) => Self::Bool(value),
            Attribute::Null(value) => Self::Null(value),
            Attribute::List(list) => Self::L(list.into_iter().map(Self::from).collect()),
            Attribute::Map(Attributes(map)) => Self::M(map),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::item::{key, number, text};

    #[test]
    fn a_read_names_its_table_and_key() {
        let key = key([("account_id", "a \"b\""), ("item", "account")]);
        let body = get_item("accounts", &key).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let expected = json!({
            "TableName": "accounts",
            "Key": {"account_id": {"S": "a \"b\""}, "item": {"S": "account"}},
            "ConsistentRead": true,
        });
        assert_eq!(body, expected);
        let numbered = Item::from([("n".to_owned(), number(1))]);
        get_item("accounts", &numbered).unwrap_err();
    }

    #[test]
    fn an_item_is_read_as_it_is() {
        let answer = json!({
            "ConsumedCapacity": {"TableName": "accounts", "CapacityUnits": 1.0},
            "Item": {
                "text": {"S": "a \"b\" \u{1f600}\n"},
                "number": {"N": "-12345678901234567890.5"},
                "yes": {"BOOL": true},
                "nothing": {"NULL": true},
                "list": {"L": [{"S": "a"}, {"L": []}]},
                "map": {"M": {"inner": {"N": "1"}, "empty": {"M": {}}}},
            },
        });
        let read = item(answer.to_string().as_bytes()).unwrap().unwrap();
        let list = AttributeValue::L(vec![text("a"), AttributeValue::L(Vec::new())]);
        let map = [
            ("inner".to_owned(), number(1)),
            ("empty".to_owned(), AttributeValue::M(Item::new())),
        ];
        let expected = [
            ("text", text("a \"b\" \u{1f600}\n")),
            ("number", number("-12345678901234567890.5")),
            ("yes", AttributeValue::Bool(true)),
            ("nothing", AttributeValue::Null(true)),
            ("list", list),
            ("map", AttributeValue::M(map.into())),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(read, Item::from(expected));
    }

    #[test]
    fn of_a_refusal_only_the_reason_is_told() {
        let throttled = "com.amazonaws.dynamodb.v20120810#ThrottlingException";
        let answer = json!({"__type": throttled, "message": "your request was this: …"});
        assert_eq!(refusal(answer.to_string().as_bytes()), throttled);
        assert_eq!(refusal(b"<html>"), "with no reason");
    }

    #[test]
    fn what_is_not_known_is_left_to_others() {
        assert_eq!(item(b"{}").unwrap(), None);
        for answer in [
            "",
            "[]",
            "{",
            r#"{"Item":{"a":{"SS":["b"]}}}"#,
            r#"{"Item":{"a":"b"}}"#,
        ] {
            item(answer.as_bytes()).unwrap_err();
        }
    }
}
