//! The request body, the headers in both directions, and the model list.

use http::Method;
use serde_json::{Value, json};

use crate::support::{KEY, World, hello};

#[tokio::test]
async fn malformed_bodies_are_refused_before_any_request() {
    let world = World::start().await;
    world.set("poor", json!({"credits": "7"})).await;
    let byok = world.enterprise_with_key("acme", "7").await;
    let credits = world.owner("poor");
    let table: [(&[u8], &str); 10] = [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"{\"messages\":[\"\xff\"]}", "invalid_json"),
        (b"nonsense", "invalid_json"),
        (b"[]", "invalid_request"),
        (b"{}", "invalid_request"),
        (b"{\"messages\":[]}", "invalid_request"),
        (b"{\"messages\":\"hi\"}", "invalid_request"),
        (b"{\"messages\":[1],\"model\":7}", "invalid_request"),
        (b"{\"messages\":[1],\"model\":null}", "invalid_request"),
    ];
    world.wire.take();
    for (body, code) in table {
        for caller in [&byok, &credits] {
            let request = caller.request(Method::POST, "/v1/chat/completions").body(body.to_vec());
            let reply = world.send(request).await;
            assert_eq!(reply.error(), (400, code.to_owned()), "{body:?}");
            let receipt = ("none".to_owned(), code.to_owned());
            assert_eq!(reply.receipt(), receipt);
            assert!(reply.header("x-greta-call-id").starts_with("call_"));
        }
    }
    assert_eq!(world.wire.take(), Vec::<String>::new(), "no hold, no read");
    assert_eq!(world.openrouter().calls().len() + world.default_ai().calls().len(), 0);
}

/// A response sent before the body is read keeps the connection usable.
#[tokio::test]
async fn early_responses_do_not_break_connections() {
    let world = World::start().await;
    let long = "x".repeat(20_000);
    for _ in 0..100 {
        for (method, path, status) in [
            (Method::POST, "/v1/chat/completions", 401),
            (Method::PATCH, "/v1/integrations/openrouter", 401),
            (Method::POST, "/nowhere", 404),
        ] {
            let request = world.request(method, path).body(long.clone());
            assert_eq!(world.send(request).await.status, status);
        }
    }
}

#[tokio::test]
async fn body_size_is_limited() {
    let world = World::with_settings(&[("MAX_BODY_BYTES", "1000")]).await;
    let owner = world.enterprise_with_key("acme", "7").await;
    let of_size = |size: usize| {
        let body = json!({"messages": [{"role": "user", "content": ""}]}).to_string();
        let content = "x".repeat(size - body.len());
        json!({"messages": [{"role": "user", "content": content}]})
    };
    let fits = of_size(1_000);
    assert_eq!(fits.to_string().len(), 1_000);
    assert_eq!(owner.chat(&fits).await.status, 200);
    let reply = owner.chat(&of_size(1_001)).await;
    assert_eq!(reply.error(), (413, "body_too_large".to_owned()));
    let path = "/v1/integrations/openrouter";
    let reply = owner.call(Method::PATCH, path, &of_size(1_001)).await;
    assert_eq!(reply.error(), (413, "body_too_large".to_owned()));
    // Without a Content-Length.
    let chunks =
        futures_util::stream::iter((0..3).map(|_| Ok::<_, std::io::Error>("x".repeat(500))));
    let request = owner
        .request(Method::POST, "/v1/chat/completions")
        .body(reqwest::Body::wrap_stream(chunks));
    let reply = world.send(request).await;
    assert_eq!(reply.error(), (413, "body_too_large".to_owned()));
}

#[tokio::test]
async fn only_listed_headers_are_passed_on() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "7").await;
    let send = || {
        let request = owner
            .chat_request(&hello())
            .header("cookie", "session=secret")
            .header("x-forwarded-for", "1.2.3.4")
            .header("x-api-key", &owner.token)
            .header("http-referer", "https://evil.example")
            .header("user-agent", "caller");
        world.send(request)
    };
    let byok = send().await;
    owner.disconnect().await;
    let credits = send().await;
    let arrived = [world.openrouter().calls().pop(), world.default_ai().calls().pop()];
    for call in arrived.into_iter().flatten() {
        let names: Vec<_> = call.headers.keys().map(http::HeaderName::as_str).collect();
        let allowed = [
            "accept",
            "accept-encoding",
            "content-type",
            "content-length",
            "host",
            "http-referer",
            "x-openrouter-title",
        ];
        assert!(names.iter().all(|name| allowed.contains(name)), "{names:?}");
        assert_eq!(call.headers["accept-encoding"], "identity");
        assert_eq!(call.headers["http-referer"], format!("{}/", world.system.url()));
    }
    for reply in [byok, credits] {
        assert_eq!(reply.header("set-cookie"), "");
        assert!(reply.header("x-generation-id").starts_with("gen-"));
        assert_eq!(reply.header("cache-control"), "no-store");
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
    }
}

/// The key's owner gets OpenRouter's message about a request. Its other texts are withheld, because
/// they may echo the input or describe the account.
#[tokio::test]
async fn openrouters_errors_keep_their_message_and_nothing_private() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "0").await;
    for (model, has_message) in [
        ("sim/status-400", true),
        ("sim/status-402", false),
        ("sim/status-403-moderation", true),
        ("sim/status-403-limit", false),
        ("sim/status-404", true),
        ("sim/status-429", false),
        ("sim/status-500", false),
    ] {
        let reply = owner.say_hello_to(model).await;
        let text = reply.text();
        for leaked in ["user_id", "user_", "flagged_input", "Hello there", "\"raw\""] {
            assert!(!text.contains(leaked), "{model}: {leaked} in {text}");
        }
        let error = reply.json()["error"].clone();
        let members: Vec<_> = error.as_object().unwrap().keys().collect();
        assert_eq!(members, ["code", "message", "metadata", "param", "type"]);
        let message = error["message"].as_str().unwrap();
        assert_eq!(message.starts_with("OpenRouter: "), has_message, "{model}: {message}");
    }
}

#[tokio::test]
async fn a_plain_response_is_passed_on_unchanged() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "0").await;
    for model in ["sim/ok", "sim/big", "sim/choice-error"] {
        let reply = owner.say_hello_to(model).await;
        assert_eq!(reply.status, 200, "{model}");
        assert_eq!(reply.header("content-type"), "application/json");
        assert_eq!(reply.receipt().0, "openrouter");
        assert!(reply.json()["choices"].is_array(), "{model}");
        assert_eq!(reply.header("x-greta-model"), "");
        assert_eq!(reply.header("x-greta-credits-charged"), "");
    }
}

#[tokio::test]
async fn the_model_list_comes_from_the_next_calls_payer() {
    let world = World::start().await;
    world.set("acme", json!({"plan": "enterprise", "credits": "0"})).await;
    let owner = world.owner("acme");
    let list = owner.get("/v1/models").await;
    assert_eq!(list.status, 200);
    assert_eq!(list.receipt(), ("none".to_owned(), "insufficient_credits".to_owned()));
    let ids = |reply: &Value| reply["data"].as_array().unwrap().len();
    assert!(ids(&list.json()) > 10);
    world.set("acme", json!({"credits": "1"})).await;
    assert_eq!(owner.get("/v1/models").await.receipt().0, "greta_credits");
    owner.save_key(KEY).await;
    let list = owner.get("/v1/models").await;
    assert_eq!(list.receipt(), ("openrouter".to_owned(), "key_enabled".to_owned()));
    assert_eq!(list.header("content-type"), "application/json");
}
