//! How we collect one period, attempt by attempt.

use account::add_on::{Collection, Fact, GenerationId};
use account::billing::{AbandonedCharge, Charge, IntentState};
use account::{Period, Profile, end_of_period, period_at};
use jiff::{SignedDuration, Timestamp};

use crate::dunning::Dunning;
use crate::task::{LEASE, Step, Task, later};

/// Delays between look-ups of an unknown outcome; the last one repeats.
const LOOK_UP_DELAYS: [SignedDuration; 3] =
    [SignedDuration::from_mins(5), SignedDuration::from_hours(1), SignedDuration::from_hours(24)];

/// Maximum number of waived periods to record, the latest ones: five years.
pub(crate) const MAX_WAIVED: usize = 60;
/// Latest time of the first try, from the start of the period, for Stripe to count as unreachable
/// throughout grace.
const LATEST_FIRST_TRY: SignedDuration = SignedDuration::from_hours(24);

/// The end of the period, if it is owed and we charge it: from then on it is no longer charged.
/// `None` if Stripe collects, because Stripe decides how long it tries.
pub(crate) fn chargeable_until(profile: &Profile) -> Option<Timestamp> {
    let charge = profile.billing.charge.as_ref()?;
    let is_ours = !profile.add_on.is_run_by_stripe()
        && routing::owes_period(profile, &charge.generation, charge.period);
    is_ours.then_some(end_of_period(profile.add_on.anchor()?, charge.period))
}

/// Whether the unpaid period has ended at `now`. A charge that waits until the end or longer also
/// counts as ended, so that the index of due accounts, which knows no `now`, agrees.
pub fn period_has_ended(profile: &Profile, now: Timestamp) -> bool {
    let waits_until = profile.billing.charge.as_ref().map(|charge| charge.next_at);
    chargeable_until(profile).is_some_and(|end| end <= now || Some(end) <= waits_until)
}

/// Whether the period may be charged at `now`.
fn is_chargeable(profile: &Profile, charge: &Charge, now: Timestamp) -> bool {
    routing::owes_period(profile, &charge.generation, charge.period)
        && !period_has_ended(profile, now)
}

pub(crate) fn next_step(profile: &Profile, now: Timestamp) -> Option<(Timestamp, Step)> {
    let Some(charge) = &profile.billing.charge else {
        return routing::add_on_due_at(profile).map(|at| (at, Step::BeginCharge));
    };
    let chargeable = is_chargeable(profile, charge, now);
    // A charge ends with its period, so the end of grace, if earlier, is applied first.
    let over_at = chargeable_until(profile).unwrap_or(Timestamp::MIN);
    let step = match (&charge.intent, chargeable) {
        (IntentState::None | IntentState::Creating, false) => (over_at, Step::AbandonCharge),
        (IntentState::Idle { id } | IntentState::Confirming { id, .. }, false) => {
            (over_at.max(charge.next_at), Step::Charge(Task::Cancel { id: id.clone() }))
        }
        (IntentState::Confirming { id, since, .. }, true) => {
            (charge.next_at, Step::Charge(Task::LookUp { id: id.clone(), since: *since }))
        }
        (IntentState::Creating, true) => (charge.next_at, Step::Attempt),
        (IntentState::None | IntentState::Idle { .. }, true)
            if profile.add_on.is_run_by_stripe() =>
        {
            return None;
        }
        (IntentState::None | IntentState::Idle { .. }, true) => {
            // An open checkout is expired first.
            let at = charge.attempt_at.filter(|_| profile.billing.checkout.is_none())?;
            (at.max(charge.next_at), Step::Attempt)
        }
    };
    Some(step)
}

