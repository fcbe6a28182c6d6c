//! The next step for an account's add-on at Stripe, and the changes after each outcome.
//!
//! Pure functions of the stored [`Profile`]. Whether something is owed is `routing`'s answer; this
//! crate decides how and when it is collected. `charging` carries out the [`Task`]s.
//!
//! Invariants:
//! - at most one payment is possible at a time: a Checkout Session, or the open period's
//!   PaymentIntent;
//! - nothing is confirmed at Stripe before it is stored as confirming, and only a payment that is
//!   owed at that moment is stored as confirming;
//! - the attempt number grows only after a known decline;
//! - a period that has ended is never charged;
//! - the next step and its time follow from the profile alone, so that the index of due accounts
//!   cannot disagree with it.

#![cfg_attr(
    not(test),
    deny(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::indexing_slicing)
)]

mod cancellation;
mod charge;
mod checkout;
mod dunning;
mod next;
mod payment;
mod subscription;
mod task;

pub use cancellation::{NotSubscribed, cancel, is_over, resume};
pub use charge::{
    attempt_refused, card_missing, declined, intent_cancelled, intent_created, look_up_now,
    never_confirmed, period_has_ended, retry_with_new_intent, still_unknown, waived_since,
};
pub use checkout::{
    CHECKOUT_LIFE, begin_checkout, checkout_closed, checkout_created, is_payable, next_purchase,
};
pub use dunning::Dunning;
pub use next::{due_at, postpone, take_task};
pub use payment::{activate, keep_card, period_paid, replace_customer};
pub use subscription::{
    RemoteStatus, apply_remote_status, can_resume, collection_failed, collects, period_ending,
    subscription_ended, subscription_uncertain, subscription_updated,
};
pub use task::Task;

#[cfg(test)]
mod tests;
