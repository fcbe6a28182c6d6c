//! The Lambda function `monthly-charge`.

use edge::{Clock, Env};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use monthly_charge::{Deps, Settings};
use serde_json::Value;

fn main() -> Result<(), Error> {
    edge::block_on(function())
}

async fn function() -> Result<(), Error> {
    edge::telemetry::init();
    let settings = Settings::from_env(Env::process())?;
    let aws = edge::aws_config().load().await;
    let dynamodb = aws_sdk_dynamodb::Client::new(&aws);
    let secrets = aws_sdk_secretsmanager::Client::new(&aws);
    let event_bus = aws_sdk_eventbridge::Client::new(&aws);
    let queue = aws_sdk_sqs::Client::new(&aws);
    let clock = Clock::system();
    let deps = Deps::new(settings, clock, dynamodb, secrets, event_bus, queue)?;
    lambda_runtime::run_concurrent(service_fn(move |event: LambdaEvent<Value>| {
        let deps = deps.clone();
        async move {
            let answer = monthly_charge::handle(&deps, &event.payload).await;
            answer.map_err(Error::from)
        }
    }))
    .await
}
