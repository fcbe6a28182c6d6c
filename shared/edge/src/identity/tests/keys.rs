//! When the issuer's keys are fetched, and which ones are trusted.

use axum::response::IntoResponse as _;
use futures_util::future::join_all;
use http::StatusCode;
use http::header::RETRY_AFTER;
use jsonwebtoken::Header;
use serde_json::json;

use super::issuer::{KeyPair, World, check, encoded, identity};
use super::*;

#[tokio::test]
async fn a_token_without_kid_needs_the_issuers_only_key() {
    let one = KeyPair::ed25519("k1");
    let two = KeyPair::ed25519("k2");
    let world = World::new(&[&one]).await;
    let bare = Header::new(Algorithm::EdDSA);
    let token = one.sign_with(&bare, &world.claims());
    world.check(&token).await.unwrap();
    world.refusal(&two.sign_with(&bare, &world.claims())).await;

    let world = World::new(&[&one, &two]).await;
    world.refusal(&token).await;
    assert_eq!(world.issuer.requests(), 1);
}

#[tokio::test]
async fn an_unknown_kid_fetches_at_most_once_a_minute() {
    let key = KeyPair::ed25519("k1");
    let stranger = KeyPair::ed25519("stranger");
    let world = World::new(&[&key]).await;
    let (good, unknown) = (key.sign(&world.claims()), stranger.sign(&world.claims()));
    world.check(&good).await.unwrap();
    world.refusal(&unknown).await;
    assert_eq!(world.issuer.requests(), 1);
    world.later(61);
    world.check(&good).await.unwrap();
    assert_eq!(world.issuer.requests(), 1);
    join_all((0..10).map(|_| world.refusal(&unknown))).await;
    assert_eq!(world.issuer.requests(), 2);
    world.later(50);
    world.refusal(&unknown).await;
    assert_eq!(world.issuer.requests(), 2);
    world.later(11);
    world.refusal(&unknown).await;
    assert_eq!(world.issuer.requests(), 3);
}

#[tokio::test]
async fn keys_rotate() {
    let old = KeyPair::ed25519("old");
    let new = KeyPair::new("new", Algorithm::ES256);
    let world = World::new(&[&old]).await;
    let (by_old, by_new) = (old.sign(&world.claims()), new.sign(&world.claims()));
    world.check(&by_old).await.unwrap();
    world.issuer.publish(&[old.public(), new.public()]);
    world.later(61);
    world.check(&by_new).await.unwrap();
    world.check(&by_old).await.unwrap();
    assert_eq!(world.issuer.requests(), 2);
    // The old key is withdrawn: within the hour it is no longer trusted.
    world.issuer.publish(&[new.public()]);
    world.later(3_601);
    world.refusal(&by_old).await;
    world.check(&by_new).await.unwrap();
    assert_eq!(world.issuer.requests(), 3);
}

