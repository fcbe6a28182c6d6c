//! On every route, only the token identifies the caller.

use http::Method;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::support::{KEY, World, hello};

const ROUTES: [(Method, &str); 14] = [
    (Method::GET, "/v1/integrations/openrouter"),
    (Method::PATCH, "/v1/integrations/openrouter"),
    (Method::PUT, "/v1/integrations/openrouter/key"),
    (Method::POST, "/v1/integrations/openrouter/key/test"),
    (Method::DELETE, "/v1/integrations/openrouter/key"),
    (Method::POST, "/v1/integrations/openrouter/subscription"),
    (Method::DELETE, "/v1/integrations/openrouter/subscription"),
    (Method::POST, "/v1/integrations/openrouter/subscription/payment-method"),
    (Method::GET, "/v1/credits"),
    (Method::GET, "/v1/credits/ledger"),
    (Method::GET, "/v1/credits/daily"),
    (Method::POST, "/v1/credits/checkout"),
    (Method::POST, "/v1/chat/completions"),
    (Method::GET, "/v1/models"),
];

fn claims(world: &World, change: Value) -> Value {
    let now = world.system.clock.now().as_second();
    let mut claims = json!({
        "iss": world.system.issuer.issuer(), "aud": world.system.issuer.audience(),
        "sub": "user_1", "account_id": "acme", "role": "owner", "exp": now + 600,
    });
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

#[tokio::test]
async fn logs_name_the_account() {
    let (log, _guard) = crate::secrecy::log_of_this_thread();
    let world = World::start().await;
    world.set("acme", json!({})).await;
    world.owner("acme").card().await;
    let logged = log.text();
    let mut answered = logged.lines().filter(|line| line.contains("answered"));
    assert!(answered.any(|line| line.contains("account=\"acme\"")), "{logged}");
}

/// One log line has the outcome of a call.
#[tokio::test]
async fn logs_name_a_calls_payer() {
    let (log, _guard) = crate::secrecy::log_of_this_thread();
    let world = World::start().await;
    world.set("acme", json!({"plan": "enterprise"})).await;
    let owner = world.owner("acme");
    owner.save_key(KEY).await;
    let reply = owner.say_hello().await;
    let expected = [
        format!("call_id=\"{}\"", reply.header("x-greta-call-id")),
        format!("generation_id=\"{}\"", reply.header("x-generation-id")),
        "payer=\"openrouter\"".to_owned(),
        "reason=\"key_enabled\"".to_owned(),
        "status=200".to_owned(),
    ];
    let logged = log.text();
    let mut answered = logged.lines().filter(|line| line.contains("answered"));
    let matches_all = |line: &str| expected.iter().all(|expected| line.contains(expected));
    assert!(answered.any(matches_all), "{expected:?} in {logged}");
}

/// Reads are not logged with the user's name.
#[tokio::test]
async fn logs_name_the_user_of_each_change() {
    let (log, _guard) = crate::secrecy::log_of_this_thread();
    let world = World::start().await;
    world.set("acme", json!({"add_on": "active"})).await;
    let owner = world.owner("acme");
    let integration = "/v1/integrations/openrouter";
    let (key, add_on) = (format!("{integration}/key"), format!("{integration}/subscription"));
    let card = format!("{add_on}/payment-method");
    let (nothing, usd) = (Value::Null, json!({"usd": "5"}));
    let on = json!({"always_use_key": true});
    let save = json!({"key": "sk-or-v1-limit-20-0123456789abcdef"});
    let changes = [
        (Method::PUT, &*key, &save, "key saved"),
        (Method::PATCH, integration, &on, "switches changed"),
        (Method::DELETE, &*key, &nothing, "key disconnected"),
        (Method::POST, &*card, &nothing, "Checkout Session for a new card opened"),
        (Method::DELETE, &*add_on, &nothing, "add-on cancelled"),
        (Method::POST, &*add_on, &nothing, "add-on resumed"),
        (Method::POST, "/v1/credits/checkout", &usd, "Checkout Session for credits opened"),
    ];
    // The embedded tables log lines of their own, outside any request.
    let named = |logged: &str| {
        let ours = logged.lines().filter(|line| line.contains("request_id="));
        ours.filter(|line| line.contains("user_acme_owner")).count()
    };
    for (method, path, body, expected) in changes {
        owner.card().await;
        assert!(!log.text().contains(expected), "{expected}, too early");
        let before = named(&log.text());
        assert_eq!(owner.call(method, path, body).await.status, 200, "{expected}");
        let logged = log.text();
        let line = logged.lines().find(|line| line.contains(expected));
        let line = line.unwrap_or_else(|| panic!("{expected}: {logged}"));
        assert!(line.contains("by=\"user_acme_owner\""), "{line}");
        assert!(line.contains("account=\"acme\""), "{line}");
        assert_eq!(named(&logged), before + 1, "{expected}");
    }
}

#[tokio::test]
async fn every_route_requires_a_token() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    for (method, path) in ROUTES {
        let body = hello().to_string();
        let reply = world.send(world.request(method.clone(), path).body(body)).await;
        assert_eq!(reply.error(), (401, "invalid_token".to_owned()), "{method} {path}");
        assert_eq!(reply.header("www-authenticate"), "Bearer");
        let unknown = world.owner("nobody-here");
        let body = hello().to_string();
        let reply = world.send(unknown.request(method.clone(), path).body(body)).await;
        let code = reply.error();
        assert!(
            code == (404, "account_not_found".to_owned()) || code.0 == 400,
            "{method} {path}: {code:?}"
        );
    }
    assert_eq!(world.openrouter().calls().len() + world.default_ai().calls().len(), 0);
}

