mod ended_periods;
mod failures;

use super::charge::MAX_WAIVED;
use super::checkout::CREATION_TIME;
use account::add_on::{Collection, Fact, GenerationId};
use account::billing::*;
use account::{AddOnStatus, Period, Plan, Profile};
use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::task::LEASE;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn g() -> GenerationId {
    GenerationId::new("cs_1")
}

fn p(number: u32) -> Period {
    Period::new(number).unwrap()
}

fn dunning() -> Dunning {
    let dunning = Dunning::default();
    assert_eq!(Dunning::new(vec![0, 1, 3, 5, 7], 8), Some(dunning.clone()));
    dunning
}

/// Bought on 31 January, so that the second period begins on 28 February.
const DUE: &str = "2026-02-28T00:00:00Z";

fn bought(collection: Collection) -> Profile {
    let anchor = at("2026-01-31T00:00:00Z");
    let mut profile = Profile::new(Plan::Standard, 1, at("2026-01-01T00:00:00Z"));
    assert!(activate(&mut profile, g(), anchor, collection));
    profile
}

fn task(profile: &mut Profile, now: Timestamp) -> Option<Task> {
    take_task(profile, now, &dunning())
}

/// Period 2 with its PaymentIntent created and its first attempt in progress.
fn confirming(now: Timestamp) -> Profile {
    let mut profile = bought(Collection::Card);
    let create = task(&mut profile, now);
    assert!(matches!(create, Some(Task::Create { intent: 1, .. })), "{create:?}");
    assert_eq!(intent_created(&mut profile, &g(), p(2), "pi_1", now), Some(1));
    profile
}

fn status(profile: &Profile) -> AddOnStatus {
    profile.add_on.status()
}

#[test]
fn a_period_is_charged_once_when_it_is_due() {
    let due = at(DUE);
    let mut profile = bought(Collection::Card);
    assert_eq!(due_at(&profile), Some(due));
    assert_eq!(task(&mut profile, due - MINUTE), None);
    let create = Task::Create { generation: g(), period: p(2), intent: 1, attempt: 1 };
    assert_eq!(task(&mut profile, due), Some(create.clone()));
    // The task is leased; after the lease it repeats unchanged.
    assert_eq!(task(&mut profile, due + MINUTE), None);
    assert_eq!(task(&mut profile, due + LEASE), Some(create));
    assert_eq!(intent_created(&mut profile, &g(), p(2), "pi_1", due), Some(1));
    // A lost response is applied again.
    assert_eq!(intent_created(&mut profile, &g(), p(2), "pi_1", due), Some(1));
    assert!(period_paid(&mut profile, &g(), p(2), "pi_1"));
    assert_eq!(profile.billing.charge, None);
    assert_eq!(due_at(&profile), Some(at("2026-03-31T00:00:00Z")));
    assert!(!period_paid(&mut profile, &g(), p(2), "pi_2"), "it is paid already");
    assert_eq!(status(&profile), AddOnStatus::Active);
}

#[test]
fn declined_charges_are_retried_on_schedule_and_then_end_access() {
    let start = at(DUE);
    let mut profile = confirming(start);
    let mut days = Vec::new();
    let mut attempt = 1;
    loop {
        let now = start + DAY * days.last().copied().unwrap_or(0);
        declined(&mut profile, Some("pi_1"), attempt, false, now, &dunning());
        // Applied twice, it counts once.
        declined(&mut profile, Some("pi_1"), attempt, false, now, &dunning());
        let Some(due) = due_at(&profile).filter(|due| *due > now) else {
            break;
        };
        assert_eq!(status(&profile), AddOnStatus::PastDue);
        days.push(
            i32::try_from(due.duration_since(now).as_hours() / 24).unwrap()
                + days.last().unwrap_or(&0),
        );
        attempt += 1;
        let confirm =
            Task::Confirm { generation: g(), period: p(2), id: "pi_1".to_owned(), attempt };
        assert_eq!(task(&mut profile, due), Some(confirm));
    }
    assert_eq!((days, attempt), (vec![1, 3, 5, 7], 5));
    // Day 7 was the last: access ends with its decline, and the PaymentIntent is cancelled.
    let day_7 = start + DAY * 7;
    let cancel = Task::Cancel { id: "pi_1".to_owned() };
    assert_eq!(task(&mut profile, day_7), Some(cancel));
    assert_eq!(status(&profile), AddOnStatus::Suspended);
    intent_cancelled(&mut profile, "pi_1");
    assert_eq!(task(&mut profile, day_7 + DAY), None);
    assert_eq!(profile.billing.charge, None);
    assert_eq!(due_at(&profile), None);
}

