//! Billing stops for months: the missed periods are waived.

use account::add_on::GenerationId;
use account::{AccountNumber, Period, Profile};
use aws_sdk_dynamodb::types::AttributeValue::S;
use local::stripe::Delivery;
use store::{Outcome, PaymentOrder, Purchase};

use crate::add_on::{DAY, bought, kept, status};
use crate::support::World;

fn p(number: u32) -> Period {
    Period::new(number).unwrap()
}

impl World {
    /// The charge records of a generation: each period with its facts.
    pub(crate) async fn charges(&self, account: &AccountNumber, generation: &str) -> Vec<String> {
        let query = self.engines().dynamodb().query();
        let found = query
            .table_name(&self.system.tables.charges)
            .key_condition_expression("account_number = :account AND begins_with(charge, :of)")
            .expression_attribute_values(":account", S(account.to_string()))
            .expression_attribute_values(":of", S(format!("{generation}#")))
            .send();
        let rows = found.await.unwrap().items.unwrap();
        let charges = rows.iter().map(|row| {
            let (_, period) = row["charge"].as_s().unwrap().rsplit_once('#').unwrap();
            let facts = ["waived_at", "paid_by"].into_iter();
            let facts: Vec<_> = facts.filter(|fact| row.contains_key(*fact)).collect();
            format!("{period} {}", facts.join(" "))
        });
        charges.collect()
    }
}

#[tokio::test]
async fn after_an_outage_the_current_period_is_charged_and_missed_ones_are_waived() {
    let world = bought().await;
    // In the fourth month after the paid one.
    assert_eq!(world.tick_after(DAY * 125).await["charged"], 1);
    let account = world.system.account("acme").await;
    let generation = account.profile.add_on.generation().unwrap().as_str();
    let records =
        ["0001 paid_by", "0002 waived_at", "0003 waived_at", "0004 waived_at", "0005 paid_by"];
    assert_eq!(world.charges(&account.number, generation).await, records);
    let store = world.store_over_the_wire();
    let waivers = || async {
        let history = store.ledger.history(&account.number, 10).await.unwrap();
        let waivers = history.into_iter().map(|entry| (entry.actor, entry.what));
        let waived = waivers.filter(|(_, what)| what.contains("waived"));
        waived.collect::<Vec<_>>()
    };
    let expected = [(
        "monthly-charge".to_owned(),
        "add-on: periods 2 to 4 were missed, and are waived".to_owned(),
    )];
    assert_eq!(waivers().await, expected);
    // None of it repeats.
    world.stripe().webhooks.until_delivered().await;
    assert_eq!(world.tick_after(DAY).await["charged"], 0);
    assert_eq!(world.tick_when_due().await["charged"], 1);
    assert_eq!(waivers().await, expected);
    assert_eq!((kept(&world), status(&world).await.as_str()), (3, "active"));
}

/// A waived period is never charged again. A late payment for one counts, unless a later period is
/// paid.
#[tokio::test]
async fn a_payment_for_a_waived_period_still_counts() {
    let world = bought().await;
    world.stripe().webhooks.set_delivery(Delivery::Drop);
    // The charge begins and gets no further.
    world.stripe().limit_rate(1, None);
    assert_eq!(world.tick_after(DAY * 125).await["charged"], 0);
    let account = world.system.account("acme").await;
    let generation = account.profile.add_on.generation().unwrap();
    let store = world.store_over_the_wire();
    let apply_payment = async |object: &str, period: Period| {
        let purchase = Purchase::Period { generation: generation.clone(), period };
        let order = PaymentOrder {
            stripe_id: object.to_owned(),
            account_number: account.number.clone(),
            purchase,
            amount_cents: 500,
            created_at: account.created_at,
        };
        store.payments.create_order(&order).await.unwrap();
        let judge = |_: &PaymentOrder, profile: &mut Profile| {
            let owed = billing::period_paid(profile, generation, period, object);
            (owed, Vec::new())
        };
        let now = world.system.clock.now();
        let applied = store.payments.apply(object, now, judge).await.unwrap();
        applied.unwrap().outcome
    };
    assert_eq!(apply_payment("pi_of_3", p(3)).await, Outcome::Counted);
    assert_eq!(apply_payment("pi_of_2", p(2)).await, Outcome::RefundDue);
    let records = ["0001 paid_by", "0002 waived_at", "0003 waived_at paid_by", "0004 waived_at"];
    let name = GenerationId::as_str(generation);
    assert_eq!(world.charges(&account.number, name).await, records);
}
