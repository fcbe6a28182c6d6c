//! The request as credits may pay for it: only members whose cost is bounded are sent.

use std::borrow::Cow;

use account::price::prompt::{
    TEMPLATE_TOKENS, TOOLS_TOKENS, WAIVED_TOKENS, read_bytes, rewritten_tokens,
};
use account::price::{CallSize, PricedModel};
use bytes::Bytes;
use edge::{ApiError, Code};
use serde_json::value::RawValue;
use upstream::DefaultAiKind;

use crate::request::{ChatRequest, Members, UniqueMembers, invalid};

/// Sent as they are. Whatever is neither here nor refused below is left out.
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

/// Members whose JSON a provider writes into the prompt, in its own way.
const REWRITTEN: [&str; 3] = ["tools", "tool_choice", "response_format"];
/// The same, in a message.
const REWRITTEN_IN_MESSAGES: [&str; 3] = ["tool_calls", "function_call", "reasoning_details"];
/// Roles whose `content` is text; a template may write any other's (`tool`) as JSON.
const ROLES_OF_TEXT: [&str; 4] = ["system", "developer", "user", "assistant"];

/// Each of these can cost more than tokens, or has somebody else choose the price.
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

/// A request that keeps to what credits pay for.
pub(super) struct CreditsRequest<'a> {
    members: Members<'a>,
    prompt: Prompt,
    output_limit: Option<u64>,
}

/// How large a prompt can be, in tokens; see [`account::price::prompt`].
#[derive(Debug, Clone, Copy)]
struct Prompt {
    text: u64,
    /// What is put around the text.
    around: u64,
    only_text: bool,
}

impl<'a> CreditsRequest<'a> {
    pub(super) fn of(request: &'a ChatRequest) -> Result<Self, ApiError> {
        let mut members = request.members()?;
        members.retain(|_, value| value.get() != "null");
        if let Some(name) = REFUSED.iter().find(|name| members.contains_key(**name)) {
            return Err(unsupported(format!("`{name}`")));
        }
        // Whoever takes anything else for true answers without telling what it did cost.
        if let Some(stream) = members.get("stream")
            && !matches!(stream.get(), "true" | "false")
        {
            return Err(invalid("`stream` must be true or false".to_owned()));
        }
        if members.get("n").is_some_and(|n| n.get() != "1") {
            return Err(unsupported("`n` other than 1"));
        }
        let model = request.model.as_deref().unwrap_or_default();
        if model.contains('@') || model.ends_with(":online") {
            return Err(unsupported("presets and priced variants of models"));
        }
        if let Some(tools) = members.get("tools")
            && !only_functions(tools)
        {
            return Err(unsupported("tools other than functions"));
        }
        let mut prompt = match members.get("messages") {
            Some(messages) => Prompt::of(messages)?,
            None => Prompt::NOTHING,
        };
        for name in REWRITTEN {
            if let Some(member) = members.get(name) {
                prompt.text = prompt.text.saturating_add(rewritten_tokens(member.get()));
            }
        }
        if members.contains_key("tools") || members.contains_key("response_format") {
            prompt.around = prompt.around.saturating_add(TOOLS_TOKENS);
        }
        prompt.around = prompt.around.saturating_add(TEMPLATE_TOKENS);
        let limit = |name: &str| match members.get(name) {
            None => Ok(None),
            Some(limit) => match limit.get().parse::<u64>() {
                Ok(limit) if limit > 0 => Ok(Some(limit)),
                _ => Err(invalid(format!("`{name}` must be a whole number above 0"))),
            },
        };
        let limits = [limit("max_tokens")?, limit("max_completion_tokens")?];
        Ok(Self {
            prompt,
            output_limit: limits.into_iter().flatten().min(),
            members,
        })
    }

