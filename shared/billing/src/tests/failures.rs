//! Attempts that fail for reasons that are not the card's.

use super::*;

const UNREACHABLE: SignedDuration = SignedDuration::from_mins(5);

/// Stripe refuses the attempt: it is no decline, and the next attempt days repeat it.
#[test]
fn a_refused_attempt_is_repeated_on_the_next_days_under_its_number() {
    let start = at(DUE);
    let mut profile = bought(Collection::Card);
    let mut days = Vec::new();
    let mut now = start;
    for number in 1..=5 {
        let create = Task::Create { generation: g(), period: p(2), intent: number, attempt: 1 };
        assert_eq!(task(&mut profile, now), Some(create));
        days.push(now.duration_since(start).as_hours() / 24);
        // In turn, it is refused before and after the PaymentIntent is created.
        let id = (number % 2 == 0).then_some("pi_2");
        if let Some(id) = id {
            assert_eq!(intent_created(&mut profile, &g(), p(2), id, now), Some(1));
        }
        refused(&mut profile, id, now, &dunning());
        assert_eq!(status(&profile), AddOnStatus::Active);
        now = due_at(&profile).unwrap();
    }
    assert_eq!(days, [0, 1, 3, 5, 7]);
    // Access ends with grace, because attempts were made.
    assert_eq!(now, start + DAY * 8);
    assert_eq!(task(&mut profile, now), None);
    assert_eq!(status(&profile), AddOnStatus::Suspended);
}

#[test]
fn a_report_of_another_attempt_changes_nothing() {
    let start = at(DUE);
    let profile = confirming(start);
    for id in [None, Some("pi_2")] {
        let mut other = profile.clone();
        refused(&mut other, id, start, &dunning());
        no_card(&mut other, id, None, start);
        start_over(&mut other, id, start);
        assert_eq!(other, profile);
    }
}

/// Stripe never responds to the creation of a PaymentIntent.
#[test]
fn access_ends_with_grace_if_stripe_was_unreachable_all_the_time() {
    let start = at(DUE);
    let mut profile = bought(Collection::Card);
    let mut now = start;
    while status(&profile) == AddOnStatus::Active {
        assert!(now <= start + DAY * 8, "{now}");
        if task(&mut profile, now).is_some() {
            postpone(&mut profile, now + UNREACHABLE);
        }
        now = due_at(&profile).unwrap_or(now);
    }
    assert_eq!(status(&profile), AddOnStatus::Suspended);
    assert_eq!(now, start + DAY * 8);
    assert_eq!(due_at(&profile), None);
}

/// Billing itself stopped until late in grace: access does not end before one attempt was made.
#[test]
fn access_does_not_end_before_one_attempt_was_made() {
    let start = at(DUE);
    let mut profile = bought(Collection::Card);
    assert!(task(&mut profile, start + DAY * 7).is_some());
    for now in [start + DAY * 8, start + DAY * 9] {
        assert!(task(&mut profile, now).is_some(), "it is tried again");
        assert_eq!(status(&profile), AddOnStatus::Active);
    }
    assert_eq!(intent_created(&mut profile, &g(), p(2), "pi_1", start + DAY * 9), Some(1));
    declined(&mut profile, Some("pi_1"), 1, false, start + DAY * 9, &dunning());
    task(&mut profile, start + DAY * 9);
    assert_eq!(status(&profile), AddOnStatus::Suspended);
}

/// The card is gone at Stripe: the account is past due, and a new card is charged at once.
#[test]
fn a_card_that_is_gone_is_forgotten_until_there_is_another() {
    let start = at(DUE);
    let with_card = |profile: &mut Profile| {
        assert!(keep_card(profile, "pm_1".to_owned(), at("2026-01-31T00:00:00Z")));
    };
    let mut profile = bought(Collection::Card);
    with_card(&mut profile);
    assert!(task(&mut profile, start).is_some());
    no_card(&mut profile, None, Some("pm_1"), start);
    assert_eq!(status(&profile), AddOnStatus::PastDue);
    assert_eq!(profile.billing.card, None);
    assert_eq!(due_at(&profile), Some(start + DAY * 8));
    let given = start + DAY;
    keep_card(&mut profile, "pm_2".to_owned(), given);
    let create = Task::Create { generation: g(), period: p(2), intent: 2, attempt: 1 };
    assert_eq!(task(&mut profile, given), Some(create));
    // A card that was given meanwhile stays, and is charged.
    let mut profile = bought(Collection::Card);
    with_card(&mut profile);
    assert!(task(&mut profile, start).is_some());
    keep_card(&mut profile, "pm_2".to_owned(), start);
    no_card(&mut profile, None, Some("pm_1"), start);
    assert_eq!(profile.billing.payment_method().as_deref(), Some("pm_2"));
    assert_eq!(status(&profile), AddOnStatus::Active);
    assert!(matches!(task(&mut profile, start), Some(Task::Create { intent: 2, .. })));
}

/// Under a spent idempotency key, Stripe repeats the failure for a day or longer.
#[test]
fn an_attempt_whose_key_is_spent_starts_over() {
    let start = at(DUE);
    let mut profile = confirming(start);
    start_over(&mut profile, Some("pi_1"), start + MINUTE);
    assert_eq!(task(&mut profile, start), None);
    let create = Task::Create { generation: g(), period: p(2), intent: 2, attempt: 1 };
    assert_eq!(task(&mut profile, start + MINUTE), Some(create));
    start_over(&mut profile, None, start + MINUTE * 2);
    let again = task(&mut profile, start + MINUTE * 2);
    assert!(matches!(again, Some(Task::Create { intent: 3, attempt: 1, .. })), "{again:?}");
}
