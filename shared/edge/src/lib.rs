//! The edge of every function: settings, HTTP and Lambda, identity, error bodies, logs, the clock.
//!
//! A function's `main.rs` reads its settings ([`Env`]), builds its router, wraps it ([`app`]) and
//! serves it on Lambda ([`serve`]); `cargo dev` and the tests wrap the same router and merge several
//! ([`gateway`]).
//!
//! Invariants: only [`Env`] reads the environment, only [`Clock`] the time; only [`Identity`]
//! identifies the caller; every error leaves as an [`ApiError`]; no query, header, body or token is
//! logged.

mod aws;
mod body;
mod clock;
mod error;
mod http;
mod identity;
mod ids;
mod jwks;
mod lambda;
#[cfg(feature = "openapi")]
pub mod openapi;
mod outbound;
mod paths;
mod product;
mod settings;
mod task;
pub mod telemetry;

pub use self::http::{Shape, app, gateway};
pub use aws::{Setup, aws_config};
pub use body::{Fields, read_body, refuse_compressed};
pub use clock::Clock;
pub use error::{ApiError, Code, log_error};
pub use identity::{Caller, Identity, Role};
pub use ids::{new_id, random_id};
pub use lambda::{Deadline, Error, RequestId, serve, serve_events, serve_streaming};
pub use outbound::{HttpClients, http_client, http_clients};
pub use product::{collection, credits_per_usd, minimum_balance, price_in_credits, referer};
pub use settings::{Env, HttpSettings, IdentitySettings, SettingNames, SettingsError};
pub use task::{block_on, spawn};
pub use telemetry::metric;
