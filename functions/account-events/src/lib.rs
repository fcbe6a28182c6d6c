//! Accounts created, changed and deleted by Greta's core system.
//!
//! Events arrive at least once and in any order; the version number in each decides. The outcome
//! therefore does not depend on the order: plans are merged by version ([`account::Plans`]), and a
//! deleted account leaves a tombstone that stops events from before its deletion.
//!
//! Invariant: an event that could not be applied is an error, so that the bus keeps it. Applying an
//! event twice changes nothing.

mod deleted;
mod upserted;

mod deps;
mod event;
mod outcome;
mod settings;

use serde_json::{Value, json};

pub use deps::Deps;
pub use event::{AccountChange, AccountEvent, Malformed};
pub use outcome::EventError;
pub use settings::Settings;

/// Applies one event of the bus. The result names the outcome.
pub async fn handle(deps: &Deps, event: &Value) -> Result<Value, EventError> {
    let applied = Box::pin(apply(deps, event)).await;
    applied.inspect_err(|error| edge::log_error(error, "account event left on the bus"))
}

async fn apply(deps: &Deps, event: &Value) -> Result<Value, EventError> {
    let event = AccountEvent::parse(event)?;
    let outcome = match event.change {
        AccountChange::Upserted(plan) => upserted::apply(deps, &event, plan).await?,
        AccountChange::Deleted => deleted::apply(deps, &event).await?,
    };
    tracing::info!(?outcome, version = event.version, "account event applied");
    Ok(json!({ "account_id": event.account, "done": outcome }))
}
