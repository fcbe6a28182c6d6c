//! The Lambda function `ai-proxy`.

use std::sync::Arc;

use ai_proxy::{Deps, Settings};
use edge::{Clock, Env, Identity};
use keyvault::Vault;
use store::Store;
use upstream::{PriceBook, Upstream};

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    edge::telemetry::init();
    let settings = Settings::from_env(Env::process())?;
    let aws = edge::aws_config().await;
    let clock = Clock::system();
    let (time_outs, referer) = (settings.time_outs, &settings.referer);
    let upstream = |base: &url::Url| Upstream::new(base.clone(), time_outs, referer.clone());
    let default_ai = upstream(&settings.default_ai_url)?;
    let deps = Deps {
        identity: Identity::new(&settings.identity, clock.clone())?,
        clock,
        store: Store::new(aws_sdk_dynamodb::Client::new(&aws), settings.tables.clone()),
        vault: Vault::new(
            aws_sdk_secretsmanager::Client::new(&aws),
            &settings.secrets_prefix,
        ),
        openrouter: upstream(&settings.openrouter_url)?,
        prices: PriceBook::new(default_ai.clone()),
        default_ai,
        settings: Arc::new(settings),
    };
    edge::run_streaming(ai_proxy::router(deps)).await
}
