//! Simulates many accounts over months, with everything that can go wrong; all of it is 5,000
//! account-months.

use jiff::{SignedDuration, Timestamp};

use super::{Depth, depth, pick};
use crate::simulation::{
    Act, Collection, Life, Paid, Plan, Record, Scenario, What, die_everywhere, judge, run,
};

/// A run without violations.
async fn checked_run(plan: Plan) -> Record {
    let finished = Box::pin(run(plan)).await;
    let problems = judge(&finished.record);
    let about = finished.record.about(&problems);
    assert!(problems.is_empty(), "{plan:?}: {problems:#?}\n{about}");
    finished.record
}

/// Falsifies the record.
type Tampering = fn(&mut Record);

fn tampered(record: &Record, tampering: Tampering, expected: &str) {
    let mut record = record.clone();
    tampering(&mut record);
    let problems = judge(&record);
    let is_noticed = problems.iter().any(|problem| problem.contains(expected));
    assert!(is_noticed, "{expected}: {problems:#?}");
}

fn payment(record: &mut Record, is_it: fn(&Paid) -> bool) -> &mut Paid {
    record.payments.iter_mut().find(|paid| is_it(paid)).unwrap()
}

/// A charge that we made and did not refund.
fn charge(record: &mut Record) -> &mut Paid {
    payment(record, |paid| paid.ordered.is_some() && paid.refunded == 0)
}

/// A refunded second payment of a period. Added here, because the simulation rarely makes one.
fn refunded(record: &mut Record) -> &mut Paid {
    let charge = charge(record).clone();
    let again = Paid { object: "pi_again".to_owned(), refunded: charge.cents, ..charge };
    record.payments.push(again);
    assert_eq!(judge(record), [""; 0], "a refunded payment is no violation");
    record.payments.last_mut().unwrap()
}

/// A charge that Stripe's subscription made.
fn collected(record: &mut Record) -> &mut Paid {
    payment(record, |paid| paid.object.starts_with("in_") && paid.refunded == 0)
}

/// Records an act that was completed just before the payment began.
fn done_before(record: &mut Record, paid: fn(&mut Record) -> &mut Paid, what: What) {
    let paid = paid(record).clone();
    let mut lives = record.lives.iter_mut();
    let life = lives.find(|life| life.number == paid.account).unwrap();
    let at = paid.decided_at - SignedDuration::from_secs(1);
    life.acts.retain(|act| act.began < at || act.over.is_none());
    life.acts.push(Act { what, began: at, over: Some(at), answer: Some(200) });
}

fn flip_last(record: &mut Record, entitled: bool) {
    let end = record.ended_at;
    let seen = record.lives.iter_mut().flat_map(|life| &mut life.seen);
    let mut seen = seen.filter(|seen| seen.at == end && seen.entitled == entitled);
    seen.next().unwrap().entitled = !entitled;
}

