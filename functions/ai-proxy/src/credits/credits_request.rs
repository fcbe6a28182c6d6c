//! A request that credits pay for: only fields whose cost is bounded are sent.

use std::borrow::Cow;

use account::price::{CallSize, PricedModel};
use bytes::Bytes;
use edge::ApiError;
use serde_json::value::RawValue;
use upstream::{DefaultAiKind, Members, UniqueMembers};

use super::prompt::{Prompt, unsupported};
use crate::request::{ChatRequest, invalid, parse_string};

/// Fields that are sent unchanged. Fields that are neither here nor refused are left out.
const SENT: [&str; 20] = [
    "messages",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "temperature",
    "top_p",
    "top_k",
    "top_a",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "logit_bias",
    "seed",
    "stop",
    "stream",
    "user",
    "metadata",
    "reasoning_effort",
];

/// Fields that cannot be left out without changing the response.
const NOT_DROPPABLE: [&str; 3] = ["functions", "function_call", "top_logprobs"];

/// Fields that are handled here and not sent unchanged.
const HANDLED: [&str; 6] =
    ["model", "n", "max_tokens", "max_completion_tokens", "stream_options", "logprobs"];

/// Maximum number of fields that [`CreditsRequest::ignored`] lists.
const MAX_NAMED: usize = 20;

/// Fields that can cost more than tokens, or that let the default AI choose the price.
const REFUSED: [&str; 9] = [
    "models",
    "plugins",
    "provider",
    "preset",
    "route",
    "web_search_options",
    "modalities",
    "audio",
    "prediction",
];

pub(super) struct CreditsRequest<'a> {
    members: Members<'a>,
    prompt: Prompt,
    output_limit: Option<u64>,
}

impl<'a> CreditsRequest<'a> {
    pub(super) fn new(request: &'a ChatRequest) -> Result<Self, ApiError> {
        let mut members = request.members()?;
        members.retain(|_, value| value.get() != "null");
        if let Some(name) = REFUSED.iter().find(|name| members.contains_key(**name)) {
            return Err(unsupported(format!("`{name}`")));
        }
        let is_present = |name: &&&str| members.contains_key(**name);
        let not_droppable = NOT_DROPPABLE.iter().find(is_present).copied();
        let logprobs = members.get("logprobs").filter(|logprobs| logprobs.get() != "false");
        if let Some(name) = not_droppable.or(logprobs.map(|_| "logprobs")) {
            return Err(unsupported(format!("`{name}`")));
        }
        // An upstream that read anything else as true would stream without reporting usage.
        if let Some(stream) = members.get("stream")
            && !matches!(stream.get(), "true" | "false")
        {
            return Err(invalid("`stream` must be true or false"));
        }
        if members.get("n").is_some_and(|n| n.get() != "1") {
            return Err(unsupported("`n` other than 1"));
        }
        let model = request.model.as_deref().unwrap_or_default();
        if model.contains('@') || model.ends_with(":online") {
            return Err(unsupported("presets and priced variants of models"));
        }
        if let Some(tools) = members.get("tools") {
            only_functions(tools)?;
        }
        let prompt = Prompt::measure(&members)?;
        let limit = |name: &str| match members.get(name) {
            None => Ok(None),
            Some(limit) => match whole_number(limit.get()) {
                Some(limit) if limit > 0 => Ok(Some(limit)),
                _ => Err(invalid(format!("`{name}` must be a whole number above 0"))),
            },
        };
        let limits = [limit("max_tokens")?, limit("max_completion_tokens")?];
        Ok(Self { prompt, output_limit: limits.into_iter().flatten().min(), members })
    }

    /// The size of the call on `model`. If the prompt has parts other than text, only the model's
    /// context length bounds it.
    pub(super) fn size(&self, model: &PricedModel) -> Result<CallSize, ApiError> {
        let Prompt { text, around, only_text } = self.prompt;
        let all = text.saturating_add(around);
        let prompt_tokens = match (only_text, model.context_length) {
            (true, context) => all.min(context.unwrap_or(u64::MAX)),
            (false, Some(context)) => context,
            (false, None) => return Err(unsupported("parts other than text on this model")),
        };
        Ok(CallSize { prompt_tokens, only_text, output_limit: self.output_limit })
    }

