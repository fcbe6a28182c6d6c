//! Request bodies: reading up to a limit, and strict parsing of small settings requests.

use std::borrow::Cow;
use std::fmt;

use axum::body::{Body, HttpBody as _};
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use http_body_util::{BodyExt as _, Collected, LengthLimitError, Limited};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::error::Category;

use crate::error::{ApiError, Code};

/// Refuses a compressed body with 415.
pub fn refuse_compressed(headers: &HeaderMap) -> Result<(), ApiError> {
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    if encodings.all(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Ok(());
    }
    let detail = "send the request body uncompressed, without `Content-Encoding`";
    Err(ApiError::new(Code::UnsupportedEncoding, detail))
}

/// Reads a whole body. One whose declared length is above `max_bytes` is refused before it is read.
pub async fn read_body(body: Body, max_bytes: usize) -> Result<Bytes, ApiError> {
    let too_large = || {
        let detail = format!("the request body may have at most {max_bytes} bytes");
        ApiError::new(Code::BodyTooLarge, detail)
    };
    if usize::try_from(body.size_hint().lower()).map_or(true, |length| length > max_bytes) {
        return Err(too_large());
    }
    let body = Limited::new(body, max_bytes).collect().await;
    body.map(Collected::to_bytes).map_err(|error| {
        if error.is::<LengthLimitError>() {
            return too_large();
        }
        let detail = "the request body broke off; send it again";
        ApiError::new(Code::InvalidRequest, detail)
    })
}

/// The members of a settings request: a JSON object with at least one of the allowed fields, none
/// of them twice or `null`, and no others. It may hold a secret: no `Debug`, no value in an error.
pub struct Fields(Vec<(String, Value)>);

