//! The Lambda function `reconciler`.

use edge::Clock;
use reconciler::{Deps, Settings};

fn main() -> Result<(), edge::Error> {
    edge::serve_events(async |env| {
        let settings = Settings::from_env(env)?;
        let aws = edge::aws_config().load().await;
        let dynamodb = aws_sdk_dynamodb::Client::new(&aws);
        let deps = Deps::new(settings, Clock::system(), dynamodb);
        Ok(move |event, deadline| {
            let deps = deps.clone();
            async move { reconciler::handle(&deps, &event, deadline).await }
        })
    })
}
