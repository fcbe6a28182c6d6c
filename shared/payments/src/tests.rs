//! Tests the client against a small server that sends the test's replies and records requests.

mod requests;
mod secrets;
mod server;

use std::time::Duration;

use account::AccountNumber;
use http::StatusCode;
use keyvault::Vault;
use serde_json::{Value, json};
use url::Url;

use super::*;
use crate::client::MAX_BODY;
use server::{Reply, Server};

const KEY: &str = "sk_test_4eC39HqLyjWDarjtT1zdp7dc";

fn client(base: &str) -> Stripe {
    client_with_key(base, KEY)
}

fn client_with_key(base: &str, key: &str) -> Stripe {
    let http = edge::http_client(Duration::from_millis(500)).unwrap();
    let vault = Vault::new(secrets::with(key), "");
    let mut stripe = Stripe::new(http, &base.parse().unwrap(), vault, "stripe".to_owned());
    stripe.call_time = Duration::from_secs(1);
    stripe
}

fn pi() -> IntentId {
    IntentId::new("pi_1").unwrap()
}

fn pm() -> PaymentMethodId {
    PaymentMethodId::new("pm_1").unwrap()
}

fn cs() -> SessionId {
    SessionId::new("cs_test_1").unwrap()
}

fn sub() -> SubscriptionId {
    SubscriptionId::new("sub_1").unwrap()
}

fn intent_in(status: &str) -> Value {
    json!({"id": "pi_1", "object": "payment_intent", "amount": 500, "currency": "usd",
        "status": status})
}

/// An error as Stripe writes it, with a message that may contain input.
fn error(status: u16, code: &str) -> Reply {
    let error = json!({"type": "invalid_request_error", "code": code, "param": "thing",
        "message": "No such thing: 'someone@example.com'"});
    Reply::json(status, &json!({"error": error}))
}

async fn confirm(server: &Server) -> Result<PaymentIntent, PaymentError> {
    client(&server.base).confirm_intent(&pi(), &pm(), "n_17/g/1/1").await
}

/// The distinction that callers make.
fn class(error: &PaymentError) -> &'static str {
    match error {
        PaymentError::Key(_) => "no key",
        PaymentError::NotSent(_) => "not sent",
        PaymentError::Unknown(_) => "unknown",
        PaymentError::RateLimited { .. } => "rate limited",
        PaymentError::Unauthorized => "unauthorized",
        PaymentError::Missing { .. } => "missing",
        PaymentError::Refused { .. } => "refused",
    }
}

