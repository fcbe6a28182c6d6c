//! Payment provider events: `POST /v1/webhooks/stripe`.
//!
//! Not yet: every event is refused with 501, so that the provider keeps it and delivers it again,
//! and none is lost.

use axum::Router;
use axum::routing::post;
use edge::{ApiError, Code, HttpSettings, Shape};

/// The function's routes, ready to be run by Lambda or by the local gateway.
pub fn router(http: &HttpSettings) -> Router {
    let routes = Router::new().route("/v1/webhooks/stripe", post(not_yet));
    edge::app(routes, Shape::Problem, http)
}

async fn not_yet() -> ApiError {
    ApiError::new(
        Code::NotImplemented,
        "payments are not part of this version; deliver the event again later",
    )
}
