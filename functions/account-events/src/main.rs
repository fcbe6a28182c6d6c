//! The Lambda function `account-events`.

use account_events::Deps;
use edge::Setup;

fn main() -> Result<(), edge::Error> {
    edge::serve_events(async |env| {
        let deps = Deps::new(Setup::new(env).await)?;
        Ok(move |event, _| {
            let deps = deps.clone();
            async move { account_events::handle(&deps, &event).await }
        })
    })
}
