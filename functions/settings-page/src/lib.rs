//! The web pages: `/`, `/settings/integrations`, `/plans`.
//!
//! Not yet: each says so, and names the interface that does the same.

use axum::Router;
use axum::routing::get;
use edge::{ApiError, Code, HttpSettings, Shape};

/// The function's routes, ready to be run by Lambda or by the local gateway.
pub fn router(http: &HttpSettings) -> Router {
    let routes = Router::new()
        .route("/", get(not_yet))
        .route("/settings/integrations", get(not_yet))
        .route("/plans", get(not_yet));
    edge::app(routes, Shape::Problem, http)
}

async fn not_yet() -> ApiError {
    ApiError::new(
        Code::NotImplemented,
        "the pages are not part of this version; use /v1/integrations/openrouter",
    )
}
