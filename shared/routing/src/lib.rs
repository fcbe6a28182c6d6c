//! Who pays for an AI call, who is entitled to BYOK, who may save a key, who owes the add-on, and
//! which failed calls may fall back.
//!
//! Each of these questions (docs/contract.md, section 1) is defined only here. Key save, the
//! subscription webhook, the monthly charge and the AI proxy ask; no other code derives an answer
//! from plan, add-on or switches. Pure: time and settings come in as arguments.

#![cfg_attr(
    not(test),
    deny(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::indexing_slicing)
)]
#![cfg_attr(
    feature = "inverted",
    allow(unreachable_pub, reason = "the wrappers stand in for the answers")
)]

mod add_on;
mod entitlement;
mod fallback;
#[cfg(feature = "inverted")]
mod inverted;
mod table;

pub use entitlement::Policy;
pub use fallback::{Fallback, FallbackCause, FallbackCauses};
pub use table::{
    Decision, Entitlement, INSUFFICIENT_CREDITS, Key, MinimumBalance, Payer, Reason, Situation,
    Switch, next_call,
};

#[cfg(feature = "inverted")]
pub use inverted::{
    add_on_due_at, add_on_renews, decide, entitled, keeps_subscription, may_buy_add_on,
    may_fall_back, may_save_key, minimum_balance_applies, needs_add_on, owes_add_on, owes_period,
    payment_counts,
};
#[cfg(not(feature = "inverted"))]
pub use {
    add_on::{
        add_on_due_at, add_on_renews, keeps_subscription, may_buy_add_on, needs_add_on,
        owes_add_on, owes_period, payment_counts,
    },
    entitlement::{entitled, may_save_key, minimum_balance_applies},
    fallback::may_fall_back,
    table::decide,
};

#[cfg(test)]
mod tests;
