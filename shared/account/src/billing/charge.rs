//! The collection of one period by us, attempt by attempt.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Dunning, LEASE, Step, Task, later};
use crate::Profile;
use crate::add_on::{Collection, Fact, GenerationId};
use crate::period::{Period, end_of_period, period_at};

/// When an outcome that is not known is looked up, each from the look-up before it; the last one again
/// and again.
const LOOK_UPS: [SignedDuration; 3] = [
    SignedDuration::from_mins(5),
    SignedDuration::from_hours(1),
    SignedDuration::from_hours(24),
];

/// So many periods are written down as waived at most, the last ones: five years.
pub(super) const MOST_WAIVED: usize = 60;

/// The collection of one period by us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    pub generation: GenerationId,
    pub period: Period,
    /// Payment objects made for it so far: more than one only where one was cancelled for a checkout.
    pub objects: u32,
    pub object: Object,
    /// Known declines: the next attempt has the number after that.
    pub declines: u32,
    /// When the next attempt is due; `None` if there is none.
    pub(super) attempt_at: Option<Timestamp>,
    pub(super) grace_ends: Timestamp,
    /// Nobody else takes it on before.
    pub(super) next_at: Timestamp,
}

/// A charge that is not collected any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GivenUp {
    generation: GenerationId,
    period: Period,
    objects: u32,
}

/// The payment object of a charge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Object {
    /// There is none that could be paid.
    None,
    /// It is being made.
    Creating,
    /// An attempt is under way, and its outcome not known.
    Confirming {
        id: String,
        /// What it is charged to. The same attempt made again is made with the same card.
        card: Option<String>,
        since: Timestamp,
        /// Look-ups that did not tell.
        checks: u32,
    },
    /// It is there, and nothing is under way.
    Idle { id: String },
}

impl Profile {
    pub(super) fn next_of_charge(&self) -> Option<(Timestamp, Step)> {
        let Some(charge) = &self.billing.charge else {
            let due = self.add_on.paid_through().filter(|_| self.collects());
            return due.map(|at| (at, Step::Begin));
        };
        let wanted = self.is_owed(&charge.generation, charge.period);
        let step = match (&charge.object, wanted) {
            (Object::None | Object::Creating, false) => (Timestamp::MIN, Step::ForgetCharge),
            (Object::Idle { .. } | Object::Confirming { .. }, false) => {
                (charge.next_at, Step::Cancel)
            }
            (Object::Confirming { .. }, true) => (charge.next_at, Step::LookUp),
            (Object::Creating, true) => (charge.next_at, Step::Attempt),
            (Object::None | Object::Idle { .. }, true) if self.is_run_by_provider() => return None,
            (Object::None | Object::Idle { .. }, true) => {
                // An open checkout is closed first.
                let at = charge
                    .attempt_at()
                    .filter(|_| self.billing.checkout.is_none())?;
                (at.max(charge.next_at), Step::Attempt)
            }
        };
        Some(step)
    }

    /// The end of access to a period that was not paid, once it was tried to collect it.
    pub(super) fn end_of_grace(&self) -> Option<(Timestamp, Step)> {
        let charge = self.billing.charge.as_ref()?;
        if !self.is_owed(&charge.generation, charge.period) {
            return None;
        }
        let fact = Fact::GraceOver {
            generation: charge.generation.clone(),
            period: charge.period,
        };
        let ends = charge.access_ends()?;
        // Where the provider collects, it is asked first.
        let is_known = !self.is_run_by_provider() || self.was_asked_since(ends);
        is_known.then_some((ends, Step::Note(fact)))
    }

    pub(super) fn give_up_charge(&mut self) {
        let given_up = self.billing.charge.take().map(|charge| GivenUp {
            generation: charge.generation,
            period: charge.period,
            objects: charge.objects,
        });
        self.billing.given_up = given_up.filter(|given_up| given_up.objects > 0);
    }

    pub(super) fn first_unpaid(&self) -> Option<Period> {
        self.add_on.last_paid().map(Period::next)
    }

