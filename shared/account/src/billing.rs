//! What is under way at the payment provider for an account's add-on, and what is to be done next.
//!
//! It is one value beside the add-on's facts, in the same item and changed by the same conditional
//! writes: who cancels and who charges meet there and nowhere else.
//!
//! Invariants:
//! - at most one thing can be paid at a time: a checkout, or the payment object of the open period;
//! - nothing is confirmed at the provider before it is written down as confirming, and nothing is
//!   written down so that is not owed at that moment;
//! - the number of an attempt grows only by a known decline;
//! - what is to be done next, and when, follows from the value alone, so that the index by which due
//!   accounts are found cannot disagree with it.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::add_on::{Collection, Fact, GenerationId};
use crate::period::{Period, end_of_period, period_at};
use crate::{AddOnStatus, Plan, Profile};

mod subscription;

pub use subscription::{Standing, Subscription, period_ending};

/// The price of a period, in US cents.
pub const PRICE_CENTS: u64 = 500;

/// How long a checkout can be paid. The provider takes 30 minutes to 24 hours.
pub const CHECKOUT_LIFE: SignedDuration = SignedDuration::from_hours(1);

/// How long a checkout may be in the making; after that the provider may find its end too near.
const MAKING: SignedDuration = SignedDuration::from_mins(20);

/// How long a step belongs to whoever took it on.
const LEASE: SignedDuration = SignedDuration::from_mins(2);

/// When an outcome that is not known is looked up, each from the look-up before it; the last one again
/// and again.
const LOOK_UPS: [SignedDuration; 3] = [
    SignedDuration::from_mins(5),
    SignedDuration::from_hours(1),
    SignedDuration::from_hours(24),
];

/// So many periods are written down as waived at most, the last ones: five years.
const MOST_WAIVED: usize = 60;

/// How a period is collected that is not paid at once (`ADD_ON_ATTEMPT_DAYS`, `ADD_ON_GRACE_DAYS`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dunning {
    attempt_days: Vec<u32>,
    grace_days: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the days of attempts must begin with 0, rise, and end before the grace period does")]
pub struct DunningError;

impl Default for Dunning {
    /// Attempts on the days 0, 1, 3, 5 and 7, and 8 days of grace.
    fn default() -> Self {
        Self {
            attempt_days: vec![0, 1, 3, 5, 7],
            grace_days: 8,
        }
    }
}

impl Dunning {
    /// Attempts on `attempt_days` after a period's start, access until `grace_days` after it.
    ///
    /// # Errors
    /// [`DunningError`] unless the days begin with 0, rise, and end before the grace period.
    pub fn new(attempt_days: Vec<u32>, grace_days: u32) -> Result<Self, DunningError> {
        let rise = attempt_days.is_sorted_by(|before, after| before < after);
        let ends = attempt_days.last().is_some_and(|last| *last < grace_days);
        if rise && ends && attempt_days.first() == Some(&0) {
            Ok(Self {
                attempt_days,
                grace_days,
            })
        } else {
            Err(DunningError)
        }
    }

    /// The first attempt day of a period begun at `start` that comes after `tried_at`.
    fn attempt_after(&self, start: Timestamp, tried_at: Timestamp) -> Option<Timestamp> {
        let days = self.attempt_days.iter();
        days.map(|days| days_after(start, *days))
            .find(|day| *day > tried_at)
    }

    fn grace_ends(&self, start: Timestamp) -> Timestamp {
        days_after(start, self.grace_days)
    }
}

fn days_after(start: Timestamp, days: u32) -> Timestamp {
    later(
        start,
        SignedDuration::from_hours(i64::from(days).saturating_mul(24)),
    )
}

fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// What is under way at the payment provider. Objects there are known by the provider's own ids.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Billing {
    /// The account at the provider.
    pub customer: Option<String>,
    pub card: Option<Card>,
    /// Counts what the user did; each cancelling and resuming is one.
    pub actions: u64,
    pub checkout: Option<Checkout>,
    pub charge: Option<Charge>,
    /// Where the provider collects.
    #[serde(default)]
    pub subscription: Option<Subscription>,
}

/// The payment method that periods are charged to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    pub payment_method: String,
    /// When the user gave it; the latest counts.
    pub given_at: Timestamp,
}

