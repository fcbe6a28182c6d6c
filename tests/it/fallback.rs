//! The fallback of row 5: for certain causes, before the first byte, once, paid for in credits.

use http::StatusCode;
use serde_json::json;

use crate::support::{World, hello};

const CAUSES: [(&str, &str, u16, &str); 13] = [
    ("sim/status-401", "key_rejected", 403, "openrouter_key_rejected"),
    ("sim/status-402", "payment_required", 402, "openrouter_payment_required"),
    ("sim/status-403-limit", "payment_required", 402, "openrouter_payment_required"),
    ("sim/status-429", "rate_limited", 429, "openrouter_rate_limited"),
    ("sim/status-408", "unavailable", 502, "openrouter_unavailable"),
    ("sim/status-500", "unavailable", 502, "openrouter_unavailable"),
    ("sim/status-502", "unavailable", 502, "openrouter_unavailable"),
    ("sim/status-503", "unavailable", 502, "openrouter_unavailable"),
    ("sim/status-524", "unavailable", 502, "openrouter_unavailable"),
    ("sim/status-529", "unavailable", 502, "openrouter_unavailable"),
    ("sim/redirect", "unavailable", 502, "openrouter_unavailable"),
    ("sim/reset", "unavailable", 502, "openrouter_unavailable"),
    // Nothing listens there, so no connection is made.
    ("(no connection)", "unavailable", 502, "openrouter_unavailable"),
];

const NEVER: [(&str, u16, &str); 7] = [
    ("sim/status-400", 400, "openrouter_request_rejected"),
    ("sim/status-403", 403, "openrouter_request_refused"),
    ("sim/status-403-moderation", 403, "openrouter_request_refused"),
    ("sim/status-404", 404, "openrouter_request_rejected"),
    ("sim/status-413", 413, "openrouter_request_rejected"),
    ("sim/status-422", 422, "openrouter_request_rejected"),
    ("sim/hang-head", 504, "openrouter_timeout"),
];

#[tokio::test]
async fn each_cause_goes_to_the_default_ai_once() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "7").await;
    let nowhere = [("OPENROUTER_BASE_URL", "http://127.0.0.1:9")];
    for (index, (model, cause, _, _)) in CAUSES.into_iter().enumerate() {
        if model.starts_with('(') {
            continue;
        }
        let reply = owner.say_hello_to(model).await;
        assert_eq!(reply.status, StatusCode::OK, "{model}: {}", reply.text());
        let receipt = ("greta_credits".to_owned(), format!("fallback_{cause}"));
        assert_eq!(reply.receipt(), receipt, "{model}");
        assert_eq!(reply.header("x-greta-model"), "openai/gpt-4o-mini");
        assert_ne!(reply.header("x-greta-credits-charged"), "");
        assert_eq!(world.default_ai().calls().len(), index + 1, "{model}");
    }
    assert_eq!(owner.ledger().await.len(), CAUSES.len());
    world.settled_balance("acme").await;

    let world = World::with_settings(&nowhere).await;
    world.set("acme", json!({"plan": "enterprise", "credits": "7"})).await;
    let refused = world.owner("acme").save_key(crate::support::KEY).await;
    assert_eq!(refused.error(), (502, "openrouter_unavailable".to_owned()));
}

#[tokio::test]
async fn a_lost_connection_falls_back_on_streams_too() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "7").await;
    let mut body = hello();
    body["stream"] = json!(true);
    body["model"] = json!("sim/reset");
    let reply = owner.chat(&body).await;
    let receipt = ("greta_credits".to_owned(), "fallback_unavailable".to_owned());
    assert_eq!(reply.receipt(), receipt);
    assert!(reply.text().contains("\"greta\":{"), "{}", reply.text());
    assert!(reply.text().ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn the_callers_own_errors_and_timeouts_never_fall_back() {
    let world = World::with_settings(&[("UPSTREAM_HEAD_PLAIN_MS", "300")]).await;
    let owner = world.enterprise_with_key("acme", "7").await;
    for (model, status, code) in NEVER {
        let reply = owner.say_hello_to(model).await;
        assert_eq!(reply.error(), (status, code.to_owned()), "{model}");
        let receipt = ("openrouter".to_owned(), "key_enabled".to_owned());
        assert_eq!(reply.receipt(), receipt, "{model}");
    }
    assert_eq!(world.default_ai().calls().len(), 0);
    assert_eq!(world.settled_balance("acme").await, "7");
}

#[tokio::test]
async fn without_credits_openrouters_own_error_is_returned() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "0").await;
    for (model, _, status, code) in CAUSES {
        if model.starts_with('(') {
            continue;
        }
        let reply = owner.say_hello_to(model).await;
        assert_eq!(reply.error(), (status, code.to_owned()), "{model}");
        assert_eq!(reply.receipt().0, "openrouter", "{model}");
    }
    let limited = owner.say_hello_to("sim/status-429").await;
    assert_eq!(limited.header("retry-after"), "7");
    assert_eq!(world.default_ai().calls().len(), 0);
}

