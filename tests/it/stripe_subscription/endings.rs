//! Subscriptions that end, and requests to end them that fail.

use super::*;

/// A refused request does not mean that a subscription is over.
#[tokio::test]
async fn a_subscription_that_cannot_be_cancelled_is_not_forgotten() {
    let world = bought().await;
    let subscription = subscription_of(&world).await;
    let stripe = world.stripe();
    stripe.schedule(id(&subscription), true);
    cancel(&world).await;
    world.tick_after(HOUR).await;
    assert_eq!(status(&world).await, "cancelling");
    assert_eq!(subscription_of(&world).await["status"], "active", "still active at Stripe");
    stripe.schedule(id(&subscription), false);
    world.tick_after(HOUR).await;
    assert_eq!(current(&world, &subscription)["cancel_at_period_end"], true);
}

/// A charge by a subscription that could not be updated is still applied.
#[tokio::test]
async fn a_subscription_that_could_not_be_updated_is_followed() {
    for is_over in [false, true] {
        let world = bought().await;
        world.tick_after(HOUR).await;
        let subscription = subscription_of(&world).await;
        let stripe = world.stripe();
        let set_scheduled = |scheduled| {
            stripe.schedule(id(&subscription), scheduled);
        };
        set_scheduled(true);
        cancel(&world).await;
        assert_eq!(subscribe(&world).await.status, 200);
        set_scheduled(false);
        stripe.webhooks.set_delivery(Delivery::Drop);
        world.wait_until_due().await;
        world.system.clock.advance(HOUR * 3);
        stripe.renew_due();
        if is_over {
            let path = format!("subscriptions/{}", id(&subscription));
            change_at_stripe(&world, Method::DELETE, &path, "").await;
        } else {
            set_scheduled(true);
        }
        world.tick_after(HOUR).await;
        world.tick_after(HOUR).await;
        let expected = if is_over { "cancelling" } else { "active" };
        assert_eq!(status(&world).await, expected);
        let account = world.system.account("acme").await;
        let paid = account.profile.add_on.last_paid().unwrap();
        assert_eq!((paid.number(), kept(&world)), (2, 2), "over: {is_over}");
    }
}

#[tokio::test]
async fn updates_stop_once_a_subscription_is_over() {
    let world = bought().await;
    // Events that arrived before their checkout have been applied.
    world.tick_after(HOUR).await;
    let subscription = subscription_of(&world).await;
    let stripe = world.stripe();
    stripe.schedule(id(&subscription), true);
    cancel(&world).await;
    stripe.webhooks.set_delivery(Delivery::Drop);
    let path = format!("subscriptions/{}", id(&subscription));
    change_at_stripe(&world, Method::DELETE, &path, "").await;
    world.tick_after(HOUR).await;
    let account = world.system.account("acme").await;
    assert_eq!(account.profile.billing.subscription, None);
    assert_eq!(status(&world).await, "cancelling");
}

/// Resuming is refused if the subscription turns out to be over. Here an upgrade cancelled it, and
/// the worker died before it could store that.
#[tokio::test]
async fn an_ended_subscription_is_not_resumed() {
    let world = bought().await;
    world.tick_after(HOUR).await;
    let subscription = subscription_of(&world).await;
    world.stripe().webhooks.set_delivery(Delivery::Drop);
    let path = format!("subscriptions/{}", id(&subscription));
    change_at_stripe(&world, Method::DELETE, &path, "").await;
    world.set("acme", json!({"plan": "enterprise"})).await;
    world.set("acme", json!({"plan": "standard"})).await;
    assert_eq!(status(&world).await, "cancelling");
    assert_eq!(subscribe(&world).await.code(), "already_subscribed");
    assert_eq!(status(&world).await, "cancelling");
    // The paid period stays, and afterwards the add-on can be bought again.
    assert!(world.owner("acme").card().await["add_on"]["paid_through"].is_string());
    world.tick_when_due().await;
    assert_eq!(status(&world).await, "ended");
    world.stripe().webhooks.set_delivery(Delivery::Immediate);
    pay(&world, Card::Succeeds).await;
    assert_eq!(status(&world).await, "active");
}