#[test]
fn a_hard_decline_ends_the_attempts_but_not_the_grace_period() {
    let start = at(DUE);
    let mut profile = confirming(start);
    declined(&mut profile, Some("pi_1"), 1, true, start, &dunning());
    assert_eq!(due_at(&profile), Some(start + DAY * 8));
    assert_eq!(task(&mut profile, start + DAY * 7), None);
    assert_eq!(status(&profile), AddOnStatus::PastDue);
    assert!(task(&mut profile, start + DAY * 8).is_some());
    assert_eq!(status(&profile), AddOnStatus::Suspended);
}

#[test]
fn an_unknown_outcome_is_looked_up_at_growing_intervals_and_may_still_pay() {
    let start = at(DUE);
    let mut profile = confirming(start);
    let mut now = start;
    let mut waits = Vec::new();
    for _ in 0..10 {
        let due = due_at(&profile).unwrap();
        waits.push(due.duration_since(now).as_mins());
        now = due;
        let look_up = Task::LookUp { id: "pi_1".to_owned(), since: start };
        assert_eq!(task(&mut profile, now), Some(look_up));
        still_unknown(&mut profile, "pi_1", now);
    }
    let day = 24 * 60;
    assert_eq!(waits, [2, 5, 60, day, day, day, day, day, day, day]);
    // An unknown outcome counts as unpaid: grace ends. The PaymentIntent is cancelled, or turns out
    // to be paid.
    now = due_at(&profile).unwrap();
    assert_eq!(now, start + DAY * 8);
    assert_eq!(task(&mut profile, now), None);
    assert_eq!(status(&profile), AddOnStatus::Suspended);
    now = due_at(&profile).unwrap();
    assert!(matches!(task(&mut profile, now), Some(Task::Cancel { .. })));
    assert!(period_paid(&mut profile, &g(), p(2), "pi_1"));
    assert_eq!(status(&profile), AddOnStatus::Active);
    assert_eq!(profile.billing.charge, None);
}

#[test]
fn an_attempt_that_never_arrived_keeps_its_number() {
    let start = at(DUE);
    let mut profile = confirming(start);
    assert_eq!(never_confirmed(&mut profile, "pi_1", start), Some(1));
    assert_eq!(never_confirmed(&mut profile, "pi_2", start), None);
    // An event about it brings the look-up forward.
    still_unknown(&mut profile, "pi_1", start);
    look_up_now(&mut profile, "pi_1", start + MINUTE);
    assert!(matches!(task(&mut profile, start + MINUTE), Some(Task::LookUp { .. })));
}