    /// How large the call can be on `model`. Parts that are not text are bounded only by the model's
    /// context.
    pub(super) fn size(&self, model: &PricedModel) -> Result<CallSize, ApiError> {
        let required = self.prompt.around.saturating_sub(WAIVED_TOKENS);
        let required = self.prompt.text.saturating_add(required);
        let all = self.prompt.text.saturating_add(self.prompt.around);
        let (prompt_tokens, required_tokens) = match (self.prompt.only_text, model.context_length) {
            (true, context) => {
                let context = context.unwrap_or(u64::MAX);
                (all.min(context), required.min(context))
            }
            (false, Some(context)) => (context, context),
            (false, None) => {
                return Err(unsupported("parts other than text on this model"));
            }
        };
        Ok(CallSize {
            prompt_tokens,
            required_tokens,
            only_text: self.prompt.only_text,
            output_limit: self.output_limit,
        })
    }

    /// The body that goes to the default AI.
    pub(super) fn body(&self, model: &str, output_limit: u64, kind: DefaultAiKind) -> Bytes {
        let mut sent: Vec<(&str, Cow<'_, str>)> = SENT
            .iter()
            .filter_map(|name| Some((*name, Cow::Borrowed(self.members.get(*name)?.get()))))
            .collect();
        // OpenRouter's own form of `reasoning_effort`.
        if kind == DefaultAiKind::OpenRouter
            && let Some(effort) = self.reasoning_effort()
        {
            sent.push(("reasoning", Cow::Owned(format!(r#"{{"effort":{effort}}}"#))));
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
        let members = sent.into_iter().fold(
            format!(r#"{{"model":{model}"#),
            |mut body, (name, value)| {
                body.push_str(",\"");
                body.push_str(name);
                body.push_str("\":");
                body.push_str(&value);
                body
            },
        );
        Bytes::from(members + "}")
    }

    fn streamed(&self) -> bool {
        let stream = self.members.get("stream");
        stream.is_some_and(|stream| stream.get() == "true")
    }

    /// Of OpenRouter's `reasoning` only the effort is sent.
    fn reasoning_effort(&self) -> Option<&'a str> {
        let reasoning: &'a RawValue = self.members.get("reasoning")?;
        let UniqueMembers(reasoning) = serde_json::from_str(reasoning.get()).ok()?;
        reasoning.get("effort").map(|effort| effort.get())
    }
}

fn unsupported(what: impl std::fmt::Display) -> ApiError {
    ApiError::new(
        Code::UnsupportedOnCredits,
        format!(
            "{what} cannot be paid with Greta credits; leave it out, or use your OpenRouter key"
        ),
    )
}

/// Members of a message that are text, and that the prompt's size therefore covers.
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
/// Members of a part that is text.
const TEXT_PART_MEMBERS: [&str; 3] = ["type", "text", "cache_control"];

impl Prompt {
    const NOTHING: Self = Self {
        text: 0,
        around: 0,
        only_text: true,
    };

    /// Measures `messages`. What is not known to be text counts as something else: images and sound
    /// are tokens, but not counted by their text.
    fn of(messages: &RawValue) -> Result<Self, ApiError> {
        let mut prompt = Self {
            around: read_bytes(messages.get()),
            ..Self::NOTHING
        };
        let messages: Vec<&RawValue> = serde_json::from_str(messages.get()).unwrap_or_default();
        for message in messages {
            let members = serde_json::from_str::<UniqueMembers<'_>>(message.get());
            let UniqueMembers(members) = members.map_err(|_| {
                invalid("each of `messages` must be an object that gives no name twice")
            })?;
            let role = members.get("role").and_then(|role| string(role));
            let of_text = role.is_some_and(|role| ROLES_OF_TEXT.contains(&role.as_str()));
            for (name, value) in &members {
                prompt.only_text &= TEXT_MEMBERS.contains(&name.as_str());
                match name.as_str() {
                    "role" => {}
                    "content" => prompt.take_content(value, of_text)?,
                    name if REWRITTEN_IN_MESSAGES.contains(&name) => prompt.take_rewritten(value),
                    _ => prompt.take_text(value),
                }
            }
        }
        Ok(prompt)
    }

    /// Takes a message's `content` out of what is around the text: a string, `null`, or a list of parts.
    fn take_content(&mut self, content: &RawValue, of_text: bool) -> Result<(), ApiError> {
        if !of_text {
            self.take_rewritten(content);
        } else if content.get().starts_with('"') {
            self.take_text(content);
        }
        if content.get().starts_with('"') || content.get() == "null" {
            return Ok(());
        }
        let Ok(parts) = serde_json::from_str::<Vec<&RawValue>>(content.get()) else {
            self.only_text = false;
            return Ok(());
        };
        for part in parts {
            let Ok(UniqueMembers(members)) = serde_json::from_str(part.get()) else {
                self.only_text = false;
                continue;
            };
            let kind = members.get("type").and_then(|kind| string(kind));
            if kind.as_deref() == Some("file") || members.contains_key("file") {
                // Parsing a file is priced apart from tokens.
                return Err(unsupported("file parts"));
            }
            let known = members
                .keys()
                .all(|name| TEXT_PART_MEMBERS.contains(&name.as_str()));
            self.only_text &= known && kind.as_deref() == Some("text");
            if let (true, Some(text)) = (of_text, members.get("text")) {
                self.take_text(text);
            }
        }
        Ok(())
    }

    /// Takes a JSON string out of what is around the text; its quotes stay there.
    fn take_text(&mut self, json: &RawValue) {
        let bytes = read_bytes(json.get()).saturating_sub(2);
        self.around = self.around.saturating_sub(bytes);
        self.text = self.text.saturating_add(bytes);
    }

    fn take_rewritten(&mut self, json: &RawValue) {
        self.around = self.around.saturating_sub(read_bytes(json.get()));
        self.text = self.text.saturating_add(rewritten_tokens(json.get()));
    }
}

fn string(json: &RawValue) -> Option<String> {
    serde_json::from_str(json.get()).ok()
}

fn only_functions(tools: &RawValue) -> bool {
    let is_function = |UniqueMembers(tool): &UniqueMembers<'_>| {
        let kind = tool.get("type").and_then(|kind| string(kind));
        kind.as_deref() == Some("function")
    };
    serde_json::from_str::<Vec<UniqueMembers<'_>>>(tools.get())
        .is_ok_and(|tools| tools.iter().all(is_function))
}

#[cfg(test)]
mod oracle;

#[cfg(test)]
mod tests {
    use account::Usd;
    use account::price::ModelPrices;
    use serde_json::{Value, json};

    use super::*;

    fn request(body: &Value) -> ChatRequest {
        ChatRequest::parse(Bytes::from(body.to_string())).unwrap()
    }

    fn messages() -> Value {
        json!([{"role": "user", "content": "hi"}])
    }

    fn model(context_length: Option<u64>) -> PricedModel {
        PricedModel {
            id: "a/b".to_owned(),
            prices: ModelPrices {
                text: Usd::ZERO,
                input: Usd::ZERO,
                output: Usd::ZERO,
            },
            context_length,
            max_output_tokens: None,
        }
    }

    #[test]
    fn what_has_no_bounded_cost_is_refused() {
        let parts = json!([{"role": "user", "content": [{"type": "file", "file": {}}]}]);
        let refused = [
            json!({"messages": messages(), "n": 2}),
            json!({"messages": messages(), "models": ["a", "b"]}),
            json!({"messages": messages(), "plugins": [{"id": "web"}]}),
            json!({"messages": messages(), "provider": {"order": ["x"]}}),
            json!({"messages": messages(), "preset": "x"}),
            json!({"messages": messages(), "model": "a/b:online"}),
            json!({"messages": messages(), "model": "@preset/x"}),
            json!({"messages": messages(), "tools": [{"type": "openrouter:web_search"}]}),
            json!({"messages": messages(), "tools": [{}]}),
            json!({"messages": messages(), "tools": [["function"]]}),
            json!({"messages": parts}),
        ];
        for body in refused {
            let request = request(&body);
            let error = CreditsRequest::of(&request).err().map(|error| error.code());
            assert_eq!(error, Some(Code::UnsupportedOnCredits), "{body}");
        }
    }

    #[test]
    fn an_answer_is_streamed_or_not() {
        for stream in [json!(true), json!(false), Value::Null] {
            let body = json!({"messages": messages(), "stream": stream});
            assert!(CreditsRequest::of(&request(&body)).is_ok(), "{body}");
        }
        for stream in [json!(1), json!("true"), json!([true]), json!({})] {
            let body = json!({"messages": messages(), "stream": stream});
            let request = request(&body);
            let refused = CreditsRequest::of(&request).err().map(|error| error.code());
            assert_eq!(refused, Some(Code::InvalidRequest), "{body}");
        }
    }

    #[test]
    fn limits_are_whole_numbers_and_the_least_counts() {
        let limit = |a: Value, b: Value| {
            let body = json!({"messages": messages(), "max_tokens": a, "max_completion_tokens": b});
            let request = request(&body);
            CreditsRequest::of(&request)
                .map(|bounded| bounded.output_limit)
                .map_err(|error| error.code())
        };
        assert_eq!(limit(json!(10), json!(20)), Ok(Some(10)));
        assert_eq!(limit(json!(null), json!(20)), Ok(Some(20)));
        assert_eq!(limit(json!(null), json!(null)), Ok(None));
        for bad in [json!(0), json!(-1), json!(1.5), json!("10")] {
            assert_eq!(limit(bad, json!(null)), Err(Code::InvalidRequest));
        }
    }

    #[test]
    fn only_the_bounded_members_are_sent() {
        let body = json!({
            "messages": messages(), "temperature": 0.5, "max_tokens": 9000, "n": 1,
            "service_tier": "priority", "logprobs": null, "stream": true,
            "stream_options": {"include_usage": false}, "model": "x\"y",
            "reasoning": {"effort": "low", "max_tokens": 100_000},
        });
        let request = request(&body);
        let bounded = CreditsRequest::of(&request).unwrap();
        let sent = |kind| serde_json::from_slice::<Value>(&bounded.body("x\"y", 77, kind)).unwrap();
        assert_eq!(
            sent(DefaultAiKind::OpenRouter),
            json!({
                "model": "x\"y", "messages": messages(), "temperature": 0.5, "stream": true,
                "reasoning": {"effort": "low"}, "max_tokens": 77,
            })
        );
        let openai = sent(DefaultAiKind::OpenAi);
        assert_eq!(openai["max_completion_tokens"], 77);
        assert_eq!(openai["stream_options"], json!({"include_usage": true}));
    }

    #[test]
    fn of_reasoning_only_the_effort_is_sent() {
        let sent = |reasoning: &Value| {
            let request = request(&json!({"messages": messages(), "reasoning": reasoning}));
            let bounded = CreditsRequest::of(&request).unwrap();
            let body = bounded.body("m", 1, DefaultAiKind::OpenRouter);
            let body: Value = serde_json::from_slice(&body).unwrap();
            body.get("reasoning").cloned()
        };
        let effort = json!({"effort": "low"});
        let more = json!({"effort": "low", "max_tokens": 100_000});
        assert_eq!(sent(&more), Some(effort));
        for other in [
            json!({}),
            json!({"max_tokens": 7}),
            json!(["low"]),
            json!("low"),
        ] {
            assert_eq!(sent(&other), None, "{other}");
        }
    }

    #[test]
    fn the_prompt_is_bounded_by_its_bytes_or_by_the_context() {
        let text = request(&json!({"messages": messages()}));
        let text = CreditsRequest::of(&text).unwrap();
        let bytes = u64::try_from(messages().to_string().len()).unwrap() + TEMPLATE_TOKENS;
        let tokens = |bounded: &CreditsRequest<'_>, context| {
            bounded
                .size(&model(context))
                .map(|size| size.prompt_tokens)
                .ok()
        };
        assert_eq!(tokens(&text, Some(1_000)), Some(bytes));
        assert_eq!(tokens(&text, None), Some(bytes));
        assert_eq!(tokens(&text, Some(5)), Some(5));
        let not_text = [
            json!([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
            json!([{"role": "user", "content": {"type": "image_url", "image_url": {}}}]),
            json!([{"role": "user", "content": [{"type": "text", "text": "", "image_url": {}}]}]),
            json!([{"role": "user", "content": [{"text": "no type"}]}]),
            json!([{"role": "user", "content": "", "images": ["data:"]}]),
            json!([{"role": "assistant", "audio": {"id": "x"}}]),
        ];
        for messages in not_text {
            let request = request(&json!({"messages": messages}));
            let bounded = CreditsRequest::of(&request).unwrap();
            assert_eq!(tokens(&bounded, Some(1_000)), Some(1_000), "{messages}");
            assert_eq!(tokens(&bounded, None), None, "{messages}");
        }
        let parts = json!([{"role": "user", "content": [{"type": "text", "text": "hi"}]}]);
        let parts = request(&json!({"messages": parts}));
        let parts = CreditsRequest::of(&parts).unwrap();
        assert!(tokens(&parts, Some(1_000)) < Some(100 + TEMPLATE_TOKENS));
        assert_eq!(parts.prompt.text, 2);
    }

    #[test]
    fn what_a_provider_may_write_anew_counts_so() {
        let of = |body: Value| {
            let request = request(&body);
            let prompt = CreditsRequest::of(&request).unwrap().prompt;
            (prompt.text, prompt.around)
        };
        let plain = of(json!({"messages": messages()}));
        let tools = json!([{"type": "function", "function": {"name": "f", "description": "你"}}]);
        let format = json!({"type": "json_object"});
        for (name, member) in [("tools", tools), ("response_format", format)] {
            let tokens = rewritten_tokens(&member.to_string());
            let with_it = of(json!({"messages": messages(), name: member}));
            assert_eq!(
                with_it,
                (plain.0 + tokens, plain.1 + TOOLS_TOKENS),
                "{name}"
            );
        }
        // In a message, too.
        let text = "{\"a\":[1,2]}";
        let call = json!([{"id": "x", "function": {"name": "f", "arguments": text}}]);
        let rewritten = [
            json!({"role": "assistant", "tool_calls": call}),
            json!({"role": "assistant", "reasoning_details": [{"text": text}]}),
            json!({"role": "tool", "content": text}),
            json!({"role": "tool", "content": [{"type": "text", "text": text}]}),
            json!({"role": "function", "content": text}),
        ];
        for message in rewritten {
            let members = message.as_object().unwrap();
            let rewritten = members.iter().find(|(name, _)| *name != "role").unwrap().1;
            let tokens = rewritten_tokens(&rewritten.to_string());
            assert_eq!(of(json!({"messages": [message]})).0, tokens, "{message}");
        }
    }

    /// What is around a text is waived up to a limit, however the caller makes it large.
    #[test]
    fn what_is_waived_is_limited() {
        let required = |messages: Value| {
            let request = request(&json!({"messages": messages}));
            let size = CreditsRequest::of(&request)
                .unwrap()
                .size(&model(None))
                .unwrap();
            (size.required_tokens, size.prompt_tokens)
        };
        assert_eq!(required(messages()).0, 2);
        let empty = json!({"type": "text", "text": ""});
        let large = [
            json!([{"role": "x".repeat(10_000), "content": ""}]),
            json!([{"role": "user", "content": vec![empty; 1_000]}]),
            json!(vec![json!({"role": "user", "content": ""}); 1_000]),
        ];
        for messages in large {
            let (required, all) = required(messages);
            assert_eq!(required, all - WAIVED_TOKENS);
        }
    }

    /// Of two members of one name, we would look at one, and the model might read the other.
    #[test]
    fn a_message_gives_no_name_twice() {
        let twice = [
            r#"{"messages":[{"role":"user","content":"x","content":[{"type":"image_url"}]}]}"#,
            r#"{"messages":[{"content":[{"type":"image_url"}],"role":"user","\u0063ontent":"x"}]}"#,
            r#"{"messages":["not an object"]}"#,
        ];
        for body in twice {
            let request = ChatRequest::parse(Bytes::from_static(body.as_bytes())).unwrap();
            let error = CreditsRequest::of(&request).err().map(|error| error.code());
            assert_eq!(error, Some(Code::InvalidRequest), "{body}");
        }
    }
}
