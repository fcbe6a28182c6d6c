//! Attempts that fail for reasons other than a decline.

use std::collections::BTreeSet;

use super::*;
use crate::secrecy::log_of_this_thread;

/// A request that Stripe refuses is our fault, not a decline, and is repeated on the next attempt
/// day.
#[tokio::test]
async fn a_refused_request_is_not_a_decline() {
    for (path, status_code) in [("/confirm", 400), ("/confirm", 402), ("/payment_intents", 400)] {
        let (log, _guard) = log_of_this_thread();
        let world = bought().await;
        world.stripe().fail_next(path, status_code, 1);
        let at = format!("{status_code} from {path}");
        assert_eq!(world.tick_when_due().await["declined"], 0, "{at}");
        assert_eq!(status(&world).await, "active", "{at}");
        assert!(log.text().contains("charges_refused"), "{at}");
        assert_eq!(world.tick_after(SignedDuration::from_mins(10)).await["charged"], 0, "{at}");
        let report = world.tick_after(DAY).await;
        assert_eq!(report["charged"], 1, "{at}: {report}");
        assert_eq!((kept(&world), status(&world).await.as_str()), (2, "active"), "{at}");
    }
}

/// Whatever keeps Stripe from creating or confirming anything, access ends on day 8.
#[tokio::test]
async fn access_ends_on_day_8_if_nothing_can_be_charged() {
    let table = [
        ("/payment_intents", 400),
        ("/payment_intents", 409),
        ("/payment_intents", 429),
        ("/payment_intents", 500),
        ("/payment_intents", 503),
        ("/confirm", 400),
        ("/confirm", 503),
    ];
    for (path, status_code) in table {
        let world = bought().await;
        world.stripe().fail_next(path, status_code, 1_000);
        let at = format!("{status_code} from {path}");
        world.tick_when_due().await;
        for day in 0..8 {
            assert_eq!(status(&world).await, "active", "{at}, day {day}");
            assert_eq!(world.tick_after(DAY).await["charged"], 0, "{at}");
        }
        assert_eq!(status(&world).await, "suspended", "{at}");
        assert_eq!(kept(&world), 1, "{at}");
    }
}

/// Stripe replays a 500 under the same idempotency key for a day, so the charge uses another key.
#[tokio::test]
async fn a_replayed_500_does_not_stop_a_charge() {
    for path in ["/payment_intents", "/confirm"] {
        let world = bought().await;
        world.stripe().fail_next(path, 500, 1);
        world.tick_when_due().await;
        let mut charged = 0;
        for _ in 0..6 {
            let report = world.tick_after(SignedDuration::from_mins(15)).await;
            charged += report["charged"].as_u64().unwrap();
        }
        assert_eq!((charged, kept(&world)), (1, 2), "{path}");
        assert_eq!(status(&world).await, "active");
        assert_eq!(world.stripe().payable(), [""; 0], "{path}");
    }
}

/// The user never saw a session whose creation failed, so another one is created at once.
#[tokio::test]
async fn a_session_whose_creation_failed_is_created_again_at_once() {
    let routes = [(ROUTE, ""), ("/v1/credits/checkout", r#"{"usd":"5"}"#), (CARD_ROUTE, "")];
    for (route, body) in routes {
        for status_code in [500, 503, 400] {
            let world = World::start().await;
            let add_on = if route == CARD_ROUTE { "active" } else { "none" };
            world.set("acme", json!({"add_on": add_on})).await;
            let stripe = world.stripe();
            let at = format!("{status_code} for {route}");
            let click = async || {
                let owner = world.owner("acme");
                world.send(owner.request(Method::POST, route).body(body)).await
            };
            stripe.fail_next("/checkout/sessions", status_code, 1);
            let opened = click().await;
            assert_eq!(opened.status, 200, "{at}: {}", opened.text());
            let keys = || {
                let seen = stripe.seen().into_iter();
                let created = seen.filter(|it| it.path.ends_with("/checkout/sessions"));
                created.filter_map(|it| it.idempotency_key).collect::<BTreeSet<_>>().len()
            };
            assert_eq!(keys(), 2, "{at}");
            if route == ROUTE {
                stripe.pay(&session_of(&opened), Card::Succeeds).unwrap();
                stripe.webhooks.until_delivered().await;
                assert_eq!(status(&world).await, "active", "{at}");
                continue;
            }
            // If that fails too, the next click starts over.
            stripe.fail_next("/checkout/sessions", status_code, 2);
            let refused = click().await;
            assert_eq!(refused.error(), (502, "payment_provider_unavailable".to_owned()), "{at}");
            assert!(!refused.text().contains("charged"), "{at}: {}", refused.text());
            assert_eq!(click().await.status, 200, "{at}");
        }
    }
}

#[tokio::test]
async fn an_add_on_session_is_created_under_a_new_key_at_the_next_click() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    world.stripe().fail_next("/checkout/sessions", 500, 2);
    let refused = subscribe(&world).await;
    assert_eq!(refused.error(), (502, "payment_provider_unavailable".to_owned()));
    let session_id = session(&world).await;
    assert_eq!(session(&world).await, session_id, "an open session is reused");
    assert_eq!(world.stripe().payable(), [session_id]);
}

/// Stripe also replays a 500 for creating a customer.
#[tokio::test]
async fn a_customer_whose_creation_failed_is_created_at_the_next_click() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    world.stripe().fail_next("/customers", 500, 1);
    let refused = subscribe(&world).await;
    assert_eq!(refused.error(), (502, "payment_provider_unavailable".to_owned()));
    pay(&world, Card::Succeeds).await;
    assert_eq!(status(&world).await, "active");
}

#[tokio::test]
async fn an_amount_is_digits_and_a_fraction() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let owner = world.owner("acme");
    for wrong in ["1e2", "1E2", "0.5e1", "+5", "-5", " 5", "5 ", "5.", ".5", "5,00", "0x10", ""] {
        let body = json!({ "usd": wrong });
        let reply = owner.call(Method::POST, "/v1/credits/checkout", &body).await;
        assert_eq!(reply.error(), (400, "invalid_request".to_owned()), "{wrong:?}");
        assert!(reply.json()["detail"].as_str().unwrap().contains("`usd`"), "{wrong:?}");
    }
    for right in ["5", "05.0", "12.34", "1000.00"] {
        let body = json!({ "usd": right });
        let reply = owner.call(Method::POST, "/v1/credits/checkout", &body).await;
        assert_eq!(reply.status, 200, "{right:?}: {}", reply.text());
    }
}
