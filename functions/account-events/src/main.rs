//! The Lambda function `account-events`.

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::Value;

#[tokio::main]
async fn main() -> Result<(), Error> {
    edge::telemetry::init();
    lambda_runtime::run_concurrent(service_fn(|event: LambdaEvent<Value>| async move {
        account_events::handle(&event.payload).map_err(Error::from)
    }))
    .await
}
