//! The store: the profile, and each payment's order and outcome. Each write is one transaction.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use account::add_on::{Collection, GenerationId};
use account::billing::IntentState as Known;
use account::{AddOnStatus, Period, Plan, Profile};
use jiff::Timestamp;

use crate::stripe::StripeRef;
use crate::{Broken, Charges, GENERATION, State, Wrong, due};

/// A profile; two are equal if they are stored identically.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    profile: Arc<Profile>,
    hash: u64,
    due: Option<Timestamp>,
}

/// A payment order, and how often each outcome was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Payment {
    pub(crate) object: StripeRef,
    pub(crate) purchase: AddOnPurchase,
    pub(crate) counted: u8,
    pub(crate) refunded: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum AddOnPurchase {
    Generation,
    /// The one period that is due.
    Period,
}

impl Stored {
    pub(crate) fn new(profile: Profile) -> Self {
        let mut hasher = DefaultHasher::new();
        serde_json::to_vec(&(profile.plan(), &profile.add_on, &profile.billing))
            .unwrap()
            .hash(&mut hasher);
        Self { due: billing::due_at(&profile), hash: hasher.finish(), profile: Arc::new(profile) }
    }

    pub(crate) fn profile(&self) -> &Profile {
        &self.profile
    }

    pub(crate) fn due(&self) -> Option<Timestamp> {
        self.due
    }

    pub(crate) fn status(&self) -> AddOnStatus {
        self.profile.add_on.status()
    }

    /// The stored PaymentIntent, if it can be paid, and whether it is confirming.
    pub(crate) fn object(&self) -> Option<(StripeRef, bool)> {
        match &self.profile.billing.charge.as_ref()?.intent {
            Known::Confirming { id, .. } => Some((StripeRef::of(id), true)),
            Known::Idle { id } => Some((StripeRef::of(id), false)),
            Known::None | Known::Creating => None,
        }
    }

    pub(crate) fn is_confirming(&self) -> bool {
        self.object().is_some_and(|(_, confirming)| confirming)
    }

    pub(crate) fn declines(&self) -> u32 {
        let charge = self.profile.billing.charge.as_ref();
        charge.map_or(0, |charge| charge.declines)
    }
}

impl PartialEq for Stored {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.profile, &other.profile)
            || (self.hash == other.hash && self.profile == other.profile)
    }
}

impl Eq for Stored {}

impl Hash for Stored {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl State {
    /// Changes the current profile, as `Accounts::update` does.
    pub(crate) fn change<R>(&mut self, change: impl FnOnce(&mut Profile) -> R) -> R {
        let mut profile = self.stored.profile().clone();
        let result = change(&mut profile);
        if profile != *self.stored.profile() {
            self.stored = Stored::new(profile);
        }
        result
    }

    /// Changes the profile and stores the payment order for `object`, unless the change makes
    /// nothing new payable. False if the order existed before: then nothing is written.
    pub(crate) fn change_and_order(
        &mut self,
        object: StripeRef,
        purchase: AddOnPurchase,
        change: impl FnOnce(&mut Profile) -> bool,
    ) -> bool {
        let before = self.stored.clone();
        if !self.change(change) || self.stored == before {
            return true;
        }
        if self.payment(object).is_some() {
            self.stored = before;
            return false;
        }
        self.payments.push(Payment { object, purchase, counted: 0, refunded: 0 });
        self.payments.sort_unstable();
        true
    }

    pub(crate) fn payment(&self, object: StripeRef) -> Option<&Payment> {
        self.payments.iter().find(|known| known.object == object)
    }

    pub(crate) fn is_applied(&self, object: StripeRef) -> bool {
        let payment = self.payment(object);
        payment.is_some_and(|known| known.counted + known.refunded > 0)
    }
}

impl Charges {
    /// `object` was paid: its outcome and its effect on the profile are one transaction.
    pub(crate) fn apply_payment(&self, state: &mut State, object: StripeRef) {
        let Some(payment) = state.payment(object).copied() else {
            return;
        };
        if state.is_applied(object) && !self.breaks(Broken::DecidedTwice) {
            return;
        }
        let (plan, status) = (state.stored.profile().plan(), state.stored.status());
        let name = object.name();
        let paid_at = match object {
            StripeRef::Session(order) => state.stripe.session(order).paid_at,
            StripeRef::Intent(_) => None,
        };
        let paid_at = paid_at.unwrap_or(state.now);
        let owed = state.change(|profile| match payment.purchase {
            AddOnPurchase::Generation => {
                billing::activate(profile, GenerationId::new(&name), paid_at, Collection::Card)
            }
            AddOnPurchase::Period => {
                billing::period_paid(profile, &generation(), due_period(), &name)
            }
        });
        let counted = if self.breaks(Broken::OutcomeApart) {
            matches!(status, AddOnStatus::Active | AddOnStatus::PastDue)
        } else {
            owed || self.breaks(Broken::CountedUnowed)
        };
        if counted && payment.purchase == AddOnPurchase::Generation {
            state.is_cancelled = false;
        }
        let may_be = plan == Plan::Standard
            && (payment.purchase == AddOnPurchase::Generation || status != AddOnStatus::Ended);
        if counted && !may_be {
            state.wrong(Wrong::CountedUnowed);
        }
        let known = state.payments.iter_mut();
        for known in known.filter(|known| known.object == object) {
            // Three times is as wrong as two.
            known.counted = (known.counted + u8::from(counted)).min(2);
            known.refunded = (known.refunded + u8::from(!counted)).min(2);
        }
    }
}

pub(crate) fn generation() -> GenerationId {
    GenerationId::new(GENERATION)
}

pub(crate) fn due_period() -> Period {
    Period::FIRST.next()
}

/// The account on the day that its second period begins.
pub(crate) fn bought() -> Profile {
    let mut profile = Profile::new(Plan::Standard, 1, Timestamp::UNIX_EPOCH);
    let anchor = Timestamp::UNIX_EPOCH;
    let counted = billing::activate(&mut profile, generation(), anchor, Collection::Card);
    assert!(counted && billing::due_at(&profile) == Some(due()));
    profile
}
