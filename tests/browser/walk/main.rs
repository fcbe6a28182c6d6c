//! The pages in headless Chromium, with the system, its engines and its simulators in this process.
//!
//! `cargo test --package browser`, after `apt-get install chromium chromium-driver` and `npm ci
//! --prefix tests/browser`. Every checked state leaves its screenshots, wide and narrow, in
//! `target/screenshots`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on stops with a message"
)]

mod add_on;
mod browser;
mod credits;
mod embedded;
mod refusals;
mod sign_in;
mod states;
mod switches;
mod the_walk;
mod world;