/// Cancelling and charging write the same value: an attempt that has not started never will.
#[test]
fn nothing_is_confirmed_after_a_cancellation() {
    let start = at(DUE);
    // Before the PaymentIntent is known.
    let mut profile = bought(Collection::Card);
    assert!(task(&mut profile, start).is_some());
    cancel(&mut profile).unwrap();
    assert_eq!(intent_created(&mut profile, &g(), p(2), "pi_1", start), None);
    assert!(matches!(task(&mut profile, start + LEASE), Some(Task::Cancel { .. })));
    intent_cancelled(&mut profile, "pi_1");
    assert_eq!(task(&mut profile, start + LEASE), None);
    assert_eq!(status(&profile), AddOnStatus::Ended);
    // While it is confirming: it is cancelled if possible, and stands if it succeeds.
    let mut profile = confirming(start);
    cancel(&mut profile).unwrap();
    assert_eq!(task(&mut profile, start), None, "the task is leased");
    assert!(matches!(task(&mut profile, start + LEASE), Some(Task::Cancel { .. })));
    assert_eq!(status(&profile), AddOnStatus::Cancelling);
    let mut paid = profile.clone();
    assert!(period_paid(&mut paid, &g(), p(2), "pi_1"));
    assert_eq!(status(&paid), AddOnStatus::Cancelling);
    assert_eq!(paid.add_on.paid_through(), Some(at("2026-03-31T00:00:00Z")));
    // An attempt that has not arrived may still arrive: it stands until the PaymentIntent is known
    // to be cancelled.
    assert_eq!(never_confirmed(&mut profile, "pi_1", start + LEASE), None);
    let cancel_task = task(&mut profile, start + LEASE);
    assert!(matches!(cancel_task, Some(Task::Cancel { .. })), "{cancel_task:?}");
    assert_eq!(status(&profile), AddOnStatus::Cancelling);
    assert!(period_paid(&mut profile.clone(), &g(), p(2), "pi_1"));
    intent_cancelled(&mut profile, "pi_1");
    assert_eq!(task(&mut profile, start + LEASE), None);
    assert_eq!(status(&profile), AddOnStatus::Ended);
    // An add-on that was past due owes nothing any more.
    let mut late = confirming(start);
    declined(&mut late, Some("pi_1"), 1, false, start, &dunning());
    cancel(&mut late).unwrap();
    assert_eq!(status(&late), AddOnStatus::Ended);
    assert!(!period_paid(&mut late, &g(), p(2), "pi_1"));
    assert_eq!(cancel(&mut late), Err(NotSubscribed));
}

#[test]
fn a_resumed_add_on_is_charged_again() {
    let mut profile = bought(Collection::Card);
    cancel(&mut profile).unwrap();
    cancel(&mut profile).unwrap();
    assert_eq!(profile.billing.actions, 1);
    resume(&mut profile, at("2026-02-10T00:00:00Z"));
    assert_eq!(status(&profile), AddOnStatus::Active);
    assert!(task(&mut profile, at(DUE)).is_some());
}

#[test]
fn enterprise_owes_nothing_and_can_pay_nothing() {
    let start = at(DUE);
    let mut profile = confirming(start);
    profile.apply_plan(Plan::Enterprise, 2, start);
    assert!(matches!(task(&mut profile, start + LEASE), Some(Task::Cancel { .. })));
    assert!(!period_paid(&mut profile, &g(), p(2), "pi_1"));
    assert_eq!(profile.billing.charge, None);
    assert_eq!(due_at(&profile), None);
}

#[test]
fn after_an_outage_only_the_current_period_is_charged() {
    let mut profile = bought(Collection::Card);
    let now = at("2026-06-09T00:00:00Z");
    let create = task(&mut profile, now);
    assert!(matches!(create, Some(Task::Create { period, .. }) if period == p(5)), "{create:?}");
    let waived = |profile: &Profile| waived_since(profile, &bought(Collection::Card));
    assert_eq!(waived(&profile), [p(2), p(3), p(4)]);
    // They are waived once.
    let begun = profile.clone();
    intent_created(&mut profile, &g(), p(5), "pi_1", now);
    assert_eq!(waived_since(&profile, &begun), []);
    assert_eq!(waived(&confirming(at(DUE))), []);
    let mut much_later = bought(Collection::Card);
    task(&mut much_later, at("2036-03-01T00:00:00Z"));
    let all = waived(&much_later);
    assert_eq!((all.len(), all.last()), (MAX_WAIVED, Some(&p(121))));
    // Its grace period is over: access ends once its only attempt is known to be declined.
    declined(&mut profile, Some("pi_1"), 1, false, now, &dunning());
    assert!(matches!(task(&mut profile, now), Some(Task::Cancel { .. })));
    assert_eq!(status(&profile), AddOnStatus::Suspended);
}

#[test]
fn missed_attempt_days_are_skipped() {
    let start = at(DUE);
    let mut profile = confirming(start);
    declined(&mut profile, Some("pi_1"), 1, false, start, &dunning());
    let day_6 = start + DAY * 6;
    assert!(matches!(task(&mut profile, day_6), Some(Task::Confirm { attempt: 2, .. })));
    declined(&mut profile, Some("pi_1"), 2, false, day_6, &dunning());
    assert_eq!(due_at(&profile), Some(start + DAY * 7));
}