#[tokio::test]
async fn invalid_tokens_are_refused() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    let now = world.system.clock.now().as_second();
    let sign = |change| world.system.issuer.sign(claims(&world, change));
    let good = sign(json!({}));
    let part = |token: &str, index| token.split('.').nth(index).unwrap().to_owned();
    let hmac = |algorithm, secret: &[u8]| {
        let key = EncodingKey::from_secret(secret);
        jsonwebtoken::encode(&Header::new(algorithm), &claims(&world, json!({})), &key).unwrap()
    };
    let keys = serde_json::to_value(world.system.issuer.jwks()).unwrap();
    let public = keys["keys"][0]["x"].as_str().unwrap().to_owned();
    // {"alg":"none"}
    let none = format!("eyJhbGciOiJub25lIn0.{}.", part(&good, 1));
    let other = sign(json!({"account_id": "other"}));
    let bad = [
        ("expired", sign(json!({"exp": now - 61}))),
        ("not yet valid", sign(json!({"nbf": now + 120}))),
        ("other audience", sign(json!({"aud": "somebody-else"}))),
        ("other issuer", sign(json!({"iss": "https://evil.example"}))),
        ("no account", sign(json!({"account_id": null}))),
        ("odd account", sign(json!({"account_id": "a/b"}))),
        ("odd role", sign(json!({"role": "admin"}))),
        ("none", none),
        ("HMAC by the public key", hmac(Algorithm::HS256, public.as_bytes())),
        (
            "somebody else's claims",
            format!("{}.{}.{}", part(&good, 0), part(&other, 1), part(&good, 2)),
        ),
        ("no signature", format!("{}.{}.", part(&good, 0), part(&good, 1))),
        ("nonsense", "nonsense".to_owned()),
        ("unknown key", World::start().await.system.token("acme", "owner")),
    ];
    for (what, token) in bad {
        for path in ["/v1/credits", "/v1/models"] {
            let request = world.request(Method::GET, path).bearer_auth(&token);
            let reply = world.send(request).await;
            assert_eq!(reply.error(), (401, "invalid_token".to_owned()), "{what}");
        }
    }
    let good_ones =
        [good, sign(json!({"aud": ["other", "greta"]})), sign(json!({"exp": now - 30}))];
    for token in good_ones {
        let request = world.request(Method::GET, "/v1/credits").bearer_auth(token);
        assert_eq!(world.send(request).await.status, 200);
    }
}

#[tokio::test]
async fn only_the_token_identifies_the_caller() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "1"})).await;
    world.set("rich", json!({"credits": "1000"})).await;
    let request = world
        .owner("acme")
        .request(Method::GET, "/v1/credits?account_id=rich")
        .header("x-account-id", "rich")
        .header("x-amzn-oidc-identity", "rich");
    assert_eq!(world.send(request).await.json()["balance"], "1");
}
