//! Whole flows through HTTP, with the system, its engines and its simulators in this process.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on stops with a message"
)]

mod account_events;
mod actions;
mod add_on;
mod always;
mod architecture;
mod books;
mod calls;
mod charge_queue;
mod closed_sessions;
mod costs;
mod crash;
mod credits;
#[path = "../deep/mod.rs"]
mod deep;
mod documented_errors;
mod domain_events;
mod echoes;
mod fallback;
mod gretactl;
mod identity;
mod inbox;
mod interface;
mod inverted;
mod keys;
mod next_call;
mod odd_responses;
mod openapi;
mod other_sites;
mod outage;
mod outcomes;
mod postings;
mod races;
mod rate_limit;
mod reconciler;
mod refunds;
mod rejected_keys;
mod reversals;
mod sdk;
mod secrecy;
#[path = "../deep/simulation/mod.rs"]
#[allow(dead_code, unused_imports, reason = "its two users need a part of it each")]
mod simulation;
mod steps;
mod streams;
mod stripe_subscription;
mod support;
mod sweep;
mod template;
mod wire;
