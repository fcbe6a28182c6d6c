//! Attempts that fail for reasons other than a decline.

use super::*;

const UNREACHABLE: SignedDuration = SignedDuration::from_mins(5);

/// A refusal is not a decline: the attempt is repeated on the next attempt days.
#[test]
fn a_refused_attempt_is_repeated_under_the_same_number() {
    let start = at(DUE);
    let mut profile = bought(Collection::Card);
    let mut days = Vec::new();
    let mut now = start;
    for number in 1..=5 {
        let create = Task::Create { generation: g(), period: p(2), intent: number, attempt: 1 };
        assert_eq!(task(&mut profile, now), Some(create));
        days.push(now.duration_since(start).as_hours() / 24);
        // Refused alternately before and after the PaymentIntent is created.
        let id = (number % 2 == 0).then_some("pi_2");
        if let Some(id) = id {
            assert_eq!(intent_created(&mut profile, &g(), p(2), id, now), Some(1));
        }
        attempt_refused(&mut profile, id, now, &dunning());
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
        attempt_refused(&mut other, id, start, &dunning());
        card_missing(&mut other, id, None, start);
        retry_with_new_intent(&mut other, id, start);
        assert_eq!(other, profile);
    }
}

/// Stripe never responds to the creation of a PaymentIntent.
#[test]
fn access_ends_with_grace_if_stripe_was_unreachable_throughout() {
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

/// Billing was down until late in grace: access does not end before one attempt was made.
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

/// The card no longer exists at Stripe: the account is past due, and a new card is charged at once.
#[test]
fn a_missing_card_is_forgotten_and_a_new_one_is_charged() {
    let start = at(DUE);
    let with_card = |profile: &mut Profile| {
        assert!(keep_card(profile, "pm_1".to_owned(), at("2026-01-31T00:00:00Z")));
    };
    let mut profile = bought(Collection::Card);
    with_card(&mut profile);
    assert!(task(&mut profile, start).is_some());
    card_missing(&mut profile, None, Some("pm_1"), start);
    assert_eq!(status(&profile), AddOnStatus::PastDue);
    assert_eq!(profile.billing.card, None);
    assert_eq!(due_at(&profile), Some(start + DAY * 8));
    let given = start + DAY;
    keep_card(&mut profile, "pm_2".to_owned(), given);
    let create = Task::Create { generation: g(), period: p(2), intent: 2, attempt: 1 };
    assert_eq!(task(&mut profile, given), Some(create));
    // A card that was added in the meantime stays, and is charged.
    let mut profile = bought(Collection::Card);
    with_card(&mut profile);
    assert!(task(&mut profile, start).is_some());
    keep_card(&mut profile, "pm_2".to_owned(), start);
    card_missing(&mut profile, None, Some("pm_1"), start);
    assert_eq!(profile.billing.payment_method().as_deref(), Some("pm_2"));
    assert_eq!(status(&profile), AddOnStatus::Active);
    assert!(matches!(task(&mut profile, start), Some(Task::Create { intent: 2, .. })));
}

/// Stripe replays a failure under the same idempotency key for a day or longer.
#[test]
fn an_attempt_with_a_spent_idempotency_key_gets_a_new_payment_intent() {
    let start = at(DUE);
    let mut profile = confirming(start);
    retry_with_new_intent(&mut profile, Some("pi_1"), start + MINUTE);
    assert_eq!(task(&mut profile, start), None);
    let create = Task::Create { generation: g(), period: p(2), intent: 2, attempt: 1 };
    assert_eq!(task(&mut profile, start + MINUTE), Some(create));
    retry_with_new_intent(&mut profile, None, start + MINUTE * 2);
    let again = task(&mut profile, start + MINUTE * 2);
    assert!(matches!(again, Some(Task::Create { intent: 3, attempt: 1, .. })), "{again:?}");
}
