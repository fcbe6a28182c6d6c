//! Every error that OpenRouter documents for chat completions, through the whole product.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::{Caller, Reply, World, hello};

#[derive(Deserialize)]
struct Documented {
    id: String,
    endpoint: String,
    call: bool,
    status: u16,
    body: Value,
    in_stream: bool,
    class: String,
    fallback: String,
}

/// The documented errors that the simulator serves. The others are results of server-side tools.
fn documented() -> Vec<Documented> {
    let file = include_str!("../../shared/upstream/tests/openrouter-errors.json");
    let all: Vec<Documented> = serde_json::from_str(file).unwrap();
    let is_error = |body: &Value| body["error"].is_object() || body["choices"].is_array();
    let of_chat = |error: &Documented| {
        error.call && error.endpoint == "POST /chat/completions" && is_error(&error.body)
    };
    all.into_iter().filter(of_chat).collect()
}

/// Status and code of the error that the owner of the key gets.
fn mapped(error: &Documented) -> (u16, &'static str) {
    match error.status {
        401 => (403, "openrouter_key_rejected"),
        402 if error.class == "rate" || error.fallback == "rate_limited" => {
            (429, "openrouter_rate_limited")
        }
        402 => (402, "openrouter_payment_required"),
        403 if error.fallback == "payment_required" => (402, "openrouter_payment_required"),
        403 => (403, "openrouter_request_refused"),
        429 => (429, "openrouter_rate_limited"),
        status @ 400..=499 if status != 408 => (status, "openrouter_request_rejected"),
        _ => (502, "openrouter_unavailable"),
    }
}

async fn call(owner: &Caller<'_>, model: &str, streamed: bool) -> Reply {
    let mut body = hello();
    body["model"] = json!(model);
    body["stream"] = json!(streamed);
    owner.chat(&body).await
}

/// Asserts that the default AI got no call since `before` and that nothing was charged.
async fn assert_nothing_charged(
    world: &World,
    owner: &Caller<'_>,
    before: (usize, Value),
    what: &str,
) {
    assert_eq!(calls_and_last_entry(world, owner).await, before, "{what}");
}

/// The number of the default AI's calls, and the newest ledger entry.
async fn calls_and_last_entry(world: &World, owner: &Caller<'_>) -> (usize, Value) {
    let entries = owner.get("/v1/credits/ledger?limit=1").await.json();
    assert_eq!(owner.get("/v1/credits").await.json()["held"], "0");
    (world.default_ai().calls().len(), entries["entries"][0]["id"].clone())
}

#[tokio::test]
async fn a_call_falls_back_only_if_the_error_allows_it() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "1000").await;
    for error in documented() {
        for streamed in [false, true] {
            // A 200 with an error body is plain; an error event is streamed.
            if error.status == 200 && error.in_stream != streamed {
                continue;
            }
            let what = format!("{}, streamed: {streamed}", error.id);
            let before = calls_and_last_entry(&world, &owner).await;
            let reply = call(&owner, &format!("sim/error/{}", error.id), streamed).await;
            if error.fallback == "never" {
                let receipt = ("openrouter".to_owned(), "key_enabled".to_owned());
                assert_eq!(reply.receipt(), receipt, "{what}");
                if error.status == 200 {
                    assert_eq!(reply.status, 200, "{what}");
                } else {
                    let (status, code) = mapped(&error);
                    assert_eq!(reply.error(), (status, code.to_owned()), "{what}");
                }
                assert_nothing_charged(&world, &owner, before, &what).await;
            } else {
                let reason = format!("fallback_{}", error.fallback);
                let receipt = ("greta_credits".to_owned(), reason);
                assert_eq!((reply.status.as_u16(), reply.receipt()), (200, receipt), "{what}");
                assert_eq!(calls_and_last_entry(&world, &owner).await.0, before.0 + 1, "{what}");
            }
        }
    }
}

