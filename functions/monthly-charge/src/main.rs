//! The Lambda function `monthly-charge`.

use edge::Clock;
use monthly_charge::{Deps, Settings};

fn main() -> Result<(), edge::Error> {
    edge::serve_events(async |env| {
        let settings = Settings::from_env(env)?;
        let aws = edge::aws_config().load().await;
        let dynamodb = aws_sdk_dynamodb::Client::new(&aws);
        let secrets = aws_sdk_secretsmanager::Client::new(&aws);
        let event_bus = aws_sdk_eventbridge::Client::new(&aws);
        let queue = aws_sdk_sqs::Client::new(&aws);
        let clock = Clock::system();
        let deps = Deps::new(settings, clock, dynamodb, secrets, event_bus, queue)?;
        Ok(move |event, _| {
            let deps = deps.clone();
            async move { monthly_charge::handle(&deps, &event).await }
        })
    })
}
