//! The whole system on one machine.
//!
//! Besides the gateway and the functions, it runs engines that speak AWS's own wire protocol
//! ([`engines`], with the deployment's [`tables`], [`queue`] and [`bus`]), simulators of OpenRouter
//! ([`openrouter`]) and Stripe ([`stripe`]), and an issuer of identity tokens ([`issuer`]) with a
//! login page for the web pages. All of it listens on loopback and keeps its data in memory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a program for developers: it stops with a message when it cannot go on"
)]

pub mod accounts;
pub mod bus;
mod dev;
pub mod engines;
pub mod functions;
mod guard;
mod html;
pub mod issuer;
pub mod openapi;
pub mod openrouter;
pub mod queue;
pub mod serve;
mod sign_in;
pub mod stripe;
pub mod system;
pub mod tables;
