//! The Lambda function `subscription-webhook`.

use edge::Setup;
use subscription_webhook::Deps;

fn main() -> Result<(), edge::Error> {
    edge::serve(async |env| Ok(subscription_webhook::router(Deps::new(Setup::new(env).await)?)))
}
