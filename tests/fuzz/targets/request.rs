//! The body of an AI call that credits may pay for.
//!
//! Properties: a body passes exactly if it is a JSON object with a non-empty array `messages` and,
//! if present, a string `model`. What credits pay for is sent as one JSON object that names nothing
//! twice and nothing outside of [`SENT`], each member as the caller wrote it; it contains none of
//! the kinds that must be refused. The prompt bound is at least the bytes of its text, and counts
//! as text-only only if there is nothing else.

#![no_main]

use account::Usd;
use account::price::{ModelPrices, PricedModel};
use bytes::Bytes;
use edge::Code;
use fuzz::Members;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use serde_json::value::RawValue;
use upstream::DefaultAiKind;

use credits_request::CreditsRequest;
use request::ChatRequest;

// The function does not expose how it reads a body, so its own files are compiled here, without
// their tests, which rustfmt would look for.
#[path = "../../../functions/ai-proxy/src/credits/credits_request.rs"]
#[rustfmt::skip]
mod credits_request;
#[path = "../../../functions/ai-proxy/src/credits/prompt.rs"]
#[rustfmt::skip]
mod prompt;
#[path = "../../../functions/ai-proxy/src/request.rs"]
mod request;

/// Fields whose cost is bounded: messages, tools and their choice, response format, sampling,
/// penalties, seed, stop, stream, user, metadata, reasoning effort.
const SENT: &str = "messages tools tool_choice parallel_tool_calls response_format temperature top_p \
    top_k top_a min_p frequency_penalty presence_penalty repetition_penalty logit_bias seed stop \
    stream user metadata reasoning_effort";
const REFUSED: &str = "models plugins provider preset route web_search_options modalities audio \
    prediction";
const MODEL: &str = "a \"model\"";
const OUTPUT_LIMIT: u64 = 77;
const CONTEXT: u64 = 100;

type Raw<'a> = Members<&'a RawValue>;

fuzz_target!(|data: &[u8]| {
    let body = Bytes::copy_from_slice(data);
    let members = serde_json::from_slice::<Raw<'_>>(data).ok();
    let is_request = members.as_ref().is_some_and(is_request);
    let request = match ChatRequest::parse(body.clone()) {
        Ok(request) => request,
        Err(error) => {
            assert!(!is_request, "{error}");
            assert!(matches!(error.code(), Code::InvalidJson | Code::InvalidRequest));
            return;
        }
    };
    assert!(is_request, "an invalid request was accepted");
    assert_eq!(request.body, body);
    let Some(members) = members else { return };
    let model = members.last("model").map(|model| text(model));
    assert_eq!(request.model, model);
    let streamed = members.last("stream").map(|stream| stream.get());
    assert_eq!(request.streamed, streamed == Some("true"));
    match CreditsRequest::new(&request) {
        Ok(request_on_credits) => {
            assert_payable(&members);
            sends(&request_on_credits, &members);
            bounds(&request_on_credits, &members);
            names_what_it_ignores(&request_on_credits, &members);
        }
        Err(error) => {
            assert!(matches!(error.code(), Code::UnsupportedOnCredits | Code::InvalidRequest));
        }
    }
});

fn text(json: &RawValue) -> String {
    serde_json::from_str(json.get()).expect("a string")
}

fn is_request(members: &Raw<'_>) -> bool {
    let messages = members.last("messages").map(|messages| messages.get());
    let messages =
        messages.and_then(|messages| serde_json::from_str::<Vec<&RawValue>>(messages).ok());
    let model = members.last("model").map(|model| model.get());
    messages.is_some_and(|messages| !messages.is_empty())
        && model.is_none_or(|model| serde_json::from_str::<String>(model).is_ok())
}

/// The caller's value for a name; `null` counts as none.
fn member<'a>(members: &'a Raw<'_>, name: &str) -> Option<&'a str> {
    let value = members.last(name).map(|value| value.get());
    value.filter(|value| *value != "null")
}

fn assert_payable(members: &Raw<'_>) {
    for name in REFUSED.split_whitespace() {
        assert_eq!(member(members, name), None, "{name}");
    }
    assert!(member(members, "n").is_none_or(|n| n == "1"));
    assert!(member(members, "stream").is_none_or(|stream| ["true", "false"].contains(&stream)));
    let model = members.last("model").map(|model| text(model));
    assert!(model.is_none_or(|model| !model.contains('@') && !model.ends_with(":online")));
    let Some(tools) = member(members, "tools") else {
        return;
    };
    for tool in serde_json::from_str::<Vec<&RawValue>>(tools).expect("a list of tools") {
        let tool: Raw<'_> = serde_json::from_str(tool.get()).expect("a tool is an object");
        let mut kinds = tool.0.iter().filter(|(name, _)| name == "type");
        assert!(kinds.all(|(_, kind)| text(kind) == "function"));
        assert!(tool.last("type").is_some());
    }
}

/// A header's value: names of the caller's members, and the number of the others.
fn names_what_it_ignores(request_on_credits: &CreditsRequest<'_>, members: &Raw<'_>) {
    for name in request_on_credits.ignored().iter().flat_map(|names| names.split(',')) {
        let others = name.strip_prefix('+').and_then(|number| number.parse::<usize>().ok());
        assert!(others.is_some() || member(members, name).is_some(), "{name:?}");
    }
}

