//! `ai-proxy` as a server: the routes that Lambda calls, behind the same listener as the relay.

use ai_proxy::Deps;
use axum::body::Body;
use edge::{Env, Setup};
use tower::ServiceExt as _;

use crate::Error;

/// Serves with the settings of the environment.
pub(crate) async fn run(port: u16) -> Result<(), Error> {
    edge::telemetry::init();
    let app = ai_proxy::router(deps().await?);
    crate::serve::serve(port, move |request| app.clone().oneshot(request.map(Body::new))).await
}

/// The function's dependencies, with the settings of the environment.
pub(crate) async fn deps() -> Result<Deps, Error> {
    Deps::new(Setup::new(Env::process()).await)
}
