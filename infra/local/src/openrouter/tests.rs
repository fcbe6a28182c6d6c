//! The simulator as a client sees it.

use futures_util::StreamExt;
use serde_json::{Value, json};

use super::*;

mod content;
mod errors;

const KEY: &str = "sk-or-v1-0123456789abcdef";

struct Rig {
    sim: OpenRouterSimulator,
    client: reqwest::Client,
}

impl Rig {
    async fn start() -> Self {
        let redirects = reqwest::redirect::Policy::none();
        Self {
            sim: OpenRouterSimulator::start().await.unwrap(),
            client: reqwest::Client::builder().redirect(redirects).build().unwrap(),
        }
    }

    fn get(&self, path: &str, key: &str) -> reqwest::RequestBuilder {
        self.client.get(format!("{}{path}", self.sim.base_url())).bearer_auth(key)
    }

    fn chat(&self, key: &str, body: &Value) -> reqwest::RequestBuilder {
        let url = format!("{}/chat/completions", self.sim.base_url());
        self.client.post(url).bearer_auth(key).body(body.to_string())
    }

    fn call(&self, model: &str, stream: bool) -> reqwest::RequestBuilder {
        self.chat(KEY, &request(model, stream))
    }

    /// The response's body, or what arrived before it broke, and whether it is complete.
    async fn read(&self, model: &str, stream: bool) -> (Vec<u8>, bool) {
        let mut chunks = self.call(model, stream).send().await.unwrap().bytes_stream();
        let mut body = Vec::new();
        while let Some(chunk) = chunks.next().await {
            match chunk {
                Ok(chunk) => body.extend_from_slice(&chunk),
                Err(_) => return (body, false),
            }
        }
        (body, true)
    }

    async fn whole(&self, model: &str, stream: bool) -> String {
        let (body, complete) = self.read(model, stream).await;
        assert!(complete, "{model}");
        String::from_utf8(body).unwrap()
    }

    fn last(&self) -> RecordedCall {
        self.sim.calls().pop().unwrap()
    }

    async fn ended(&self, outcome: CallOutcome) {
        let is = |calls: &[RecordedCall]| calls.last().is_some_and(|call| call.outcome == outcome);
        self.sim.until(is).await;
    }
}

fn request(model: &str, stream: bool) -> Value {
    let messages = json!([{"role": "user", "content": "one two three"}]);
    json!({"model": model, "stream": stream, "messages": messages})
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The data of each event.
fn data(stream: &str) -> Vec<&str> {
    stream.lines().filter_map(|line| line.strip_prefix("data: ")).collect()
}

async fn json_body(request: reqwest::RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, json_of(&answer.text().await.unwrap()))
}

#[tokio::test]
async fn a_key_behaves_as_its_text_says_until_changed() {
    let rig = Rig::start().await;
    let rest = "0123456789abcdef";
    let table = [
        (format!("sk-or-v1-{rest}"), 200, json!(false), json!(12.3)),
        (format!("sk-or-v1-limited{rest}"), 200, json!(false), json!(0)),
        (format!("sk-or-v1-management{rest}"), 200, json!(true), json!(12.3)),
        (format!("sk-or-v1-rejected{rest}"), 401, Value::Null, Value::Null),
        (format!("sk-or-v1-down{rest}"), 503, Value::Null, Value::Null),
        (format!("sk-or-v1-busy{rest}"), 429, Value::Null, Value::Null),
        ("sk-or-v1-short".to_owned(), 401, Value::Null, Value::Null),
        (format!("sk-xx-v1-{rest}"), 401, Value::Null, Value::Null),
    ];
    let checks = table.len();
    for (key, status, management, remaining) in table {
        let (found, body) = json_body(rig.get("/key", &key)).await;
        assert_eq!(found, status, "{key}");
        assert_eq!(body["data"]["is_management_key"], management, "{key}");
        assert_eq!(body["data"]["limit_remaining"], remaining, "{key}");
        if status != 200 {
            assert_eq!(body["error"]["code"], status);
        }
    }
    let (_, body) = json_body(rig.get("/key", KEY)).await;
    assert_eq!(body["data"]["label"], "sk-or-v1-012...def");

    rig.sim.set_key(KEY, KeyBehaviour::Rejected);
    assert_eq!(json_body(rig.get("/key", KEY)).await.0, 401);
    assert_eq!(json_body(rig.call("openai/gpt-4o", false)).await.0, 401);
    rig.sim.set_key(KEY, KeyBehaviour::Usable);
    assert_eq!(json_body(rig.get("/key", KEY)).await.0, 200);
    assert_eq!(rig.sim.key_checks(), checks + 3);
}

