//! The client for the payment provider, Stripe: its names of things, and who sent an event.

mod ids;
pub mod signature;

pub use ids::{
    Cents, CustomerId, DisputeId, EventId, IdError, IntentId, InvoiceId, PaymentMethodId,
    SessionId, SetupIntentId, SubscriptionId,
};