#[tokio::test]
async fn with_always_use_key_no_error_causes_a_fallback() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "1000").await;
    assert_eq!(owner.switch(json!({"always_use_key": true})).await.status, 200);
    let before = calls_and_last_entry(&world, &owner).await;
    for error in documented() {
        for streamed in [false, true] {
            for place in ["error", "first", "mid"] {
                let what = format!("{place}/{}, streamed: {streamed}", error.id);
                let model = format!("sim/{place}/{}", error.id);
                let reply = call(&owner, &model, streamed).await;
                let receipt = ("openrouter".to_owned(), "always_use_key".to_owned());
                assert_eq!(reply.receipt(), receipt, "{what}");
                if place == "error" && error.status != 200 {
                    let (status, code) = mapped(&error);
                    assert_eq!(reply.error(), (status, code.to_owned()), "{what}");
                } else {
                    assert_eq!(reply.status, 200, "{what}");
                }
            }
        }
    }
    assert_nothing_charged(&world, &owner, before, "all of them").await;
}

/// The same errors in a 200: OpenRouter's head comes before a provider responds.
#[tokio::test]
async fn an_error_inside_a_200_falls_back_unless_it_blames_the_key() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "1000").await;
    for error in documented() {
        // Only `GET /key` can say that the key is rejected, and it accepts this one.
        let falls_back = error.fallback != "never" && error.status != 401;
        for streamed in [false, true] {
            let what = format!("{}, streamed: {streamed}", error.id);
            let before = calls_and_last_entry(&world, &owner).await;
            let reply = call(&owner, &format!("sim/first/{}", error.id), streamed).await;
            assert_eq!(reply.status, 200, "{what}: {}", reply.text());
            if falls_back {
                let reason = format!("fallback_{}", error.fallback);
                assert_eq!(reply.receipt(), ("greta_credits".to_owned(), reason), "{what}");
            } else {
                let receipt = ("openrouter".to_owned(), "key_enabled".to_owned());
                assert_eq!(reply.receipt(), receipt, "{what}");
                assert_nothing_charged(&world, &owner, before, &what).await;
            }
        }
    }
}

/// None of the default AI's own text reaches the caller, and a call that was only an error is free.
#[tokio::test]
async fn on_credits_no_error_contains_the_default_ais_text() {
    let world = World::with_settings(&[("MAX_CONCURRENT_HOLDS", "200")]).await;
    world.set("acme", json!({"credits": "1000"})).await;
    // Umbrella's holds stay open, because its calls may be charged.
    world.set("umbrella", json!({"credits": "1000"})).await;
    let (owner, umbrella) = (world.owner("acme"), world.owner("umbrella"));
    for error in documented() {
        let message = error.body.pointer("/error/message").and_then(Value::as_str);
        let message = message.unwrap_or_default();
        let assert_ours = |reply: &Reply, what: &str| {
            let text = reply.text();
            assert!(message.len() < 10 || !text.contains(message), "{what}: {text}");
            assert!(!text.contains("user_2simulated"), "{what}: {text}");
            assert!(!text.contains("[DONE]"), "{what}: {text}");
        };
        for streamed in [false, true] {
            for place in ["error", "first"] {
                // A completion without content, not an error.
                if error.body["error"].is_null() {
                    continue;
                }
                let what = format!("{place}/{}, streamed: {streamed}", error.id);
                let model = format!("sim-priced/{place}/{}", error.id);
                let before = calls_and_last_entry(&world, &owner).await.1;
                let reply = call(&owner, &model, streamed).await;
                assert!(reply.status.as_u16() >= 400, "{what}: {}", reply.text());
                assert_eq!(reply.receipt().0, "none", "{what}");
                assert_ours(&reply, &what);
                assert_eq!(
                    calls_and_last_entry(&world, &owner).await.1,
                    before,
                    "{what}: not charged"
                );
            }
        }
        if error.body["error"].is_object() {
            let what = format!("mid/{}", error.id);
            let reply = call(&umbrella, &format!("sim-priced/{what}"), true).await;
            assert_eq!(reply.status, 200, "{what}");
            assert!(reply.text().contains("\"default_ai_failed\""), "{what}: {}", reply.text());
            assert_ours(&reply, &what);
        }
    }
}
