//! The AI proxy: `POST /v1/chat/completions` and `GET /v1/models`.
//!
//! [`chat`] reads the call and the account, asks [`routing::decide`] who pays, and sends the call
//! down one of two paths: [`byok`] (the user's key; bytes pass unchanged; no credits move) or
//! [`credits`] (hold, call the default AI, settle). If row 5 of the routing table allows a
//! fallback, [`chat`] moves a failed call from the first path to the second, once, before a byte
//! has gone to the caller.
//!
//! Architecture invariant: [`byok`] and [`credits`] do not know each other, so nothing on the
//! OpenRouter path can touch credits. Imports point down the list below.

mod chat;
mod models;

mod byok;
mod credits;

mod byok_stream;

mod body_chunks;
mod call;
mod key_health;
mod receipt;
mod request;
mod stream_error;

mod deps;
mod running;
mod settings;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use edge::Shape;

pub use deps::Deps;
pub use running::Running;
pub use settings::Settings;

/// The function's routes, for Lambda, `cargo dev` and the tests.
pub fn router(deps: Deps) -> Router {
    let http = deps.api.settings.http.clone();
    let routes = Router::new()
        .route("/v1/chat/completions", post(chat::create))
        .route("/v1/models", get(models::list))
        // axum clones the state several times per request; an `Arc` makes that one counter.
        .with_state(Arc::new(deps));
    edge::app(routes, Shape::Ai, &http)
}

/// The function's part of the interface.
#[cfg(feature = "openapi")]
pub fn openapi() -> utoipa::openapi::OpenApi {
    #[derive(utoipa::OpenApi)]
    #[openapi(
        paths(chat::create, models::list),
        components(schemas(edge::openapi::AiError, edge::openapi::AiErrorDetail))
    )]
    struct Routes;
    <Routes as utoipa::OpenApi>::openapi()
}
