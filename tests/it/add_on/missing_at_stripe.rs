//! Customers, cards, PaymentIntents and sessions that no longer exist at Stripe.

use super::*;

async fn replace_card(world: &World) -> Reply {
    let owner = world.owner("acme");
    world.send(owner.request(Method::POST, CARD_ROUTE)).await
}

/// A customer or its card was deleted in Stripe's dashboard: the user must add a card, which is
/// then charged.
#[tokio::test]
async fn an_account_whose_customer_or_card_is_gone_pays_with_a_new_card() {
    for gone in ["customer", "card"] {
        for by in ["a new card", "a purchase"] {
            let world = bought().await;
            let (stripe, old) = (world.stripe(), customer(&world));
            if gone == "customer" {
                stripe.delete_customer(&old);
            } else {
                let account = world.system.account("acme").await;
                stripe.detach(&account.profile.billing.payment_method().unwrap());
            }
            let at = format!("{gone}, {by}");
            let report = world.tick_when_due().await;
            assert_eq!((&report["charged"], &report["declined"]), (&json!(0), &json!(1)), "{at}");
            assert_eq!(status(&world).await, "past_due", "{at}");
            assert_eq!(world.tick_after(DAY).await["declined"], 0, "{at}: reported only once");
            let reply = if by == "a purchase" {
                subscribe(&world).await
            } else {
                replace_card(&world).await
            };
            stripe.pay(&session_of(&reply), Card::Succeeds).unwrap();
            stripe.webhooks.until_delivered().await;
            world.tick_after(SignedDuration::from_mins(5)).await;
            assert_eq!(status(&world).await, "active", "{at}");
            let payments = stripe.payments();
            let payers: Vec<_> = payments.iter().filter_map(|it| it.customer.clone()).collect();
            assert_eq!(payers.len(), 2, "{at}");
            assert_eq!(payers[1] == old, gone == "card", "{at}");
            // The next period is charged as usual.
            assert_eq!(world.tick_when_due().await["charged"], 1, "{at}");
            assert_eq!(kept(&world), 3, "{at}");
        }
    }
}

/// The customer is deleted after a decline: its PaymentIntent cannot be paid with the new card.
#[tokio::test]
async fn a_declined_payment_intent_of_a_deleted_customer_is_replaced() {
    let world = bought().await;
    let stripe = world.stripe();
    stripe.set_card(&customer(&world), Card::DeclinesSoftly);
    world.tick_when_due().await;
    assert_eq!(status(&world).await, "past_due");
    stripe.delete_customer(&customer(&world));
    let reply = replace_card(&world).await;
    stripe.pay(&session_of(&reply), Card::Succeeds).unwrap();
    stripe.webhooks.until_delivered().await;
    let report = world.tick_after(SignedDuration::from_mins(5)).await;
    assert_eq!(report["charged"], 1, "{report}");
    assert_eq!((kept(&world), status(&world).await.as_str()), (2, "active"));
    assert_eq!(stripe.payable(), [""; 0]);
}

/// Replacing the customer also drops its card.
#[tokio::test]
async fn a_deleted_customer_is_replaced_at_the_next_checkout() {
    let world = bought().await;
    let (stripe, old) = (world.stripe(), customer(&world));
    stripe.delete_customer(&old);
    let owner = world.owner("acme");
    let reply = owner.call(Method::POST, "/v1/credits/checkout", &json!({"usd": "5"})).await;
    stripe.pay(&session_of(&reply), Card::Succeeds).unwrap();
    stripe.webhooks.until_delivered().await;
    assert_eq!(world.settled_balance("acme").await, "50");
    let new = world.system.account("acme").await.profile.billing.customer.clone().unwrap();
    assert_ne!(new, old);
    // A card used to buy credits is not kept for the add-on: the user must add one.
    assert_eq!(world.tick_when_due().await["declined"], 1);
    assert_eq!(status(&world).await, "past_due");
}

#[tokio::test]
async fn a_payment_intent_that_is_gone_is_replaced() {
    let world = bought().await;
    let stripe = world.stripe();
    stripe.webhooks.set_delivery(Delivery::Drop);
    stripe.script(&customer(&world), &[Card::TimesOutBeforeCharging]);
    assert_eq!(world.tick_when_due().await["unknown"], 1);
    let account = world.system.account("acme").await;
    stripe.forget(&account.profile.billing.open_payments()[0]);
    let mut charged = 0;
    for _ in 0..2 {
        let report = world.tick_after(SignedDuration::from_mins(5)).await;
        charged += report["charged"].as_u64().unwrap();
    }
    assert_eq!((charged, kept(&world)), (1, 2));
    assert_eq!(status(&world).await, "active");
}

#[tokio::test]
async fn a_session_that_is_gone_is_replaced() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let first = session(&world).await;
    world.stripe().forget(&first);
    assert_ne!(session(&world).await, first);
}

/// Cleaning up a deleted account does not wait for PaymentIntents or sessions that are gone.
#[tokio::test]
async fn cleanup_of_a_deleted_account_skips_what_is_missing_at_stripe() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let session_id = session(&world).await;
    let number = world.system.account("acme").await.number;
    deleted(&world).await;
    world.stripe().forget(&session_id);
    for _ in 0..2 {
        assert_eq!(world.tick_after(DAY).await["errors"], 0);
    }
    let left = world.system.store.payments.left_open(&number).await.unwrap();
    assert_eq!(left, [""; 0]);
}
