//! The Lambda function `integration-settings`.

use edge::Clock;
use integration_settings::{Deps, Settings};

fn main() -> Result<(), edge::Error> {
    edge::serve(async |env| {
        let settings = Settings::from_env(env)?;
        let aws = edge::aws_config().load().await;
        let dynamodb = aws_sdk_dynamodb::Client::new(&aws);
        let secrets = aws_sdk_secretsmanager::Client::new(&aws);
        let deps = Deps::new(settings, Clock::system(), dynamodb, secrets)?;
        Ok(integration_settings::router(deps))
    })
}
