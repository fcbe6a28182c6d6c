use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn g(name: &str) -> GenerationId {
    GenerationId::new(name)
}

fn p(number: u32) -> Period {
    Period::new(number).unwrap()
}

/// A fact, or a change of the plan; the latest change counts.
#[derive(Debug, Clone)]
enum Known {
    Fact(Fact),
    PlanChange(PlanChange),
}

fn apply(add_on: &mut AddOn, known: &Known) {
    match known {
        Known::Fact(fact) => add_on.apply(fact.clone()),
        Known::PlanChange(change) => add_on.plan_change = add_on.plan_change.max(Some(*change)),
    }
}

fn activated(name: &str, when: &str) -> Known {
    Known::Fact(Fact::Activated { generation: g(name), at: at(when), collection: Collection::Card })
}

fn bought() -> Known {
    activated("g1", "2026-01-31T00:00:00Z")
}

fn paid(period: u32) -> Known {
    Known::Fact(Fact::Paid { generation: g("g1"), period: p(period) })
}

fn declined(period: u32) -> Known {
    Known::Fact(Fact::Declined { generation: g("g1"), period: p(period) })
}

fn grace_over(period: u32) -> Known {
    Known::Fact(Fact::GraceOver { generation: g("g1"), period: p(period) })
}

fn cancelled(counter: u64, while_due: Option<u32>) -> Known {
    Known::Fact(Fact::Cancelled { generation: g("g1"), counter, while_due: while_due.map(p) })
}

fn resumed(counter: u64, when: &str) -> Known {
    Known::Fact(Fact::Resumed { generation: g("g1"), counter, at: at(when) })
}

fn period_over(period: u32) -> Known {
    Known::Fact(Fact::PeriodOver { generation: g("g1"), period: p(period) })
}

fn refunded(period: u32) -> Known {
    Known::Fact(Fact::RefundedInFull { generation: g("g1"), period: p(period) })
}

fn disputed(period: u32) -> Known {
    Known::Fact(Fact::Disputed {
        generation: g("g1"),
        period: p(period),
        dispute: "dp_1".to_owned(),
    })
}

fn dispute_closed(won: bool, when: &str) -> Known {
    Known::Fact(Fact::DisputeClosed {
        generation: g("g1"),
        dispute: "dp_1".to_owned(),
        won,
        at: at(when),
    })
}

fn upgraded(version: u64, when: &str) -> Known {
    Known::PlanChange(PlanChange { version, upgraded: true, at: at(when) })
}

fn downgraded(version: u64, when: &str) -> Known {
    Known::PlanChange(PlanChange { version, upgraded: false, at: at(when) })
}

fn after(facts: &[Known]) -> AddOn {
    let mut add_on = AddOn::default();
    for fact in facts {
        apply(&mut add_on, fact);
    }
    add_on
}

