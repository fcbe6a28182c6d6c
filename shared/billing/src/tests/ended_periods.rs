//! Periods that end before they could be charged.

use super::*;

/// A time in the third period.
const LATE: &str = "2026-04-03T00:00:00Z";

fn waived(profile: &Profile, before: &Profile) -> Vec<Period> {
    waived_since(profile, before)
}

fn is_create(task: Option<&Task>, of: u32, number: u32) -> bool {
    matches!(task, Some(Task::Create { period, intent, .. })
        if *period == p(of) && *intent == number)
}

/// The creation of a PaymentIntent failed on the first day, and billing then stopped.
#[test]
fn a_charge_without_a_payment_intent_is_abandoned_when_its_period_ends() {
    let mut profile = bought(Collection::Card);
    let begun = task(&mut profile, at(DUE));
    assert!(is_create(begun.as_ref(), 2, 1));
    postpone(&mut profile, at(DUE) + MINUTE * 5);
    let before = profile.clone();
    let next = task(&mut profile, at(LATE));
    assert!(is_create(next.as_ref(), 3, 1), "{next:?}");
    assert_eq!(waived(&profile, &before), [p(2)]);
    assert_eq!(status(&profile), AddOnStatus::Active);
}

/// The outcome of a confirmation is unknown: the PaymentIntent is cancelled before the current
/// period is charged.
#[test]
fn an_attempt_of_unknown_outcome_is_cancelled_when_its_period_ends() {
    let mut profile = confirming(at(DUE));
    still_unknown(&mut profile, "pi_1", at(DUE));
    let cancel = Task::Cancel { id: "pi_1".to_owned() };
    assert_eq!(task(&mut profile, at(LATE)), Some(cancel.clone()));
    assert_eq!(task(&mut profile, at(LATE)), None, "it is leased");
    assert!(due_at(&profile).unwrap() > at(LATE));
    assert_eq!(task(&mut profile, at(LATE) + LEASE), Some(cancel));
    let late = profile.clone();
    intent_cancelled(&mut profile, "pi_1");
    let next = task(&mut profile, at(LATE) + LEASE);
    assert!(is_create(next.as_ref(), 3, 1), "{next:?}");
    assert_eq!(waived(&profile, &late), [p(2)]);
    // If the attempt had succeeded, it pays for its own period, and the current period is due.
    let mut profile = late;
    assert!(period_paid(&mut profile, &g(), p(2), "pi_1"));
    let paid = profile.clone();
    let next = task(&mut profile, at(LATE) + LEASE);
    assert!(is_create(next.as_ref(), 3, 1), "{next:?}");
    assert_eq!(waived(&profile, &paid), []);
}

/// Access ends because a declined charge's grace is over, even if its period is over too.
#[test]
fn a_declined_charge_ends_access_although_its_period_is_over() {
    let mut profile = confirming(at(DUE));
    declined(&mut profile, Some("pi_1"), 1, false, at(DUE), &dunning());
    let cancel = Task::Cancel { id: "pi_1".to_owned() };
    assert_eq!(task(&mut profile, at(LATE)), Some(cancel));
    assert_eq!(status(&profile), AddOnStatus::Suspended);
    intent_cancelled(&mut profile, "pi_1");
    assert_eq!(task(&mut profile, at(LATE)), None);
    assert_eq!(due_at(&profile), None);
}

#[test]
fn a_period_is_charged_up_to_its_end() {
    let end = at("2026-03-31T00:00:00Z");
    for (now, charged) in [(end - MINUTE, p(2)), (end, p(3))] {
        let mut profile = bought(Collection::Card);
        let begun = task(&mut profile, now);
        assert!(is_create(begun.as_ref(), charged.number(), 1), "{now}: {begun:?}");
    }
    // A charge is due at the end of its period at the latest.
    let mut profile = bought(Collection::Card);
    task(&mut profile, at(DUE));
    postpone(&mut profile, at("2026-06-01T00:00:00Z"));
    assert!(period_has_ended(&profile, at(DUE)));
    assert_eq!(due_at(&profile), Some(end));
}

/// Credits are taken for the current period only.
#[test]
fn credits_are_not_taken_for_a_period_that_has_ended() {
    let mut profile = bought(Collection::Credits);
    assert!(matches!(task(&mut profile, at(DUE)), Some(Task::TakeCredits { .. })));
    let next = task(&mut profile, at(LATE));
    let taken = Task::TakeCredits { generation: g(), period: p(3), attempt: 1 };
    assert_eq!(next, Some(taken));
}
