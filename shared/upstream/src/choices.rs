//! The choices of a chat completion, read without keeping them: they can be long.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::json::{Members, member};

/// What the choices say together.
#[derive(Debug, Default)]
pub(crate) struct Choices<'a> {
    /// A message has anything but its role: text, a tool call, an image, a refusal, ….
    pub(crate) have_content: bool,
    /// A choice is finished.
    pub(crate) finish: bool,
    /// A choice ended in an error, perhaps without an error object.
    pub(crate) failed: bool,
    pub(crate) error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    delta: Content,
    #[serde(default)]
    message: Content,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    finish_reason: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

impl<'a> Choices<'a> {
    /// The choices of a body or an event, if it has any.
    pub(crate) fn of(members: &Members<'a>) -> serde_json::Result<Option<Self>> {
        let choices = member(members, "choices");
        choices.map(|choices| serde_json::from_str(choices.get())).transpose()
    }

    fn add(&mut self, choice: &Choice<'a>) {
        let finish_reason = choice.finish_reason.map(RawValue::get).unwrap_or_default();
        self.have_content |=
            choice.delta.0 || choice.message.0 || choice.text.is_some_and(is_filled);
        self.finish |= finish_reason.starts_with('"');
        self.failed |= finish_reason == "\"error\"" || choice.error.is_some();
        self.error = self.error.or(choice.error);
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Choices<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Together;

        impl<'de> Visitor<'de> for Together {
            type Value = Choices<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut together = Choices::default();
                while let Some(choice) = seq.next_element::<Choice<'de>>()? {
                    together.add(&choice);
                }
                Ok(together)
            }
        }

        deserializer.deserialize_seq(Together)
    }
}

/// Whether a message or a delta has content.
#[derive(Debug, Default)]
struct Content(bool);

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyMember;

        impl<'de> Visitor<'de> for AnyMember {
            type Value = Content;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object or null")
            }

            fn visit_unit<E>(self) -> Result<Content, E> {
                Ok(Content(false))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
                let mut content = false;
                while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                    if name == "role" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        content |= is_filled(map.next_value()?);
                    }
                }
                Ok(Content(content))
            }
        }

        deserializer.deserialize_any(AnyMember)
    }
}

fn is_filled(raw: &RawValue) -> bool {
    let is_empty = |open, close| {
        let inside = raw.get().strip_prefix(open).and_then(|rest| rest.strip_suffix(close));
        inside.is_some_and(|inside: &str| inside.trim_ascii().is_empty())
    };
    let is_nothing = matches!(raw.get(), "null" | "false" | "\"\"");
    !is_nothing && !is_empty('[', ']') && !is_empty('{', '}')
}