#[tokio::test]
async fn each_response_has_one_meaning() {
    let not_stripe = |status| Reply::raw(status, "<html>someone@example.com</html>");
    let kind_only = |status, kind: &str| {
        Reply::json(status, &json!({"error": {"type": kind, "message": "no"}}))
    };
    let table = [
        (error(400, "parameter_missing"), "refused"),
        (error(400, "resource_missing"), "missing"),
        (kind_only(400, "invalid_request_error"), "refused"),
        (kind_only(400, "idempotency_error"), "unknown"),
        (not_stripe(400), "unknown"),
        (kind_only(402, "invalid_request_error"), "refused"),
        (error(401, "api_key_expired"), "unauthorized"),
        (not_stripe(401), "unauthorized"),
        (error(403, "forbidden"), "unauthorized"),
        (error(404, "resource_missing"), "missing"),
        (kind_only(404, "invalid_request_error"), "missing"),
        (not_stripe(404), "unknown"),
        (not_stripe(402), "unknown"),
        (error(408, "timeout"), "unknown"),
        (error(409, "idempotency_key_in_use"), "unknown"),
        (error(409, "lock_timeout"), "unknown"),
        (error(424, "external"), "unknown"),
        (error(429, "rate_limit"), "rate limited"),
        (not_stripe(429), "rate limited"),
        (error(429, "lock_timeout"), "unknown"),
        (error(500, "api_error"), "unknown"),
        (not_stripe(503), "unknown"),
        (not_stripe(302), "unknown"),
        (Reply::raw(200, "<html>"), "unknown"),
        (Reply::raw(200, "{}"), "unknown"),
        (Reply::raw(200, r#"{"id":"../x"}"#), "unknown"),
        (Reply::raw(200, &" ".repeat(MAX_BODY + 1)), "unknown"),
        (Reply::truncated(200, r#"{"id":"pi_1"}"#), "unknown"),
        (Reply::truncated(400, r#"{"error":{}}"#), "unknown"),
        (Reply::Close, "unknown"),
        (Reply::Silence, "unknown"),
    ];
    for (reply, expected) in table {
        let name = format!("{reply:?}").chars().take(200).collect::<String>();
        let server = Server::start(vec![reply]);
        let error = confirm(&server).await.unwrap_err();
        assert_eq!(class(&error), expected, "{name}");
        let in_use = name.contains("idempotency_key_in_use");
        assert_eq!(error.is_in_progress(), in_use, "{name}");
        assert_eq!(server.requests().len(), 1, "sent once: {name}");
        let text = format!("{error} {error:?}");
        assert!(!text.contains(KEY), "{text}");
        assert!(!text.contains("someone@example.com"), "{text}");
        assert!(!text.contains("payment_intents"), "no URL: {text}");
    }
}

#[tokio::test]
async fn refusals_have_a_code_and_rate_limits_a_wait() {
    let server = Server::start(vec![
        error(400, "amount_too_small"),
        error(429, "rate_limit").with("Retry-After", "7"),
        error(404, "resource_missing"),
    ]);
    let refused = confirm(&server).await.unwrap_err();
    let PaymentError::Refused { status, code, param } = refused else { panic!("{refused}") };
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!((code, param), (Some("amount_too_small"), Some("other")));
    let limited = confirm(&server).await.unwrap_err();
    let PaymentError::RateLimited { retry_after } = limited else { panic!("{limited}") };
    assert_eq!(retry_after, Some(Duration::from_secs(7)));
    let missing = confirm(&server).await.unwrap_err();
    let PaymentError::Missing { param } = missing else { panic!("{missing}") };
    assert_eq!(param, Some("other"));
}

/// Only a call with another idempotency key can succeed.
#[tokio::test]
async fn a_key_that_replays_a_failure_is_spent() {
    let replayed = |reply: Reply| reply.with("Idempotent-Replayed", "true");
    let reused = json!({"error": {"type": "idempotency_error", "message": "no"}});
    let table = [
        (error(500, "api_error"), false),
        (replayed(error(500, "api_error")), true),
        (Reply::json(400, &reused), true),
        (replayed(error(400, "resource_missing")), false),
        (error(409, "idempotency_key_in_use"), false),
        (Reply::Close, false),
    ];
    for (reply, spent) in table {
        let name = format!("{reply:?}");
        let server = Server::start(vec![reply]);
        assert_eq!(confirm(&server).await.unwrap_err().is_idempotency_key_spent(), spent, "{name}");
    }
}

#[tokio::test]
async fn without_a_connection_nothing_was_sent() {
    let closed = format!("http://127.0.0.1:{}", server::closed_port());
    // Neither speaks TLS: the handshake fails, or never ends.
    let plain = Server::start(vec![Reply::raw(200, "{}")]);
    let silent = Server::start(vec![Reply::Silence]);
    let with_tls = |server: &Server| server.base.replace("http:", "https:");
    for base in [closed, with_tls(&plain), with_tls(&silent)] {
        let error = client(&base).refund(&pi(), "k").await.unwrap_err();
        assert_eq!(class(&error), "not sent", "{base} {error:?}");
    }
    let server = Server::start(vec![Reply::raw(200, "{}")]);
    let stripe = client(&server.base);
    let error = stripe.refund(&pi(), "not\na header").await.unwrap_err();
    assert_eq!(class(&error), "not sent");
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn a_kept_connection_that_dies_leaves_the_outcome_unknown() {
    let server =
        Server::start(vec![Reply::json(200, &intent_in("requires_confirmation")), Reply::Close]);
    let stripe = client(&server.base);
    stripe.intent(&pi()).await.unwrap();
    let error = stripe.confirm_intent(&pi(), &pm(), "k").await;
    assert_eq!(class(&error.unwrap_err()), "unknown");
    assert_eq!(server.requests().len(), 2, "not sent again");
}

#[tokio::test]
async fn a_key_that_is_not_a_valid_header_is_not_sent() {
    let server = Server::start(vec![error(401, "none")]);
    let stripe = client_with_key(&server.base, "a\nb");
    let error = stripe.intent(&pi()).await.unwrap_err();
    assert_eq!(class(&error), "unauthorized");
    assert_eq!(server.requests()[0].header("authorization"), None);
}

#[tokio::test]
async fn a_successful_charge_has_a_time() {
    let mut intent = intent_in("succeeded");
    intent["amount_received"] = json!(500);
    intent["latest_charge"] =
        json!({"id": "ch_1", "created": 1_780_000_000, "status": "succeeded"});
    let mut failed = intent_in("requires_payment_method");
    failed["latest_charge"] = json!({"id": "ch_1", "created": 1_780_000_000, "status": "failed"});
    let server = Server::start(vec![Reply::json(200, &intent), Reply::json(200, &failed)]);
    let read = confirm(&server).await.unwrap();
    assert_eq!(read.status, IntentStatus::Succeeded);
    assert_eq!(read.amount_received, Some(Cents::new(500)));
    assert_eq!(read.paid_at, jiff::Timestamp::from_second(1_780_000_000).ok());
    assert_eq!(confirm(&server).await.unwrap().paid_at, None);
}

#[tokio::test]
async fn a_decline_is_a_result() {
    let card_error = |code: &str, intent: Value| {
        let error = json!({"type": "card_error", "code": "card_declined", "decline_code": code,
            "charge": "ch_1", "payment_intent": intent});
        json!({ "error": error })
    };
    let failed = intent_in("requires_payment_method");
    let mut with_reason = failed.clone();
    with_reason["last_payment_error"] =
        json!({"type": "card_error", "code": "card_declined", "decline_code": "lost_card"});
    // (status, response, look-up that is needed) → (hard, needs authentication)
    let table = [
        (402, card_error("generic_decline", with_reason), None, (true, false)),
        (402, card_error("insufficient_funds", failed.clone()), None, (false, false)),
        (402, card_error("authentication_required", failed.clone()), None, (false, true)),
        (402, card_error("stolen_card", Value::Null), Some(failed.clone()), (true, false)),
        (
            402,
            card_error("stolen_card", json!({"id": "pi_2"})),
            Some(failed.clone()),
            (true, false),
        ),
        (400, card_error("expired_card", failed.clone()), None, (true, false)),
    ];
    for (status, answer, look_up, expected) in table {
        let requests = 1 + usize::from(look_up.is_some());
        let mut replies = vec![Reply::json(status, &answer)];
        replies.extend(look_up.map(|intent| Reply::json(200, &intent)));
        let server = Server::start(replies);
        let intent = confirm(&server).await.unwrap();
        assert_eq!(intent.status, IntentStatus::RequiresPaymentMethod);
        let decline = intent.decline.unwrap();
        let found = (decline.hard, decline.needs_authentication);
        assert_eq!(found, expected, "{answer}");
        assert_eq!(server.requests().len(), requests, "{answer}");
    }
}

/// The object's state is the result; if the state is not known, the outcome is unknown.
#[tokio::test]
async fn a_call_refused_for_an_objects_state_looks_it_up() {
    let unexpected = || error(400, "payment_intent_unexpected_state");
    let no_code = || {
        let message = "Only Checkout Sessions with a status in [\"open\"] can be expired.";
        let error = json!({"type": "invalid_request_error", "message": message});
        Reply::json(400, &json!({"error": error}))
    };
    let server = Server::start(vec![unexpected(), Reply::json(200, &intent_in("succeeded"))]);
    let intent = confirm(&server).await.unwrap();
    assert_eq!(intent.status, IntentStatus::Succeeded);
    let server = Server::start(vec![unexpected(), Reply::json(200, &intent_in("succeeded"))]);
    let intent = client(&server.base).cancel_intent(&pi()).await;
    assert_eq!(intent.unwrap().status, IntentStatus::Succeeded);
    let session = json!({"id": "cs_test_1", "status": "complete", "payment_status": "paid"});
    let server = Server::start(vec![no_code(), Reply::json(200, &session)]);
    let session = client(&server.base).expire_session(&cs()).await;
    assert!(session.unwrap().paid);

    for look_up in [Reply::Close, error(429, "rate_limit"), error(401, "x"), error(404, "x")] {
        let server = Server::start(vec![unexpected(), look_up.clone()]);
        let error = confirm(&server).await.unwrap_err();
        assert_eq!(class(&error), "unknown", "{look_up:?}");
        let server = Server::start(vec![unexpected(), look_up.clone()]);
        let error = client(&server.base).cancel_intent(&pi()).await;
        assert_eq!(class(&error.unwrap_err()), "unknown", "{look_up:?}");
        let server = Server::start(vec![no_code(), look_up.clone()]);
        let error = client(&server.base).expire_session(&cs()).await;
        assert_eq!(class(&error.unwrap_err()), "unknown", "{look_up:?}");
    }
}

#[tokio::test]
async fn repeating_a_completed_call_succeeds() {
    let refund = |status: &str| Reply::json(200, &json!({"id": "re_1", "status": status}));
    let table = [
        (refund("succeeded"), Some(Refund::Made)),
        (refund("requires_action"), Some(Refund::Made)),
        (refund("failed"), Some(Refund::Failed)),
        (refund("odd"), None),
        (error(400, "charge_already_refunded"), Some(Refund::AlreadyMade)),
        (error(400, "charge_disputed"), None),
    ];
    for (reply, expected) in table {
        let name = format!("{reply:?}");
        let server = Server::start(vec![reply]);
        let refund = client(&server.base).refund(&pi(), "k").await;
        assert_eq!(refund.ok(), expected, "{name}");
    }
    let in_status = |status: &str| Reply::json(200, &json!({"id": "sub_1", "status": status}));
    let table = [
        (vec![in_status("canceled")], "done"),
        (vec![error(404, "resource_missing")], "done"),
        (vec![error(400, "x"), in_status("canceled")], "done"),
        (vec![error(400, "x"), in_status("incomplete_expired")], "done"),
        (vec![error(400, "x"), in_status("active")], "refused"),
        (vec![error(400, "x"), Reply::Close], "unknown"),
        (vec![error(500, "x")], "unknown"),
    ];
    for (replies, expected) in table {
        let name = format!("{replies:?}");
        let server = Server::start(replies);
        let ended = client(&server.base).cancel_subscription(&sub()).await;
        let found = ended.as_ref().map_or_else(class, |()| "done");
        assert_eq!(found, expected, "{name}");
    }
    // An invoice that cannot be voided was paid, or its outcome is unknown.
    let paid = json!({"id": "in_1", "status": "paid"});
    let table = [
        (vec![error(400, "x"), Reply::json(200, &paid)], "paid"),
        (vec![error(400, "x"), Reply::Close], "unknown"),
    ];
    for (replies, expected) in table {
        let server = Server::start(replies);
        let invoice = InvoiceId::new("in_1").unwrap();
        let void = client(&server.base).void_invoice(&invoice).await;
        let found = void.as_ref().map_or_else(class, |found| {
            assert_eq!(found.status, InvoiceStatus::Paid);
            "paid"
        });
        assert_eq!(found, expected);
    }
    let unfinished = json!({"id": "seti_1", "status": "requires_action", "payment_method": "pm_1"});
    let server = Server::start(vec![Reply::json(200, &unfinished)]);
    let seti = SetupIntentId::new("seti_1").unwrap();
    let card = client(&server.base).setup_intent(&seti).await;
    assert_eq!(card.unwrap(), None);
}