/// Histories from the table in section 5 of the contract, with the status after each.
fn histories() -> Vec<(Vec<Known>, AddOnStatus)> {
    use AddOnStatus::{Active, Cancelling, Ended, None, PastDue, Suspended};
    const FEB_10: &str = "2026-02-10T00:00:00Z";
    const FEB_20: &str = "2026-02-20T00:00:00Z";
    const MAR_05: &str = "2026-03-05T00:00:00Z";
    const DEC_01: &str = "2026-12-01T00:00:00Z";
    vec![
        (vec![], None),
        (vec![upgraded(2, FEB_10)], None),
        (vec![upgraded(2, FEB_10), downgraded(3, FEB_20)], None),
        (vec![bought()], Active),
        (vec![bought(), paid(2)], Active),
        (vec![bought(), declined(2)], PastDue),
        (vec![bought(), declined(2), paid(2)], Active),
        (vec![bought(), declined(2), grace_over(2)], Suspended),
        (vec![bought(), declined(2), grace_over(2), paid(2)], Active),
        (vec![bought(), cancelled(1, Option::None)], Cancelling),
        (vec![bought(), cancelled(1, Option::None), paid(2)], Cancelling),
        (vec![bought(), cancelled(1, Option::None), resumed(2, FEB_10)], Active),
        (vec![bought(), cancelled(1, Option::None), period_over(1)], Ended),
        (vec![bought(), cancelled(1, Option::None), paid(2), period_over(1)], Cancelling),
        (vec![bought(), declined(2), cancelled(1, Some(2))], Ended),
        (vec![bought(), declined(2), cancelled(1, Some(2)), paid(2)], Ended),
        (vec![bought(), refunded(1)], Ended),
        (vec![bought(), paid(2), refunded(1)], Active),
        (vec![bought(), disputed(1)], Suspended),
        (vec![bought(), disputed(1), dispute_closed(true, FEB_10)], Active),
        (vec![bought(), disputed(1), dispute_closed(true, DEC_01)], Ended),
        (vec![bought(), disputed(1), dispute_closed(false, FEB_10)], Ended),
        (vec![bought(), paid(2), disputed(1)], Active),
        (vec![bought(), upgraded(2, FEB_10)], Ended),
        (vec![bought(), disputed(1), upgraded(2, FEB_10)], Ended),
        (vec![bought(), disputed(1), downgraded(2, FEB_10)], Suspended),
        (vec![bought(), upgraded(2, FEB_10), downgraded(3, FEB_20)], Cancelling),
        (vec![bought(), upgraded(2, FEB_10), downgraded(3, MAR_05)], Ended),
        (
            vec![
                bought(),
                upgraded(2, FEB_10),
                downgraded(3, FEB_20),
                resumed(1, "2026-02-21T00:00:00Z"),
            ],
            Active,
        ),
        (
            vec![bought(), declined(2), grace_over(2), activated("g2", "2026-04-01T00:00:00Z")],
            Active,
        ),
        (
            vec![
                bought(),
                upgraded(2, FEB_10),
                downgraded(3, MAR_05),
                activated("g2", "2026-04-01T00:00:00Z"),
            ],
            Active,
        ),
        (vec![bought(), activated("g2", "2026-04-01T00:00:00Z"), declined(2)], Active),
    ]
}

#[test]
fn every_row_of_the_table_leads_to_its_status() {
    for (facts, expected) in histories() {
        assert_eq!(after(&facts).status(), expected, "{facts:#?}");
    }
}

/// The change reported to other systems after each fact, with its reason.
#[test]
fn each_change_for_other_systems_is_reported_once() {
    use AddOnStatus::{Active as Activated, Ended, PastDue, Suspended};
    use Reason::{Cancelled, Disputed, PlanChanged, Refunded, Unpaid};
    type Reported = (Option<AddOnStatus>, Option<Reason>);
    let none: Reported = (None, None);
    let activated_again = || activated("g2", "2026-05-05T00:00:00Z");
    let table: Vec<Vec<(Known, Reported)>> = vec![
        vec![
            (bought(), (Some(Activated), None)),
            (bought(), none),
            (declined(2), (Some(PastDue), None)),
            (declined(2), none),
            (paid(2), none),
            (declined(3), (Some(PastDue), None)),
            (grace_over(3), (Some(Suspended), Some(Unpaid))),
            (paid(3), (Some(Activated), None)),
            (cancelled(1, None), none),
            (resumed(2, "2026-04-02T00:00:00Z"), none),
            (cancelled(3, None), none),
            (period_over(3), (Some(Ended), Some(Cancelled))),
            (activated_again(), (Some(Activated), None)),
        ],
        vec![
            (bought(), (Some(Activated), None)),
            (declined(2), (Some(PastDue), None)),
            (cancelled(1, Some(2)), (Some(Ended), Some(Cancelled))),
        ],
        vec![
            (bought(), (Some(Activated), None)),
            (disputed(1), (Some(Suspended), Some(Disputed))),
            (dispute_closed(true, "2026-02-10T00:00:00Z"), (Some(Activated), None)),
            (refunded(1), (Some(Ended), Some(Refunded))),
        ],
        vec![
            (bought(), (Some(Activated), None)),
            (disputed(1), (Some(Suspended), Some(Disputed))),
            (dispute_closed(false, "2026-02-10T00:00:00Z"), (Some(Ended), Some(Disputed))),
        ],
        vec![
            (bought(), (Some(Activated), None)),
            (upgraded(2, "2026-02-10T00:00:00Z"), (Some(Ended), Some(PlanChanged))),
            // The paid period is accessible again.
            (downgraded(3, "2026-02-11T00:00:00Z"), (Some(Activated), None)),
        ],
        // Bought again before the end of the first generation is known.
        vec![(bought(), (Some(Activated), None)), (activated_again(), (Some(Activated), None))],
    ];
    for history in table {
        let mut add_on = AddOn::default();
        for (fact, (change, reason)) in history {
            let before = add_on.clone();
            apply(&mut add_on, &fact);
            assert_eq!(add_on.change_since(&before), change, "{fact:?}");
            if change.is_some() {
                assert_eq!(add_on.reason(), reason, "{fact:?}");
            }
        }
    }
}