#[tokio::test]
async fn calls_that_credits_cannot_pay_for_do_not_fall_back() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "7").await;
    let mut body = hello();
    body["model"] = json!("sim/status-500");
    body["plugins"] = json!([{"id": "web"}]);
    let reply = owner.chat(&body).await;
    assert_eq!(reply.error(), (502, "openrouter_unavailable".to_owned()));
    assert_eq!(world.default_ai().calls().len(), 0);
}

#[tokio::test]
async fn a_deployment_can_narrow_the_causes() {
    let world = World::with_settings(&[("FALLBACK_CAUSES", "rate_limited,key_rejected")]).await;
    let owner = world.enterprise_with_key("acme", "7").await;
    for (model, cause, status, _) in CAUSES {
        if model.starts_with('(') {
            continue;
        }
        let allowed = ["rate_limited", "key_rejected"].contains(&cause);
        let reply = owner.say_hello_to(model).await;
        let expected = if allowed { 200 } else { status };
        assert_eq!(reply.status, expected, "{model}");
    }
}

#[tokio::test]
async fn a_deployment_can_turn_fallback_off() {
    let world = World::with_settings(&[("FALLBACK_CAUSES", "")]).await;
    let owner = world.enterprise_with_key("acme", "7").await;
    for (model, _, status, code) in CAUSES {
        if model.starts_with('(') {
            continue;
        }
        let reply = owner.say_hello_to(model).await;
        assert_eq!(reply.error(), (status, code.to_owned()), "{model}");
    }
    assert_eq!(world.settled_balance("acme").await, "7");
}

#[tokio::test]
async fn an_unreadable_secret_has_its_own_cause() {
    use local::engines::SecretsFault;
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "7").await;
    // This caches the default AI's key.
    assert_eq!(owner.say_hello_to("sim/status-500").await.status, 200);
    let name = world.engines().secret_names().await;
    let name = name.iter().find(|name| name.contains("acme")).unwrap().clone();
    let secrets = world.engines().secrets();
    let deleted = secrets.delete_secret().secret_id(&name);
    deleted.force_delete_without_recovery(true).send().await.unwrap();
    // Saved again, so that the user's key is not in the cache.
    owner.save_key(crate::support::OTHER_KEY).await;
    world.engines().fail_secrets(Some("GetSecretValue"), SecretsFault::AccessDenied);
    let reply = owner.say_hello().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let receipt = ("greta_credits".to_owned(), "fallback_key_unavailable".to_owned());
    assert_eq!(reply.receipt(), receipt);
}

/// A failure of the default AI has its own error code and costs nothing.
#[tokio::test]
async fn the_default_ais_failures_release_the_hold() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    let owner = world.owner("acme");
    let table = [
        ("sim-priced/status-400", 400, "default_ai_request_rejected"),
        ("sim-priced/status-403-moderation", 403, "default_ai_request_rejected"),
        ("sim-priced/status-422", 422, "default_ai_request_rejected"),
        ("sim-priced/status-401", 502, "default_ai_unavailable"),
        ("sim-priced/status-402", 502, "default_ai_unavailable"),
        ("sim-priced/status-429", 429, "default_ai_rate_limited"),
        ("sim-priced/status-500", 502, "default_ai_unavailable"),
        ("sim-priced/redirect", 502, "default_ai_unavailable"),
        ("sim-priced/reset", 502, "default_ai_unavailable"),
    ];
    for (model, status, code) in table {
        let reply = owner.say_hello_to(model).await;
        assert_eq!(reply.error(), (status, code.to_owned()), "{model}");
        assert_eq!(reply.header("x-greta-credits-charged"), "", "{model}");
        assert_eq!(world.settled_balance("acme").await, "7", "{model}");
    }
    assert_eq!(owner.ledger().await.len(), 1);
}
