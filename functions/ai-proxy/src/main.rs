//! The Lambda function `ai-proxy`.

use ai_proxy::{Deps, Settings};
use edge::Clock;

fn main() -> Result<(), edge::Error> {
    edge::serve_streaming(async |env| {
        let settings = Settings::from_env(env)?;
        let aws = edge::aws_config().load().await;
        let dynamodb = aws_sdk_dynamodb::Client::new(&aws);
        let secrets = aws_sdk_secretsmanager::Client::new(&aws);
        let deps = Deps::new(settings, Clock::system(), dynamodb, secrets)?;
        Ok(ai_proxy::router(deps))
    })
}