#[tokio::test]
async fn keys_are_kept_while_the_issuer_is_down() {
    let key = KeyPair::ed25519("k1");
    let world = World::new(&[&key]).await;
    let token = key.sign(&world.claims());
    world.check(&token).await.unwrap();
    let too_large = json!({"keys": [], "padding": "x".repeat(256 * 1024)}).to_string();
    for (status, body) in [
        (StatusCode::INTERNAL_SERVER_ERROR, ""),
        (StatusCode::FOUND, ""),
        (StatusCode::OK, "<html>"),
        (StatusCode::OK, r#"{"keys": "none"}"#),
        (StatusCode::OK, &too_large),
    ] {
        world.issuer.answer(status, body);
        world.later(3_601);
        let before = world.issuer.requests();
        // One attempt, and the next one only after a minute.
        for (seconds, requests) in [(0, 1), (50, 1), (11, 2)] {
            world.later(seconds);
            world.check(&token).await.unwrap();
            assert_eq!(world.issuer.requests(), before + requests, "{status} after {seconds} s");
        }
    }
    // The issuer is back.
    world.issuer.publish(&[key.public()]);
    world.later(61);
    world.check(&token).await.unwrap();
    let requests = world.issuer.requests();
    world.later(3_500);
    world.check(&token).await.unwrap();
    assert_eq!(world.issuer.requests(), requests);
}

#[tokio::test]
async fn an_issuer_that_was_never_up_is_retried() {
    let key = KeyPair::ed25519("k1");
    let world = World::new(&[&key]).await;
    world.issuer.answer(StatusCode::BAD_GATEWAY, "");
    let token = key.sign(&world.claims());
    let unavailable = async || {
        let error = world.check(&token).await.unwrap_err();
        assert_eq!(error.code(), Code::IdentityUnavailable);
        let response = error.into_response();
        assert_eq!(response.headers()[RETRY_AFTER], "1");
    };
    unavailable().await;
    join_all((0..5).map(|_| unavailable())).await;
    world.later(2);
    unavailable().await;
    // A token that is invalid under any key is refused anyway.
    world.refusal(&format!("{}.e30.", encoded(&json!({"alg": "none"})))).await;
    world.issuer.publish(&[key.public()]);
    world.later(2);
    world.check(&token).await.unwrap();

    // Nothing listens on the port.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let identity = identity(&format!("http://{address}/jwks"), &world.clock);
    let error = check(&identity, &token).await.unwrap_err();
    assert_eq!(error.code(), Code::IdentityUnavailable);
}

#[tokio::test]
async fn many_callers_fetch_once() {
    let key = KeyPair::ed25519("k1");
    let world = World::new(&[&key]).await;
    let token = key.sign(&world.claims());
    for caller in join_all((0..20).map(|_| world.check(&token))).await {
        caller.unwrap();
    }
    assert_eq!(world.issuer.requests(), 1);
}

#[tokio::test]
async fn only_the_request_that_refreshes_waits() {
    let key = KeyPair::ed25519("k1");
    let stranger = KeyPair::ed25519("stranger");
    let world = World::new(&[&key]).await;
    let token = key.sign(&world.claims());
    world.check(&token).await.unwrap();
    world.issuer.arrived.notified().await;

    world.issuer.open.send_replace(false);
    world.later(3_601);
    let mut refresh = std::pin::pin!(world.check(&token));
    let others = async {
        world.issuer.arrived.notified().await;
        for _ in 0..3 {
            world.check(&token).await.unwrap();
        }
    };
    tokio::select! {
        _ = &mut refresh => unreachable!("the others waited for the refresh"),
        () = others => {}
    }
    world.issuer.open.send_replace(true);
    refresh.await.unwrap();
    world.refusal(&stranger.sign(&world.claims())).await;
    assert_eq!(world.issuer.requests(), 2);
}

#[tokio::test]
async fn a_request_dropped_while_fetching_frees_the_lock() {
    let key = KeyPair::ed25519("k1");
    let world = World::new(&[&key]).await;
    let token = key.sign(&world.claims());
    world.issuer.open.send_replace(false);
    tokio::select! {
        _ = world.check(&token) => unreachable!("the issuer does not answer"),
        () = world.issuer.arrived.notified() => {}
    }
    world.issuer.open.send_replace(true);
    world.later(2);
    world.check(&token).await.unwrap();
}

#[tokio::test]
async fn a_token_expires_while_it_is_in_use() {
    let key = KeyPair::ed25519("k1");
    let world = World::new(&[&key]).await;
    let mut claims = world.claims();
    claims["exp"] = json!(world.clock.now().as_second() + 100);
    let token = key.sign(&claims);
    for seconds in [0, 100, 59] {
        world.later(seconds);
        world.check(&token).await.unwrap();
    }
    world.later(3);
    let refusal = world.refusal(&token).await;
    assert!(refusal.contains("expired"), "{refusal}");
}
