//! "Always use this key" is a promise: whatever fails, no credits move and no other AI is called.

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use http::Method;
use local::openrouter::{CallOutcome, RecordedCall};
use local::serve::Server;
use serde_json::json;
use tokio::sync::Notify;

use crate::support::{Caller, World, hello};

const FAILURES: [(&str, u16, &str); 16] = [
    ("sim/status-401", 403, "openrouter_key_rejected"),
    ("sim/status-402", 402, "openrouter_payment_required"),
    ("sim/status-403", 403, "openrouter_request_refused"),
    ("sim/status-403-limit", 402, "openrouter_payment_required"),
    ("sim/status-403-moderation", 403, "openrouter_request_refused"),
    ("sim/status-400", 400, "openrouter_request_rejected"),
    ("sim/status-404", 404, "openrouter_request_rejected"),
    ("sim/status-413", 413, "openrouter_request_rejected"),
    ("sim/status-422", 422, "openrouter_request_rejected"),
    ("sim/status-408", 502, "openrouter_unavailable"),
    ("sim/status-429", 429, "openrouter_rate_limited"),
    ("sim/status-500", 502, "openrouter_unavailable"),
    ("sim/status-524", 502, "openrouter_unavailable"),
    ("sim/status-529", 502, "openrouter_unavailable"),
    ("sim/redirect", 502, "openrouter_unavailable"),
    ("sim/reset", 502, "openrouter_unavailable"),
];

async fn assert_nothing_charged(world: &World, owner: &Caller<'_>, id: &str) {
    assert_eq!(world.settled_balance(id).await, "7");
    let kinds: Vec<_> = owner.ledger().await;
    assert_eq!(kinds.len(), 1, "only the initial adjustment: {kinds:?}");
    assert_eq!(world.default_ai().calls().len(), 0);
    let operations = world.wire.take();
    let moved = |operation: &&String| operation.starts_with("TransactWrite");
    assert_eq!(operations.iter().filter(moved).count(), 0, "{operations:?}");
}

#[tokio::test]
async fn no_failure_moves_credits() {
    let world = World::with_settings(&[("UPSTREAM_HEAD_PLAIN_MS", "300")]).await;
    let owner = world.enterprise_with_key("acme", "7").await;
    let switched = owner.switch(json!({"always_use_key": true})).await;
    assert_eq!(switched.status, 200);
    world.wire.take();

    for (model, status, code) in FAILURES {
        for streamed in [false, true] {
            let mut body = hello();
            body["model"] = json!(model);
            body["stream"] = json!(streamed);
            let reply = owner.chat(&body).await;
            assert_eq!(reply.error(), (status, code.to_owned()), "{model}");
            let receipt = ("openrouter".to_owned(), "always_use_key".to_owned());
            assert_eq!(reply.receipt(), receipt, "{model}");
        }
    }
    let late = owner.say_hello_to("sim/hang-head").await;
    assert_eq!(late.error(), (504, "openrouter_timeout".to_owned()));
    let broken = owner.say_hello_to("sim/reset-after-head").await;
    assert_eq!(broken.error(), (502, "openrouter_unavailable".to_owned()));
    for model in ["sim/cut", "sim/cut-mid-line", "sim/no-done", "sim/midstream-error"] {
        let mut body = hello();
        body["model"] = json!(model);
        body["stream"] = json!(true);
        let reply = owner.chat(&body).await;
        assert_eq!(reply.status, 200, "{model}");
        assert!(reply.text().contains("\"finish_reason\":\"error\""), "{model}");
    }
    assert_nothing_charged(&world, &owner, "acme").await;
}