/// A page of the provider on which the add-on can be paid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkout {
    /// Our own name of it, and the idempotency key of its making.
    pub order: String,
    pub buys: Buys,
    pub collection: Collection,
    /// All that is sent to the provider follows from this, so that it can be sent again.
    pub made_at: Timestamp,
    /// `None` while it is in the making.
    pub session: Option<Session>,
    /// Nobody else closes it before.
    next_at: Timestamp,
}

/// What a checkout pays for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Buys {
    /// A new generation's first period.
    Generation,
    /// The open period.
    Period {
        generation: GenerationId,
        period: Period,
    },
}

/// The provider's side of a checkout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub id: String,
    pub url: String,
    pub expires_at: Timestamp,
}

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
    attempt_at: Option<Timestamp>,
    grace_ends: Timestamp,
    /// Nobody else takes it on before.
    next_at: Timestamp,
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

/// The next thing to be done at the provider; whoever is given it has it alone for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Make a payment object, the `object`-th of the period, and confirm it: attempt number `attempt`.
    Create {
        generation: GenerationId,
        period: Period,
        object: u32,
        attempt: u32,
    },
    /// Confirm the object: attempt number `attempt` of the period.
    Confirm {
        generation: GenerationId,
        period: Period,
        id: String,
        attempt: u32,
    },
    /// Take the price from the credits, and the period as paid, in one.
    Post {
        generation: GenerationId,
        period: Period,
        attempt: u32,
    },
    /// Find out what became of the object; unknown since then.
    LookUp { id: String, since: Timestamp },
    /// Cancel the object: it is not to be paid any more.
    Cancel { id: String },
    /// Close the checkout, unless it is paid.
    Close { session: String },
    /// Find out what the provider collected.
    Follow { subscription: String },
    /// Have the subscription end with its period, or go on.
    Tell { subscription: String, ends: bool },
    /// End the subscription at once, with what it still asks for.
    Stop { subscription: String },
}

/// What comes next, whenever that is.
enum Step {
    /// Time alone makes a fact.
    Note(Fact),
    ForgetCheckout,
    ForgetCharge,
    /// A period is due, and nothing is under way for it.
    Begin,
    /// An attempt is due.
    Attempt,
    LookUp,
    Cancel,
    Close,
    Follow,
    Tell,
    Stop,
    LeaveToItsEnd,
}

impl Profile {
    /// When there is something to do for the add-on without anybody asking for it.
    pub fn billing_due(&self) -> Option<Timestamp> {
        self.next_step().map(|(at, _)| at)
    }

    /// Brings the add-on to `now`, and takes on the next thing to be done at the provider. Periods that
    /// were missed are skipped.
    pub fn take_on(&mut self, now: Timestamp, dunning: &Dunning) -> Option<Task> {
        // Each step but the one returned leads to another one; the bound is against a mistake.
        for _ in 0..16 {
            let (at, step) = self.next_step()?;
            if at > now {
                return None;
            }
            let lease = later(now, LEASE);
            match step {
                Step::Note(fact) => self.add_on.apply(fact),
                Step::ForgetCheckout => self.billing.checkout = None,
                Step::ForgetCharge => self.billing.charge = None,
                Step::Begin => self.billing.charge = self.charge_at(now, dunning),
                Step::Attempt => {
                    let (collection, card) = (self.add_on.collection(), self.billing.card());
                    let charge = self.billing.charge.as_mut()?;
                    return Some(charge.attempt(now, collection, card));
                }
                Step::LookUp => {
                    let charge = self.billing.charge.as_mut()?;
                    charge.next_at = lease;
                    return charge.look_up();
                }
                Step::Cancel => {
                    let charge = self.billing.charge.as_mut()?;
                    charge.next_at = lease;
                    let id = charge.object.id()?.to_owned();
                    return Some(Task::Cancel { id });
                }
                Step::Close => {
                    let checkout = self.billing.checkout.as_mut()?;
                    checkout.next_at = lease;
                    let session = checkout.session.as_ref()?.id.clone();
                    return Some(Task::Close { session });
                }
                Step::Follow | Step::Tell | Step::Stop => {
                    return self.take_on_subscription(&step, now);
                }
                Step::LeaveToItsEnd => self.leave_to_its_end(),
            }
        }
        None
    }

