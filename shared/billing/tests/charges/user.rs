//! The user: buys, in the steps of `charging::buy_add_on`, pays, cancels, resumes.

use account::add_on::Collection;
use account::billing::{AddOnPurchase as Wanted, IntentState as Known, Session};
use account::{AddOnStatus, Plan};
use billing::CHECKOUT_LIFE;
use jiff::{SignedDuration, Timestamp};

use crate::books::AddOnPurchase;
use crate::stripe::{Status, StripeRef};
use crate::{Action, Broken, Charges, State};

/// Minimum time left for a session to be shown again.
const STILL_TIME: SignedDuration = SignedDuration::from_mins(2);

/// A request to buy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Buyer {
    pub(crate) now: Timestamp,
    pub(crate) stalled: bool,
    pub(crate) at: Buying,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Buying {
    /// Reads the account.
    Read,
    /// Calls Stripe.
    CancelIntent {
        number: u8,
    },
    LookUpIntent {
        number: u8,
    },
    LookUpSession {
        order: u8,
    },
    ExpireSession {
        order: u8,
        /// The session was never shown.
        unwanted: bool,
    },
    Create {
        order: u8,
        purchase: AddOnPurchase,
        created_at: Timestamp,
    },
    /// Writes.
    Apply {
        object: StripeRef,
    },
    Gone {
        number: u8,
    },
    LookUpNow {
        number: u8,
    },
    Begin {
        purchase: AddOnPurchase,
    },
    DropCheckout {
        order: u8,
    },
    Created {
        order: u8,
        purchase: AddOnPurchase,
    },
    Closed {
        order: u8,
    },
    Resume,
}

impl From<&Wanted> for AddOnPurchase {
    fn from(wanted: &Wanted) -> Self {
        match wanted {
            Wanted::Generation => Self::Generation,
            Wanted::Period { .. } => Self::Period,
        }
    }
}

fn order_of(name: &str) -> u8 {
    match StripeRef::of(name) {
        StripeRef::Session(order) | StripeRef::Intent(order) => order,
    }
}

impl Buyer {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { now, stalled: false, at: Buying::Read }
    }
}

impl State {
    pub(crate) fn steps_of_user(&self, steps: &mut Vec<Action>) {
        for buyer in 0..self.buyers.len() {
            steps.push(Action::ContinueBuying { buyer });
            if self.left.crashes > 0 {
                steps.push(Action::StopBuying { buyer });
            }
        }
        if self.left.purchases > 0 {
            steps.push(Action::Buy);
        }
        for session in &self.stripe.sessions {
            let order = session.order;
            let is_shown = self.payment(StripeRef::Session(order)).is_some();
            if is_shown && session.is_open(self.now) {
                steps.push(Action::Pay { order });
            }
        }
        let status = self.stored.status();
        if self.left.acts > 0 && matches!(status, AddOnStatus::Active | AddOnStatus::PastDue) {
            steps.push(Action::Cancel);
        }
        if self.left.acts > 0 && status == AddOnStatus::Cancelling {
            steps.push(Action::Resume);
        }
        if self.left.upgrades > 0 {
            steps.push(Action::Upgrade);
        }
    }

    pub(crate) fn cancel(&mut self) {
        let was_confirming = self.stored.is_confirming();
        if self.change(billing::cancel).is_ok() {
            self.is_revoked |= !was_confirming;
            self.is_cancelled = true;
        }
    }

    pub(crate) fn resume(&mut self) {
        let now = self.now;
        self.change(|profile| billing::resume(profile, now));
        if self.stored.status() == AddOnStatus::Active {
            self.is_revoked = false;
            self.is_cancelled = false;
        }
    }

    pub(crate) fn upgrade(&mut self) {
        let now = self.now;
        self.is_revoked |= !self.stored.is_confirming();
        self.change(|profile| profile.apply_plan(Plan::Enterprise, 2, now));
    }

    pub(crate) fn pay(&mut self, order: u8) {
        let now = self.now;
        self.stripe.session_mut(order).paid_at = Some(now);
    }

    fn session_created(&mut self, order: u8, purchase: AddOnPurchase) -> Option<Buying> {
        let object = StripeRef::Session(order);
        let session = Session {
            id: object.name(),
            url: String::new(),
            expires_at: self.stripe.session(order).expires_at,
        };
        let mut wanted = false;
        let written = self.change_and_order(object, purchase, |profile| {
            wanted = billing::checkout_created(profile, &object.name(), session);
            wanted
        });
        let unwanted = written && !wanted;
        unwanted.then_some(Buying::ExpireSession { order, unwanted: true })
    }
}

impl Charges {
    pub(crate) fn continue_buying(&self, state: &mut State, buyer: usize) {
        let Buyer { now, stalled, at } = state.buyers.remove(buyer);
        let at = self.step_of_buyer(state, now, at);
        state.buyers.extend(at.map(|at| Buyer { now, stalled, at }));
    }

