//! The web pages `/settings/integrations` and `/plans`, their assets, and `/openapi.json`.
//!
//! Everything is in the binary and public: the pages read an account only through the API, as their
//! user. There is no build step: the files in `assets/` are served as they are.
//!
//! Architecture invariant: this function reads no table and no secret.

mod assets;
mod pages;
mod settings;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use edge::Shape;
use http::header::CONTENT_TYPE;
use tower_http::compression::CompressionLayer;

pub use assets::LATEST;
pub use settings::Settings;

/// The function's routes, for Lambda, `cargo dev` and the tests.
pub fn router(settings: Settings) -> Router {
    let http = settings.http.clone();
    let routes = Router::new()
        .route("/", get(home))
        .route("/settings/integrations", get(pages::integrations))
        .route("/plans", get(pages::plans))
        .route("/openapi.json", get(openapi))
        .route("/assets/{version}/{name}", get(assets::serve))
        .layer(CompressionLayer::new())
        .with_state(Arc::new(settings));
    edge::app(routes, Shape::Problem, &http)
}

/// The interface, as `local::openapi` writes it.
async fn openapi() -> Response {
    const DOCUMENT: &str = include_str!("../../../docs/openapi.json");
    ([(CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}

/// Redirects to an absolute address: a relative one goes wrong if the stage's path has no trailing
/// slash.
async fn home(State(settings): State<Arc<Settings>>) -> Response {
    let base = settings.public_base_url.as_str().trim_end_matches('/');
    Redirect::temporary(&format!("{base}/settings/integrations")).into_response()
}

#[cfg(test)]
mod tests;
