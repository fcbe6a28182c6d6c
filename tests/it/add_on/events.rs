//! Stripe's events: repeated, in any order, about something else, or not what we asked for.

use super::*;

#[tokio::test]
async fn a_repeated_event_counts_once() {
    let world = bought().await;
    world.tick_when_due().await;
    let stripe = world.stripe();
    stripe.webhooks.until_delivered().await;
    let before = world.owner("acme").card().await;
    for event in stripe.webhooks.events() {
        let again = (0..20).map(|_| stripe.webhooks.deliver(&event));
        for delivered in futures_util::future::join_all(again).await {
            delivered.unwrap();
        }
    }
    assert_eq!(world.owner("acme").card().await, before);
    assert_eq!(kept(&world), 2);
}

#[tokio::test]
async fn a_bad_signature_is_refused() {
    let world = World::start().await;
    let body = r#"{"id":"evt_1","type":"payment_intent.succeeded"}"#;
    for header in ["", "t=1,v1=00", "nonsense"] {
        let request = world.request(Method::POST, "/v1/webhooks/stripe");
        let request = request.header("stripe-signature", header).body(body);
        let reply = world.send(request).await;
        assert_eq!(reply.error(), (400, "invalid_signature".to_owned()), "{header}");
    }
}

/// An account's whole history, delivered in reverse.
#[tokio::test]
async fn events_in_any_order_lead_to_the_same_state() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    world.stripe().webhooks.set_delivery(Delivery::Hold);
    let session = session(&world).await;
    world.stripe().pay(&session, Card::Succeeds).unwrap();
    let intent = world.stripe().payments()[0].intent.clone();
    let dispute = world.stripe().dispute(&intent).unwrap();
    world.stripe().close_dispute(&dispute, true).unwrap();
    deliver_again(&world, |events| events.reverse()).await;
    // Events that arrived before their payment are retried.
    world.tick_after(SignedDuration::from_mins(6)).await;
    assert_eq!(status(&world).await, "active");
    deliver_again(&world, |_| ()).await;
    assert_eq!(status(&world).await, "active");
    assert_eq!(kept(&world), 1);
}

/// An event that cannot be applied on arrival is kept and applied later.
#[tokio::test]
async fn an_event_that_cannot_be_applied_is_kept() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let session = session(&world).await;
    world.stripe().webhooks.set_delivery(Delivery::Hold);
    world.stripe().pay(&session, Card::Succeeds).unwrap();
    // The look-up of the card fails.
    world.stripe().limit_rate(1, None);
    for event in world.stripe().webhooks.take_held() {
        world.stripe().webhooks.deliver(&event).await.unwrap();
    }
    assert_eq!(status(&world).await, "none");
    let report = world.tick_after(SignedDuration::from_mins(6)).await;
    assert_eq!(report["errors"], 0);
    assert_eq!(status(&world).await, "active");
}

#[tokio::test]
async fn payments_we_did_not_ask_for_change_nothing() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let http = edge::http_client(std::time::Duration::from_secs(1)).unwrap();
    let vault = keyvault::Vault::new(world.engines().secrets(), "");
    let key_name = world.system.settings["STRIPE_API_SECRET"].clone();
    let base = world.stripe().base_url().parse().unwrap();
    let stripe = payments::Stripe::new(http, &base, vault, key_name);
    let url = "https://greta.example/".parse().unwrap();
    let foreign = payments::NewSession {
        purpose: payments::Purpose::Payment {
            price: payments::Price {
                product: "Power your AI with OpenRouter \u{2013} $5 Add-on",
                amount: payments::Cents::new(500),
            },
            keep_card: false,
        },
        customer: None,
        success_url: &url,
        cancel_url: &url,
        client_reference_id: "acme",
        expires_at: world.system.clock.now() + DAY / 2,
    };
    let made = stripe.create_session(&foreign, "x").await.unwrap();
    world.stripe().pay(made.id.as_str(), Card::Succeeds).unwrap();
    world.stripe().webhooks.until_delivered().await;
    assert_eq!(status(&world).await, "none");
    assert_eq!(world.stripe().payments()[0].refunded, 0, "not ours to refund");
}

/// A Checkout Session of ours that was paid with other terms than we asked for: the event is kept
/// with its reason, and an alarm is logged.
#[tokio::test]
async fn payments_with_other_terms_than_ours_change_nothing() {
    let log = crate::secrecy::log();
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let session_id = session(&world).await;
    let stripe = world.stripe();
    stripe.webhooks.set_delivery(Delivery::Hold);
    stripe.pay(&session_id, Card::Succeeds).unwrap();
    let held = stripe.webhooks.take_held();
    let paid = held.iter().find(|it| it.object == session_id).unwrap();
    let table = [
        ("amount_total", json!(400), "another amount"),
        ("amount_total", json!(600), "another amount"),
        ("currency", json!("eur"), "another currency"),
        ("livemode", json!(true), "the other mode"),
    ];
    for (number, (name, value, reason)) in table.into_iter().enumerate() {
        let mut body: Value = serde_json::from_str(&paid.body).unwrap();
        let id = format!("evt_other_{number}");
        body["id"] = json!(id);
        body["data"]["object"][name] = value;
        let mut event = paid.clone();
        event.body = body.to_string();
        assert_eq!(stripe.webhooks.deliver(&event).await.unwrap(), 204, "{reason}");
        let stored = world.system.store.inbox.get(&id).await.unwrap();
        let stored = stored.unwrap();
        assert_eq!(stored.state, EventState::Ignored);
        assert!(stored.reason.unwrap().contains(reason), "{reason}");
        assert_eq!(status(&world).await, "none", "{reason}");
        let logged = log.text();
        let mut alarms = logged.lines().filter(|line| line.contains(reason));
        let alarm = "a payment is not what we ordered";
        assert!(alarms.any(|line| line.contains(alarm)), "{reason}");
        assert!(logged.contains("payments_not_as_asked"));
    }
    // With its original terms, it counts.
    stripe.webhooks.deliver(paid).await.unwrap();
    assert_eq!(status(&world).await, "active");
}
