//! The provider's events: many times over, in any order, about something else, or not what we asked for.

use super::*;

#[tokio::test]
async fn the_same_event_many_times_over_is_one() {
    let world = bought().await;
    world.tick_when_due().await;
    let provider = world.provider();
    provider.until_delivered().await;
    let before = world.owner("acme").card().await;
    for event in provider.events() {
        let again = (0..20).map(|_| provider.deliver(&event));
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

/// The whole history of an account, delivered backwards for the first time.
#[tokio::test]
async fn events_in_any_order_lead_to_the_same_state() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    world.provider().set_delivery(Delivery::Hold);
    let session = session(&world).await;
    world.provider().pay(&session, Card::Succeeds).unwrap();
    let intent = world.provider().payments()[0].intent.clone();
    let dispute = world.provider().dispute(&intent).unwrap();
    world.provider().close_dispute(&dispute, true).unwrap();
    deliver_again(&world, |events| events.reverse()).await;
    // What came before its payment comes up again.
    world.tick_after(SignedDuration::from_mins(6)).await;
    assert_eq!(status(&world).await, "active");
    deliver_again(&world, |_| ()).await;
    assert_eq!(status(&world).await, "active");
    assert_eq!(kept(&world), 1);
}

/// An event that cannot be applied when it comes is kept, and applied later.
#[tokio::test]
async fn an_event_that_cannot_be_applied_is_kept() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let session = session(&world).await;
    world.provider().set_delivery(Delivery::Hold);
    world.provider().pay(&session, Card::Succeeds).unwrap();
    // The look-up of the card fails.
    world.provider().limit_rate(1, None);
    for event in world.provider().take_held() {
        world.provider().deliver(&event).await.unwrap();
    }
    assert_eq!(status(&world).await, "none");
    let report = world.tick_after(SignedDuration::from_mins(6)).await;
    assert_eq!(report["errors"], 0);
    assert_eq!(status(&world).await, "active");
}

#[tokio::test]
async fn what_we_did_not_ask_for_changes_nothing() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let http = edge::http_client(std::time::Duration::from_secs(1)).unwrap();
    let vault = keyvault::Vault::new(world.engines().secrets(), "");
    let key_name = world.system.settings["STRIPE_API_SECRET"].clone();
    let base = world.provider().base_url().parse().unwrap();
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
    world.provider().pay(made.id.as_str(), Card::Succeeds).unwrap();
    world.provider().until_delivered().await;
    assert_eq!(status(&world).await, "none");
    assert_eq!(world.provider().payments()[0].refunded, 0, "it is not ours to give back");
}

/// A page of ours that was paid otherwise than we asked: it is kept with its reason, and people are told.
#[tokio::test]
async fn what_is_paid_otherwise_than_we_asked_changes_nothing() {
    let log = crate::secrecy::log();
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let page = session(&world).await;
    let provider = world.provider();
    provider.set_delivery(Delivery::Hold);
    provider.pay(&page, Card::Succeeds).unwrap();
    let held = provider.take_held();
    let paid = held.iter().find(|it| it.object == page).unwrap();
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
        assert_eq!(provider.deliver(&event).await.unwrap(), 204, "{reason}");
        let stored = world.system.store.inbox.get(&id).await.unwrap();
        let stored = stored.unwrap();
        assert_eq!(stored.state, EventState::Ignored);
        assert!(stored.reason.unwrap().contains(reason), "{reason}");
        assert_eq!(status(&world).await, "none", "{reason}");
        let logged = log.text();
        let mut told = logged.lines().filter(|line| line.contains(reason));
        let alarm = "a payment is not what we ordered";
        assert!(told.any(|line| line.contains(alarm)), "{reason}");
        assert!(logged.contains("payments_not_as_asked"));
    }
    // As it is, it pays.
    provider.deliver(paid).await.unwrap();
    assert_eq!(status(&world).await, "active");
}
