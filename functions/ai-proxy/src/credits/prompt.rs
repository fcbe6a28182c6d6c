//! The maximum number of tokens of a prompt; see [`account::price::prompt`].

use account::price::prompt::{TEMPLATE_TOKENS, TOOLS_TOKENS, read_bytes, rewritten_tokens};
use edge::{ApiError, Code};
use serde_json::value::RawValue;

use upstream::{Members, UniqueMembers};

use crate::request::{invalid, parse_string};

/// Members whose JSON a provider rewrites for the prompt in its own form.
const REWRITTEN: [&str; 3] = ["tools", "tool_choice", "response_format"];
/// The same, in a message.
const REWRITTEN_IN_MESSAGES: [&str; 3] = ["tool_calls", "function_call", "reasoning_details"];
/// Roles whose `content` is text; a template may write that of any other (`tool`) as JSON.
const TEXT_ROLES: [&str; 4] = ["system", "developer", "user", "assistant"];
/// Members of a message that are text, so that their bytes bound their tokens.
const TEXT_MEMBERS: [&str; 10] = [
    "role",
    "content",
    "name",
    "tool_calls",
    "tool_call_id",
    "refusal",
    "reasoning",
    "reasoning_content",
    "reasoning_details",
    "function_call",
];
/// Supported kinds of parts. Files are missing because they are priced separately.
const PARTS: [&str; 4] = ["text", "image_url", "input_audio", "video_url"];
/// Members of a text part.
const TEXT_PART_MEMBERS: [&str; 3] = ["type", "text", "cache_control"];

/// The size of a prompt, in tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prompt {
    pub(super) text: u64,
    /// The JSON around the text, and what templates add.
    pub(super) around: u64,
    pub(super) only_text: bool,
}

impl Prompt {
    /// Measures the prompt of a request. Anything not known to be text counts as something else:
    /// images and sound become tokens, but not by the length of their text.
    pub(super) fn measure(members: &Members<'_>) -> Result<Self, ApiError> {
        let mut prompt = Self { text: 0, around: TEMPLATE_TOKENS, only_text: true };
        if let Some(messages) = members.get("messages") {
            prompt.add_messages(messages)?;
        }
        for member in REWRITTEN.iter().filter_map(|name| members.get(*name)) {
            prompt.add_text(rewritten_tokens(member.get()));
        }
        if members.contains_key("tools") || members.contains_key("response_format") {
            prompt.around = prompt.around.saturating_add(TOOLS_TOKENS);
        }
        Ok(prompt)
    }

    fn add_messages(&mut self, messages: &RawValue) -> Result<(), ApiError> {
        self.around = self.around.saturating_add(read_bytes(messages.get()));
        let messages: Vec<&RawValue> = serde_json::from_str(messages.get()).unwrap_or_default();
        for message in messages {
            let members = serde_json::from_str::<UniqueMembers<'_>>(message.get());
            let UniqueMembers(members) = members.map_err(|_| {
                invalid("each of `messages` must be an object without duplicate keys")
            })?;
            let role = members.get("role").and_then(|role| parse_string(role));
            let is_text = role.is_some_and(|role| TEXT_ROLES.contains(&role.as_str()));
            for (name, value) in &members {
                self.only_text &= TEXT_MEMBERS.contains(&name.as_str());
                match name.as_str() {
                    "role" => {}
                    "content" => self.count_content(value, is_text)?,
                    name if REWRITTEN_IN_MESSAGES.contains(&name) => self.count_rewritten(value),
                    _ => self.count_text(value),
                }
            }
        }
        Ok(())
    }

    /// Counts a message's `content`: a string, `null`, or a list of parts.
    fn count_content(&mut self, content: &RawValue, is_text: bool) -> Result<(), ApiError> {
        let is_string = content.get().starts_with('"');
        if !is_text {
            self.count_rewritten(content);
        } else if is_string {
            self.count_text(content);
        }
        if is_string || content.get() == "null" {
            return Ok(());
        }
        let unreadable =
            |_| invalid("`content` must be a string or an array of objects without duplicate keys");
        let parts: Vec<UniqueMembers<'_>> =
            serde_json::from_str(content.get()).map_err(unreadable)?;
        for UniqueMembers(members) in parts {
            let kind = members.get("type").and_then(|kind| parse_string(kind));
            if kind.as_deref() == Some("file") || members.contains_key("file") {
                // Parsing a file has a separate price.
                return Err(unsupported("file parts"));
            }
            if !kind.as_deref().is_some_and(|kind| PARTS.contains(&kind)) {
                return Err(unsupported("parts other than text, images, sound and videos"));
            }
            let known = |name: &String| TEXT_PART_MEMBERS.contains(&name.as_str());
            self.only_text &= kind.as_deref() == Some("text") && members.keys().all(known);
            if let (true, Some(text)) = (is_text, members.get("text")) {
                self.count_text(text);
            }
        }
        Ok(())
    }

    /// Counts a JSON string as text instead of as JSON around it. Its quotes still count as JSON.
    fn count_text(&mut self, json: &RawValue) {
        let bytes = read_bytes(json.get()).saturating_sub(2);
        self.around = self.around.saturating_sub(bytes);
        self.add_text(bytes);
    }

    fn count_rewritten(&mut self, json: &RawValue) {
        self.around = self.around.saturating_sub(read_bytes(json.get()));
        self.add_text(rewritten_tokens(json.get()));
    }

    fn add_text(&mut self, tokens: u64) {
        self.text = self.text.saturating_add(tokens);
    }
}

pub(super) fn unsupported(what: impl std::fmt::Display) -> ApiError {
    ApiError::new(
        Code::UnsupportedOnCredits,
        format!(
            "{what} cannot be paid with Greta credits; leave it out, or use your OpenRouter key"
        ),
    )
}
