//! The integration card and its switches, the credits and their ledger, and the add-on's
//! subscription.
//!
//! Architecture invariant: this function has no access to users' secrets. It never sees a key.

mod credits;
mod integration;
mod subscription;

mod cursor;
mod deps;
mod settings;

use axum::Router;
use axum::routing::{get, post};
use edge::Shape;

pub use deps::Deps;
pub use settings::Settings;

/// The function's routes, for Lambda, `cargo dev` and the tests.
pub fn router(deps: Deps) -> Router {
    let http = deps.api.settings.http.clone();
    let routes = Router::new()
        .route("/v1/integrations/openrouter", get(integration::read).patch(integration::switch))
        .route(
            "/v1/integrations/openrouter/subscription",
            post(subscription::subscribe).delete(subscription::cancel),
        )
        .route(
            "/v1/integrations/openrouter/subscription/payment-method",
            post(subscription::replace_card),
        )
        .route("/v1/credits", get(credits::read))
        .route("/v1/credits/ledger", get(credits::ledger))
        .route("/v1/credits/daily", get(credits::daily))
        .route("/v1/credits/checkout", post(subscription::buy_credits))
        .with_state(deps);
    edge::app(routes, Shape::Problem, &http)
}

/// The function's part of the interface.
#[cfg(feature = "openapi")]
pub fn openapi() -> utoipa::openapi::OpenApi {
    #[derive(utoipa::OpenApi)]
    #[openapi(
        paths(
            integration::read,
            integration::switch,
            subscription::subscribe,
            subscription::cancel,
            subscription::replace_card,
            subscription::buy_credits,
            credits::read,
            credits::ledger,
            credits::daily,
        ),
        components(schemas(edge::openapi::Problem))
    )]
    struct Routes;
    <Routes as utoipa::OpenApi>::openapi()
}