    /// The periods that were missed, and are waived, because a later one is charged now and was not
    /// before: the last ones of them, first to last.
    pub fn waived_since(&self, before: &Self) -> Vec<Period> {
        let charged = |profile: &Self| {
            let charge = profile.billing.charge.as_ref();
            charge.map(|charge| (charge.generation.clone(), charge.period))
        };
        let Some((_, charged_now)) = charged(self).filter(|_| charged(self) != charged(before))
        else {
            return Vec::new();
        };
        let missed = std::iter::successors(charged_now.before(), |period| period.before());
        let missed = missed.take_while(|period| Some(*period) > self.add_on.last_paid());
        let mut missed: Vec<_> = missed.take(MOST_WAIVED).collect();
        missed.reverse();
        missed
    }

    /// The charge of the period that contains `now`: those before it were missed, and are waived.
    pub(super) fn charge_at(&self, now: Timestamp, dunning: &Dunning) -> Option<Charge> {
        let anchor = self.add_on.anchor()?;
        let first = self.first_unpaid()?;
        // What the provider collected meanwhile, it is asked.
        let period = if self.is_run_by_provider() {
            first
        } else {
            period_at(anchor, now).max(first)
        };
        let start = end_of_period(anchor, period.before()?);
        let declined = self.add_on.last_declined() == Some(period);
        let is_the_same = |given_up: &&GivenUp| {
            Some(&given_up.generation) == self.add_on.generation() && given_up.period == period
        };
        let made = self.billing.given_up.as_ref().filter(is_the_same);
        Some(Charge {
            generation: self.add_on.generation()?.clone(),
            period,
            objects: made.map_or(0, |made| made.objects),
            object: Object::None,
            declines: u32::from(declined),
            attempt_at: if self.is_run_by_provider() {
                None
            } else if declined {
                dunning.attempt_after(start, now)
            } else {
                Some(start)
            },
            grace_ends: dunning.grace_ends(start),
            next_at: Timestamp::MIN,
        })
    }

    /// The payment object of the period was made. The attempt to confirm, which is written down as under
    /// way; `None` if it is not to be confirmed any more.
    pub fn object_made(
        &mut self,
        generation: &GenerationId,
        period: Period,
        id: &str,
        now: Timestamp,
    ) -> Option<u32> {
        let (wanted, card) = (self.is_owed(generation, period), self.billing.card());
        let charge = self.billing.charge.as_mut()?;
        if charge.generation != *generation || charge.period != period {
            return None;
        }
        match &charge.object {
            Object::Creating if wanted => charge.confirm(id, card, now),
            Object::Creating => charge.object = Object::Idle { id: id.to_owned() },
            Object::Confirming { id: known, .. } if known == id => {}
            _ => return None,
        }
        charge.is_confirming(id).then(|| charge.attempt_number())
    }

    /// The provider never got the attempt that was written down as under way: it is to be made again,
    /// under the same number. `None` if it is not owed any more.
    pub fn never_confirmed(&mut self, id: &str, now: Timestamp) -> Option<u32> {
        let charge = self.billing.charge.as_ref()?;
        let wanted = self.is_owed(&charge.generation, charge.period);
        let charge = self
            .billing
            .charge
            .as_mut()
            .filter(|it| it.is_confirming(id))?;
        if wanted {
            charge.next_at = later(now, LEASE);
            return Some(charge.attempt_number());
        }
        // It may still be on its way: if it succeeds before the object is cancelled, it stands.
        charge.next_at = now;
        None
    }

    /// Attempt `attempt` was declined, with the object `id`, or without one: the provider made none, there
    /// is no card, or credits do not suffice. `no_more`: no further attempt can succeed.
    pub fn declined(
        &mut self,
        id: Option<&str>,
        attempt: u32,
        no_more: bool,
        now: Timestamp,
        dunning: &Dunning,
    ) {
        let anchor = self.add_on.anchor();
        let Some(charge) = &mut self.billing.charge else {
            return;
        };
        let is_about_it = match (&charge.object, id) {
            (Object::None | Object::Creating, None) => true,
            (Object::Confirming { id: known, .. }, Some(id)) => known == id,
            _ => false,
        };
        if !is_about_it || charge.attempt_number() != attempt {
            return;
        }
        charge.declines = attempt;
        charge.object = id.map_or(Object::None, |id| Object::Idle { id: id.to_owned() });
        charge.next_at = now;
        let start = anchor.zip(charge.period.before());
        let start = start.map(|(anchor, before)| end_of_period(anchor, before));
        let next = start.and_then(|start| dunning.attempt_after(start, now));
        charge.attempt_at = next.filter(|_| !no_more);
        if next.is_none() {
            // The last day's attempt ends the grace period.
            charge.grace_ends = charge.grace_ends.min(now);
        }
        let (generation, period) = (charge.generation.clone(), charge.period);
        if self.is_owed(&generation, period) {
            self.add_on.apply(Fact::Declined { generation, period });
        }
    }