/// The end of access to an unpaid period: after at least one attempt to collect it, or if Stripe
/// was unreachable throughout grace.
pub(crate) fn end_of_grace(profile: &Profile, now: Timestamp) -> Option<(Timestamp, Step)> {
    let charge = profile.billing.charge.as_ref()?;
    if !routing::owes_period(profile, &charge.generation, charge.period) {
        return None;
    }
    let was_attempted = charge.declines > 0 || charge.attempt_at.is_none() || charge.was_refused;
    // An attempt with an unknown outcome counts until the period ends. Then it is cancelled, and
    // the next period is charged.
    let is_under_way = match charge.intent {
        IntentState::Confirming { .. } => true,
        IntentState::Creating => {
            let start = start_of(profile, charge.period)?;
            charge.first_tried_at.is_some_and(|at| at < later(start, LATEST_FIRST_TRY))
        }
        IntentState::None | IntentState::Idle { .. } => false,
    };
    let was_attempted = was_attempted || (is_under_way && !period_has_ended(profile, now));
    let ends = charge.grace_ends;
    // If Stripe collects, look up the subscription before access ends.
    let subscription = profile.billing.subscription.as_ref();
    let is_current = !profile.add_on.is_run_by_stripe()
        || subscription.is_none_or(|subscription| subscription.checked_at >= Some(ends));
    let fact = Fact::GraceOver { generation: charge.generation.clone(), period: charge.period };
    (was_attempted && is_current).then_some((ends, Step::Apply(fact)))
}

pub(crate) fn abandon(profile: &mut Profile) {
    let charge = profile.billing.charge.take();
    let charge = charge.filter(|charge| charge.intents > 0);
    profile.billing.abandoned = charge.map(|charge| AbandonedCharge {
        generation: charge.generation,
        period: charge.period,
        intents: charge.intents,
    });
}

/// The periods waived by the charge that began since `before`: the latest ones, first to last.
pub fn waived_since(profile: &Profile, before: &Profile) -> Vec<Period> {
    let charged = |profile: &Profile| {
        let charge = profile.billing.charge.as_ref();
        charge.map(|charge| (charge.generation.clone(), charge.period))
    };
    let now = charged(profile);
    let Some((_, current)) = now.clone().filter(|_| now != charged(before)) else {
        return Vec::new();
    };
    let missed = std::iter::successors(current.before(), |period| period.before());
    let missed = missed.take_while(|period| Some(*period) > profile.add_on.last_paid());
    let mut missed: Vec<_> = missed.take(MAX_WAIVED).collect();
    missed.reverse();
    missed
}

/// The charge for the period at `now`, if it is owed. Earlier unpaid periods are waived.
pub(crate) fn at(profile: &Profile, now: Timestamp, dunning: &Dunning) -> Option<Charge> {
    if !routing::owes_add_on(profile, now) {
        return None;
    }
    let anchor = profile.add_on.anchor()?;
    let generation = profile.add_on.generation()?;
    let first_unpaid = profile.add_on.last_paid()?.next();
    // Stripe itself knows which periods it collected.
    let period = if profile.add_on.is_run_by_stripe() {
        first_unpaid
    } else {
        period_at(anchor, now).max(first_unpaid)
    };
    let start = end_of_period(anchor, period.before()?);
    let was_declined = profile.add_on.last_declined() == Some(period);
    let abandoned = profile.billing.abandoned.as_ref();
    let same = abandoned.filter(|it| it.generation == *generation && it.period == period);
    Some(Charge {
        generation: generation.clone(),
        period,
        intents: same.map_or(0, |same| same.intents),
        intent: IntentState::None,
        declines: u32::from(was_declined),
        attempt_at: if profile.add_on.is_run_by_stripe() {
            None
        } else if was_declined {
            dunning.attempt_after(start, now)
        } else {
            Some(start)
        },
        first_tried_at: None,
        was_refused: false,
        grace_ends: dunning.grace_ends(start),
        next_at: Timestamp::MIN,
    })
}

