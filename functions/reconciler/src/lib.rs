//! The reconciler: looks through the books of all accounts for what does not add up.
//!
//! Started by the scheduler, for example daily. Several at once share the accounts by segments.
//!
//! Invariant: it only reads. What it finds is told, with the account's number and never its id, and
//! repaired by nobody but a person.

mod event;
mod run;
mod settings;

use edge::{Clock, Deadline};
use serde_json::Value;
use store::Store;

pub use event::EventError;
pub use settings::Settings;

/// Everything that the function works with. Cheap to clone.
#[derive(Clone)]
pub struct Deps {
    pub clock: Clock,
    pub store: Store,
}

impl Deps {
    pub fn new(settings: Settings, clock: Clock, dynamodb: aws_sdk_dynamodb::Client) -> Self {
        Self {
            clock,
            store: Store::new(dynamodb, settings.tables),
        }
    }
}

/// Reconciles the accounts that the event asks for, and says what it found. It stops before the
/// `deadline`; the answer's `complete` is then false.
///
/// # Errors
/// [`EventError`] if the event cannot be read.
pub async fn handle(
    deps: &Deps,
    event: &Value,
    deadline: Option<Deadline>,
) -> Result<Value, EventError> {
    let asked = event::Asked::parse(event)?;
    let now = asked.time.unwrap_or_else(|| deps.clock.now());
    let report = run::run(&deps.store, asked.segment, now, deadline).await;
    Ok(serde_json::to_value(report)?)
}
