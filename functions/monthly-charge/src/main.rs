//! The Lambda function `monthly-charge`.

use edge::Setup;
use monthly_charge::Deps;

fn main() -> Result<(), edge::Error> {
    edge::serve_events(async |env| {
        let deps = Deps::new(Setup::new(env).await)?;
        Ok(move |event, _| {
            let deps = deps.clone();
            async move { monthly_charge::handle(&deps, &event).await }
        })
    })
}
