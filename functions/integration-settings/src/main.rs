//! The Lambda function `integration-settings`.

use edge::Setup;
use integration_settings::Deps;

fn main() -> Result<(), edge::Error> {
    edge::serve(async |env| Ok(integration_settings::router(Deps::new(Setup::new(env).await)?)))
}
