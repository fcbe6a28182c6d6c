//! The client for Stripe: webhook signatures, events and API calls.
//!
//! - [`signature`] checks that Stripe sent an event.
//! - [`Event`] is the content of an event, in the shape of any API version; events that we do not
//!   use are [`Notice::Other`].
//! - [`Stripe`] makes the calls. [`PaymentError`] distinguishes calls that did not arrive, calls
//!   that were refused and calls that may have taken place.
//!
//! Invariant: nothing is retried here; a call is sent at most once, under the idempotency key that
//! the caller gives it. No personal data is sent. Stripe's text may contain input, so only ids,
//! numbers and known names are kept or logged.

mod checkout;
mod client;
mod decline;
mod error;
mod event;
mod ids;
mod intent;
mod invoice;
mod json;
mod known;
mod rate_limit;
mod read;
mod refund;
pub mod signature;
mod subscription;

pub use checkout::{CheckoutSession, NewSession, Price, Purpose, SessionStatus};
pub use client::{API_VERSION, Stripe};
pub use decline::Decline;
pub use error::{PaymentError, UncertainOutcome};
pub use event::{DisputeState, Event, EventError, Notice};
pub use ids::{
    Cents, CustomerId, DisputeId, EventId, IdError, IntentId, InvoiceId, PaymentMethodId, RefundId,
    SessionId, SetupIntentId, SubscriptionId,
};
pub use intent::{IntentStatus, NewIntent, PaymentIntent};
pub use invoice::{Invoice, InvoiceStatus};
pub use json::JsonError;
pub use read::Currency;
pub use refund::{ListedRefund, Refund};
pub use subscription::Subscription;

#[cfg(test)]
mod tests;
