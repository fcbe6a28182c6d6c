//! The client for OpenRouter and for the default AI, which speak the same protocol: key check,
//! model list, chat relay, generation lookup.
//!
//! - [`Upstream`] makes the requests. Connecting, waiting for the head and waiting for the next
//!   chunk each have their own time-out.
//! - [`sse`] splits a stream into events, and [`Parsed`] is a parsed one.
//! - [`UpstreamError`] classifies errors, in the terms of section 1 of the contract.
//! - [`PriceBook`] is the default AI's price list, cached.
//!
//! Architecture invariant: only allow-listed headers are forwarded, in both directions. Of an
//! upstream's text, only an error's message and some of its metadata leave this crate, shortened
//! and with keys masked, for the owner of the key. None is logged: no error type here contains any.

mod chat;
mod choices;
mod client;
mod failure;
mod generation;
mod json;
mod key;
mod models;
mod parsed;
mod resend;
pub mod sse;
mod text;
mod usage;

pub use chat::{Answer, BodyError, BodyStart, ChatError, Kind};
pub use client::{AskError, TimeOuts, Upstream};
pub use failure::{Failure, FallbackPermission, UpstreamError};
pub use generation::DefaultAiKind;
pub use json::{Members, UniqueMembers};
pub use key::KeyFacts;
pub use models::PriceBook;
pub use parsed::{Chunk, HasContent, Parsed, id_in, with_member, without_choices};
pub use text::contains_key;
