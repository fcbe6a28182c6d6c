use account::add_on::{Collection, Fact, GenerationId};
use account::{Account, AccountId, AccountNumber, AddOn, Balance, Credits, Period, Plan, Profile};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;

fn all_situations() -> Vec<Situation> {
    let mut all = Vec::new();
    for always_use_key in [Switch::On, Switch::Off] {
        for key in [Key::None, Key::Usable, Key::Rejected] {
            for entitlement in [Entitlement::Entitled, Entitlement::NotEntitled] {
                for enabled in [Switch::On, Switch::Off] {
                    for plan in [Plan::Enterprise, Plan::Standard] {
                        for minimum_balance in [MinimumBalance::Met, MinimumBalance::Missed] {
                            all.push(Situation {
                                always_use_key,
                                key,
                                entitlement,
                                enabled,
                                plan,
                                minimum_balance,
                            });
                        }
                    }
                }
            }
        }
    }
    all
}

/// The routing table of section 1 of the contract: each row's condition and decision.
fn row_of(s: Situation) -> (u8, &'static str) {
    let always = s.always_use_key == Switch::On;
    let stored = s.key != Key::None;
    let usable = s.key == Key::Usable;
    let entitled = s.entitlement == Entitlement::Entitled;
    let enabled = s.enabled == Switch::On;
    let under = s.plan == Plan::Standard && s.minimum_balance == MinimumBalance::Missed;
    let rows = [
        (1, always && stored && !entitled, "refuse add_on_inactive"),
        (2, always && stored && entitled && under, "refuse minimum_balance"),
        (3, always && stored && entitled && !under, "openrouter always_use_key fallback never"),
        (4, !always && usable && entitled && enabled && under, "refuse minimum_balance"),
        (
            5,
            !always && usable && entitled && enabled && !under,
            "openrouter key_enabled fallback allowed",
        ),
        (6, !always && usable && !entitled && enabled, "greta_credits add_on_inactive"),
        (7, !always && s.key == Key::Rejected && enabled, "greta_credits key_rejected"),
        (8, !always && stored && !enabled, "greta_credits key_disabled"),
        (9, !stored, "greta_credits not_connected"),
    ];
    let matching: Vec<_> = rows.iter().filter(|(_, applies, _)| *applies).collect();
    assert_eq!(matching.len(), 1, "exactly one row applies to {s:?}");
    (matching[0].0, matching[0].2)
}

fn in_words(decision: Decision) -> String {
    let reason = decision.reason().as_str();
    match decision {
        Decision::OpenRouter { fallback: Fallback::Never, .. } => {
            format!("openrouter {reason} fallback never")
        }
        Decision::OpenRouter { fallback: Fallback::Allowed, .. } => {
            format!("openrouter {reason} fallback allowed")
        }
        Decision::GretaCredits { .. } => format!("greta_credits {reason}"),
        Decision::Refuse { .. } => format!("refuse {reason}"),
    }
}

#[test]
fn the_whole_input_space_follows_the_table() {
    let mut seen = std::collections::BTreeSet::new();
    for situation in all_situations() {
        let (row, expected) = row_of(situation);
        assert_eq!(in_words(decide(situation)), expected, "row {row}: {situation:?}");
        seen.insert(row);
    }
    assert_eq!(seen, (1..=9).collect(), "every row occurs");
}

proptest! {
    #[test]
    fn always_on_with_a_key_never_yields_credits(
        situation in prop::sample::select(all_situations()),
    ) {
        if situation.always_use_key == Switch::On && situation.key != Key::None {
            let decision = decide(situation);
            let credits = matches!(decision, Decision::GretaCredits { .. });
            let falls_back =
                matches!(decision, Decision::OpenRouter { fallback: Fallback::Allowed, .. });
            prop_assert!(!credits && !falls_back);
        }
    }

    /// Only rows 2–5 mention the balance, and only for the standard plan.
    #[test]
    fn the_balance_matters_only_in_rows_2_to_5(
        situation in prop::sample::select(all_situations()),
    ) {
        let with = |minimum_balance| decide(Situation { minimum_balance, ..situation });
        let matters = with(MinimumBalance::Met) != with(MinimumBalance::Missed);
        let (row, _) = row_of(situation);
        prop_assert_eq!(matters, situation.plan == Plan::Standard && (2..=5).contains(&row));
    }
}

