//! Tool calls, structured output, reasoning and images.

use super::*;

fn weather() -> Value {
    let parameters = json!({
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 2}},
        "required": ["city", "days"],
    });
    json!({"type": "function", "function": {"name": "weather", "parameters": parameters}})
}

fn clock() -> Value {
    json!({"type": "function", "function": {"name": "clock"}})
}

fn with(members: &Value) -> Value {
    let mut body = request(DEFAULT_MODEL, false);
    body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    body
}

impl Rig {
    /// The message and the finish reason. Asserts that a plain and a streamed response agree.
    async fn message(&self, members: &Value) -> (Value, Value) {
        let mut body = with(members);
        let (status, plain) = json_body(self.chat(KEY, &body)).await;
        assert_eq!(status, 200, "{plain}");
        body["stream"] = json!(true);
        let stream = self.chat(KEY, &body).send().await.unwrap().text().await.unwrap();
        let (mut text, mut reasoning, mut arguments) = Default::default();
        let (mut name, mut reason) = (Value::Null, Value::Null);
        let add = |to: &mut String, part: &Value| to.push_str(part.as_str().unwrap_or_default());
        for event in data(&stream).into_iter().filter(|event| *event != "[DONE]") {
            let choice = &json_of(event)["choices"][0];
            add(&mut text, &choice["delta"]["content"]);
            add(&mut reasoning, &choice["delta"]["reasoning"]);
            let call = &choice["delta"]["tool_calls"][0];
            add(&mut arguments, &call["function"]["arguments"]);
            if let Some(id) = call["id"].as_str() {
                assert!(id.starts_with("call_"), "{id}");
                name = call["function"]["name"].clone();
            }
            reason = choice["finish_reason"].clone();
        }
        let choice = &plain["choices"][0];
        let message = &choice["message"];
        assert_eq!(message["content"].as_str().unwrap_or_default(), text);
        assert_eq!(message["reasoning"].as_str().unwrap_or_default(), reasoning);
        let function = &message["tool_calls"][0]["function"];
        assert_eq!(function["name"], name);
        assert_eq!(function["arguments"].as_str().unwrap_or_default(), arguments);
        assert_eq!(choice["finish_reason"], reason);
        (choice["message"].clone(), reason)
    }

    /// The function that is called, and its arguments.
    async fn called(&self, members: &Value) -> (String, Value) {
        let (message, reason) = self.message(members).await;
        assert_eq!(reason, "tool_calls", "{message}");
        assert_eq!(message["content"], Value::Null);
        let function = &message["tool_calls"][0]["function"];
        let arguments = json_of(function["arguments"].as_str().unwrap());
        (function["name"].as_str().unwrap().to_owned(), arguments)
    }
}

#[tokio::test]
async fn tool_choice_selects_the_function() {
    let rig = Rig::start().await;
    let forecast = json!({"city": "one two three", "days": 2});
    for choice in [Value::Null, json!("auto"), json!("required")] {
        let asked = json!({"tools": [weather(), clock()], "tool_choice": choice});
        assert_eq!(rig.called(&asked).await, ("weather".to_owned(), forecast.clone()), "{choice}");
    }
    let named = json!({"type": "function", "function": {"name": "clock"}});
    let called = rig.called(&json!({"tools": [weather(), clock()], "tool_choice": named})).await;
    assert_eq!(called, ("clock".to_owned(), json!({})));
    let (message, reason) =
        rig.message(&json!({"tools": [weather()], "tool_choice": "none"})).await;
    assert_eq!((&reason, &message["tool_calls"]), (&json!("stop"), &Value::Null));
}

#[tokio::test]
async fn tool_results_get_an_answer() {
    let rig = Rig::start().await;
    let call = json!({"id": "call_1", "type": "function",
                      "function": {"name": "weather", "arguments": "{}"}});
    let messages = json!([
        {"role": "user", "content": "How is it?"},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]);
    let tools = json!([weather(), clock()]);
    let (message, _) = rig.message(&json!({"messages": messages, "tools": tools})).await;
    assert!(message["content"].as_str().unwrap().ends_with("to: sunny"), "{message}");
    let required = json!({"messages": messages, "tools": tools, "tool_choice": "required"});
    assert_eq!(rig.called(&required).await.0, "clock", "one that was not called yet");
}

#[tokio::test]
async fn structured_output_satisfies_its_schema() {
    let rig = Rig::start().await;
    let schema = weather()["function"]["parameters"].clone();
    let format = json!({"type": "json_schema", "json_schema": {"name": "f", "schema": schema}});
    let (message, _) = rig.message(&json!({"response_format": format})).await;
    let value = json_of(message["content"].as_str().unwrap());
    assert_eq!(value, json!({"city": "one two three", "days": 2}));
    let (message, _) = rig.message(&json!({"response_format": {"type": "json_object"}})).await;
    assert!(json_of(message["content"].as_str().unwrap()).is_object());
    let cut = json!({"response_format": format, "max_tokens": 2});
    assert_eq!(rig.message(&cut).await.1, "length");
}

#[tokio::test]
async fn reasoning_comes_before_the_answer_and_is_paid_for() {
    let rig = Rig::start().await;
    for asked in [
        json!({"reasoning": {"effort": "high"}}),
        json!({"reasoning": {"max_tokens": 100}}),
        json!({"reasoning": {"enabled": true}}),
        json!({"reasoning_effort": "low"}),
    ] {
        let (message, _) = rig.message(&asked).await;
        assert_eq!(message["reasoning"], message["reasoning_details"][0]["text"], "{asked}");
        assert_eq!(message["reasoning_details"][0]["type"], "reasoning.text");
    }
    let hidden = with(&json!({"reasoning": {"effort": "high", "exclude": true}}));
    let (_, body) = json_body(rig.chat(KEY, &hidden)).await;
    assert_eq!(body["choices"][0]["message"]["reasoning"], Value::Null);
    assert_eq!(body["usage"]["completion_tokens_details"]["reasoning_tokens"], 5);
    assert_eq!(body["usage"]["completion_tokens"], 12 + 5);
    let (message, _) = rig.message(&json!({"reasoning": {"effort": "none"}})).await;
    assert_eq!(message["reasoning"], Value::Null);
}

#[tokio::test]
async fn images_count_as_tokens() {
    let rig = Rig::start().await;
    let image = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}});
    let parts = json!([{"type": "text", "text": "one two three"}, image]);
    let body = with(&json!({"messages": [{"role": "user", "content": parts}]}));
    let (_, answer) = json_body(rig.chat(KEY, &body)).await;
    assert_eq!(answer["usage"]["prompt_tokens"], 4 + 100);
    let content = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(content.ends_with("to: one two three"), "{content}");
}