    /// The fields that are not sent to the default AI, for `x-greta-ignored`.
    pub(super) fn ignored(&self) -> Option<String> {
        let is_sent = |name: &str| SENT.contains(&name) || HANDLED.contains(&name);
        let mut left_out: Vec<_> = self.members.keys().filter(|name| !is_sent(name)).collect();
        if self.has_only_reasoning_effort() {
            left_out.retain(|name| *name != "reasoning");
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let may_be_named =
            |name: &&&String| (1..=64).contains(&name.len()) && name.bytes().all(is_plain);
        let named = left_out.iter().filter(may_be_named).take(MAX_NAMED);
        let mut parts: Vec<_> = named.map(|name| (*name).clone()).collect();
        match left_out.len().saturating_sub(parts.len()) {
            0 => {}
            others => parts.push(format!("+{others}")),
        }
        (!parts.is_empty()).then(|| parts.join(","))
    }

    /// The body that is sent to the default AI.
    pub(super) fn body(&self, model: &str, output_limit: u64, kind: DefaultAiKind) -> Bytes {
        let mut sent: Vec<(&str, Cow<'_, str>)> = SENT
            .iter()
            .filter_map(|name| Some((*name, Cow::Borrowed(self.members.get(*name)?.get()))))
            .collect();
        // `reasoning.effort` is OpenRouter's own form of `reasoning_effort`.
        match (kind, self.reasoning_effort()) {
            (_, None) => {}
            (DefaultAiKind::OpenRouter, Some(effort)) => {
                sent.push(("reasoning", Cow::Owned(format!(r#"{{"effort":{effort}}}"#))));
            }
            (DefaultAiKind::OpenAi, Some(effort)) => {
                sent.retain(|(name, _)| *name != "reasoning_effort");
                sent.push(("reasoning_effort", Cow::Borrowed(effort)));
            }
        }
        let limit = match kind {
            DefaultAiKind::OpenRouter => "max_tokens",
            DefaultAiKind::OpenAi => "max_completion_tokens",
        };
        sent.push((limit, Cow::Owned(output_limit.to_string())));
        if kind == DefaultAiKind::OpenAi && self.streamed() {
            sent.push(("stream_options", Cow::Borrowed(r#"{"include_usage":true}"#)));
        }
        let model = serde_json::Value::from(model);
        let mut body = format!(r#"{{"model":{model}"#);
        for (name, value) in sent {
            for part in [",\"", name, "\":", &value] {
                body.push_str(part);
            }
        }
        Bytes::from(body + "}")
    }

    fn has_only_reasoning_effort(&self) -> bool {
        let reasoning = self.members.get("reasoning");
        let members = reasoning.and_then(|reasoning| serde_json::from_str(reasoning.get()).ok());
        members.is_some_and(|UniqueMembers(members)| members.keys().eq(["effort"]))
    }

    fn streamed(&self) -> bool {
        let stream = self.members.get("stream");
        stream.is_some_and(|stream| stream.get() == "true")
    }

    fn reasoning_effort(&self) -> Option<&'a str> {
        let reasoning: &'a RawValue = self.members.get("reasoning")?;
        let UniqueMembers(reasoning) = serde_json::from_str(reasoning.get()).ok()?;
        reasoning.get("effort").map(|effort| effort.get())
    }
}

/// Some clients write whole numbers as `4096.0`.
fn whole_number(json: &str) -> Option<u64> {
    let (whole, part) = json.split_once('.').unwrap_or((json, ""));
    part.bytes().all(|digit| digit == b'0').then(|| whole.parse().ok())?
}

fn only_functions(tools: &RawValue) -> Result<(), ApiError> {
    let tools = serde_json::from_str::<Vec<UniqueMembers<'_>>>(tools.get());
    let tools =
        tools.map_err(|_| invalid("`tools` must be an array of objects without duplicate keys"))?;
    let is_function = |UniqueMembers(tool): &UniqueMembers<'_>| {
        let kind = tool.get("type").and_then(|kind| parse_string(kind));
        kind.as_deref() == Some("function")
    };
    if tools.iter().all(is_function) {
        Ok(())
    } else {
        Err(unsupported("tools other than functions"))
    }
}

#[cfg(test)]
mod oracle;

#[cfg(test)]
mod tests;
