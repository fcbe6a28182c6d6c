//! The tasks that workers carry out at Stripe, and the steps that lead to them.

use account::Period;
use account::add_on::{Fact, GenerationId};
use jiff::{SignedDuration, Timestamp};

/// Time for which a task belongs to the worker that took it.
pub(crate) const LEASE: SignedDuration = SignedDuration::from_mins(2);

pub(crate) fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// The next task at Stripe. During its lease, only the worker that took it works on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Create the period's PaymentIntent number `intent` and confirm it as attempt `attempt`.
    Create { generation: GenerationId, period: Period, intent: u32, attempt: u32 },
    /// Confirm the PaymentIntent as attempt `attempt` of the period.
    Confirm { generation: GenerationId, period: Period, id: String, attempt: u32 },
    /// Take the price from the credits and mark the period paid, in one transaction.
    TakeCredits { generation: GenerationId, period: Period, attempt: u32 },
    /// Look up the PaymentIntent, whose outcome has been unknown since `since`.
    LookUp { id: String, since: Timestamp },
    /// Cancel the PaymentIntent: it must no longer be paid.
    Cancel { id: String },
    /// Expire the Checkout Session, unless it is paid.
    ExpireCheckout { session: String },
    /// Find out what Stripe collected.
    CheckSubscription { subscription: String },
    /// Have the subscription end with its period, or renew.
    UpdateSubscription { subscription: String, ends: bool },
    /// Cancel the subscription at once, and its open invoice.
    CancelSubscription { subscription: String },
}

/// The next step, now or later.
pub(crate) enum Step {
    /// A fact that follows from the passing of time alone.
    Apply(Fact),
    DropCheckout,
    AbandonCharge,
    /// A period is due, and nothing is under way for it.
    BeginCharge,
    Attempt,
    /// A task for the charge's PaymentIntent.
    Charge(Task),
    Checkout(Task),
    Subscription(Task),
    /// The subscription is gone; the paid period is the last one.
    LetExpire,
}
