//! Properties of every state, of every final state, and states that must be reachable.

use account::{AddOnStatus, Plan};
use jiff::SignedDuration;

use crate::books::{AddOnPurchase, due_period};
use crate::stripe::StripeRef;
use crate::{Charges, Scope, State, Wrong, due};

type Property = stateright::Property<Charges>;

pub(crate) const ONE_KEPT: &str = "at most one payment of a period is kept";
pub(crate) const OWED: &str = "no payment of an enterprise or ended account is kept";
pub(crate) const CANCELLED: &str = "no attempt begins after a cancellation";
pub(crate) const STORED_FIRST: &str = "a PaymentIntent is stored before it is confirmed";
pub(crate) const ONE_PAYABLE: &str = "two things are never payable at once";
pub(crate) const DECLINES: &str =
    "an attempt follows a known decline, and every known decline took place";
pub(crate) const ONE_OUTCOME: &str = "a payment has one outcome";
pub(crate) const COMES_TO_AN_END: &str = "everything ends soon";
pub(crate) const APPLIED: &str = "in the end, every success is applied";
pub(crate) const STATUS: &str = "in the end, access matches what was paid for";

/// The grace period, and a day for each look-up that can fail.
const SOON: SignedDuration = SignedDuration::from_hours(24 * 5);

fn kept(state: &State, purchase: AddOnPurchase) -> usize {
    let payments = state.payments.iter();
    let kept = payments.filter(|payment| payment.purchase == purchase && payment.counted > 0);
    kept.count()
}

pub(crate) fn always() -> Vec<Property> {
    vec![
        Property::always(ONE_KEPT, |_, state| kept(state, AddOnPurchase::Period) <= 1),
        Property::always(OWED, |_, state| !state.went(Wrong::CountedUnowed)),
        Property::always(CANCELLED, |_, state| !state.went(Wrong::ConfirmedAfterCancelling)),
        Property::always(STORED_FIRST, |_, state| !state.went(Wrong::ConfirmedBeforeStored)),
        Property::always(ONE_PAYABLE, |_, state| {
            let payable = state.payments.iter().filter(|payment| match payment.object {
                StripeRef::Intent(number) => state.stripe.intent(number).is_payable(),
                StripeRef::Session(order) => state.stripe.session(order).is_open(state.now),
            });
            payable.count() <= 1
        }),
        Property::always(DECLINES, |_, state| {
            let mut known = 1..=state.stored.declines();
            known.all(|attempt| state.stripe.declined(attempt))
                && !state.went(Wrong::AttemptUnfounded)
        }),
        Property::always(ONE_OUTCOME, |_, state| {
            let mut payments = state.payments.iter();
            payments.all(|payment| payment.counted + payment.refunded <= 1)
        }),
        Property::always(COMES_TO_AN_END, |_, state| {
            state.now <= due() + SOON && !state.went(Wrong::Stuck)
        }),
        Property::always(APPLIED, |_, state| {
            !state.is_done() || state.stripe.succeeded().all(|object| state.is_applied(object))
        }),
        Property::always(STATUS, |_, state| {
            let profile = state.stored.profile();
            let is_paid = kept(state, AddOnPurchase::Period) > 0
                || kept(state, AddOnPurchase::Generation) > 0;
            let fits = match (profile.plan(), is_paid, state.is_cancelled) {
                (Plan::Enterprise, ..) | (_, false, true) => AddOnStatus::Ended,
                (_, true, true) => AddOnStatus::Cancelling,
                (_, true, false) => AddOnStatus::Active,
                (_, false, false) => AddOnStatus::Suspended,
            };
            !state.is_done() || profile.add_on.status() == fits
        }),
    ]
}

/// States that must be reachable, or the properties above would prove little.
pub(crate) fn sometimes(scope: Scope) -> Vec<Property> {
    let mut properties = vec![
        Property::sometimes("a period is paid by its charge", |_, state| {
            let payments = state.payments.iter();
            let mut kept = payments.filter(|payment| payment.counted > 0);
            kept.any(|payment| matches!(payment.object, StripeRef::Intent(_)))
        }),
        Property::sometimes("access ends unpaid", |_, state| {
            state.is_done() && state.stored.status() == AddOnStatus::Suspended
        }),
        Property::sometimes("the last attempt succeeds", |_, state| {
            state.stripe.declined(1) && kept(state, AddOnPurchase::Period) > 0
        }),
    ];
    if scope.acts > 0 {
        properties.extend([
            Property::sometimes("a payment comes too late and is refunded", |_, state| {
                state.payments.iter().any(|payment| payment.refunded > 0)
            }),
            Property::sometimes("a payment in progress stands", |_, state| {
                state.is_cancelled
                    && state.stored.profile().add_on.last_paid() == Some(due_period())
            }),
        ]);
    }
    if scope.purchases > 0 {
        properties.extend([
            Property::sometimes("a period is paid by a checkout", |_, state| {
                let payments = state.payments.iter();
                let mut kept = payments.filter(|payment| payment.counted > 0);
                kept.any(|payment| {
                    payment.purchase == AddOnPurchase::Period
                        && matches!(payment.object, StripeRef::Session(_))
                })
            }),
            Property::sometimes("a new generation is bought", |_, state| {
                kept(state, AddOnPurchase::Generation) > 0
            }),
            Property::sometimes(
                "a PaymentIntent follows one cancelled for a checkout",
                |_, state| state.stripe.intents.len() > 1,
            ),
        ]);
    }
    properties
}
