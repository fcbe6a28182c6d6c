//! The web pages: `/settings/integrations`, `/plans`, and what they are made of.
//!
//! Everything is in the binary and public: the pages learn of an account only through the API, as their
//! user. There is no build step; what is in `assets/` is what is served.
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
use tower_http::compression::CompressionLayer;

pub use assets::LATEST;
pub use settings::Settings;

/// The function's routes, ready to be run by Lambda or by the local gateway.
pub fn router(settings: Settings) -> Router {
    let http = settings.http.clone();
    let routes = Router::new()
        .route("/", get(home))
        .route("/settings/integrations", get(pages::integrations))
        .route("/plans", get(pages::plans))
        .route("/assets/{version}/{name}", get(assets::serve))
        .layer(CompressionLayer::new())
        .with_state(Arc::new(settings));
    edge::app(routes, Shape::Problem, &http)
}

/// By its whole address: a relative one would lead astray where a stage's path has no slash at its end.
async fn home(State(settings): State<Arc<Settings>>) -> Response {
    let base = settings.public_base_url.as_str().trim_end_matches('/');
    Redirect::temporary(&format!("{base}/settings/integrations")).into_response()
}

#[cfg(test)]
mod tests;