fn policy() -> Policy {
    Policy {
        minimum_balance: Credits::from_micros(1_000_000),
        grace: SignedDuration::from_hours(8 * 24),
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// An add-on bought on 10 January and paid until 10 February.
fn bought(more: &[Fact]) -> AddOn {
    let mut add_on = AddOn::default();
    add_on.apply(Fact::Activated {
        generation: GenerationId::new("g"),
        at: at("2026-01-10T00:00:00Z"),
        collection: Collection::Card,
    });
    for fact in more {
        add_on.apply(fact.clone());
    }
    add_on
}

fn declined() -> Fact {
    Fact::Declined { generation: GenerationId::new("g"), period: Period::FIRST.next() }
}

fn grace_over() -> Fact {
    Fact::GraceOver { generation: GenerationId::new("g"), period: Period::FIRST.next() }
}

fn cancelled() -> Fact {
    Fact::Cancelled { generation: GenerationId::new("g"), counter: 1, while_due: None }
}

#[test]
fn entitlement_ends_with_the_paid_period_or_with_grace() {
    const LAST: &str = "2026-02-09T23:59:59Z";
    const DUE: &str = "2026-02-10T00:00:00Z";
    const LAST_OF_GRACE: &str = "2026-02-17T23:59:59Z";
    const AFTER_GRACE: &str = "2026-02-18T00:00:00Z";
    let table = [
        (AddOn::default(), DUE, false),
        (bought(&[]), LAST, true),
        (bought(&[]), DUE, true),
        (bought(&[]), LAST_OF_GRACE, true),
        (bought(&[]), AFTER_GRACE, false),
        (bought(&[declined()]), LAST_OF_GRACE, true),
        (bought(&[declined()]), AFTER_GRACE, false),
        (bought(&[cancelled()]), LAST, true),
        (bought(&[cancelled()]), DUE, false),
        (bought(&[declined(), grace_over()]), DUE, false),
    ];
    for (add_on, now, expected) in table {
        let status = add_on.status();
        assert_eq!(
            entitled(Plan::Standard, &add_on, at(now), &policy()),
            expected,
            "{status:?} at {now}"
        );
        assert!(entitled(Plan::Enterprise, &add_on, at(now), &policy()));
        let profile = Profile { add_on, ..Profile::new(Plan::Standard, 1, Timestamp::UNIX_EPOCH) };
        assert_eq!(may_save_key(&profile, at(now), &policy()), expected);
    }
}

#[test]
fn the_add_on_is_owed_from_the_day_it_is_due_and_never_by_enterprise() {
    const BEFORE: &str = "2026-02-09T23:59:59Z";
    const DUE: &str = "2026-02-10T00:00:00Z";
    let table = [
        (AddOn::default(), DUE, false),
        (bought(&[]), BEFORE, false),
        (bought(&[]), DUE, true),
        (bought(&[declined()]), DUE, true),
        (bought(&[cancelled()]), DUE, false),
        (bought(&[declined(), grace_over()]), DUE, false),
    ];
    for (add_on, now, expected) in table {
        let status = add_on.status();
        let standard = Profile { add_on, ..Profile::new(Plan::Standard, 1, Timestamp::UNIX_EPOCH) };
        assert_eq!(owes_add_on(&standard, at(now)), expected, "{status:?} at {now}");
        let enterprise = Profile {
            add_on: standard.add_on,
            ..Profile::new(Plan::Enterprise, 1, Timestamp::UNIX_EPOCH)
        };
        assert!(!owes_add_on(&enterprise, at(now)));
    }
}

#[test]
fn the_next_call_is_the_decision_unless_credits_do_not_cover_it() {
    for situation in all_situations() {
        let decision = decide(situation);
        let reason = decision.reason().as_str();
        let expected = |covered| match decision {
            Decision::OpenRouter { .. } => (Payer::OpenRouter, reason),
            Decision::GretaCredits { .. } if covered => (Payer::GretaCredits, reason),
            Decision::GretaCredits { .. } => (Payer::None, "insufficient_credits"),
            Decision::Refuse { .. } => (Payer::None, reason),
        };
        for covered in [true, false] {
            assert_eq!(next_call(decision, covered), expected(covered));
        }
    }
}

#[test]
fn fallback_causes_are_read_by_name() {
    use FallbackCause::{KeyRejected, KeyUnavailable, PaymentRequired, RateLimited, Unavailable};
    let all = [KeyRejected, PaymentRequired, RateLimited, Unavailable, KeyUnavailable];
    let table = [
        ("key_rejected,payment_required,rate_limited,unavailable", &all[..]),
        (" rate_limited , unavailable", &[RateLimited, Unavailable, KeyUnavailable][..]),
        ("key_rejected", &[KeyRejected][..]),
        ("", &[][..]),
    ];
    for (list, allowed) in table {
        let causes = FallbackCauses::parse(list).unwrap();
        for cause in all {
            assert_eq!(
                may_fall_back(Fallback::Allowed, cause, &causes),
                allowed.contains(&cause),
                "{list:?} {cause:?}"
            );
            assert!(!may_fall_back(Fallback::Never, cause, &causes));
        }
    }
    assert_eq!(FallbackCauses::parse("unavailable,nothing"), Err("nothing".to_owned()));
}

/// Every status of the add-on against every question about buying and owing.
#[test]
fn the_status_determines_what_is_owed_and_may_be_bought() {
    let disputed = Fact::Disputed {
        generation: GenerationId::new("g"),
        period: Period::FIRST,
        dispute: "du_1".to_owned(),
    };
    // Status: may buy, renews, a payment of period 2 counts, keeps the subscription.
    let table = [
        (AddOn::default(), "None", [true, false, false, false]),
        (bought(&[]), "Active", [false, true, true, true]),
        (bought(&[declined()]), "PastDue", [false, true, true, true]),
        (bought(&[cancelled()]), "Cancelling", [false, false, true, true]),
        (bought(&[declined(), grace_over()]), "Suspended", [true, false, true, false]),
        (bought(&[disputed]), "Suspended", [true, false, true, false]),
    ];
    let second = Period::FIRST.next();
    for (add_on, status, expected) in table {
        assert_eq!(format!("{:?}", add_on.status()), status);
        let generation = GenerationId::new("g");
        for plan in [Plan::Standard, Plan::Enterprise] {
            let profile =
                Profile { add_on: add_on.clone(), ..Profile::new(plan, 1, Timestamp::UNIX_EPOCH) };
            let answers = [
                may_buy_add_on(&profile),
                add_on_renews(&profile),
                payment_counts(&profile, &generation, second),
                keeps_subscription(&profile, &generation),
            ];
            let standard = plan == Plan::Standard;
            let expected = expected.map(|answer| answer && standard);
            assert_eq!(answers, expected, "{plan:?} {status}");
            assert_eq!(needs_add_on(plan), standard);
            let owes = owes_period(&profile, &generation, second);
            assert_eq!(owes, add_on_renews(&profile), "{plan:?} {status}");
            // Neither another generation nor a paid period is owed.
            assert!(!owes_period(&profile, &GenerationId::new("g2"), second));
            assert!(!owes_period(&profile, &generation, Period::FIRST));
        }
    }
}

#[test]
fn credits_held_by_calls_in_progress_count_towards_the_minimum_balance() {
    let mut account = Account {
        id: AccountId::new("acme").unwrap(),
        number: AccountNumber::new("n1").unwrap(),
        profile: Profile::new(Plan::Standard, 1, Timestamp::UNIX_EPOCH),
        revision: 0,
        balance: Balance::default(),
        created_at: Timestamp::UNIX_EPOCH,
    };
    for (balance, held, expected) in [
        (1_000_000, 0, MinimumBalance::Met),
        (1_000_000, 1_000_000, MinimumBalance::Met),
        (999_999, 0, MinimumBalance::Missed),
    ] {
        let credits = Credits::from_micros;
        account.balance = Balance::new(credits(balance), credits(held), Credits::ZERO, 1).unwrap();
        let situation = Situation::of(&account, Timestamp::UNIX_EPOCH, &policy());
        assert_eq!(situation.minimum_balance, expected, "{balance} of which {held} held");
    }
}
