//! The whole system on one machine.
//!
//! What is here besides the gateway: engines that speak AWS's own wire protocol ([`engines`]), the
//! deployment's tables made in them ([`tables`]), the queue of due accounts ([`queue`]), OpenRouter
//! as it behaves and misbehaves ([`simulator`]), the payment provider as it does ([`provider`]),
//! the issuer of identity tokens ([`issuer`]), and a login page for the web pages. All of it listens on loopback and keeps its data in
//! memory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for developers: it stops with a message where it cannot go on"
)]

pub mod bus;
pub mod demo;
pub mod dev;
pub mod engines;
mod html;
pub mod issuer;
pub mod provider;
pub mod queue;
pub mod serve;
mod sign_in;
pub mod simulator;
pub mod system;
pub mod tables;