impl Fields {
    pub fn parse(body: &[u8], allowed: &[&'static str]) -> Result<Self, ApiError> {
        let members = match serde_json::from_slice::<Members>(body) {
            Ok(Members(members)) => members,
            Err(error) if error.classify() == Category::Data => {
                return Err(invalid("the request body must be a JSON object"));
            }
            Err(_) => {
                let detail = "the request body is not valid JSON";
                return Err(ApiError::new(Code::InvalidJson, detail));
            }
        };
        if members.is_empty() {
            let allowed = allowed.join("`, `");
            return Err(invalid(format!("give at least one of the fields `{allowed}`")));
        }
        for (at, (name, value)) in members.iter().enumerate() {
            let Some(name) = allowed.iter().find(|allowed| *allowed == name) else {
                return Err(unknown_field(name, allowed));
            };
            if value.is_null() {
                return Err(invalid(format!("the field `{name}` must not be null")));
            }
            if members.iter().skip(at + 1).any(|(other, _)| other == name) {
                return Err(invalid(format!("the field `{name}` is given twice")));
            }
        }
        Ok(Self(members))
    }

    pub fn optional_bool(&self, name: &'static str) -> Result<Option<bool>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let wrong = || invalid(format!("the field `{name}` must be true or false"));
        value.as_bool().map(Some).ok_or_else(wrong)
    }

    pub fn required_string(&self, name: &'static str) -> Result<&str, ApiError> {
        let Some(value) = self.get(name) else {
            return Err(invalid(format!("the field `{name}` is missing")));
        };
        let wrong = || invalid(format!("the field `{name}` must be a string"));
        value.as_str().ok_or_else(wrong)
    }

    fn get(&self, name: &'static str) -> Option<&Value> {
        let mut members = self.0.iter();
        members.find_map(|(member, value)| (member == name).then_some(value))
    }
}

fn invalid(detail: impl Into<Cow<'static, str>>) -> ApiError {
    ApiError::new(Code::InvalidRequest, detail)
}

/// Names the field only if it looks like a name, because a secret may have been put in its place.
fn unknown_field(name: &str, allowed: &[&'static str]) -> ApiError {
    let letter = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    let named = if (1..=40).contains(&name.len()) && name.bytes().all(letter) {
        format!("the field `{name}` is unknown")
    } else {
        "a field is unknown".to_owned()
    };
    let allowed = allowed.join("`, `");
    ApiError::new(Code::UnknownField, format!("{named}; there is only `{allowed}`"))
}

struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io;

    use futures_util::stream;
    use http_body_util::BodyExt as _;
    use serde_json::json;

    use super::*;

    fn frames(frames: &[&'static str]) -> Body {
        let frames: Vec<_> = frames.iter().map(|frame| Ok::<_, Infallible>(*frame)).collect();
        Body::from_stream(stream::iter(frames))
    }

    #[tokio::test]
    async fn bodies_are_read_up_to_the_limit() {
        let table: [(Body, Result<&'static str, Code>); 9] = [
            (Body::empty(), Ok("")),
            (Body::from("12345"), Ok("12345")),
            (Body::from("123456"), Err(Code::BodyTooLarge)),
            (frames(&["12345"]), Ok("12345")),
            (frames(&["", "12", "", "3", "45", ""]), Ok("12345")),
            (frames(&["123456"]), Err(Code::BodyTooLarge)),
            (frames(&["12", "345", "6"]), Err(Code::BodyTooLarge)),
            (frames(&["12345", "6"]), Err(Code::BodyTooLarge)),
            (frames(&["123", "456"]), Err(Code::BodyTooLarge)),
        ];
        for (at, (body, expected)) in table.into_iter().enumerate() {
            let read = read_body(body, 5).await.map_err(|error| error.code());
            assert_eq!(read, expected.map(Bytes::from), "row {at}");
        }
    }

    #[tokio::test]
    async fn a_declared_length_is_refused_before_reading() {
        let unread = Body::from("123456").inspect_frame(|_| unreachable!("the body was read"));
        let error = read_body(Body::new(unread), 5).await.unwrap_err();
        assert_eq!(error.code(), Code::BodyTooLarge);
    }

    #[tokio::test]
    async fn a_body_of_one_frame_is_not_copied() {
        let bytes = Bytes::from_static(b"as it came");
        let stream = stream::iter([Ok::<_, Infallible>(bytes.clone())]);
        for body in [Body::from(bytes.clone()), Body::from_stream(stream)] {
            let read = read_body(body, 100).await.unwrap();
            assert_eq!(read.as_ptr(), bytes.as_ptr());
        }
    }

    #[tokio::test]
    async fn a_broken_body_is_the_callers_error() {
        let broken = stream::iter([Ok("12"), Err(io::Error::other("reset"))]);
        let error = read_body(Body::from_stream(broken), 5).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidRequest);
    }

    const ALLOWED: &[&str] = &["enabled", "key"];

    #[test]
    fn bodies_that_are_refused() {
        use Code::{InvalidJson, InvalidRequest, UnknownField};
        // The body, the code, and what the detail names.
        let table: [(&[u8], Code, &str); 16] = [
            (b"", InvalidJson, "JSON"),
            (b"{", InvalidJson, "JSON"),
            (b"{} x", InvalidJson, "JSON"),
            (b"\xff", InvalidJson, "JSON"),
            (br#"{"enabled": true,}"#, InvalidJson, "JSON"),
            (b"[]", InvalidRequest, "object"),
            (b"null", InvalidRequest, "object"),
            (b"7", InvalidRequest, "object"),
            (br#""secret""#, InvalidRequest, "object"),
            (b"{}", InvalidRequest, "`enabled`, `key`"),
            (br#"{"enabled": null}"#, InvalidRequest, "`enabled`"),
            (br#"{"enabled": true, "enabled": true}"#, InvalidRequest, "`enabled`"),
            (br#"{"enabled": true, "role": 1}"#, UnknownField, "`role`"),
            (br#"{"Key": "secret"}"#, UnknownField, "`Key`"),
            (br#"{"secret-1": "key"}"#, UnknownField, "a field is unknown"),
            (br#"{"": "secret"}"#, UnknownField, "a field is unknown"),
        ];
        for (body, code, names) in table {
            let shown = String::from_utf8_lossy(body);
            let error = Fields::parse(body, ALLOWED).err().expect(&shown);
            assert_eq!(error.code(), code, "{shown}");
            assert!(error.detail().contains(names), "{shown}: {error}");
            assert!(!error.detail().contains("secret"), "{shown}: {error}");
        }
    }

    #[test]
    fn fields_have_their_type() {
        let fields = |body: Value| Fields::parse(body.to_string().as_bytes(), ALLOWED).unwrap();
        let both = fields(json!({"enabled": false, "key": "secret"}));
        assert_eq!(both.optional_bool("enabled").unwrap(), Some(false));
        assert_eq!(both.required_string("key").unwrap(), "secret");
        let key = fields(json!({"key": ""}));
        assert_eq!(key.optional_bool("enabled").unwrap(), None);
        assert_eq!(key.required_string("key").unwrap(), "");

        let wrong = fields(json!({"enabled": "secret", "key": ["secret"]}));
        let missing = fields(json!({"enabled": true}));
        for error in [
            wrong.optional_bool("enabled").unwrap_err(),
            wrong.required_string("key").unwrap_err(),
            missing.required_string("key").unwrap_err(),
        ] {
            assert_eq!(error.code(), Code::InvalidRequest);
            assert!(error.detail().contains("the field `"), "{error}");
            assert!(!error.detail().contains("secret"), "{error}");
        }
    }
}