    /// Of all that could come next, the earliest; of things at one time, the first here.
    fn next_step(&self) -> Option<(Timestamp, Step)> {
        let steps = [
            self.next_of_checkout(),
            self.next_of_charge(),
            self.next_of_subscription(),
            self.end_of_grace(),
            self.end_of_what_is_paid(),
        ];
        steps.into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    fn next_of_checkout(&self) -> Option<(Timestamp, Step)> {
        let checkout = self.billing.checkout.as_ref()?;
        let Some(session) = &checkout.session else {
            let at = if self.wants(&checkout.buys) {
                later(checkout.made_at, MAKING)
            } else {
                Timestamp::MIN
            };
            return Some((at, Step::ForgetCheckout));
        };
        let at = if self.wants(&checkout.buys) {
            // The next due attempt takes its place.
            let attempt = self.billing.charge.as_ref().and_then(Charge::attempt_at);
            attempt.map_or(session.expires_at, |at| at.min(session.expires_at))
        } else {
            Timestamp::MIN
        };
        Some((at.max(checkout.next_at), Step::Close))
    }

    fn next_of_charge(&self) -> Option<(Timestamp, Step)> {
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
    fn end_of_grace(&self) -> Option<(Timestamp, Step)> {
        let charge = self.billing.charge.as_ref()?;
        if !self.is_owed(&charge.generation, charge.period) {
            return None;
        }
        let fact = Fact::GraceOver {
            generation: charge.generation.clone(),
            period: charge.period,
        };
        Some((charge.access_ends()?, Step::Note(fact)))
    }

    fn end_of_what_is_paid(&self) -> Option<(Timestamp, Step)> {
        // A payment that was under way when the user cancelled stands if it succeeds.
        let is_confirming = |charge: &Charge| matches!(charge.object, Object::Confirming { .. });
        if self.add_on.status() != AddOnStatus::Cancelling
            || self.billing.charge.as_ref().is_some_and(is_confirming)
        {
            return None;
        }
        let fact = Fact::PeriodOver {
            generation: self.add_on.generation()?.clone(),
            period: self.add_on.last_paid()?,
        };
        Some((self.add_on.paid_through()?, Step::Note(fact)))
    }

    /// What a checkout would pay for now; `None` if there is nothing to pay.
    pub fn can_buy(&self) -> Option<Buys> {
        let period = self.billing.charge.as_ref().map(|charge| charge.period);
        let open = period.max(self.add_on.last_declined());
        let open = open.zip(self.add_on.generation());
        let open = open.map(|(period, generation)| Buys::Period {
            generation: generation.clone(),
            period,
        });
        match self.add_on.status() {
            // The provider asks for it itself.
            AddOnStatus::PastDue if self.is_run_by_provider() => None,
            AddOnStatus::PastDue => open,
            _ => Some(Buys::Generation),
        }
        .filter(|buys| self.wants(buys))
    }

    /// Is the checkout one that can be paid until `until`?
    pub fn can_be_paid(&self, checkout: &Checkout, until: Timestamp) -> bool {
        let ends = match &checkout.session {
            Some(session) => session.expires_at,
            None => later(checkout.made_at, MAKING),
        };
        self.wants(&checkout.buys) && until < ends
    }

    /// Is the add-on one that goes on from period to period?
    fn collects(&self) -> bool {
        let goes_on = matches!(
            self.add_on.status(),
            AddOnStatus::Active | AddOnStatus::PastDue
        );
        self.plan() == Plan::Standard && goes_on
    }

    fn is_owed(&self, generation: &GenerationId, period: Period) -> bool {
        self.collects()
            && self.add_on.generation() == Some(generation)
            && Some(period) > self.add_on.last_paid()
    }

    /// May what a checkout buys still be bought?
    fn wants(&self, buys: &Buys) -> bool {
        match buys {
            Buys::Generation => {
                let may_begin = matches!(
                    self.add_on.status(),
                    AddOnStatus::None | AddOnStatus::Suspended | AddOnStatus::Ended
                );
                // Of two that could be charged, one is too many.
                self.plan() == Plan::Standard && may_begin && self.billing.subscription.is_none()
            }
            Buys::Period { generation, period } => self.is_owed(generation, *period),
        }
    }

    fn first_unpaid(&self) -> Option<Period> {
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
    fn charge_at(&self, now: Timestamp, dunning: &Dunning) -> Option<Charge> {
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
        Some(Charge {
            generation: self.add_on.generation()?.clone(),
            period,
            objects: 0,
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

    /// Whatever was taken on is not tried again before `at`.
    pub fn put_off(&mut self, at: Timestamp) {
        if let Some(charge) = &mut self.billing.charge {
            charge.next_at = charge.next_at.max(at);
        }
        if let Some(checkout) = &mut self.billing.checkout {
            checkout.next_at = checkout.next_at.max(at);
        }
        if let Some(subscription) = &mut self.billing.subscription {
            subscription.put_off(at);
        }
    }

    /// A checkout is about to be made.
    pub fn begin_checkout(
        &mut self,
        order: String,
        buys: Buys,
        collection: Collection,
        now: Timestamp,
    ) {
        self.billing.checkout = Some(Checkout {
            order,
            buys,
            collection,
            made_at: now,
            session: None,
            next_at: now,
        });
    }

    /// The checkout was made. False if nobody wants it any more: then it is to be closed.
    #[must_use = "a checkout that nobody wants is to be closed"]
    pub fn checkout_made(&mut self, order: &str, session: Session) -> bool {
        let checkout = self.billing.checkout.as_ref();
        let wanted =
            checkout.is_some_and(|checkout| checkout.order == order && self.wants(&checkout.buys));
        if let (true, Some(checkout)) = (wanted, &mut self.billing.checkout) {
            checkout.session = Some(session);
        }
        wanted
    }

    /// The checkout cannot be paid any more.
    pub fn checkout_closed(&mut self, session: &str) {
        let checkout = self.billing.checkout.as_ref();
        let known = checkout.and_then(|checkout| checkout.session.as_ref());
        if known.is_some_and(|known| known.id == session) {
            self.billing.checkout = None;
        }
    }

    /// A period was paid with `object`. False if it was not owed: then the payment is to be given back.
    #[must_use = "a payment that was not owed is to be given back"]
    pub fn period_paid(&mut self, generation: &GenerationId, period: Period, object: &str) -> bool {
        let may_be_paid = match self.add_on.status() {
            AddOnStatus::Active
            | AddOnStatus::PastDue
            | AddOnStatus::Cancelling
            | AddOnStatus::Suspended => true,
            AddOnStatus::None | AddOnStatus::Ended => false,
        };
        let is_current = self.add_on.generation() == Some(generation);
        let owed = if self.is_run_by_provider() && Some(period) <= self.add_on.last_paid() {
            // It collects each period once, and was heard of late.
            is_current
        } else {
            // What the provider collects after a cancellation, it was not told of in time.
            let is_late = self.is_run_by_provider() && self.is_cancelling();
            self.plan() == Plan::Standard
                && may_be_paid
                && !is_late
                && is_current
                && Some(period) > self.add_on.last_paid()
        };
        if owed {
            self.add_on.apply(Fact::Paid {
                generation: generation.clone(),
                period,
            });
        }
        self.billing.forget(object);
        owed
    }

    /// The first period of a new generation, named by what paid for it, was paid at `at`. False if the
    /// add-on was not to be had: then the payment is to be given back.
    #[must_use = "a payment that was not owed is to be given back"]
    pub fn activated(
        &mut self,
        generation: GenerationId,
        at: Timestamp,
        collection: Collection,
    ) -> bool {
        let wanted = self.wants(&Buys::Generation);
        self.billing.forget(generation.as_str());
        if wanted {
            self.add_on.apply(Fact::Activated {
                generation,
                at,
                collection,
            });
        }
        wanted
    }

    /// Keeps the card that was given at `given_at`, if none was given later. What the card before it did
    /// not pay is tried again with it at once.
    pub fn keep_card(&mut self, payment_method: String, given_at: Timestamp) {
        let known = self.billing.card.as_ref();
        if known.is_some_and(|known| known.given_at >= given_at) {
            return;
        }
        self.billing.card = Some(Card {
            payment_method,
            given_at,
        });
        if let Some(charge) = &mut self.billing.charge
            && charge.declines > 0
        {
            charge.attempt_at = Some(given_at);
        }
    }
}

impl Profile {
    /// The user cancels: access goes on until what is paid is over. What is past due ends at once.
    ///
    /// # Errors
    /// [`NotSubscribed`] if there is nothing to cancel.
    pub fn cancel(&mut self) -> Result<(), NotSubscribed> {
        let while_due = match self.add_on.status() {
            AddOnStatus::Cancelling => return Ok(()),
            AddOnStatus::Active => None,
            AddOnStatus::PastDue => self.add_on.last_declined(),
            AddOnStatus::None | AddOnStatus::Suspended | AddOnStatus::Ended => {
                return Err(NotSubscribed);
            }
        };
        let generation = self.add_on.generation().ok_or(NotSubscribed)?.clone();
        self.cancelled(generation, while_due);
        Ok(())
    }

    fn cancelled(&mut self, generation: GenerationId, while_due: Option<Period>) {
        self.billing.actions = self.billing.actions.saturating_add(1);
        self.add_on.apply(Fact::Cancelled {
            generation,
            counter: self.billing.actions,
            while_due,
        });
    }

    /// The user takes a cancellation back.
    pub fn resume(&mut self, now: Timestamp) {
        let generation = self.add_on.generation().cloned();
        if let (AddOnStatus::Cancelling, Some(generation)) = (self.add_on.status(), generation) {
            self.billing.actions = self.billing.actions.saturating_add(1);
            self.add_on.apply(Fact::Resumed {
                generation,
                counter: self.billing.actions,
                at: now,
            });
        }
    }
}

/// There is no add-on that could be cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the add-on is not subscribed to")]
pub struct NotSubscribed;

impl Billing {
    fn card(&self) -> Option<String> {
        let card = self.card.as_ref();
        card.map(|card| card.payment_method.clone())
    }

    /// What could still be paid at the provider, by its ids there.
    pub fn open_objects(&self) -> Vec<String> {
        let charge = self.charge.as_ref().and_then(|charge| charge.object.id());
        let checkout = self.checkout.as_ref();
        let session = checkout.and_then(|checkout| checkout.session.as_ref());
        let session = session.map(|session| session.id.as_str());
        let subscription = self.subscription.as_ref().map(|it| it.id.as_str());
        [charge, session, subscription]
            .into_iter()
            .flatten()
            .map(str::to_owned)
            .collect()
    }

    /// `object` is paid: nothing is to be done with it any more.
    fn forget(&mut self, object: &str) {
        if self
            .charge
            .as_ref()
            .is_some_and(|charge| charge.object.id() == Some(object))
        {
            self.charge = None;
        }
        let session = self
            .checkout
            .as_ref()
            .and_then(|checkout| checkout.session.as_ref());
        if session.is_some_and(|session| session.id == object) {
            self.checkout = None;
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

    fn attempt_number(&self) -> u32 {
        self.declines.saturating_add(1)
    }

    fn is_confirming(&self, id: &str) -> bool {
        matches!(&self.object, Object::Confirming { id: known, .. } if known == id)
    }

    fn confirm(&mut self, id: &str, card: Option<String>, now: Timestamp) {
        self.object = Object::Confirming {
            id: id.to_owned(),
            card,
            since: now,
            checks: 0,
        };
        self.next_at = later(now, LEASE);
    }

    /// When access ends if nothing more is heard: only after an attempt was made.
    fn access_ends(&self) -> Option<Timestamp> {
        let is_tried = self.declines > 0
            || self.attempt_at.is_none()
            || matches!(self.object, Object::Confirming { .. });
        is_tried.then_some(self.grace_ends)
    }

    /// Begins the next attempt, with the object that is there or with a new one.
    fn attempt(
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

    fn look_up(&self) -> Option<Task> {
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
    fn id(&self) -> Option<&str> {
        match self {
            Self::Confirming { id, .. } | Self::Idle { id } => Some(id),
            Self::None | Self::Creating => None,
        }
    }
}

#[cfg(test)]
mod tests;