/// The record is right, and the judge notices when it is falsified.
#[tokio::test]
async fn months_of_many_accounts() {
    let (accounts, months) = match depth() {
        Depth::Short => (24, 6),
        Depth::Bounded => (105, 24),
        Depth::All => (210, 24),
    };
    let plan = Plan { seed: 1, accounts, months, by_credits: 30, by_stripe: 30 };
    let record = checked_run(plan).await;
    let tamperings: [(Tampering, &str); 19] = [
        (|record| refunded(record).refunded = 0, "was kept and pays for nothing"),
        (|record| refunded(record).refunded = 100, "was partly refunded"),
        (|record| charge(record).refunded = 500, "was refunded and counts"),
        (
            |record| {
                let again = charge(record).clone();
                let object = "pi_again".to_owned();
                record.payments.push(Paid { object, ..again });
            },
            "was kept and pays for nothing",
        ),
        (|record| charge(record).cents = 400, "which paid nothing"),
        (|record| charge(record).at -= SignedDuration::from_hours(2000), "was paid early"),
        (|record| charge(record).decided_at = Timestamp::MAX, "was paid late"),
        (
            |record| charge(record).ordered = Some(("cs_other".to_owned(), 2)),
            "counts, but was ordered as",
        ),
        (
            |record| {
                let object = charge(record).object.clone();
                let claims = record.lives.iter_mut().flat_map(|life| &mut life.claims);
                let mut claims = claims.filter(|claim| claim.paid_by == object);
                claims.next().unwrap().period -= 1;
            },
            "are both paid",
        ),
        (|record| done_before(record, charge, What::Cancel), "cancelled at"),
        (|record| done_before(record, charge, What::Enterprise(1_000)), "when Enterprise"),
        (|record| collected(record).refunded = 500, "was refunded and counts"),
        (|record| done_before(record, collected, What::Cancel), "cancelled at"),
        (|record| done_before(record, collected, What::Enterprise(1_000)), "when Enterprise"),
        (|record| flip_last(record, true), "no access at"),
        (|record| flip_last(record, false), "access at"),
        (
            |record| {
                for life in &mut record.lives {
                    life.ledger.retain(|entry| entry.kind != "add_on");
                }
            },
            "which paid nothing",
        ),
        (
            |record| {
                let paid_in_credits =
                    |life: &&mut Life| life.ledger.iter().any(|entry| entry.kind == "add_on");
                let life = record.lives.iter_mut().find(paid_in_credits);
                life.unwrap().claims.clear();
            },
            "pays 0 periods",
        ),
        (
            |record| {
                let lives = record.lives.iter_mut();
                lives.for_each(|life| life.balance -= 1);
            },
            "micro-credits instead of",
        ),
    ];
    for (tampering, expected) in tamperings {
        tampered(&record, tampering, expected);
    }
}

/// Each scenario has at least this many steps: fewer would mean that the deaths hit the wrong
/// place.
async fn die_everywhere_in(scenarios: &[(Scenario, usize)], collection: Collection) {
    for (scenario, least) in scenarios.iter().skip(pick(1, 0)).step_by(pick(6, 1)) {
        let steps = Box::pin(die_everywhere(*scenario, collection, pick(9, 1))).await;
        assert!(steps >= *least, "{scenario:?} by {collection:?}: {steps}");
    }
}

#[tokio::test]
async fn a_process_that_dies_anywhere_in_a_period_paid_by_card() {
    let scenarios = [
        (Scenario::Buying, 10),
        (Scenario::SessionPaid, 10),
        (Scenario::NotOwed, 10),
        (Scenario::Renewal, 16),
        (Scenario::Decline, 12),
        (Scenario::SessionExpired, 16),
        (Scenario::SessionPaidBeforeExpiry, 10),
        (Scenario::Cancellation, 4),
        (Scenario::CancellationPastDue, 6),
        (Scenario::CancellationUndone, 4),
    ];
    die_everywhere_in(&scenarios, Collection::Card).await;
}

#[tokio::test]
async fn a_process_that_dies_anywhere_in_a_period_paid_with_credits() {
    let scenarios = [
        (Scenario::Buying, 4),
        (Scenario::Renewal, 6),
        (Scenario::Decline, 6),
        (Scenario::Cancellation, 4),
        (Scenario::CancellationPastDue, 4),
        (Scenario::CancellationUndone, 4),
    ];
    die_everywhere_in(&scenarios, Collection::Credits).await;
}

#[tokio::test]
async fn a_process_that_dies_anywhere_in_a_period_that_stripe_collects() {
    let scenarios = [
        (Scenario::Buying, 10),
        (Scenario::SessionPaid, 10),
        (Scenario::NotOwed, 10),
        (Scenario::Renewal, 10),
        (Scenario::Decline, 10),
        (Scenario::Cancellation, 6),
        (Scenario::CancellationPastDue, 10),
        (Scenario::CancellationUndone, 6),
        (Scenario::Stop, 10),
        (Scenario::StopTooLate, 10),
    ];
    die_everywhere_in(&scenarios, Collection::Provider).await;
}
