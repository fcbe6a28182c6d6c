//! The client for OpenRouter and for the default AI, which speak the same protocol: key check,
//! model list, chat relay, generation lookup.
//!
//! - [`Upstream`] makes the requests. Connecting, waiting for the head and waiting for the next
//!   chunk each have their own time-out.
//! - [`sse`] reads a stream line by line, alongside the relay and without delaying it.
//! - [`Failure`] classifies responses that are not 200, in the terms of section 1 of the contract.
//! - [`PriceBook`] is the default AI's price list, cached.
//!
//! Architecture invariant: only an allow-list of headers travels, in either direction, and no text
//! of an upstream's error is passed on, because it may hold input or facts about the account.

mod chat;
mod client;
mod failure;
mod generation;
mod key;
mod models;
pub mod sse;
mod usage;

pub use chat::{Answer, BodyError, ChatError, Kind};
pub use client::{AskError, TimeOuts, Upstream};
pub use failure::Failure;
pub use generation::DefaultAiKind;
pub use key::KeyFacts;
pub use models::PriceBook;
pub use usage::{PlainAnswer, usage_from_json};
