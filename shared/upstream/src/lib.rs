//! The client for OpenRouter and for the default AI, which speak the same protocol: key check,
//! model list, chat relay, generation lookup.
//!
//! - [`Upstream`] makes the requests. Connecting, waiting for the head and waiting for the next
//!   chunk each have their own time-out.
//! - [`sse`] splits a stream into events, and [`Reading`] says what one means.
//! - [`UpstreamError`] classifies errors, in the terms of section 1 of the contract.
//! - [`PriceBook`] is the default AI's price list, cached.
//!
//! Architecture invariant: only an allow-list of headers travels, in either direction. Of an
//! upstream's texts, only the message and some metadata of an error leave this crate, bounded and
//! without keys, for the owner of the key. None is logged: no error here has one.

mod chat;
mod client;
mod failure;
mod generation;
mod json;
mod key;
mod models;
mod reading;
mod resend;
pub mod sse;
mod text;
mod usage;

pub use chat::{Answer, Beginning, BodyError, ChatError, Kind};
pub use client::{AskError, TimeOuts, Upstream};
pub use failure::{Elsewhere, Failure, UpstreamError};
pub use generation::DefaultAiKind;
pub use json::{Members, UniqueMembers};
pub use key::KeyFacts;
pub use models::PriceBook;
pub use reading::{Chunk, HasContent, Reading, id_in, with_member, without_choices};
