//! The Lambda function `monthly-charge`.

use edge::{Clock, Env};
use keyvault::Vault;
use lambda_runtime::{Error, LambdaEvent, service_fn};
use monthly_charge::{Deps, Settings};
use serde_json::Value;
use store::Store;

#[tokio::main]
async fn main() -> Result<(), Error> {
    edge::telemetry::init();
    let settings = Settings::from_env(Env::process())?;
    let aws = edge::aws_config().await;
    let deps = Deps {
        clock: Clock::system(),
        store: Store::new(aws_sdk_dynamodb::Client::new(&aws), settings.tables),
        vault: Vault::new(
            aws_sdk_secretsmanager::Client::new(&aws),
            settings.secrets_prefix,
        ),
    };
    lambda_runtime::run_concurrent(service_fn(move |event: LambdaEvent<Value>| {
        let deps = deps.clone();
        async move {
            let answer = monthly_charge::handle(&deps, &event.payload).await;
            answer.map_err(Error::from)
        }
    }))
    .await
}