    fn step_of_buyer(&self, state: &mut State, now: Timestamp, at: Buying) -> Option<Buying> {
        match at {
            Buying::Read => return self.read(state, now),
            Buying::CancelIntent { number } => {
                return match state.stripe.cancel(number) {
                    Status::Succeeded => Some(Buying::Apply { object: StripeRef::Intent(number) }),
                    Status::Canceled => Some(Buying::Gone { number }),
                    _ => None,
                };
            }
            Buying::LookUpIntent { number } => {
                return match state.stripe.intent(number).status {
                    Status::Succeeded => Some(Buying::Apply { object: StripeRef::Intent(number) }),
                    Status::Canceled => Some(Buying::Gone { number }),
                    Status::RequiresPaymentMethod { .. } => Some(Buying::LookUpNow { number }),
                    _ => None,
                };
            }
            Buying::LookUpSession { order } => {
                let session = *state.stripe.session(order);
                return if session.paid_at.is_some() {
                    let object = StripeRef::Session(order);
                    Some(Buying::Apply { object })
                } else if session.is_open(state.now) {
                    None
                } else {
                    Some(Buying::Closed { order })
                };
            }
            Buying::ExpireSession { order, unwanted } => {
                let session = state.stripe.expire(order);
                return if unwanted {
                    None
                } else if session.paid_at.is_some() {
                    let object = StripeRef::Session(order);
                    Some(Buying::Apply { object })
                } else {
                    Some(Buying::Closed { order })
                };
            }
            Buying::Create { order, purchase, created_at } => {
                let ends = created_at + CHECKOUT_LIFE;
                let created = state.stripe.open_session(order, ends, state.now);
                return created.then_some(Buying::Created { order, purchase });
            }
            Buying::Created { order, purchase } => return state.session_created(order, purchase),
            Buying::Apply { object } => self.apply_payment(state, object),
            Buying::Gone { number } => {
                let name = StripeRef::Intent(number).name();
                state.change(|profile| billing::intent_cancelled(profile, &name));
            }
            Buying::LookUpNow { number } => {
                let name = StripeRef::Intent(number).name();
                state.change(|profile| billing::look_up_now(profile, &name, now));
            }
            Buying::Begin { purchase } => {
                let order = state.orders + 1;
                let began = state.change(|profile| {
                    let wanted = billing::next_purchase(profile);
                    let wanted = wanted.filter(|wanted| AddOnPurchase::from(wanted) == purchase);
                    if let (Some(wanted), None) = (wanted, &profile.billing.checkout) {
                        let order = StripeRef::Session(order).name();
                        billing::begin_checkout(profile, order, wanted, Collection::Card, now);
                        return true;
                    }
                    false
                });
                state.orders += u8::from(began);
            }
            Buying::DropCheckout { order } => {
                let order = StripeRef::Session(order).name();
                let all = self.breaks(Broken::DroppedOnceCreated);
                state.change(|profile| {
                    let known = profile.billing.checkout.as_ref();
                    let drop_it = known.is_some_and(|known| {
                        known.order == order && (known.session.is_none() || all)
                    });
                    if drop_it {
                        profile.billing.checkout = None;
                    }
                });
            }
            Buying::Closed { order } => {
                let name = StripeRef::Session(order).name();
                state.change(|profile| billing::checkout_closed(profile, &name));
            }
            Buying::Resume => {
                state.resume();
                return None;
            }
        }
        Some(Buying::Read)
    }

    /// The next step, given the account as read. `None`: nothing can be bought, or not yet.
    fn read(&self, state: &State, now: Timestamp) -> Option<Buying> {
        let profile = state.stored.profile();
        if profile.plan() == Plan::Enterprise {
            return None;
        }
        match profile.add_on.status() {
            AddOnStatus::Active => return None,
            // A worker ends it first.
            AddOnStatus::Cancelling if billing::is_over(profile, now) => return None,
            AddOnStatus::Cancelling => return Some(Buying::Resume),
            _ => {}
        }
        let charge = profile.billing.charge.as_ref();
        match charge.map(|charge| &charge.intent) {
            _ if self.breaks(Broken::CheckoutBesideIntent) => {}
            None | Some(Known::None) => {}
            Some(Known::Creating) => return None,
            Some(Known::Idle { id }) => {
                let number = order_of(id);
                return Some(Buying::CancelIntent { number });
            }
            Some(Known::Confirming { id, .. }) => {
                let number = order_of(id);
                return Some(Buying::LookUpIntent { number });
            }
        }
        let Some(checkout) = &profile.billing.checkout else {
            if state.orders > self.scope.purchases {
                return None;
            }
            let purchase = AddOnPurchase::from(&billing::next_purchase(profile)?);
            return Some(Buying::Begin { purchase });
        };
        let can_be_paid = billing::is_payable(profile, checkout, now + STILL_TIME);
        let order = order_of(&checkout.order);
        Some(match (&checkout.session, can_be_paid) {
            (None, true) => Buying::Create {
                order,
                purchase: AddOnPurchase::from(&checkout.purchase),
                created_at: checkout.created_at,
            },
            (None, false) => Buying::DropCheckout { order },
            (Some(_), true) => Buying::LookUpSession { order },
            (Some(_), false) => Buying::ExpireSession { order, unwanted: false },
        })
    }
}
