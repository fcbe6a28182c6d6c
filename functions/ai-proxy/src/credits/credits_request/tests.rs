use account::Usd;
use account::price::ModelPrices;
use account::price::prompt::{TEMPLATE_TOKENS, TOOLS_TOKENS, rewritten_tokens};
use edge::Code;
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
        prices: ModelPrices { text: Usd::ZERO, input: Usd::ZERO, output: Usd::ZERO },
        context_length,
        max_output_tokens: None,
    }
}

#[test]
fn requests_without_a_bounded_cost_are_refused() {
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
        json!({"messages": parts}),
        json!({"messages": [{"role": "user", "content": [{"text": "no type"}]}]}),
        json!({"messages": [{"role": "user", "content": [{"type": "new"}]}]}),
    ];
    for body in refused {
        let request = request(&body);
        let error = CreditsRequest::new(&request).err().map(|error| error.code());
        assert_eq!(error, Some(Code::UnsupportedOnCredits), "{body}");
    }
}

#[test]
fn stream_must_be_a_boolean() {
    for stream in [json!(true), json!(false), Value::Null] {
        let body = json!({"messages": messages(), "stream": stream});
        assert!(CreditsRequest::new(&request(&body)).is_ok(), "{body}");
    }
    for stream in [json!(1), json!("true"), json!([true]), json!({})] {
        let body = json!({"messages": messages(), "stream": stream});
        let request = request(&body);
        let refused = CreditsRequest::new(&request).err().map(|error| error.code());
        assert_eq!(refused, Some(Code::InvalidRequest), "{body}");
    }
}

#[test]
fn the_lowest_output_limit_counts() {
    let limit = |a: Value, b: Value| {
        let body = json!({"messages": messages(), "max_tokens": a, "max_completion_tokens": b});
        let request = request(&body);
        CreditsRequest::new(&request)
            .map(|credits_request| credits_request.output_limit)
            .map_err(|error| error.code())
    };
    assert_eq!(limit(json!(10), json!(20)), Ok(Some(10)));
    assert_eq!(limit(json!(null), json!(20)), Ok(Some(20)));
    assert_eq!(limit(json!(null), json!(null)), Ok(None));
    assert_eq!(limit(json!(4096.0), json!(null)), Ok(Some(4096)));
    for bad in [json!(0), json!(-1), json!(1.5), json!(0.0), json!("10"), json!(1e300)] {
        assert_eq!(limit(bad, json!(null)), Err(Code::InvalidRequest));
    }
}

#[test]
fn only_listed_fields_are_sent() {
    let body = json!({
        "messages": messages(), "temperature": 0.5, "max_tokens": 9000, "n": 1,
        "service_tier": "priority", "logprobs": false, "stream": true,
        "stream_options": {"include_usage": false}, "model": "x\"y",
        "reasoning": {"effort": "low", "max_tokens": 100_000},
    });
    let request = request(&body);
    let credits_request = CreditsRequest::new(&request).unwrap();
    let sent =
        |kind| serde_json::from_slice::<Value>(&credits_request.body("x\"y", 77, kind)).unwrap();
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
    assert_eq!(openai["reasoning_effort"], "low");
    assert!(openai.get("reasoning").is_none());
}

#[test]
fn ignored_fields_are_listed() {
    let ignored = |more: Value| {
        let mut body = json!({
            "messages": messages(), "model": "m", "n": 1, "max_tokens": 5, "stop": "x",
            "stream_options": {"include_usage": true}, "logprobs": false, "seed": null,
        });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        CreditsRequest::new(&request(&body)).unwrap().ignored()
    };
    assert_eq!(ignored(json!({})), None);
    assert_eq!(ignored(json!({"store": null, "reasoning": {"effort": "low"}})), None);
    let some = json!({"store": true, "service_tier": "flex", "reasoning": {"max_tokens": 9}});
    assert_eq!(ignored(some).unwrap(), "reasoning,service_tier,store");
    let odd = json!({"a b": 1, "\r\nx-evil: 1": 2, "é": 3, "": 4, "z": 5, "x".repeat(65): 6});
    assert_eq!(ignored(odd).unwrap(), "z,+5");
    let many = (0..30).map(|n| (format!("f{n:02}"), json!(1))).collect();
    let many = ignored(Value::Object(many)).unwrap();
    assert!(many.starts_with("f00,f01,") && many.ends_with(",f19,+10"), "{many}");
}

#[test]
fn fields_that_change_the_response_are_refused() {
    for more in [
        json!({"functions": []}),
        json!({"function_call": "auto"}),
        json!({"logprobs": true}),
        json!({"top_logprobs": 5}),
    ] {
        let mut body = json!({"messages": messages()});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let request = request(&body);
        let error = CreditsRequest::new(&request).err().map(|error| error.code());
        assert_eq!(error, Some(Code::UnsupportedOnCredits), "{body}");
    }
}