#[tokio::test]
async fn a_missing_secret_fails_closed() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "7").await;
    owner.switch(json!({"always_use_key": true})).await;
    world.wire.take();
    world
        .engines()
        .fail_secrets(Some("GetSecretValue"), local::engines::SecretsFault::AccessDenied);
    let reply = owner.say_hello().await;
    assert_eq!(reply.error(), (503, "key_unavailable".to_owned()));
    world.engines().heal_secrets();

    let name = world.engines().secret_names().await;
    let name = name.iter().find(|name| name.contains("acme")).unwrap();
    let secrets = world.engines().secrets();
    let deleted = secrets.delete_secret().secret_id(name);
    deleted.force_delete_without_recovery(true).send().await.unwrap();
    let reply = owner.say_hello().await;
    assert_eq!(reply.error(), (503, "key_unavailable".to_owned()));
    assert_eq!(reply.receipt().0, "openrouter");
    assert_eq!(world.openrouter().calls().len(), 0);
    assert_nothing_charged(&world, &owner, "acme").await;
}

/// A call that was routed before the switch may not take a hold after it.
#[tokio::test]
async fn a_call_in_progress_keeps_the_promise_too() {
    let (called, mut is_called) = tokio::sync::mpsc::channel(1);
    let fail = Arc::new(Notify::new());
    let failing = Arc::clone(&fail);
    let chat = async move || {
        called.send(()).await.unwrap();
        failing.notified().await;
        http::StatusCode::INTERNAL_SERVER_ERROR
    };
    let key = async || axum::Json(json!({"data": {"label": "sk-or-v1-a...b"}}));
    let router = Router::new().route("/chat/completions", post(chat)).route("/key", get(key));
    let upstream = Server::start(router).await.unwrap();
    let world = World::with_settings(&[("OPENROUTER_BASE_URL", &upstream.url())]).await;
    let owner = world.enterprise_with_key("acme", "7").await;
    let switch = async {
        is_called.recv().await.unwrap();
        let switched = owner.switch(json!({"always_use_key": true})).await;
        assert_eq!(switched.status, 200);
        fail.notify_one();
    };
    let (reply, ()) = tokio::join!(owner.say_hello(), switch);
    assert_eq!(reply.error(), (502, "openrouter_unavailable".to_owned()));
    assert_eq!(world.settled_balance("acme").await, "7");
    assert_eq!(world.default_ai().calls().len(), 0);
}

/// A stream that began on the key ends on it, although the switch is off by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_not_moved_when_the_switch_is_turned_off() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "7").await;
    owner.switch(json!({"always_use_key": true})).await;
    world.wire.take();
    let mut body = hello();
    body["model"] = json!("sim/slow-chunks-200");
    body["stream"] = json!(true);
    let switch = async {
        let begun = |calls: &[RecordedCall]| !calls.is_empty();
        world.openrouter().until(begun).await;
        let off = owner.switch(json!({"enabled": false, "always_use_key": false})).await;
        assert_eq!(off.json()["integration"]["status"], "disabled");
        let call = world.openrouter().calls().pop().unwrap();
        assert_eq!(call.outcome, CallOutcome::Running, "the switch was turned during the call");
    };
    let (reply, ()) = tokio::join!(owner.chat(&body), switch);
    assert_eq!(reply.receipt(), ("openrouter".to_owned(), "always_use_key".to_owned()));
    assert!(reply.text().contains("[DONE]"), "{}", reply.text());
    assert_nothing_charged(&world, &owner, "acme").await;
}

#[tokio::test]
async fn the_promise_is_not_dropped_by_accident() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "7").await;
    owner.switch(json!({"always_use_key": true})).await;
    let refused = owner.switch(json!({"enabled": false})).await;
    assert_eq!(refused.error(), (409, "always_use_key_on".to_owned()));
    let card = owner.card().await;
    assert_eq!((&card["enabled"], &card["always_use_key"]), (&json!(true), &json!(true)));
    let both = owner.switch(json!({"enabled": false, "always_use_key": false})).await;
    assert_eq!(both.json()["integration"]["status"], "disabled");
    let path = "/v1/integrations/openrouter";
    let on = owner.call(Method::PATCH, path, &json!({"always_use_key": true})).await.json();
    assert_eq!(on["integration"]["enabled"], true, "turning always on also enables the key");
}
