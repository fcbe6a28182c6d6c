//! Periods that end before they are charged.

use super::*;

/// Time from the due date of the second period into the third.
const FIVE_WEEKS: SignedDuration = SignedDuration::from_hours(35 * 24);

impl World {
    /// The charge records of `acme`: each period with its facts.
    async fn records(&self) -> Vec<String> {
        let account = self.system.account("acme").await;
        let generation = account.profile.add_on.generation().unwrap();
        self.charges(&account.number, generation.as_str()).await
    }
}

#[tokio::test]
async fn an_attempt_that_stripe_did_not_carry_out_is_waived_with_its_period() {
    for path in ["/payment_intents", "/confirm"] {
        let world = bought().await;
        world.stripe().webhooks.set_delivery(Delivery::Drop);
        world.stripe().fail_next(path, 503, 1);
        assert_eq!(world.tick_when_due().await["charged"], 0, "{path}");
        let report = world.tick_after(FIVE_WEEKS).await;
        assert_eq!(report["charged"], 1, "{path}: {report}");
        assert_eq!(kept(&world), 2, "{path}");
        assert_eq!(world.records().await, ["0001 paid_by", "0002 waived_at", "0003 paid_by"]);
        assert_eq!(status(&world).await, "active");
        // The abandoned PaymentIntent can no longer be paid.
        assert_eq!(world.stripe().payable(), [""; 0], "{path}");
    }
}

/// The payment counts for its own period; the current period is due as well.
#[tokio::test]
async fn an_attempt_that_turns_out_to_have_succeeded_pays_its_own_period() {
    let world = bought().await;
    world.stripe().webhooks.set_delivery(Delivery::Drop);
    world.stripe().script(&customer(&world), &[Card::TimesOutAfterCharging]);
    assert_eq!(world.tick_when_due().await["unknown"], 1);
    let report = world.tick_after(FIVE_WEEKS).await;
    assert_eq!(report["charged"], 2, "{report}");
    assert_eq!(kept(&world), 3);
    assert_eq!(world.records().await, ["0001 paid_by", "0002 paid_by", "0003 paid_by"]);
}

/// A late buyer gets the current period.
#[tokio::test]
async fn a_period_that_has_ended_cannot_be_bought() {
    let world = bought().await;
    world.stripe().set_card(&customer(&world), Card::DeclinesSoftly);
    world.tick_when_due().await;
    assert_eq!(status(&world).await, "past_due");
    world.system.clock.advance(FIVE_WEEKS);
    pay(&world, Card::Succeeds).await;
    let card = world.owner("acme").card().await;
    assert_eq!(card["add_on"]["status"], "active");
    let paid_through: Timestamp = card["add_on"]["paid_through"].as_str().unwrap().parse().unwrap();
    assert!(paid_through > world.system.clock.now() + DAY * 27, "{paid_through}");
    assert_eq!(world.tick_after(DAY).await["charged"], 0);
    assert_eq!(kept(&world), 2);
}
