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
use crate::period::Period;
use crate::{AddOnStatus, Plan, Profile};

mod charge;
mod checkout;
mod dunning;
mod subscription;

use charge::GivenUp;
pub use charge::{Charge, Object};
pub use checkout::{AddOnPurchase, CHECKOUT_LIFE, Checkout, Session};
pub use dunning::{Dunning, DunningError};
pub use subscription::{RemoteStatus, Subscription, period_ending};

/// The price of a period, in US cents.
pub const PRICE_CENTS: u64 = 500;

/// How long a step belongs to whoever took it on.
const LEASE: SignedDuration = SignedDuration::from_mins(2);

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
    /// The last charge that was given up, for it may begin again: the payment objects made for it stay
    /// counted.
    given_up: Option<GivenUp>,
    /// Where the provider collects.
    pub subscription: Option<Subscription>,
}

/// The payment method that periods are charged to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    pub payment_method: String,
    /// When the user gave it; the latest counts.
    pub given_at: Timestamp,
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
                Step::ForgetCharge => self.give_up_charge(),
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

    /// The add-on ends: it was cancelled, and what was paid for is over. Not while an attempt that was under
    /// way then may still succeed.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.end_of_what_is_paid().is_some_and(|(at, _)| at <= now)
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
        let wanted = self.wants(&AddOnPurchase::Generation);
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
    /// not pay is tried again with it at once. False if another one stays.
    pub fn keep_card(&mut self, payment_method: String, given_at: Timestamp) -> bool {
        if let Some(known) = self.billing.card.as_ref()
            && known.given_at >= given_at
        {
            return known.payment_method == payment_method;
        }
        self.billing.card = Some(Card {
            payment_method,
            given_at,
        });
        let is_ours = !self.is_run_by_provider();
        if let Some(charge) = &mut self.billing.charge
            && charge.declines > 0
            && is_ours
        {
            charge.attempt_at = Some(given_at);
        }
        true
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

    /// The user takes a cancellation back, while what is paid for lasts.
    pub fn resume(&mut self, now: Timestamp) {
        if self.is_over(now) {
            return;
        }
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

    /// Is this the subscription that collects?
    pub fn has_subscription(&self, id: &str) -> bool {
        let known = self.subscription.as_ref();
        known.is_some_and(|known| known.id == id)
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

#[cfg(test)]
mod tests;
