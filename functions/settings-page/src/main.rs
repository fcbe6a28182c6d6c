//! The Lambda function `settings-page`.

use edge::Env;
use settings_page::Settings;

fn main() -> Result<(), lambda_http::Error> {
    edge::block_on(function())
}

async fn function() -> Result<(), lambda_http::Error> {
    edge::telemetry::init();
    let settings = Settings::from_env(Env::process())?;
    edge::run(settings_page::router(settings)).await
}