/// The body for each kind of default AI.
fn sends(request_on_credits: &CreditsRequest<'_>, members: &Raw<'_>) {
    let streamed = member(members, "stream") == Some("true");
    for kind in [DefaultAiKind::OpenRouter, DefaultAiKind::OpenAi] {
        let body = request_on_credits.body(MODEL, OUTPUT_LIMIT, kind);
        let Members(sent): Raw<'_> = serde_json::from_slice(&body).expect("one JSON object");
        for (at, (name, value)) in sent.iter().enumerate() {
            let twice = sent[..at].iter().any(|(other, _)| other == name);
            assert!(!twice, "{name} is sent twice");
            let value = value.get();
            match (name.as_str(), kind) {
                ("model", _) => assert_eq!(value, Value::from(MODEL).to_string()),
                ("max_tokens", DefaultAiKind::OpenRouter)
                | ("max_completion_tokens", DefaultAiKind::OpenAi) => {
                    assert_eq!(value, OUTPUT_LIMIT.to_string());
                }
                ("stream_options", DefaultAiKind::OpenAi) => {
                    assert_eq!(value, r#"{"include_usage":true}"#);
                }
                ("reasoning", DefaultAiKind::OpenRouter) => {
                    let own = member(members, "reasoning").expect("it was not made up");
                    let own: Raw<'_> = serde_json::from_str(own).expect("an object");
                    let own = own.last("effort").map(|effort| effort.get());
                    let sent: Raw<'_> = serde_json::from_str(value).expect("an object");
                    assert_eq!(sent.0.len(), 1, "{value}");
                    assert_eq!(sent.last("effort").map(|effort| effort.get()), own);
                }
                (name, _) => {
                    assert!(SENT.split_whitespace().any(|sent| sent == name), "{name}");
                    assert_eq!(Some(value), member(members, name), "{name}");
                }
            }
        }
        let has = |name: &str| sent.iter().any(|(sent, _)| sent == name);
        assert!(has("model") && has("messages"));
        assert!(has("max_tokens") || has("max_completion_tokens"));
        assert_eq!(has("stream_options"), streamed && kind == DefaultAiKind::OpenAi);
    }
}

fn bounds(request_on_credits: &CreditsRequest<'_>, members: &Raw<'_>) {
    let narrow = request_on_credits.size(&model(Some(CONTEXT))).expect("a bound");
    assert!(narrow.prompt_tokens <= CONTEXT);
    let limits = ["max_tokens", "max_completion_tokens"].map(|name| member(members, name));
    let limits = limits.into_iter().flatten();
    let whole = |limit: &str| limit.split('.').next().and_then(|whole| whole.parse().ok());
    let limits = limits.map(|limit| whole(limit).expect("a limit"));
    assert_eq!(narrow.output_limit, limits.min());
    assert_ne!(narrow.output_limit, Some(0));
    let Ok(size) = request_on_credits.size(&model(None)) else {
        assert!(!narrow.only_text && narrow.prompt_tokens == CONTEXT);
        return;
    };
    assert!(size.only_text);
    let messages = member(members, "messages").unwrap_or_default();
    // A text with half a surrogate pair is not text here, and may be longer.
    let Ok(Value::Array(messages)) = serde_json::from_str(messages) else {
        return;
    };
    assert!(messages.iter().all(is_text), "more than text is in it");
    let rest = ["tools", "tool_choice", "response_format"];
    let rest = rest.iter().filter_map(|name| member(members, name));
    let rest = rest.filter_map(|json| serde_json::from_str(json).ok());
    let bytes: usize = messages.into_iter().chain(rest).map(|json| read(&json)).sum();
    assert!(size.prompt_tokens >= u64::try_from(bytes).expect("a length"));
}

fn model(context_length: Option<u64>) -> PricedModel {
    let free = Usd::ZERO;
    PricedModel {
        id: MODEL.to_owned(),
        prices: ModelPrices { text: free, input: free, output: free },
        context_length,
        max_output_tokens: None,
    }
}

/// Whether the message contains nothing that a model would look at or listen to.
fn is_text(message: &Value) -> bool {
    let no_other = ["images", "image_url", "audio", "input_audio", "file", "video_url"];
    let no_other = no_other.iter().all(|name| message.get(name).is_none());
    let content = match message.get("content") {
        None | Some(Value::Null | Value::String(_)) => true,
        Some(Value::Array(parts)) => parts.iter().all(|part| {
            let members = part.as_object().map(|part| part.keys());
            let only = ["type", "text", "cache_control"];
            part.get("type").and_then(Value::as_str) == Some("text")
                && members.is_some_and(|mut names| names.all(|name| only.contains(&name.as_str())))
        }),
        Some(_) => false,
    };
    no_other && content
}

/// The minimum number of bytes that a model reads of this: names, texts and other values.
fn read(json: &Value) -> usize {
    match json {
        Value::Null => 0,
        Value::Bool(_) => 4,
        Value::Number(_) => 1,
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(read).sum(),
        Value::Object(members) => {
            let members = members.iter();
            members.map(|(name, value)| name.len() + read(value)).sum()
        }
    }
}
