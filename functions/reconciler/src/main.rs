//! The Lambda function `reconciler`.

use edge::{Clock, Deadline, Env};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use reconciler::{Deps, Settings};
use serde_json::Value;

fn main() -> Result<(), Error> {
    edge::block_on(function())
}

async fn function() -> Result<(), Error> {
    edge::telemetry::init();
    let settings = Settings::from_env(Env::process())?;
    let aws = edge::aws_config().load().await;
    let dynamodb = aws_sdk_dynamodb::Client::new(&aws);
    let deps = Deps::new(settings, Clock::system(), dynamodb);
    lambda_runtime::run_concurrent(service_fn(move |event: LambdaEvent<Value>| {
        let deps = deps.clone();
        async move {
            let deadline = Deadline::of(&event.context, &deps.clock);
            let answer = reconciler::handle(&deps, &event.payload, deadline).await;
            answer.map_err(Error::from)
        }
    }))
    .await
}