/// An invoice that Stripe itself gave up can no longer be paid.
#[tokio::test]
async fn an_invoice_stripe_gave_up_is_void() {
    let world = bought().await;
    let subscription = subscription_of(&world).await;
    set_card_of(&world, &subscription, Card::DeclinesSoftly);
    world.tick_when_due().await;
    let path = format!("subscriptions/{}", id(&subscription));
    change_at_stripe(&world, Method::DELETE, &path, "").await;
    assert_eq!(invoice(&world, &subscription)["status"], "void");
    world.tick_after(HOUR).await;
    assert_eq!(status(&world).await, "suspended");
}

/// Access does not end before Stripe confirms that nothing was paid.
#[tokio::test]
async fn the_end_of_grace_checks_with_stripe_first() {
    let world = bought().await;
    let subscription = subscription_of(&world).await;
    set_card_of(&world, &subscription, Card::DeclinesSoftly);
    world.tick_when_due().await;
    let invoice = invoice(&world, &subscription);
    let stripe = world.stripe();
    stripe.webhooks.set_delivery(Delivery::Drop);
    let worker = worker(&world, "provider");
    world.system.clock.advance(DAY * 7 + HOUR * 3);
    run_worker(&world, &worker).await;
    stripe.pay_open_invoice(id(&invoice), Card::Succeeds).unwrap();
    world.system.clock.advance(DAY);
    stripe.limit_rate(1, None);
    run_worker(&world, &worker).await;
    assert_eq!(status(&world).await, "past_due", "not known yet");
    world.system.clock.advance(HOUR);
    run_worker(&world, &worker).await;
    assert_eq!(status(&world).await, "active");
    assert_eq!(current(&world, &subscription)["status"], "active");
}

/// However late a customer pays while access ends, either the money counts or the payment is
/// refused.
#[tokio::test]
async fn a_payment_while_access_ends_counts() {
    let unpaid = async || {
        let world = bought().await;
        let subscription = subscription_of(&world).await;
        set_card_of(&world, &subscription, Card::DeclinesSoftly);
        world.tick_when_due().await;
        world.stripe().webhooks.set_delivery(Delivery::Drop);
        world.system.clock.advance(DAY * 9);
        world.wire.take();
        (world, subscription)
    };
    let (world, _) = unpaid().await;
    run_worker(&world, &worker(&world, "provider")).await;
    let requests = world.wire.take().len();
    let mut ends = BTreeSet::new();
    for place in 0..=requests {
        let (world, subscription) = unpaid().await;
        let worker = worker(&world, "provider");
        world.wire.die_after(place);
        run_worker(&world, &worker).await;
        world.wire.revive();
        let open = invoice(&world, &subscription);
        let paid = world.stripe().pay_open_invoice(id(&open), Card::Succeeds);
        for _ in 0..3 {
            world.system.clock.advance(HOUR);
            run_worker(&world, &worker).await;
        }
        let state = current(&world, &subscription)["status"].clone();
        let end = (status(&world).await, state, kept(&world));
        let expected = match (paid.is_ok(), end.0.as_str()) {
            (true, "active") => ("active", "active", 2),
            (true, _) => ("cancelling", "canceled", 2),
            (false, _) => ("suspended", "canceled", 1),
        };
        let expected = (expected.0.to_owned(), json!(expected.1), expected.2);
        assert_eq!(end, expected, "after {place} of {requests} requests");
        ends.insert(end.0);
    }
    assert_eq!(ends.len(), 2, "{ends:?}");
}

/// A leftover draft must not be collected.
#[tokio::test]
async fn a_draft_is_cancelled_with_its_subscription() {
    let world = bought().await;
    let subscription = subscription_of(&world).await;
    world.wait_until_due().await;
    let stripe = world.stripe();
    stripe.draft_renewal(id(&subscription)).unwrap();
    world.set("acme", json!({"plan": "enterprise"})).await;
    run_worker(&world, &worker(&world, "provider")).await;
    assert_eq!(current(&world, &subscription)["status"], "canceled");
    stripe.finalize_drafts();
    stripe.webhooks.until_delivered().await;
    assert_eq!(stripe.payments().len(), 1);
}
