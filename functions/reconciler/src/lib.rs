//! The reconciler: checks that the books of every account add up.
//!
//! The scheduler starts it, for example daily. Several runs in parallel each take a segment of the
//! accounts.
//!
//! Invariant: it only reads. It reports mismatches, with the account's number and never its id, and
//! leaves the repair to a person.

mod event;
mod run;
mod settings;

use edge::{Clock, Deadline, SettingsError, Setup};
use serde_json::Value;
use store::Store;

use event::RunRequest;

pub use event::EventError;
pub use settings::Settings;

/// Everything that the function works with. Cheap to clone.
#[derive(Clone)]
pub struct Deps {
    pub clock: Clock,
    pub store: Store,
}

impl Deps {
    pub fn new(setup: Setup) -> Result<Self, SettingsError> {
        let settings = Settings::from_env(setup.env)?;
        let dynamodb = aws_sdk_dynamodb::Client::new(&setup.aws);
        Ok(Self { clock: setup.clock, store: Store::new(dynamodb, settings.tables) })
    }
}

/// Reconciles the accounts that the event selects, and returns the report. If it has to stop before
/// the `deadline`, the report's `complete` is false.
pub async fn handle(
    deps: &Deps,
    event: &Value,
    deadline: Option<Deadline>,
) -> Result<Value, EventError> {
    let request = RunRequest::parse(event)?;
    let now = request.time.unwrap_or_else(|| deps.clock.now());
    let report = run::run(&deps.store, request.segment, now, deadline).await;
    Ok(serde_json::to_value(report)?)
}