/// The default AI could read an ambiguous part as a file, which costs more.
#[test]
fn ambiguous_json_is_refused() {
    for parts in [
        r#"[{"type":"text","type":"file","file":{}}]"#,
        r#"[{"type":"text","text":"x","t\u0065xt":"y"}]"#,
        r#"[{"\ud800":1,"type":"text","text":"x"}]"#,
        r#"["text"]"#,
        r#"{"type":"text","text":"x"}"#,
        "7",
    ] {
        let body = format!(r#"{{"messages":[{{"role":"user","content":{parts}}}]}}"#);
        let request = ChatRequest::parse(Bytes::from(body)).unwrap();
        let error = CreditsRequest::new(&request).err().map(|error| error.code());
        assert_eq!(error, Some(Code::InvalidRequest), "{parts}");
    }
    for tools in [r#"[{"type":"function","type":"web_search"}]"#, r#"[["function"]]"#, "{}"] {
        let body = format!(r#"{{"messages":[{{"role":"user","content":""}}],"tools":{tools}}}"#);
        let request = ChatRequest::parse(Bytes::from(body)).unwrap();
        let error = CreditsRequest::new(&request).err().map(|error| error.code());
        assert_eq!(error, Some(Code::InvalidRequest), "{tools}");
    }
}

#[test]
fn only_the_effort_of_reasoning_is_sent() {
    let sent = |reasoning: &Value| {
        let request = request(&json!({"messages": messages(), "reasoning": reasoning}));
        let credits_request = CreditsRequest::new(&request).unwrap();
        let body = credits_request.body("m", 1, DefaultAiKind::OpenRouter);
        let body: Value = serde_json::from_slice(&body).unwrap();
        body.get("reasoning").cloned()
    };
    let effort = json!({"effort": "low"});
    let more = json!({"effort": "low", "max_tokens": 100_000});
    assert_eq!(sent(&more), Some(effort));
    for other in [json!({}), json!({"max_tokens": 7}), json!(["low"]), json!("low")] {
        assert_eq!(sent(&other), None, "{other}");
    }
}

#[test]
fn bytes_or_the_context_length_bound_the_prompt() {
    let text = request(&json!({"messages": messages()}));
    let text = CreditsRequest::new(&text).unwrap();
    let bytes = u64::try_from(messages().to_string().len()).unwrap() + TEMPLATE_TOKENS;
    let tokens = |credits_request: &CreditsRequest<'_>, context| {
        credits_request.size(&model(context)).map(|size| size.prompt_tokens).ok()
    };
    assert_eq!(tokens(&text, Some(1_000)), Some(bytes));
    assert_eq!(tokens(&text, None), Some(bytes));
    assert_eq!(tokens(&text, Some(5)), Some(5));
    let not_text = [
        json!([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
        json!([{"role": "user", "content": [{"type": "text", "text": "", "image_url": {}}]}]),
        json!([{"role": "user", "content": "", "images": ["data:"]}]),
        json!([{"role": "assistant", "audio": {"id": "x"}}]),
    ];
    for messages in not_text {
        let request = request(&json!({"messages": messages}));
        let credits_request = CreditsRequest::new(&request).unwrap();
        assert_eq!(tokens(&credits_request, Some(1_000)), Some(1_000), "{messages}");
        assert_eq!(tokens(&credits_request, None), None, "{messages}");
    }
    let parts = json!([{"role": "user", "content": [{"type": "text", "text": "hi"}]}]);
    let parts = request(&json!({"messages": parts}));
    let parts = CreditsRequest::new(&parts).unwrap();
    assert!(tokens(&parts, Some(1_000)) < Some(100 + TEMPLATE_TOKENS));
    assert_eq!(parts.prompt.text, 2);
}

#[test]
fn json_that_a_provider_may_rewrite_counts_as_rewritten() {
    let of = |body: Value| {
        let request = request(&body);
        let prompt = CreditsRequest::new(&request).unwrap().prompt;
        (prompt.text, prompt.around)
    };
    let plain = of(json!({"messages": messages()}));
    let tools = json!([{"type": "function", "function": {"name": "f", "description": "你"}}]);
    let format = json!({"type": "json_object"});
    for (name, member) in [("tools", tools), ("response_format", format)] {
        let tokens = rewritten_tokens(&member.to_string());
        let with_it = of(json!({"messages": messages(), name: member}));
        assert_eq!(with_it, (plain.0 + tokens, plain.1 + TOOLS_TOKENS), "{name}");
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

/// We would read one of two duplicates, and the default AI might read the other.
#[test]
fn duplicate_keys_are_refused() {
    let duplicates = [
        r#"{"messages":[{"role":"user","content":"x","content":[{"type":"image_url"}]}]}"#,
        r#"{"messages":[{"content":[{"type":"image_url"}],"role":"user","\u0063ontent":"x"}]}"#,
        r#"{"messages":["not an object"]}"#,
        r#"{"messages":[{"role":"user","content":"x"}],"n":1,"n":9}"#,
    ];
    for body in duplicates {
        let request = ChatRequest::parse(Bytes::from_static(body.as_bytes())).unwrap();
        let error = CreditsRequest::new(&request).err().map(|error| error.code());
        assert_eq!(error, Some(Code::InvalidRequest), "{body}");
    }
}
