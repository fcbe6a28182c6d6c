//! The Lambda function `integration-settings`.

use edge::{Clock, Env};
use integration_settings::{Deps, Settings};

fn main() -> Result<(), lambda_http::Error> {
    edge::block_on(function())
}

async fn function() -> Result<(), lambda_http::Error> {
    edge::telemetry::init();
    let settings = Settings::from_env(Env::process())?;
    let aws = edge::aws_config().load().await;
    let dynamodb = aws_sdk_dynamodb::Client::new(&aws);
    let secrets = aws_sdk_secretsmanager::Client::new(&aws);
    let deps = Deps::new(settings, Clock::system(), dynamodb, secrets)?;
    edge::run(integration_settings::router(deps)).await
}
