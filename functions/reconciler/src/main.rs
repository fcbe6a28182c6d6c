//! The Lambda function `reconciler`.

use edge::Setup;
use reconciler::Deps;

fn main() -> Result<(), edge::Error> {
    edge::serve_events(async |env| {
        let deps = Deps::new(Setup::new(env).await)?;
        Ok(move |event, deadline| {
            let deps = deps.clone();
            async move { reconciler::handle(&deps, &event, deadline).await }
        })
    })
}
