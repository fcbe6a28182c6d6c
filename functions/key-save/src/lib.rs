//! Connect, replace, test and disconnect the OpenRouter key. This is the only function that writes
//! users' secrets.
//!
//! A key and its record are in two stores. The order of the writes makes every crash harmless:
//!
//! - saving: the name of the new secret is stored with a due time → the secret is created → the
//!   account is switched to it, and the same transaction makes the old secret due → the old secret
//!   is deleted;
//! - disconnecting: the account's record is removed, and the same transaction makes the secret due
//!   → the secret is deleted.
//!
//! A crash can only leave behind a secret that no account names. The billing tick deletes it.

mod disconnect;
mod save;
mod test;

mod check;
mod removal;
mod response;

mod deps;
mod settings;

use axum::Router;
use axum::routing::{post, put};
use edge::Shape;

pub use deps::Deps;
pub use removal::{Disconnected, delete_secret, disconnect_key};
pub use settings::Settings;

/// The function's routes, for Lambda, `cargo dev` and the tests.
pub fn router(deps: Deps) -> Router {
    let http = deps.api.settings.http.clone();
    let key = put(save::save).delete(disconnect::disconnect);
    let routes = Router::new()
        .route("/v1/integrations/openrouter/key", key)
        .route("/v1/integrations/openrouter/key/test", post(test::test_key))
        .with_state(deps);
    edge::app(routes, Shape::Problem, &http)
}

/// The function's part of the interface.
#[cfg(feature = "openapi")]
pub fn openapi() -> utoipa::openapi::OpenApi {
    #[derive(utoipa::OpenApi)]
    #[openapi(
        paths(save::save, test::test_key, disconnect::disconnect),
        components(schemas(edge::openapi::Problem))
    )]
    struct Routes;
    <Routes as utoipa::OpenApi>::openapi()
}