#[tokio::test]
async fn only_the_model_list_is_public() {
    let rig = Rig::start().await;
    let base = rig.sim.base_url();
    for path in ["/key", "/generation?id=gen-1"] {
        let (status, body) = json_body(rig.client.get(format!("{base}{path}"))).await;
        assert_eq!((status, &body["error"]["code"]), (401, &json!(401)), "{path}");
    }
    let chat = rig.client.post(format!("{base}/chat/completions"));
    let chat = chat.body(request(DEFAULT_MODEL, false).to_string());
    assert_eq!(json_body(chat).await.0, 401);
    assert_eq!(rig.last().key_sha256, None);
    let (status, body) = json_body(rig.client.get(format!("{base}/models"))).await;
    assert_eq!(status, 200);
    assert!(body["data"].as_array().unwrap().len() > 1);
}

#[tokio::test]
async fn a_plain_response_states_its_exact_cost_and_is_recorded() {
    let rig = Rig::start().await;
    let call = rig.call(DEFAULT_MODEL, false).header("X-OpenRouter-Title", "Greta");
    let answer = call.send().await.unwrap();
    let id = answer.headers()["x-generation-id"].to_str().unwrap().to_owned();
    let text = answer.text().await.unwrap();
    // 13 bytes in: 4 tokens; 12 words out.
    assert!(text.contains(r#""cost":0.0000078,"#), "{text}");
    let body = json_of(&text);
    assert_eq!(body["id"], *id);
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
    let content = body["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(content.ends_with("to: one two three"), "{content}");
    assert_eq!(body["usage"]["total_tokens"], 16);

    let call = rig.last();
    assert_eq!(call.outcome, CallOutcome::Completed);
    assert_eq!(call.cost, "0.0000078");
    assert_eq!(call.key_sha256, Some(key_sha256(KEY)));
    assert_eq!(call.headers["x-openrouter-title"], "Greta");
    assert!(!call.headers.contains_key("authorization"));
    assert_eq!(call.body, request(DEFAULT_MODEL, false).to_string());

    let path = format!("/generation?id={id}");
    let found = rig.get(&path, KEY).send().await.unwrap().text().await.unwrap();
    assert!(found.contains(r#""total_cost":0.0000078,"#), "{found}");
    let other = "sk-or-v1-another9876543210";
    assert_eq!(json_body(rig.get(&path, other)).await.0, 404);
    rig.sim.hide_generations(true);
    assert_eq!(json_body(rig.get(&path, KEY)).await.0, 404);
    assert_eq!(rig.sim.generation_checks(), 3);
}

#[tokio::test]
async fn a_stream_looks_like_openrouters() {
    let rig = Rig::start().await;
    let text = rig.whole(DEFAULT_MODEL, true).await;
    assert!(text.starts_with(": OPENROUTER PROCESSING\n\n"), "{text}");
    let events = data(&text);
    assert_eq!(*events.last().unwrap(), "[DONE]");
    let usage = json_of(events[events.len() - 2]);
    assert_eq!(usage["usage"]["completion_tokens"], 12);
    assert!(events[events.len() - 2].contains(r#""cost":0.0000078,"#));
    let finish = json_of(events[events.len() - 3]);
    assert_eq!(finish["choices"][0]["finish_reason"], "stop");
    assert_eq!(usage["choices"], finish["choices"], "the usage comes with the finish once more");
    let content: String = events[..events.len() - 3]
        .iter()
        .map(|event| json_of(event)["choices"][0]["delta"]["content"].as_str().unwrap().to_owned())
        .collect();
    assert!(content.ends_with("to: one two three"), "{content}");
    assert_eq!(events.len(), 12 + 3);
}

#[tokio::test]
async fn a_response_ends_at_its_limit() {
    let rig = Rig::start().await;
    for limit in ["max_tokens", "max_completion_tokens"] {
        let mut body = request(DEFAULT_MODEL, false);
        body[limit] = json!(3);
        let (_, answer) = json_body(rig.chat(KEY, &body)).await;
        assert_eq!(answer["choices"][0]["finish_reason"], "length");
        assert_eq!(answer["usage"]["completion_tokens"], 3);
    }
}

#[tokio::test]
async fn errors_look_like_openrouters() {
    let rig = Rig::start().await;
    let statuses = [400, 401, 402, 403, 404, 408, 413, 422, 429, 500, 502, 503, 504, 524, 529];
    for status in statuses {
        for family in ["sim", "sim-priced"] {
            let answer = rig.call(&format!("{family}/status-{status}"), true).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), status);
            let retry = answer.headers().get("retry-after").map(|value| value.to_str().unwrap());
            assert_eq!(retry, (status == 429).then_some("7"));
            let body = json_of(&answer.text().await.unwrap());
            assert_eq!(body["error"]["code"], status);
            assert_eq!(body["user_id"].is_string(), matches!(status, 402 | 403 | 429));
            assert_eq!(rig.last().outcome, CallOutcome::Refused(status));
            assert_eq!(rig.last().cost, "0");
        }
    }
    assert_eq!(json_body(rig.get("/key", KEY)).await.0, 200, "the key itself is fine");

    let (status, body) = json_body(rig.call("sim/status-403-limit", false)).await;
    assert_eq!(status, 403);
    assert!(body["error"]["message"].as_str().unwrap().starts_with("Key limit exceeded"));
    let (status, body) = json_body(rig.call("sim/status-403-moderation", false)).await;
    assert_eq!(status, 403);
    assert_eq!(body["error"]["metadata"]["flagged_input"], "one two three");
    let (status, body) = json_body(rig.call("sim/context-length", true)).await;
    assert_eq!(status, 400);
    assert_eq!(body["error"]["metadata"]["error_type"], "context_length_exceeded");
    let moved = rig.call("sim/redirect", false).send().await.unwrap();
    assert_eq!(moved.status(), 302);
    assert_eq!(json_body(rig.call("nobody/nothing", false)).await.0, 400);
    assert_eq!(json_body(rig.call("sim/nothing", false)).await.0, 400);
    assert_eq!(json_body(rig.chat(KEY, &json!({"model": DEFAULT_MODEL}))).await.0, 400);
}

#[tokio::test]
async fn connections_reset_before_or_after_the_head() {
    let rig = Rig::start().await;
    for stream in [false, true] {
        rig.call("sim/reset", stream).send().await.unwrap_err();
        assert_eq!(rig.last().outcome, CallOutcome::Cut);
        let (body, complete) = rig.read("sim/reset-after-head", stream).await;
        assert_eq!((body.len(), complete), (0, false));
        rig.ended(CallOutcome::Cut).await;
    }
}

#[tokio::test]
async fn a_broken_response_costs_its_generated_tokens() {
    let rig = Rig::start().await;
    for model in ["sim/cut", "sim/cut-mid-line"] {
        let (body, complete) = rig.read(model, true).await;
        assert!(!complete, "{model}");
        let text = String::from_utf8(body).unwrap();
        assert!(text.ends_with('\n') == (model == "sim/cut"), "{text}");
        assert!(!text.contains("[DONE]") && !text.contains("usage"));
        rig.ended(CallOutcome::Cut).await;
        let path = format!("/generation?id={}", rig.last().generation_id);
        let (_, found) = json_body(rig.get(&path, KEY)).await;
        assert_eq!(found["data"]["cancelled"], true);
        assert_eq!(found["data"]["tokens_completion"], rig.last().completion_tokens);
        assert!(rig.last().completion_tokens >= 2);
        let (_, complete) = rig.read(model, false).await;
        assert!(!complete, "{model}");
    }
}

#[tokio::test]
async fn a_call_whose_reader_leaves_is_recorded() {
    let rig = Rig::start().await;
    let answer = rig.call("sim/stall", true).send().await.unwrap();
    let path = format!("/generation?id={}", rig.last().generation_id);
    assert_eq!(json_body(rig.get(&path, KEY)).await.0, 404, "the call is still running");
    let mut chunks = answer.bytes_stream();
    let mut text = String::new();
    while data(&text).len() < 2 {
        text += std::str::from_utf8(&chunks.next().await.unwrap().unwrap()).unwrap();
    }
    drop(chunks);
    rig.ended(CallOutcome::ReaderLeft).await;
    // 4 tokens in, 2 out.
    assert_eq!(rig.last().cost, "0.0000018");
    assert_eq!(json_body(rig.get(&path, KEY)).await.0, 200);

    let hangs = rig.call("sim/hang-head", false).send();
    let arrived = rig.sim.until(|calls| calls.len() == 2);
    tokio::select! {
        answer = hangs => panic!("{answer:?}"),
        () = arrived => {}
    }
    rig.ended(CallOutcome::ReaderLeft).await;
    assert_eq!(rig.last().cost, "0.0000006");
}

#[tokio::test]
async fn streams_misbehave_on_demand() {
    let rig = Rig::start().await;
    let usual = rig.whole("sim/ok", true).await;

    let text = rig.whole("sim/no-done", true).await;
    assert!(text.contains("usage") && !text.contains("[DONE]"));
    let text = rig.whole("sim/usage-apart", true).await;
    assert!(data(&text).iter().any(|event| event.contains(r#""choices":[]"#)), "{text}");
    let text = rig.whole("sim/no-usage", true).await;
    assert!(!text.contains(r#""usage":"#) && text.contains("[DONE]"));
    assert_eq!(rig.last().cost, "0.0000078");
    let text = rig.whole("sim/scientific-cost", true).await;
    assert!(text.contains(r#""cost":7.8e-06,"#), "{text}");
    let text = rig.whole("sim/zero-cost-byok", true).await;
    assert!(text.contains(r#""cost":0,"#), "{text}");
    assert!(text.contains(r#""upstream_inference_cost":0.0000078,"#), "{text}");
    let text = rig.whole("sim/midstream-error", true).await;
    let last = json_of(data(&text).pop().unwrap());
    assert_eq!(last["error"]["code"], "server_error");
    assert_eq!(last["choices"][0]["finish_reason"], "error");
    assert_eq!(rig.last().completion_tokens, 2);
    let text = rig.whole("sim/choice-error", true).await;
    assert!(text.contains(r#""finish_reason":"error""#) && text.contains("[DONE]"));
    let text = rig.whole("sim/crlf", true).await;
    assert_eq!(text.matches("\r\n").count(), text.matches('\n').count());
    let text = rig.whole("sim/big", true).await;
    assert!(text.len() > 2 * 1024 * 1024 && text.ends_with("data: [DONE]\n\n"));
    let text = rig.whole("sim/slow-chunks-1", true).await;
    assert_eq!(data(&text).len(), data(&usual).len());

    let mut chunks = rig.call("sim/split", true).send().await.unwrap().bytes_stream();
    let mut inside_character = false;
    let mut all = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.unwrap();
        inside_character |= std::str::from_utf8(&chunk).is_err();
        all.extend_from_slice(&chunk);
    }
    assert!(inside_character);
    assert_eq!(data(std::str::from_utf8(&all).unwrap()).len(), data(&usual).len());
}

#[tokio::test]
async fn plain_responses_misbehave_on_demand() {
    let rig = Rig::start().await;
    let body = async |model: &str| json_of(&rig.whole(model, false).await);
    assert!(body("sim/no-usage").await.get("usage").is_none());
    let answer = body("sim/choice-error").await;
    assert_eq!(answer["choices"][0]["error"]["code"], 502);
    assert_eq!(body("sim/midstream-error").await["error"]["code"], "server_error");
    assert_eq!(body("sim/zero-cost-byok").await["usage"]["cost"], 0);
    assert_eq!(body("sim/slow-head-1").await["object"], "chat.completion");
    assert_eq!(body("sim/split").await["object"], "chat.completion");
    assert_eq!(body("openrouter/auto").await["model"], DEFAULT_MODEL);
    assert_eq!(body("meta-llama/llama-3.3-70b-instruct:free").await["usage"]["cost"], 0);
    let big = body("sim-priced/big").await;
    let content = big["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(content.len() >= 2 * 1024 * 1024 - 1);
    assert!(big["usage"]["completion_tokens"].as_u64().unwrap() > 100_000);
}