#[test]
fn credits_are_taken_without_a_payment_intent() {
    let start = at(DUE);
    let mut profile = bought(Collection::Credits);
    let post = |attempt| Task::TakeCredits { generation: g(), period: p(2), attempt };
    assert_eq!(task(&mut profile, start), Some(post(1)));
    assert_eq!(task(&mut profile, start + MINUTE), None);
    declined(&mut profile, None, 1, false, start, &dunning());
    assert_eq!(status(&profile), AddOnStatus::PastDue);
    assert_eq!(task(&mut profile, start + DAY), Some(post(2)));
    assert!(period_paid(&mut profile, &g(), p(2), "cs_1-2"));
    assert_eq!(task(&mut profile, start + DAY), None);
    assert_eq!(due_at(&profile), Some(at("2026-03-31T00:00:00Z")));
}

#[test]
fn stripe_charges_its_own_subscriptions() {
    let mut profile = bought(Collection::Provider);
    assert_eq!(task(&mut profile, at("2026-12-01T00:00:00Z")), None);
}

fn checkout(purchase: AddOnPurchase, now: Timestamp) -> Checkout {
    Checkout {
        order: "ord_1".to_owned(),
        purchase,
        collection: Collection::Card,
        created_at: now,
        session: Some(Session {
            id: "cs_2".to_owned(),
            url: "https://pay.example/cs_2".to_owned(),
            expires_at: now + CHECKOUT_LIFE,
        }),
        next_at: Timestamp::MIN,
    }
}

/// Under the first PaymentIntent's key, Stripe would return that one, which is cancelled.
#[test]
fn a_charge_that_begins_again_gets_a_new_payment_intent() {
    let due = at(DUE);
    let mut profile = confirming(due);
    let disputed = Fact::Disputed { generation: g(), period: p(1), dispute: "du_1".to_owned() };
    profile.add_on.apply(disputed);
    let now = due + LEASE;
    let cancel = Task::Cancel { id: "pi_1".to_owned() };
    assert_eq!(task(&mut profile, now), Some(cancel));
    intent_cancelled(&mut profile, "pi_1");
    assert_eq!(task(&mut profile, now), None);
    assert_eq!(profile.billing.charge, None);
    // The dispute was won before the paid period ended, but the news arrives late.
    let won = Fact::DisputeClosed {
        generation: g(),
        dispute: "du_1".to_owned(),
        won: true,
        at: due - DAY,
    };
    profile.add_on.apply(won);
    assert_eq!(status(&profile), AddOnStatus::Active);
    let create = task(&mut profile, now);
    assert!(matches!(create, Some(Task::Create { intent: 2, .. })), "{create:?}");
}

#[test]
fn a_checkout_is_expired_at_its_end_or_when_not_wanted() {
    let now = at("2026-01-10T00:00:00Z");
    let close = Some(Task::ExpireCheckout { session: "cs_2".to_owned() });
    let mut new = Profile::new(Plan::Standard, 1, now);
    new.billing.checkout = Some(checkout(AddOnPurchase::Generation, now));
    assert_eq!(task(&mut new, now), None);
    assert_eq!(due_at(&new), Some(now + CHECKOUT_LIFE));
    let mut upgraded = new.clone();
    upgraded.apply_plan(Plan::Enterprise, 2, now);
    assert_eq!(task(&mut upgraded, now), close);
    checkout_closed(&mut upgraded, "cs_2");
    assert_eq!(*upgraded.billing, Billing::default());
    assert!(!activate(&mut upgraded, GenerationId::new("cs_2"), now, Collection::Card));
    // A paid checkout is gone.
    assert!(activate(&mut new, GenerationId::new("cs_2"), now, Collection::Card));
    assert_eq!(new.billing.checkout, None);
}

