//! Parses a chat completion: a whole body, or one event of a stream.

use account::price::Usage;
use serde_json::value::RawValue;

use crate::choices::Choices;
use crate::failure::UpstreamError;
use crate::json::{UniqueMembers, member, string};
use crate::sse::Event;
use crate::text::generation_id;
use crate::usage::usage_from_json;

#[derive(Debug, Clone, PartialEq)]
pub enum Parsed {
    /// `[DONE]`: the stream is complete.
    Done,
    Chunk(Chunk),
    /// An error instead of the rest of the response, perhaps with the usage so far. A JSON object
    /// that is not a completion counts as an error.
    Error(UpstreamError, Option<Usage>, HasContent),
    /// Not a JSON object, or one with duplicate keys or malformed choices.
    Unreadable,
}

/// A part of a completion, or a whole one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    pub content: HasContent,
    /// A choice is finished.
    pub finishes: bool,
    pub usage: Option<Usage>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HasContent {
    Yes,
    No,
}

impl Chunk {
    /// Whether this shows that the call is under way. A role alone does not.
    pub fn is_decisive(&self) -> bool {
        self.content == HasContent::Yes || self.finishes || self.usage.is_some()
    }
}

impl Parsed {
    pub fn of_event(event: &Event) -> Self {
        if event.data.trim_ascii() == b"[DONE]" {
            return Self::Done;
        }
        match Self::of_body(&event.data) {
            Self::Chunk(_) if event.name == "error" => Self::Unreadable,
            parsed => parsed,
        }
    }

    /// Parses a JSON object. Duplicate keys make it unreadable, because the client might read the
    /// other one.
    pub fn of_body(body: &[u8]) -> Self {
        let Some(members) = UniqueMembers::parse(body) else {
            return Self::Unreadable;
        };
        let Ok(choices) = Choices::of(&members) else {
            return Self::Unreadable;
        };
        let usage = member(&members, "usage").and_then(|raw| usage_from_json(raw.get()));
        let content = match &choices {
            Some(choices) if choices.have_content => HasContent::Yes,
            _ => HasContent::No,
        };
        if let Some(error) = UpstreamError::from_ok_body(&members, choices.as_ref()) {
            return Self::Error(error, usage, content);
        }
        match choices {
            Some(choices) => Self::Chunk(Chunk { content, finishes: choices.finish, usage }),
            None => Self::Error(UpstreamError::not_a_completion(), usage, content),
        }
    }
}

/// The generation id in a body or an event; used when no header has one.
pub fn id_in(json: &[u8]) -> Option<String> {
    generation_id(&string(&UniqueMembers::parse(json)?, "id")?)
}

/// Adds a member to a JSON object, and changes no other byte.
pub fn with_member(object: &[u8], name: &str, json: &str) -> Option<Vec<u8>> {
    let object = object.trim_ascii();
    let inside = object.strip_prefix(b"{")?.strip_suffix(b"}")?;
    let comma = if inside.trim_ascii().is_empty() { "" } else { "," };
    let added = format!("{comma}\"{name}\":{json}}}");
    Some([b"{", inside, added.as_bytes()].concat())
}

