//! The Lambda function `settings-page`.

use edge::{Env, HttpSettings};

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    edge::telemetry::init();
    let mut env = Env::process();
    let http = HttpSettings::from_env(&mut env);
    let http = env.finish(http)?;
    edge::run(settings_page::router(&http)).await
}