/// Begins the next attempt, with the existing PaymentIntent or a new one.
pub(crate) fn attempt(profile: &mut Profile, now: Timestamp) -> Option<Task> {
    let with_credits = profile.add_on.collection() == Some(Collection::Credits);
    let card = profile.billing.payment_method();
    let charge = profile.billing.charge.as_mut()?;
    let (generation, period) = (charge.generation.clone(), charge.period);
    let attempt = attempt_number(charge);
    charge.next_at = later(now, LEASE);
    if with_credits {
        return Some(Task::TakeCredits { generation, period, attempt });
    }
    if let IntentState::Idle { id } = &charge.intent {
        let id = id.clone();
        confirm(charge, &id, card, now);
        return Some(Task::Confirm { generation, period, id, attempt });
    }
    if charge.intent == IntentState::None {
        charge.intents = charge.intents.saturating_add(1);
    }
    charge.intent = IntentState::Creating;
    charge.first_tried_at.get_or_insert(now);
    Some(Task::Create { generation, period, intent: charge.intents, attempt })
}

pub(crate) fn is_confirming(charge: &Charge) -> bool {
    matches!(charge.intent, IntentState::Confirming { .. })
}

/// Records that the period's PaymentIntent was created. Returns the attempt to confirm, which is
/// stored as under way; `None` if it must no longer be confirmed.
pub fn intent_created(
    profile: &mut Profile,
    generation: &GenerationId,
    period: Period,
    id: &str,
    now: Timestamp,
) -> Option<u32> {
    let charge = profile.billing.charge.as_ref()?;
    if charge.generation != *generation || charge.period != period {
        return None;
    }
    let chargeable = is_chargeable(profile, charge, now);
    let card = profile.billing.payment_method();
    let charge = profile.billing.charge.as_mut()?;
    match &charge.intent {
        IntentState::Creating if chargeable => confirm(charge, id, card, now),
        IntentState::Creating => charge.intent = IntentState::Idle { id: id.to_owned() },
        IntentState::Confirming { id: known, .. } if known == id => {}
        _ => return None,
    }
    charge.intent.is_confirming(id).then(|| attempt_number(charge))
}

/// Records that Stripe never received the attempt stored as under way. Returns the attempt number
/// to repeat; `None` if the period is no longer charged.
pub fn never_confirmed(profile: &mut Profile, id: &str, now: Timestamp) -> Option<u32> {
    let chargeable = is_chargeable(profile, profile.billing.charge.as_ref()?, now);
    let charge = profile.billing.charge.as_mut();
    let charge = charge.filter(|charge| charge.intent.is_confirming(id))?;
    if chargeable {
        charge.next_at = later(now, LEASE);
        return Some(attempt_number(charge));
    }
    // The attempt may still arrive: if it succeeds before the cancellation, it stands.
    charge.next_at = now;
    None
}

/// Records that attempt number `attempt` was declined. `id` is its PaymentIntent; `None` if the
/// available credits are too few. `is_final`: no further attempt can succeed.
pub fn declined(
    profile: &mut Profile,
    id: Option<&str>,
    attempt: u32,
    is_final: bool,
    now: Timestamp,
    dunning: &Dunning,
) {
    let start = start_of_charge(profile);
    let Some(charge) = &mut profile.billing.charge else {
        return;
    };
    let concerns_charge = match (&charge.intent, id) {
        (IntentState::None | IntentState::Creating, None) => true,
        (IntentState::Confirming { id: known, .. }, Some(id)) => known == id,
        _ => false,
    };
    if !concerns_charge || attempt_number(charge) != attempt {
        return;
    }
    charge.declines = attempt;
    charge.intent = id.map_or(IntentState::None, |id| IntentState::Idle { id: id.to_owned() });
    charge.next_at = now;
    let next = start.and_then(|start| dunning.attempt_after(start, now));
    charge.attempt_at = next.filter(|_| !is_final);
    if next.is_none() {
        // A decline on the last attempt day ends the grace period.
        charge.grace_ends = charge.grace_ends.min(now);
    }
    mark_past_due(profile);
}

/// Records that Stripe refused an attempt without asking the card's bank, and that the attempt's
/// PaymentIntent, if any, was cancelled. This is not a decline: the next attempt day repeats the
/// attempt under the same number, with a new PaymentIntent.
pub fn attempt_refused(profile: &mut Profile, id: Option<&str>, now: Timestamp, dunning: &Dunning) {
    let start = start_of_charge(profile);
    let Some(charge) = charge_under_way(profile, id) else {
        return;
    };
    charge.intent = IntentState::None;
    charge.was_refused = true;
    charge.next_at = now;
    charge.attempt_at = start.and_then(|start| dunning.attempt_after(start, now));
}

