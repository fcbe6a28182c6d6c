//! Which tokens are accepted, and how they are sent.

mod issuer;
mod keys;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::{HeaderValue, StatusCode};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;

use self::issuer::{AUDIENCE, ISSUER, KeyPair, World, encoded};
use super::*;
use crate::settings::HttpSettings;

#[tokio::test]
async fn good_tokens_of_each_algorithm() {
    let rsa = KeyPair::new("rsa", Algorithm::RS256);
    let p256 = KeyPair::new("p256", Algorithm::ES256);
    let ed25519 = KeyPair::ed25519("ed");
    let world = World::new(&[&rsa, &p256, &ed25519]).await;
    for key in [&rsa, &p256, &ed25519] {
        let caller = world.check(&key.sign(&world.claims())).await.unwrap();
        let expected = Caller {
            subject: "user_1".to_owned(),
            account: AccountId::new("acct_1").unwrap(),
            role: Role::Owner,
        };
        assert_eq!(caller, expected);
        caller.require_owner().unwrap();
    }
    assert_eq!(world.issuer.requests(), 1);

    // A key of the set signs with another key's algorithm, and under another key's id.
    for (named, key) in [(&rsa, &p256), (&p256, &rsa), (&ed25519, &p256), (&p256, &ed25519)] {
        let mut header = key.header();
        header.kid = Some(named.id.to_owned());
        world.refusal(&key.sign_with(&header, &world.claims())).await;
    }
    // RSA keys are for RS256 and nothing else.
    for algorithm in [Algorithm::RS384, Algorithm::RS512, Algorithm::PS256] {
        let header = Header { alg: algorithm, ..rsa.header() };
        world.refusal(&rsa.sign_with(&header, &world.claims())).await;
    }
}

