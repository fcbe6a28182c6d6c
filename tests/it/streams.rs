//! Streams on both paths: complete, cut off, and abandoned by the client.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::StreamExt;
use local::openrouter::CallOutcome;
use local::serve::Server;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::support::{World, hello};

fn streamed(model: &str) -> Value {
    let mut body = hello();
    body["stream"] = json!(true);
    body["model"] = json!(model);
    body
}

/// A stream without the parts that differ from call to call.
fn without_ids(text: &str) -> String {
    let mut words = Vec::new();
    for word in text.split('"') {
        words.push(if word.starts_with("gen-") { "gen" } else { word });
    }
    words.join("\"")
}

/// An upstream whose stream the test writes chunk by chunk.
struct Scripted {
    server: Server,
    chunks: mpsc::Sender<Result<Bytes, std::io::Error>>,
}

impl Scripted {
    async fn start() -> Self {
        let (chunks, receiver) = mpsc::channel(1);
        let receiver = Arc::new(Mutex::new(Some(receiver)));
        let chat = move || {
            let receiver = receiver.lock().unwrap().take().unwrap();
            let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
                Some((receiver.recv().await?, receiver))
            });
            async { ([("content-type", "text/event-stream")], Body::from_stream(stream)) }
        };
        let key = || async { axum::Json(json!({"data": {"label": "sk-or-v1-a...b"}})) };
        let router =
            Router::new().route("/v1/chat/completions", post(chat)).route("/v1/key", get(key));
        let server = Server::start(router).await.unwrap();
        Self { server, chunks }
    }

    fn url(&self) -> String {
        format!("{}/v1", self.server.url())
    }

    async fn send(&self, chunk: &'static [u8]) {
        self.chunks.send(Ok(Bytes::from_static(chunk))).await.unwrap();
    }
}

#[tokio::test]
async fn openrouters_bytes_arrive_unchanged_and_at_once() {
    let upstream = Scripted::start().await;
    let world = World::with_settings(&[("OPENROUTER_BASE_URL", &upstream.url())]).await;
    let owner = world.enterprise_with_key("acme", "0").await;
    let response = owner.chat_request(&streamed("any")).send().await.unwrap();
    assert_eq!(response.headers()["x-greta-payer"], "openrouter");
    let mut body = response.bytes_stream();
    // Cut inside a character, between CR and LF, and inside a field name.
    let chunks: [&[u8]; 5] =
        [b": hi\r", b"\n\r\ndata: {\"caf\xc3", b"\xa9\":1}\n\nda", b"ta: [DONE]", b"\n\n"];
    let arriving: [&[u8]; 5] =
        [b": hi\r", b"\n\r\n", b"data: {\"caf\xc3\xa9\":1}\n\n", b"", b"data: [DONE]\n\n"];
    for (chunk, arriving) in chunks.into_iter().zip(arriving) {
        upstream.send(chunk).await;
        // The lines that a chunk completes arrive before the next chunk is sent.
        if !arriving.is_empty() {
            assert_eq!(body.next().await.unwrap().unwrap(), Bytes::from_static(arriving));
        }
    }
    drop(upstream.chunks);
    assert!(body.next().await.is_none());
}

#[tokio::test]
async fn an_openrouter_stream_is_relayed_unchanged() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "0").await;
    for model in ["openai/gpt-4o-mini", "sim/crlf", "sim/split", "sim/big", "sim/ok"] {
        let body = streamed(model);
        let direct = reqwest::Client::new()
            .post(format!("{}/chat/completions", world.openrouter().base_url()))
            .bearer_auth(crate::support::OTHER_KEY)
            .body(body.to_string());
        let direct = direct.send().await.unwrap().text().await.unwrap();
        let relayed = owner.chat(&body).await;
        assert_eq!(relayed.header("content-type"), "text/event-stream");
        assert_eq!(without_ids(&relayed.text()), without_ids(&direct), "{model}");
        assert!(relayed.header("x-generation-id").starts_with("gen-"));
        let sent = world.openrouter().calls().pop().unwrap();
        assert_eq!(sent.body, body.to_string(), "the request's bytes are unchanged too");
    }
}