#[test]
fn paid_through_is_the_end_of_the_last_paid_period() {
    assert_eq!(after(&[bought()]).paid_through(), Some(at("2026-02-28T00:00:00Z")));
    let two = after(&[bought(), paid(2)]);
    assert_eq!(two.paid_through(), Some(at("2026-03-31T00:00:00Z")));
    let upgraded = after(&[bought(), upgraded(2, "2026-02-10T00:00:00Z")]);
    assert_eq!(upgraded.paid_through(), Some(at("2026-02-28T00:00:00Z")));
}

#[test]
fn an_add_on_survives_being_stored() {
    for (facts, _) in histories() {
        let add_on = after(&facts);
        let text = serde_json::to_string(&add_on).unwrap();
        assert_eq!(serde_json::from_str::<AddOn>(&text).unwrap(), add_on);
    }
}

proptest! {
    /// Any order and repetition of a history leads to the same status.
    #[test]
    fn order_and_repetition_do_not_matter(
        (facts, shuffled) in prop::sample::select(histories()).prop_flat_map(|(facts, _)| {
            let twice = [facts.clone(), facts.clone()].concat();
            (Just(facts), Just(twice).prop_shuffle())
        }),
    ) {
        prop_assert_eq!(after(&shuffled), after(&facts));
    }
}

/// Every fact in every state. In `states.txt`, a dot means that the state stays.
#[test]
fn every_fact_in_every_state() {
    const FEB_10: &str = "2026-02-10T00:00:00Z";
    const FEB_20: &str = "2026-02-20T00:00:00Z";
    const MAR_05: &str = "2026-03-05T00:00:00Z";
    // Bought on 31 January: period 1 is paid until 28 February, period 2 is the next.
    let states: [(&str, Vec<Known>); 8] = [
        ("none", vec![]),
        ("active", vec![bought()]),
        ("past due", vec![bought(), declined(2)]),
        ("cancelling", vec![bought(), cancelled(1, None)]),
        ("suspended, unpaid", vec![bought(), declined(2), grace_over(2)]),
        ("suspended, disputed", vec![bought(), disputed(1)]),
        ("ended, paid time over", vec![bought(), cancelled(1, None), period_over(1)]),
        ("ended, cancelled unpaid", vec![bought(), declined(2), cancelled(1, Some(2))]),
    ];
    let facts: [(&str, Known); 15] = [
        ("activated, a new generation", activated("g2", MAR_05)),
        ("paid, the next period", paid(2)),
        ("paid, the same period again", paid(1)),
        ("declined", declined(2)),
        ("grace over", grace_over(2)),
        ("cancelled", cancelled(2, None)),
        ("cancelled while past due", cancelled(2, Some(2))),
        ("resumed", resumed(2, FEB_20)),
        ("period over", period_over(1)),
        ("refunded in full by others", refunded(1)),
        ("disputed", disputed(1)),
        ("dispute won in paid time", dispute_closed(true, FEB_20)),
        ("dispute lost", dispute_closed(false, FEB_20)),
        ("upgraded", upgraded(2, FEB_10)),
        ("downgraded in paid time", downgraded(2, FEB_10)),
    ];
    let name = |status: AddOnStatus| {
        let json = serde_json::to_value(status).unwrap();
        json.as_str().unwrap().replace('_', " ")
    };
    let mut table = String::from("| fact |");
    for (state, _) in &states {
        write!(table, " {state} |").unwrap();
    }
    table.push_str("\n|---|");
    table.push_str(&"---|".repeat(states.len()));
    for (fact, what) in &facts {
        write!(table, "\n| {fact} |").unwrap();
        for (_, before) in &states {
            let (before, mut add_on) = (after(before).status(), after(before));
            apply(&mut add_on, what);
            let now = add_on.status();
            let cell = if now == before { "\u{b7}".to_owned() } else { name(now) };
            write!(table, " {cell} |").unwrap();
        }
    }
    let expected = include_str!("states.txt");
    assert_eq!(table, expected.trim_end(), "the table is\n{table}");
}
