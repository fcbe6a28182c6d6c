//! The billing tick and the charge worker.
//!
//! Of the tick, the clean-up of orphaned secrets is here. Charging is not yet: the worker lets
//! accounts go that owe nothing, and leaves those that owe in the queue.

mod settings;
mod tick;
mod worker;

use edge::Clock;
use jiff::Timestamp;
use keyvault::Vault;
use serde::Deserialize;
use serde_json::Value;
use store::Store;

pub use settings::Settings;
pub use tick::{TickReport, tick};
pub use worker::{BatchAnswer, work};

/// Everything that the function works with. Cheap to clone.
#[derive(Clone)]
pub struct Deps {
    pub clock: Clock,
    pub store: Store,
    pub vault: Vault,
}

impl Deps {
    /// Puts everything together.
    pub fn new(
        settings: Settings,
        clock: Clock,
        dynamodb: aws_sdk_dynamodb::Client,
        secrets: aws_sdk_secretsmanager::Client,
    ) -> Self {
        Self {
            clock,
            store: Store::new(dynamodb, settings.tables),
            vault: Vault::new(secrets, settings.secrets_prefix),
        }
    }
}

/// Why an event was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    #[error("the event is neither a tick with a `time` nor a batch with `Records`")]
    Unknown,
    #[error("the event's `time` is not an RFC 3339 time")]
    Time(#[source] jiff::Error),
    #[error("the answer cannot be written")]
    Answer(#[source] serde_json::Error),
}

/// Carries out one event: the scheduler's tick (our own or EventBridge's envelope), or a batch of
/// due accounts from the queue.
///
/// # Errors
/// [`EventError`] if the event is of neither kind.
pub async fn handle(deps: &Deps, event: &Value) -> Result<Value, EventError> {
    #[derive(Deserialize)]
    struct Records {
        #[serde(rename = "Records")]
        records: Vec<worker::Record>,
    }
    if let Ok(batch) = Records::deserialize(event) {
        let answer = work(deps, batch.records).await;
        return serde_json::to_value(answer).map_err(EventError::Answer);
    }
    let time = event.get("time").and_then(Value::as_str);
    let time: Timestamp = time
        .ok_or(EventError::Unknown)?
        .parse()
        .map_err(EventError::Time)?;
    serde_json::to_value(tick(deps, time).await).map_err(EventError::Answer)
}