/// Records that the account has no chargeable card, and forgets `card` unless it was replaced by
/// now. The attempt's PaymentIntent, if any, was cancelled. Without a newer card, the account is
/// past due until one is added, which is charged at once.
pub fn card_missing(profile: &mut Profile, id: Option<&str>, card: Option<&str>, now: Timestamp) {
    let known = profile.billing.payment_method();
    let has_newer = known.is_some() && known.as_deref() != card;
    let Some(charge) = charge_under_way(profile, id) else {
        return;
    };
    charge.intent = IntentState::None;
    charge.next_at = now;
    if has_newer {
        return;
    }
    charge.attempt_at = None;
    profile.billing.card = None;
    mark_past_due(profile);
}

/// Records that Stripe only replays an earlier failure of the attempt, and that its PaymentIntent,
/// if any, was cancelled. The attempt is repeated with a new PaymentIntent at `retry_at`.
pub fn retry_with_new_intent(profile: &mut Profile, id: Option<&str>, retry_at: Timestamp) {
    if let Some(charge) = charge_under_way(profile, id) {
        charge.intent = IntentState::None;
        charge.next_at = retry_at;
    }
}

/// The charge, if this attempt is under way.
fn charge_under_way<'a>(profile: &'a mut Profile, id: Option<&str>) -> Option<&'a mut Charge> {
    let charge = profile.billing.charge.as_mut()?;
    let is_under_way = match id {
        Some(id) => charge.intent.is_confirming(id),
        None => charge.intent == IntentState::Creating,
    };
    is_under_way.then_some(charge)
}

fn mark_past_due(profile: &mut Profile) {
    let Some(charge) = &profile.billing.charge else {
        return;
    };
    let (generation, period) = (charge.generation.clone(), charge.period);
    if routing::owes_period(profile, &generation, period) {
        profile.add_on.apply(Fact::Declined { generation, period });
    }
}

fn start_of_charge(profile: &Profile) -> Option<Timestamp> {
    start_of(profile, profile.billing.charge.as_ref()?.period)
}

fn start_of(profile: &Profile, period: Period) -> Option<Timestamp> {
    Some(end_of_period(profile.add_on.anchor()?, period.before()?))
}

/// Records that the outcome is still unknown. Each look-up waits longer than the one before.
pub fn still_unknown(profile: &mut Profile, id: &str, now: Timestamp) {
    let Some(charge) = &mut profile.billing.charge else {
        return;
    };
    if let IntentState::Confirming { id: known, checks, .. } = &mut charge.intent
        && known == id
    {
        let delay = usize::try_from(*checks).ok().and_then(|at| LOOK_UP_DELAYS.get(at));
        let delay = delay.or(LOOK_UP_DELAYS.last()).copied().unwrap_or_default();
        *checks = checks.saturating_add(1);
        charge.next_at = later(now, delay);
    }
}

/// Brings the look-up forward: something happened to the PaymentIntent.
pub fn look_up_now(profile: &mut Profile, id: &str, now: Timestamp) {
    if let Some(charge) = &mut profile.billing.charge
        && charge.intent.is_confirming(id)
    {
        charge.next_at = charge.next_at.min(now);
    }
}

/// Records that the PaymentIntent was cancelled at Stripe: it can no longer be paid.
pub fn intent_cancelled(profile: &mut Profile, id: &str) {
    if let Some(charge) = &mut profile.billing.charge
        && charge.intent.id() == Some(id)
    {
        charge.intent = IntentState::None;
    }
}

fn attempt_number(charge: &Charge) -> u32 {
    charge.declines.saturating_add(1)
}

fn confirm(charge: &mut Charge, id: &str, card: Option<String>, now: Timestamp) {
    charge.intent = IntentState::Confirming { id: id.to_owned(), card, since: now, checks: 0 };
    charge.next_at = later(now, LEASE);
}