/// The completion with empty choices, for an event that only carries usage.
pub fn without_choices(object: &[u8]) -> Option<String> {
    let mut members = UniqueMembers::parse(object)?;
    let none = RawValue::from_string("[]".to_owned()).ok()?;
    members.insert("choices".to_owned(), &none);
    serde_json::to_string(&members).ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::failure::Failure;

    fn of(data: &'static str) -> Parsed {
        let data = Bytes::from_static(data.as_bytes());
        Parsed::of_event(&Event { name: String::new(), data })
    }

    /// Content, finish, usage; `None` for anything but a chunk.
    fn chunk(data: &'static str) -> Option<(bool, bool, bool)> {
        match of(data) {
            Parsed::Chunk(chunk) => {
                Some((chunk.content == HasContent::Yes, chunk.finishes, chunk.usage.is_some()))
            }
            _ => None,
        }
    }

    #[test]
    fn a_chunk_has_content_or_not() {
        let table = [
            (r#"{"choices":[]}"#, (false, false, false)),
            (r#"{"choices":[{"delta":{}}]}"#, (false, false, false)),
            (
                r#"{"choices":[{"delta":{"role":"assistant","content":"","refusal":null}}]}"#,
                (false, false, false),
            ),
            (r#"{"choices":[{"delta":{"content":"x"}}]}"#, (true, false, false)),
            (r#"{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}"#, (true, false, false)),
            (r#"{"choices":[{"delta":{"reasoning":"so"}}]}"#, (true, false, false)),
            (r#"{"choices":[{"message":{"refusal":"no"}}]}"#, (true, false, false)),
            (r#"{"choices":[{"text":"x"}]}"#, (true, false, false)),
            (r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#, (false, true, false)),
            (r#"{"choices":[],"usage":{"cost":0.5}}"#, (false, false, true)),
            (r#"{"choices":[],"usage":null,"error":null}"#, (false, false, false)),
        ];
        for (data, expected) in table {
            assert_eq!(chunk(data), Some(expected), "{data}");
        }
    }

    #[test]
    fn an_error_is_found_in_any_shape() {
        let errors = [
            r#"{"error":{"code":502}}"#,
            r#"{"error":"gone"}"#,
            r#"{"error":{},"choices":[{"delta":{"content":""}}]}"#,
            r#"{"choices":[{},{"error":{"code":502}}]}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"error"}]}"#,
            r#"{"type":"error","code":"server_error","message":"x"}"#,
            r#"{"type":"response.failed","response":{"error":null}}"#,
            r#"{"status":"failed"}"#,
            // Not a completion, so it counts as an error.
            r#"{"errors":[{"message":"x"}]}"#,
            r#"{"detail":"x"}"#,
            "{}",
        ];
        for data in errors {
            assert!(matches!(of(data), Parsed::Error(..)), "{data}");
        }
        let partial = r#"{"choices":[{"message":{"content":"x"},"error":{"code":429}}],
            "usage":{"cost":0.5}}"#;
        let Parsed::Error(error, usage, content) = of(partial) else { panic!("{partial}") };
        assert_eq!((error.failure, content), (Failure::RateLimited, HasContent::Yes));
        assert!(usage.is_some());
    }

    #[test]
    fn ambiguous_json_is_unreadable() {
        for data in [
            "",
            "x",
            "[]",
            "[{\"choices\":[]}]",
            "{\"choices\":[]",
            r#"{"choices":[],"choices":[]}"#,
            r#"{"error":null,"error":{"code":502},"choices":[]}"#,
        ] {
            assert_eq!(of(data), Parsed::Unreadable, "{data}");
        }
        assert_eq!(of(" [DONE] "), Parsed::Done);
        let named =
            Event { name: "error".to_owned(), data: Bytes::from_static(b"{\"choices\":[]}") };
        assert_eq!(Parsed::of_event(&named), Parsed::Unreadable);
    }

    #[test]
    fn a_member_is_added_and_nothing_else_changes() {
        let with = |json: &str| {
            let longer = with_member(json.as_bytes(), "greta", "{\"x\":2}")?;
            String::from_utf8(longer).ok()
        };
        assert_eq!(
            with(" {\"a\": {\"b\":1} }\r"),
            Some("{\"a\": {\"b\":1} ,\"greta\":{\"x\":2}}".into())
        );
        assert_eq!(with("{ }"), Some("{ \"greta\":{\"x\":2}}".into()));
        for no_object in ["x", "[{}]", ""] {
            assert_eq!(with(no_object), None);
        }
        let usage =
            br#"{"id":"gen-1","choices":[{"delta":{"content":"x"}}],"usage":{"cost":1e-5}}"#;
        let ours = without_choices(usage).unwrap();
        assert_eq!(ours, r#"{"choices":[],"id":"gen-1","usage":{"cost":1e-5}}"#);
        assert_eq!(id_in(usage).as_deref(), Some("gen-1"));
        assert_eq!(id_in(br#"{"id":"sk-or-v1-0123456789abcdef"}"#), None);
        assert_eq!(id_in(br#"["gen-1"]"#), None);
    }
}