#[tokio::test]
async fn a_cut_openrouter_stream_never_looks_complete() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "0").await;
    for model in ["sim/cut", "sim/cut-mid-line", "sim/no-done", "sim/midstream-error"] {
        let reply = owner.chat(&streamed(model)).await;
        let text = reply.text();
        assert!(!text.contains("[DONE]"), "{model}");
        // A truncated line is dropped, so that every event can be parsed.
        let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
        let events: Vec<Value> = events.map(|data| serde_json::from_str(data).unwrap()).collect();
        let last = events.last().unwrap();
        assert_eq!(last["choices"][0]["finish_reason"], "error", "{model}");
        // If OpenRouter reports the error itself, we add none.
        let is_ours = model != "sim/midstream-error";
        assert_eq!(last["error"]["type"] == "upstream_interrupted", is_ours, "{model}");
        assert_eq!(events.iter().filter(|event| event.get("error").is_some()).count(), 1);
    }
}

#[tokio::test]
async fn a_silent_stream_is_ended() {
    let world = World::with_settings(&[("UPSTREAM_IDLE_MS", "200")]).await;
    let owner = world.enterprise_with_key("acme", "7").await;
    let reply = owner.chat(&streamed("sim/stall")).await;
    assert!(reply.text().contains("upstream_interrupted"));
    owner.disconnect().await;
    let reply = owner.chat(&streamed("sim-priced/stall")).await;
    assert!(reply.text().contains("upstream_interrupted"));
}

#[tokio::test]
async fn credits_are_settled_before_the_last_bytes() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    let owner = world.owner("acme");
    let response = owner.chat_request(&streamed("openai/gpt-4o-mini")).send().await.unwrap();
    let call_id = response.headers()["x-greta-call-id"].to_str().unwrap().to_owned();
    assert!(response.headers().get("x-greta-credits-charged").is_none());
    let mut body = response.bytes_stream();
    let mut text = String::new();
    while !text.contains("[DONE]") {
        let chunk = body.next().await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    // The call is settled while the stream is still open.
    let balance = world.settled_balance("acme").await;
    let usage = text.lines().find(|line| line.contains("\"greta\"")).unwrap();
    let usage: Value = serde_json::from_str(usage.strip_prefix("data: ").unwrap()).unwrap();
    let entry = owner.ledger().await.remove(0);
    assert_eq!(usage["choices"][0]["finish_reason"], "stop", "the rest of the chunk is as it was");
    assert_eq!(usage["greta"]["call_id"], call_id.as_str());
    assert_eq!(entry["call_id"], call_id.as_str());
    let charged = usage["greta"]["credits_charged"].as_str().unwrap();
    assert_eq!(entry["amount"], format!("-{charged}"));
    assert_eq!(entry["balance_after"], balance.as_str());
    let after_usage = text.split_once("\"greta\"").unwrap().1;
    assert_eq!(after_usage.matches("data:").count(), 1, "only [DONE] follows");
}

#[tokio::test]
async fn unusual_streams_are_settled_too() {
    let world = World::start().await;
    let owner = world.owner("acme");
    for model in [
        "sim-priced/crlf",
        "sim-priced/split",
        "sim-priced/scientific-cost",
        "sim-priced/zero-cost-byok",
    ] {
        world.set("acme", json!({"credits": "7"})).await;
        let reply = owner.chat(&streamed(model)).await;
        assert!(reply.text().contains("\"greta\":{"), "{model}: {}", reply.text());
        assert_ne!(world.settled_balance("acme").await, "7", "{model}");
    }
}

#[tokio::test]
async fn a_credits_stream_that_is_cut_off_is_left_to_the_sweeper() {
    let world = World::start().await;
    let models = [
        "sim-priced/cut",
        "sim-priced/cut-mid-line",
        "sim-priced/no-usage",
        "sim-priced/midstream-error",
    ];
    for model in models {
        let id = model.replace('/', "-");
        world.set(&id, json!({"credits": "7"})).await;
        let started = world.system.clock.now();
        let reply = world.owner(&id).chat(&streamed(model)).await;
        let complete = model == "sim-priced/no-usage";
        let error = if model.ends_with("error") { "default_ai_failed" } else { "interrupted" };
        assert_eq!(reply.text().contains(error), !complete, "{model}");
        assert_eq!(reply.text().contains("[DONE]"), complete, "{model}");
        let shown = world.shown(&id).await;
        assert_eq!(shown["reconciliation"]["ok"], true, "{model}");
        let hold = &shown["holds"][0];
        assert_eq!(hold["call_id"], reply.header("x-greta-call-id"), "{model}");
        assert_eq!(hold["generation_id"], reply.header("x-generation-id"), "{model}");
        let due: jiff::Timestamp = hold["next_check_at"].as_str().unwrap().parse().unwrap();
        assert!(due >= started && due <= world.system.clock.now(), "due at once: {model}");
        assert_eq!(shown["account"]["credits"]["balance"], "7", "never settled by a guess");
    }
}

