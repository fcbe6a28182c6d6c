//! How the add-on is paid: our requests to Stripe, and the effects of its responses.
//!
//! `billing` decides an account's next step; this crate carries it out and stores the result.
//! Stripe reports a payment in up to three ways: in the response to a charge, in a look-up and in a
//! webhook. All of them lead to [`apply_intent`] and [`apply_session`], and each payment has one
//! outcome.
//!
//! Invariants:
//! - everything that can be paid at Stripe is stored, with its purpose, before it can be paid;
//! - an unknown outcome is looked up until it is known, and never retried under another key;
//! - a payment that was not owed is refunded once.

mod apply;
mod attempt;
mod buy;
mod checkout;
mod cleanup;
mod context;
mod credits;
mod disputes;
mod error;
mod inbox;
mod outcome;
mod refunds;
mod run_due;
mod settings;
mod stripe_subscription;
mod worker;

pub use apply::{apply_intent, apply_session, check_session};
pub use buy::{Bought, buy_add_on};
pub use checkout::{buy_credits, replace_card};
pub use cleanup::cleanup_payments;
pub use context::{Charging, Context};
pub use error::{ChargingError, NotBought};
pub use inbox::{receive, replay};
pub use outcome::{PaymentUpdate, refund_unowed};
pub use run_due::run_due;
pub use settings::Settings;
pub use worker::ChargeReport;
