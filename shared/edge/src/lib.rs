//! The edge of every function: settings, HTTP and Lambda, identity, error bodies, logs, the clock.
//!
//! A function's `main.rs` reads its settings ([`Env`]), builds its router, wraps it ([`app`]) and
//! hands it to Lambda ([`block_on`], [`run`], [`run_streaming`]); `cargo dev` and the tests wrap the same router
//! and merge several ([`gateway`]).
//!
//! Invariants: only [`Env`] reads the environment, only [`Clock`] the time; only [`Identity`] says
//! who is calling; every error leaves through [`ApiError`]; no query, header, body or token is
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
mod outbound;
mod product;
mod settings;
mod task;
pub mod telemetry;

pub use self::http::{Shape, app, gateway};
pub use aws::{aws_config, aws_config_loader, aws_connector, aws_http};
pub use body::{Fields, read_body};
pub use clock::Clock;
pub use error::{ApiError, Code, log_error};
pub use identity::{Caller, Identity, Role};
pub use ids::{new_id, random_id};
pub use lambda::{Deadline, RequestId, run, run_streaming};
pub use outbound::{HttpClientError, http_client};
pub use product::{ProductSettings, collection, minimum_balance, price_in_credits, referer};
pub use settings::{Asked, Env, HttpSettings, IdentitySettings, SettingsError};
pub use task::{block_on, spawn};
pub use telemetry::metric;
