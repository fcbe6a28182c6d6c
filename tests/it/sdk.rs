//! OpenAI's client types parse our responses, and errors have the fields that SDKs read.

use async_openai::types::chat::{CreateChatCompletionResponse, CreateChatCompletionStreamResponse};
use serde_json::{Value, json};

use crate::support::{World, hello};

#[tokio::test]
async fn responses_and_errors_have_the_shape_that_sdks_read() {
    let world = World::start().await;
    let byok = world.enterprise_with_key("acme", "0").await;
    world.set("poor", json!({"credits": "7"})).await;
    let credits = world.owner("poor");
    for caller in [&byok, &credits] {
        let plain = caller.say_hello().await;
        let answer: CreateChatCompletionResponse = serde_json::from_slice(&plain.body).unwrap();
        assert!(answer.choices[0].message.content.is_some());
        assert!(answer.usage.is_some());

        let mut body = hello();
        body["stream"] = json!(true);
        let stream = caller.chat(&body).await.text();
        let chunks: Vec<CreateChatCompletionStreamResponse> = stream
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .filter(|data| *data != "[DONE]")
            .map(|data| serde_json::from_str(data).unwrap())
            .collect();
        assert!(chunks.len() > 3);
        assert!(chunks.last().unwrap().usage.is_some());
    }
    let errors = [
        world.send(world.request(http::Method::POST, "/v1/chat/completions")).await,
        byok.say_hello_to("sim/status-404").await,
        byok.say_hello_to("sim/status-429").await,
        credits.say_hello_to("no/such-model").await,
    ];
    for reply in errors {
        // OpenRouter's SDKs require a number; OpenAI's accept anything.
        let error = &reply.json()["error"];
        assert_eq!(error["code"], reply.status.as_u16());
        assert!(!error["message"].as_str().unwrap().is_empty());
        assert!(!error["type"].as_str().unwrap().is_empty());
        assert_eq!(error["param"], Value::Null);
        assert!(error["metadata"].is_object());
    }
}