/// Two things are never payable at once: the next attempt waits until the open checkout has
/// expired.
#[test]
fn the_next_attempt_takes_the_place_of_an_open_checkout() {
    let start = at(DUE);
    let mut profile = confirming(start);
    declined(&mut profile, Some("pi_1"), 1, false, start, &dunning());
    intent_cancelled(&mut profile, "pi_1");
    let day_1 = start + DAY;
    profile.billing.checkout =
        Some(checkout(AddOnPurchase::Period { generation: g(), period: p(2) }, day_1 - MINUTE));
    assert_eq!(task(&mut profile, day_1 - MINUTE), None);
    assert!(matches!(task(&mut profile, day_1), Some(Task::ExpireCheckout { .. })));
    assert_eq!(task(&mut profile, day_1), None);
    checkout_closed(&mut profile, "cs_2");
    // The PaymentIntent was cancelled for the checkout: a second one is created.
    let create = task(&mut profile, day_1);
    assert!(matches!(create, Some(Task::Create { intent: 2, .. })), "{create:?}");
    assert_eq!(intent_created(&mut profile, &g(), p(2), "pi_2", day_1), Some(2));
}

#[test]
fn a_checkout_whose_creation_never_finished_is_dropped() {
    let now = at("2026-01-10T00:00:00Z");
    let mut profile = Profile::new(Plan::Standard, 1, now);
    let mut uncreated = checkout(AddOnPurchase::Generation, now);
    uncreated.session = None;
    profile.billing.checkout = Some(uncreated);
    assert_eq!(task(&mut profile, now + MINUTE), None);
    assert!(profile.billing.checkout.is_some());
    assert_eq!(task(&mut profile, now + CREATION_TIME), None);
    assert_eq!(profile.billing.checkout, None);
}

#[test]
fn the_latest_card_is_kept() {
    let mut profile = bought(Collection::Card);
    keep_card(&mut profile, "pm_2".to_owned(), at("2026-02-02T00:00:00Z"));
    keep_card(&mut profile, "pm_1".to_owned(), at("2026-02-01T00:00:00Z"));
    assert_eq!(profile.billing.card.unwrap().payment_method, "pm_2");
}

#[test]
fn attempt_days_start_at_zero_increase_and_end_before_grace() {
    for (days, grace) in
        [(vec![], 8), (vec![1], 8), (vec![0, 0], 8), (vec![0, 3, 2], 8), (vec![0, 8], 8)]
    {
        assert_eq!(Dunning::new(days.clone(), grace), None, "{days:?}");
    }
    assert!(Dunning::new(vec![0], 1).is_some());
}

#[test]
fn a_new_card_is_tried_at_once() {
    let start = at(DUE);
    let mut profile = confirming(start);
    declined(&mut profile, Some("pi_1"), 1, true, start, &dunning());
    let given = start + DAY * 2;
    assert_eq!(task(&mut profile, given), None);
    keep_card(&mut profile, "pm_2".to_owned(), given);
    assert_eq!(due_at(&profile), Some(given));
    assert!(matches!(task(&mut profile, given), Some(Task::Confirm { attempt: 2, .. })));
    // The attempt days stay the same.
    declined(&mut profile, Some("pi_1"), 2, false, given, &dunning());
    assert_eq!(due_at(&profile), Some(start + DAY * 3));
}

/// Stripe may or may not have received the update: it is sent again, and Stripe's report does not
/// count as anyone's decision.
#[test]
fn an_uncertain_subscription_update_is_sent_again() {
    let mut profile = bought(Collection::Provider);
    profile.billing.subscription = Some(Subscription::new("sub_1".to_owned(), g()));
    let now = at("2026-02-01T00:00:00Z");
    assert_eq!(task(&mut profile, now), None);
    subscription_uncertain(&mut profile, "sub_1");
    let before = profile.billing.clone();
    apply_remote_status(&mut profile, &before, RemoteStatus::Runs { ends: true }, now);
    assert_eq!(status(&profile), AddOnStatus::Active);
    let update = Task::UpdateSubscription { subscription: "sub_1".to_owned(), ends: false };
    assert_eq!(task(&mut profile, now), Some(update));
    subscription_updated(&mut profile, "sub_1", false);
    assert_eq!(task(&mut profile, now), None);
}
