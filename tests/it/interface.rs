//! Errors, CORS, strict settings requests and the `_dev` helpers.

use http::Method;
use serde_json::{Value, json};

use crate::support::{KEY, World};

#[tokio::test]
async fn settings_requests_are_read_strictly() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "7").await;
    let table = [
        (r#"{"enabled":true,"extra":1}"#, "unknown_field", "extra"),
        (r#"{"enabled":null}"#, "invalid_request", "enabled"),
        (r#"{"enabled":"yes"}"#, "invalid_request", "enabled"),
        (r#"{"always_use_key":1}"#, "invalid_request", "always_use_key"),
        ("{}", "invalid_request", ""),
        ("[]", "invalid_request", ""),
        ("", "invalid_json", ""),
        ("{", "invalid_json", ""),
    ];
    for (body, code, named) in table {
        let request = owner.request(Method::PATCH, "/v1/integrations/openrouter").body(body);
        let reply = world.send(request).await;
        assert_eq!(reply.error(), (400, code.to_owned()), "{body}");
        assert!(reply.json()["detail"].as_str().unwrap().contains(named), "{body}");
    }
    for body in [r#"{"key":7}"#, r#"{"key":null}"#, "{}", r#"{"key":"x","y":1}"#] {
        let request = owner.request(Method::PUT, "/v1/integrations/openrouter/key").body(body);
        assert_eq!(world.send(request).await.status, 400, "{body}");
    }
}

#[tokio::test]
async fn each_route_has_one_error_shape() {
    let world = World::start().await;
    let problem = world.send(world.request(Method::GET, "/v1/credits")).await;
    assert_eq!(problem.header("content-type"), "application/problem+json");
    let body = problem.json();
    assert_eq!(body["type"], "https://greta.example/problems/invalid_token");
    assert_eq!(body["status"], 401);
    assert_eq!(body["request_id"], problem.header("x-request-id"));
    assert!(body["title"].is_string() && body["detail"].is_string());
    let openai = world.send(world.request(Method::POST, "/v1/chat/completions")).await;
    assert_eq!(openai.header("content-type"), "application/json");
    let error = &openai.json()["error"];
    assert_eq!((&error["code"], &error["param"]), (&json!(401), &Value::Null));
    assert_eq!(error["type"], "invalid_token");
    for (method, path, status) in [
        (Method::GET, "/nowhere", 404),
        (Method::PUT, "/v1/credits", 405),
        (Method::GET, "/v1/chat/completions", 405),
        (Method::POST, "/v1/webhooks/stripe", 400),
        (Method::GET, "/assets/latest/nothing.js", 404),
        (Method::POST, "/plans", 405),
    ] {
        let reply = world.send(world.request(method, path)).await;
        assert_eq!(reply.status, status, "{path}");
        assert!(!reply.code().is_empty(), "{path}");
    }
}

#[tokio::test]
async fn cors_is_for_listed_origins_only() {
    let world = World::with_settings(&[("ALLOWED_ORIGINS", "https://app.greta.example")]).await;
    world.set("acme", json!({"credits": "7"})).await;
    let preflight = |origin: &'static str| {
        let request = world
            .request(Method::OPTIONS, "/v1/chat/completions")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type,idempotency-key");
        world.send(request)
    };
    let ours = preflight("https://app.greta.example").await;
    assert!(ours.status.is_success());
    assert_eq!(ours.header("access-control-allow-origin"), "https://app.greta.example");
    assert!(ours.header("access-control-allow-headers").contains("idempotency-key"));
    assert_eq!(ours.header("access-control-allow-credentials"), "");
    let theirs = preflight("https://evil.example").await;
    assert_eq!(theirs.header("access-control-allow-origin"), "");
    let owner = world.owner("acme");
    let request =
        owner.request(Method::GET, "/v1/credits").header("origin", "https://app.greta.example");
    let reply = world.send(request).await;
    assert_eq!(reply.header("access-control-allow-origin"), "https://app.greta.example");
    assert!(reply.header("access-control-expose-headers").contains("x-greta-payer"));
    assert!(reply.header("vary").to_lowercase().contains("origin"));
    let plain = world.send(world.request(Method::OPTIONS, "/v1/credits")).await;
    assert!(plain.status.is_success(), "OPTIONS is public");
}

#[tokio::test]
async fn the_helpers_make_tokens_and_accounts() {
    let world = World::start().await;
    let request_body = json!({"account_id": "acme", "role": "member"});
    let request = world.request(Method::POST, "/_dev/token").body(request_body.to_string());
    let token = world.send(request).await.json()["token"].as_str().unwrap().to_owned();
    world.set("acme", json!({"credits": "3.5"})).await;
    let request = world.request(Method::GET, "/v1/credits").bearer_auth(token);
    assert_eq!(world.send(request).await.json()["balance"], "3.5");
    for bad in [
        json!({"plan": "gold"}),
        json!({"credit": "1"}),
        json!({"credits": "x"}),
        json!({"add_on": "maybe"}),
    ] {
        let request = world.request(Method::PUT, "/_dev/accounts/acme").body(bad.to_string());
        assert_eq!(world.send(request).await.error(), (400, "invalid_request".to_owned()), "{bad}");
    }
}

#[tokio::test]
async fn the_helpers_reach_every_status_and_balance() {
    let world = World::start().await;
    let owner = world.owner("acme");
    world.set("acme", json!({})).await;
    for status in ["active", "past_due", "suspended", "cancelling", "ended", "none", "active"] {
        world.set("acme", json!({"add_on": status})).await;
        assert_eq!(owner.card().await["add_on"]["status"], status);
    }
    owner.save_key(KEY).await;
    for (plan, status) in [("enterprise", "ended"), ("standard", "cancelling")] {
        world.set("acme", json!({"plan": plan})).await;
        let card = owner.card().await;
        assert_eq!((&card["plan"], &card["add_on"]["status"]), (&json!(plan), &json!(status)));
        assert!(card["key"].is_object(), "keys survive plan changes");
    }
    for credits in ["12.5", "0", "3"] {
        world.set("acme", json!({"credits": credits})).await;
        assert_eq!(world.settled_balance("acme").await, credits);
    }
}

#[tokio::test]
async fn all_bad_settings_are_named_at_startup() {
    let settings = [
        ("UPSTREAM_IDLE_MS", "soon"),
        ("MIN_CREDIT_BALANCE", "x"),
        ("OPENROUTER_BASE_URL", "http://openrouter.example"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let options =
        local::system::Options { settings: settings.into_iter().collect(), ..Default::default() };
    let error = local::system::System::start(options).await.err().unwrap();
    let text = error.to_string();
    for name in ["UPSTREAM_IDLE_MS", "MIN_CREDIT_BALANCE", "OPENROUTER_BASE_URL"] {
        assert!(text.contains(name), "{text}");
    }
}
