//! The Lambda function `account-events`.

use account_events::{Deps, Settings};
use edge::{Clock, Env};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::Value;

fn main() -> Result<(), Error> {
    edge::block_on(function())
}

async fn function() -> Result<(), Error> {
    edge::telemetry::init();
    let settings = Settings::from_env(Env::process())?;
    let aws = edge::aws_config()?;
    let dynamodb = aws_sdk_dynamodb::Client::new(&aws);
    let secrets = aws_sdk_secretsmanager::Client::new(&aws);
    let deps = Deps::new(settings, Clock::system(), dynamodb, secrets);
    lambda_runtime::run_concurrent(service_fn(move |event: LambdaEvent<Value>| {
        let deps = deps.clone();
        async move {
            let answer = account_events::handle(&deps, &event.payload).await;
            // The runtime logs the error's `Debug`, which contains whole requests to AWS.
            answer.map_err(|error| Error::from(error.to_string()))
        }
    }))
    .await
}