#[tokio::test]
async fn claims_are_checked() {
    let key = KeyPair::ed25519("k1");
    let world = World::new(&[&key]).await;
    let now = world.clock.now().as_second();
    // Each row changes one claim of a valid token (null removes it), and says whether it stays
    // valid.
    let table = [
        ("exp", json!(now - 50), true),
        ("exp", json!(now - 70), false),
        ("exp", json!(format!("{}", now + 100)), false),
        ("exp", json!(-1), false),
        ("exp", Value::Null, false),
        ("exp", serde_json::from_str(&format!("{}.5", now + 10)).unwrap(), true),
        ("exp", serde_json::from_str(&format!("{}.5", now - 70)).unwrap(), false),
        ("exp", json!(u64::MAX), false),
        ("nbf", json!(now + 50), true),
        ("nbf", json!(now + 70), false),
        ("nbf", json!("soon"), false),
        ("nbf", json!(i64::MAX), false),
        ("nbf", json!(1.9e17), false),
        ("nbf", json!(-1.9e17), false),
        ("nbf", json!(0), true),
        ("iss", json!("https://issuer.example/"), false),
        ("iss", json!([ISSUER]), false),
        ("iss", Value::Null, false),
        ("aud", json!("other"), false),
        ("aud", json!(["other", AUDIENCE]), true),
        ("aud", json!(["other"]), false),
        ("aud", json!([]), false),
        ("aud", json!({AUDIENCE: true}), false),
        ("aud", Value::Null, false),
        ("sub", json!(""), false),
        ("sub", json!("ü".repeat(255)), true),
        ("sub", json!("ü".repeat(256)), false),
        ("sub", json!(7), false),
        ("sub", Value::Null, false),
        ("account_id", json!(""), false),
        ("account_id", json!("a/b"), false),
        ("account_id", json!("a".repeat(64)), true),
        ("account_id", json!("a".repeat(65)), false),
        ("account_id", json!(["acct_1"]), false),
        ("account_id", Value::Null, false),
        ("role", json!("member"), true),
        ("role", json!("admin"), false),
        ("role", json!("Owner"), false),
        ("role", json!(["owner"]), false),
        ("role", Value::Null, false),
        ("anything_else", json!({"a": [1]}), true),
    ];
    for (name, value, good) in table {
        let mut claims = world.claims();
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
        let token = key.sign(&claims);
        if good {
            assert!(world.check(&token).await.is_ok(), "{name}: {value}");
        } else {
            assert!(!world.refusal(&token).await.is_empty(), "{name}: {value}");
        }
    }
    // The same claim twice.
    let payload = world.claims().to_string().replacen('{', r#"{"role":"member","#, 1);
    let raw: Box<serde_json::value::RawValue> = serde_json::from_str(&payload).unwrap();
    let token = jsonwebtoken::encode(&key.header(), &raw, &key.private).unwrap();
    world.refusal(&token).await;
}

#[tokio::test]
async fn a_token_expires_by_our_clock() {
    let key = KeyPair::ed25519("k1");
    let world = World::new(&[&key]).await;
    let mut claims = world.claims();
    claims["exp"] = json!(world.clock.now().as_second() + 100);
    let token = key.sign(&claims);
    world.check(&token).await.unwrap();
    world.later(150);
    world.check(&token).await.unwrap();
    world.later(15);
    assert!(world.refusal(&token).await.contains("expired"));
}

#[tokio::test]
async fn forged_tokens_are_refused_and_bad_headers_before_any_key_lookup() {
    let key = KeyPair::new("k1", Algorithm::RS256);
    let world = World::new(&[&key]).await;
    let claims = world.claims();
    let payload = encoded(&claims);
    let headers = [
        json!({"alg": "none", "kid": "k1"}),
        json!({"alg": "None", "kid": "k1"}),
        json!({"alg": "HS256", "kid": "k1"}),
        json!({"alg": "rs256", "kid": "k1"}),
        json!({"alg": ["RS256"], "kid": "k1"}),
        json!({"kid": "k1"}),
        json!({"alg": "RS256", "kid": 1}),
        json!({"alg": "RS256", "kid": "k1", "jku": "https://evil.example/jwks"}),
        json!({"alg": "RS256", "kid": "k1", "x5u": "https://evil.example/cert"}),
        json!({"alg": "RS256", "kid": "k1", "jwk": key.public()}),
        json!({"alg": "RS256", "kid": "k1", "crit": ["exp"]}),
        json!({"alg": "RS256", "kid": "k1", "crit": []}),
        json!({"alg": "RS256", "kid": "k1", "crit": null}),
        json!({"alg": "RS256", "kid": "k1", "crit": ["b64"], "b64": false}),
        json!(["RS256"]),
    ];
    for header in &headers {
        for signature in ["", "AAAA"] {
            let token = format!("{}.{payload}.{signature}", encoded(header));
            world.refusal(&token).await;
        }
    }
    // A valid signature, and a header that names its own key.
    for change in [
        (|header: &mut Header| header.jku = Some("https://evil.example".to_owned())) as fn(&mut _),
        |header| header.x5u = Some("https://evil.example".to_owned()),
        |header| header.crit = Some(vec!["exp".to_owned()]),
    ] {
        let mut header = key.header();
        change(&mut header);
        world.refusal(&key.sign_with(&header, &claims)).await;
    }
    // HMAC with the public key as the secret.
    let public = key.public();
    for secret in [public["n"].as_str().unwrap(), &public.to_string()] {
        let header = Header { alg: Algorithm::HS256, ..key.header() };
        let secret = EncodingKey::from_secret(secret.as_bytes());
        let token = jsonwebtoken::encode(&header, &claims, &secret).unwrap();
        world.refusal(&token).await;
    }
    for text in ["x", "x.y", "..", "x.y.z", "a.b.c.d.e"] {
        world.refusal(text).await;
    }
    assert_eq!(world.issuer.requests(), 0);

    let token = key.sign(&claims);
    world.check(&token).await.unwrap();
    let [header, _, signature] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let mut changed = claims.clone();
    changed["account_id"] = "acct_2".into();
    let other = KeyPair::new("k1", Algorithm::RS256);
    for forged in [
        format!("{header}.{}.{signature}", encoded(&changed)),
        format!("{header}.{payload}.{}", &signature[..signature.len() - 4]),
        format!("{header}.{payload}."),
        format!("{header}.{payload}"),
        format!("{token}.{signature}"),
        format!("{token}="),
        other.sign(&claims),
    ] {
        world.refusal(&forged).await;
    }
    assert_eq!(world.issuer.requests(), 1);
}

#[tokio::test]
async fn the_token_comes_in_one_authorization_header() {
    let key = KeyPair::ed25519("k1");
    let world = World::new(&[&key]).await;
    let token = key.sign(&world.claims());
    let mut long = world.claims();
    long["padding"] = "x".repeat(8_200).into();
    let table: [(&[String], bool); 13] = [
        (&[format!("Bearer {token}")], true),
        (&[format!("bearer {token}")], true),
        (&[format!("BEARER   {token} ")], true),
        (&[], false),
        (&[format!("Bearer {token}"), format!("Bearer {token}")], false),
        (&[format!("Bearer {token}"), "Basic eDp5".to_owned()], false),
        (&[format!("Bearer {token}, Bearer {token}")], false),
        (&[format!("Basic {token}")], false),
        (std::slice::from_ref(&token), false),
        (&[format!("Bearer{token}")], false),
        (&["Bearer".to_owned()], false),
        (&["Bearer  ".to_owned()], false),
        (&[format!("Bearer {}", key.sign(&long))], false),
    ];
    for (at, (values, good)) in table.iter().enumerate() {
        let mut headers = HeaderMap::new();
        for value in *values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        let caller = world.identity.caller(&headers).await;
        assert_eq!(
            caller.map_err(|error| error.code()).err(),
            (!good).then_some(Code::InvalidToken),
            "row {at}"
        );
    }
    // No other header identifies the caller.
    let mut headers = HeaderMap::new();
    for name in ["cookie", "x-account-id", "x-forwarded-user", "proxy-authorization"] {
        headers.insert(name, HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
    }
    assert!(world.identity.caller(&headers).await.is_err());
    assert!(world.identity.ai_caller(&headers).await.is_err());
}

#[tokio::test]
async fn on_ai_routes_the_token_may_come_as_an_api_key() {
    let key = KeyPair::ed25519("k1");
    let world = World::new(&[&key]).await;
    let token = key.sign(&world.claims());
    let bearer = format!("Bearer {token}");
    let other = "another-token";
    let table: [(&[&str], &[&str], bool); 8] = [
        (&[], &[&token], true),
        (&[&bearer], &[], true),
        (&[&bearer], &[&token], true),
        (&[&bearer], &[other], false),
        (&["Bearer another-token"], &[&token], false),
        (&["Basic x"], &[&token], false),
        (&[], &[&token, &token], false),
        (&[], &[""], false),
    ];
    for (at, (authorizations, api_keys, good)) in table.iter().enumerate() {
        let mut headers = HeaderMap::new();
        for (name, values) in [(AUTHORIZATION, authorizations), (X_API_KEY, api_keys)] {
            for value in *values {
                headers.append(&name, HeaderValue::from_str(value).unwrap());
            }
        }
        assert_eq!(world.identity.ai_caller(&headers).await.is_ok(), *good, "row {at}");
    }
    let headers = HeaderMap::from_iter([(X_API_KEY, HeaderValue::from_str(&token).unwrap())]);
    assert!(world.identity.caller(&headers).await.is_err(), "not on other routes");
}

#[tokio::test]
async fn an_openrouter_key_sent_as_a_token_gets_a_helpful_error() {
    let world = World::new(&[&KeyPair::ed25519("k1")]).await;
    let refusal = world.refusal("sk-or-v1-0123456789abcdef").await;
    assert!(refusal.contains("OpenRouter API key"), "{refusal}");
    assert!(!refusal.contains("0123"), "{refusal}");
}

#[tokio::test]
async fn handlers_get_the_caller_and_refuse_members() {
    let key = KeyPair::ed25519("k1");
    let world = World::new(&[&key]).await;
    let routes = Router::new()
        .route(
            "/change",
            get(async |caller: Caller| {
                caller.require_owner()?;
                Ok::<_, ApiError>(caller.subject)
            }),
        )
        .with_state(world.identity.clone());
    let app = crate::app(routes, crate::Shape::Problem, &HttpSettings::default());
    let mut member = world.claims();
    member["role"] = "member".into();
    for (token, status) in [
        (Some(key.sign(&world.claims())), StatusCode::OK),
        (Some(key.sign(&member)), StatusCode::FORBIDDEN),
        (None, StatusCode::UNAUTHORIZED),
    ] {
        let mut request = http::Request::get("/change");
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Body::empty()).unwrap();
        let response = tower::ServiceExt::oneshot(app.clone(), request).await.unwrap();
        assert_eq!(response.status(), status);
    }
}
