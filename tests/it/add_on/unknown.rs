//! A charge that is interrupted, or whose outcome is unknown, is still made once.

use std::collections::BTreeSet;

use super::*;

/// The charge took place and its response was lost: it is looked up, not repeated.
#[tokio::test]
async fn an_unknown_outcome_is_looked_up() {
    for (card, kept_after) in [(Card::TimesOutAfterCharging, 2), (Card::TimesOutBeforeCharging, 2)]
    {
        let world = bought().await;
        world.stripe().script(&customer(&world), &[card]);
        // Without events, only the look-up can find the outcome.
        world.stripe().webhooks.set_delivery(Delivery::Drop);
        let report = world.tick_when_due().await;
        assert_eq!((&report["charged"], &report["unknown"]), (&json!(0), &json!(1)), "{card:?}");
        let report = world.tick_after(SignedDuration::from_mins(6)).await;
        assert_eq!(report["charged"], 1, "{card:?}: {report}");
        assert_eq!(kept(&world), kept_after);
        assert_eq!(status(&world).await, "active");
    }
}

/// The cached API key is read again once Stripe rejects it.
#[tokio::test]
async fn a_rolled_api_key_is_read_at_the_next_call() {
    let world = bought().await;
    assert_eq!(world.tick_when_due().await["charged"], 1);
    world.stripe().set_api_key("sk_test_rolled");
    let secrets = world.engines().secrets();
    let put = secrets.put_secret_value().secret_id("greta/stripe-api");
    put.secret_string("sk_test_rolled").send().await.unwrap();
    assert_eq!(world.tick_when_due().await["charged"], 0);
    let report = world.tick_after(LEASE * 2).await;
    assert_eq!(report["charged"], 1, "{report}");
    assert_eq!(kept(&world), 3);
}

/// From the second attempt on, the PaymentIntent's status does not show whether the attempt
/// arrived: it is repeated under the same number.
#[tokio::test]
async fn a_later_attempt_with_unknown_outcome_keeps_its_number() {
    let cases = [
        (Card::TimesOutBeforeCharging, 1, 0),
        (Card::TimesOutAfterDeclining, 0, 1),
        (Card::TimesOutAfterCharging, 1, 0),
    ];
    for (card, charged, declined) in cases {
        let world = bought().await;
        let script = [Card::DeclinesSoftly, card, Card::Succeeds];
        world.stripe().script(&customer(&world), &script);
        world.stripe().webhooks.set_delivery(Delivery::Drop);
        assert_eq!(world.tick_when_due().await["declined"], 1);
        assert_eq!(world.tick_after(DAY).await["unknown"], 1, "{card:?}");
        let report = world.tick_after(LEASE * 2).await;
        assert_eq!(
            (&report["charged"], &report["declined"]),
            (&json!(charged), &json!(declined)),
            "{card:?}: {report}"
        );
        let confirmed = |requests: Vec<ApiRequest>| {
            let confirms = requests.into_iter().filter(|it| it.path.ends_with("/confirm"));
            confirms.filter_map(|it| it.idempotency_key).collect::<BTreeSet<_>>().len()
        };
        assert_eq!(confirmed(world.stripe().seen()), 2, "{card:?}: two attempts");
        world.tick_after(DAY * 3).await;
        assert_eq!(kept(&world), 2, "{card:?}");
        assert_eq!(status(&world).await, "active");
    }
}