    /// The provider could not say what became of the object, or could not be asked: it is looked up
    /// again, later and later.
    pub fn still_unknown(&mut self, id: &str, now: Timestamp) {
        let Some(charge) = &mut self.billing.charge else {
            return;
        };
        if let Object::Confirming {
            id: known, checks, ..
        } = &mut charge.object
            && known == id
        {
            let wait = usize::try_from(*checks)
                .ok()
                .and_then(|at| LOOK_UPS.get(at));
            let wait = wait.or(LOOK_UPS.last()).copied().unwrap_or_default();
            *checks = checks.saturating_add(1);
            charge.next_at = later(now, wait);
        }
    }

    /// There is news of the object: its outcome is to be looked up at once.
    pub fn look_up_now(&mut self, id: &str, now: Timestamp) {
        if let Some(charge) = &mut self.billing.charge
            && charge.is_confirming(id)
        {
            charge.next_at = charge.next_at.min(now);
        }
    }

    /// The object was cancelled at the provider: nobody can pay it any more.
    pub fn object_gone(&mut self, id: &str) {
        if let Some(charge) = &mut self.billing.charge
            && charge.object.id() == Some(id)
        {
            charge.object = Object::None;
        }
    }
}

impl Charge {
    /// When the next attempt is due; `None` if there is none.
    pub fn attempt_at(&self) -> Option<Timestamp> {
        self.attempt_at
    }

    /// Until when there is access though the period is not paid.
    pub fn grace_ends(&self) -> Timestamp {
        self.grace_ends
    }

    pub(super) fn attempt_number(&self) -> u32 {
        self.declines.saturating_add(1)
    }

    pub(super) fn is_confirming(&self, id: &str) -> bool {
        matches!(&self.object, Object::Confirming { id: known, .. } if known == id)
    }

    pub(super) fn confirm(&mut self, id: &str, card: Option<String>, now: Timestamp) {
        self.object = Object::Confirming {
            id: id.to_owned(),
            card,
            since: now,
            checks: 0,
        };
        self.next_at = later(now, LEASE);
    }

    /// When access ends if nothing more is heard: only after an attempt was made.
    pub(super) fn access_ends(&self) -> Option<Timestamp> {
        let is_tried = self.declines > 0
            || self.attempt_at.is_none()
            || matches!(self.object, Object::Confirming { .. });
        is_tried.then_some(self.grace_ends)
    }

    /// Begins the next attempt, with the object that is there or with a new one.
    pub(super) fn attempt(
        &mut self,
        now: Timestamp,
        collection: Option<Collection>,
        card: Option<String>,
    ) -> Task {
        let (generation, period) = (self.generation.clone(), self.period);
        if collection == Some(Collection::Credits) {
            self.next_at = later(now, LEASE);
            return Task::Post {
                generation,
                period,
                attempt: self.attempt_number(),
            };
        }
        if let Object::Idle { id } = &self.object {
            let id = id.clone();
            self.confirm(&id, card, now);
            return Task::Confirm {
                generation,
                period,
                id,
                attempt: self.attempt_number(),
            };
        }
        if self.object == Object::None {
            self.objects = self.objects.saturating_add(1);
        }
        self.object = Object::Creating;
        self.next_at = later(now, LEASE);
        Task::Create {
            generation,
            period,
            object: self.objects,
            attempt: self.attempt_number(),
        }
    }

    pub(super) fn look_up(&self) -> Option<Task> {
        let Object::Confirming { id, since, .. } = &self.object else {
            return None;
        };
        Some(Task::LookUp {
            id: id.clone(),
            since: *since,
        })
    }
}

impl Object {
    pub(super) fn id(&self) -> Option<&str> {
        match self {
            Self::Confirming { id, .. } | Self::Idle { id } => Some(id),
            Self::None | Self::Creating => None,
        }
    }
}
