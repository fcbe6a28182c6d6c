//! `ai-proxy` as a server: the routes that Lambda calls, behind the same listener as the relay.

use ai_proxy::{Deps, Settings};
use axum::body::Body;
use edge::{Clock, Env};
use tower::ServiceExt as _;

use crate::Error;

/// Serves with the settings of the environment.
pub(crate) async fn run(port: u16) -> Result<(), Error> {
    edge::telemetry::init();
    let app = ai_proxy::router(deps().await?);
    crate::serve::serve(port, move |request| app.clone().oneshot(request.map(Body::new))).await
}

/// The function's dependencies, by the settings of the environment.
pub(crate) async fn deps() -> Result<Deps, Error> {
    let settings = Settings::from_env(Env::process())?;
    let aws = edge::aws_config().load().await;
    let dynamodb = aws_sdk_dynamodb::Client::new(&aws);
    let secrets = aws_sdk_secretsmanager::Client::new(&aws);
    Deps::new(settings, Clock::system(), dynamodb, secrets)
}
