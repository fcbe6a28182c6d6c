//! The Lambda function `integration-settings`.

use std::sync::Arc;

use edge::{Clock, Env, Identity};
use integration_settings::{Deps, Settings};
use store::Store;
use upstream::{PriceBook, Upstream};

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    edge::telemetry::init();
    let settings = Settings::from_env(Env::process())?;
    let aws = edge::aws_config().await;
    let clock = Clock::system();
    let default_ai = Upstream::new(
        settings.default_ai_url.clone(),
        settings.time_outs,
        settings.referer.clone(),
    )?;
    let deps = Deps {
        identity: Identity::new(&settings.identity, clock.clone())?,
        clock,
        store: Store::new(aws_sdk_dynamodb::Client::new(&aws), settings.tables.clone()),
        prices: PriceBook::new(default_ai),
        settings: Arc::new(settings),
    };
    edge::run(integration_settings::router(deps)).await
}