/// The default AI's account is Greta's, so its error texts never reach a caller.
#[tokio::test]
async fn the_default_ais_mid_stream_errors_are_replaced_by_our_own() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    let owner = world.owner("acme");
    let model = "sim-priced/midstream-error";
    let direct = reqwest::Client::new()
        .post(format!("{}/chat/completions", world.default_ai().base_url()))
        .bearer_auth(crate::support::OTHER_KEY)
        .body(streamed(model).to_string());
    let direct = direct.send().await.unwrap().text().await.unwrap();
    let theirs = direct.lines().find(|line| line.contains("\"error\":{")).unwrap();
    let reply = owner.chat(&streamed(model)).await;
    assert!(!reply.text().contains(theirs));
    assert!(reply.text().contains("default_ai_failed"), "{}", reply.text());
    let plain = owner.say_hello_to(model).await;
    // Only an error, so the call is free.
    assert_eq!(plain.error(), (502, "default_ai_unavailable".to_owned()));
    assert_eq!(plain.receipt().0, "none");
    assert_eq!(world.shown("acme").await["reconciliation"]["ok"], true);
}

/// The usage arrived before the stream was cut off, so the cost is known.
#[tokio::test]
async fn a_stream_cut_off_after_its_usage_is_settled() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    let reply = world.owner("acme").chat(&streamed("sim-priced/no-done")).await;
    let text = reply.text();
    assert!(text.contains("\"greta\":{") && text.contains("upstream_interrupted"), "{text}");
    assert_ne!(world.settled_balance("acme").await, "7");
}

#[tokio::test]
async fn a_client_that_disconnects_pays_for_the_call() {
    let world = World::start().await;
    for (index, model) in
        ["sim-priced/slow-chunks-50", "openai/gpt-4o-mini"].into_iter().enumerate()
    {
        let id = format!("acme-{index}");
        world.set(&id, json!({"credits": "7"})).await;
        let owner = world.owner(&id);
        let response = owner.chat_request(&streamed(model)).send().await.unwrap();
        let mut body = response.bytes_stream();
        body.next().await.unwrap().unwrap();
        drop(body);
        let ended = |calls: &[local::openrouter::RecordedCall]| {
            calls.len() == index + 1 && calls[index].outcome == CallOutcome::Completed
        };
        world.default_ai().until(ended).await;
        wait_until_settled(&world, &id).await;
        let charged = owner.ledger().await[0]["amount"].as_str().unwrap().to_owned();
        let cost = world.default_ai().calls()[index].cost.parse::<account::Usd>().unwrap();
        let rate = account::CreditsPerUsd::new(10).unwrap();
        assert_eq!(charged, format!("-{}", cost.in_credits(rate).unwrap()));
    }
}

/// The same for a plain call: the client disconnects before the response.
#[tokio::test]
async fn a_client_that_disconnects_leaves_no_open_hold() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    let owner = world.owner("acme");
    let mut body = hello();
    body["model"] = json!("sim-priced/slow-head-200");
    let call = owner.chat_request(&body).timeout(Duration::from_millis(50));
    assert!(call.send().await.unwrap_err().is_timeout());
    let ended = |calls: &[local::openrouter::RecordedCall]| {
        calls.first().is_some_and(local::openrouter::RecordedCall::has_ended)
    };
    world.default_ai().until(ended).await;
    wait_until_settled(&world, "acme").await;
    assert_eq!(owner.ledger().await.len(), 2);
}

/// When the client disconnects, so do we, and the stream stops costing the user money.
#[tokio::test]
async fn an_abandoned_openrouter_stream_is_dropped() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "0").await;
    let response = owner.chat_request(&streamed("sim/stall")).send().await.unwrap();
    let mut body = response.bytes_stream();
    body.next().await.unwrap().unwrap();
    drop(body);
    let left =
        |calls: &[local::openrouter::RecordedCall]| calls[0].outcome == CallOutcome::ReaderLeft;
    world.openrouter().until(left).await;
}

/// Polls until the hold is resolved by its detached task.
async fn wait_until_settled(world: &World, id: &str) {
    for _ in 0..1_000 {
        let shown = world.shown(id).await;
        if shown["holds"] == json!([]) {
            world.settled_balance(id).await;
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("the hold of {id} stays open");
}
