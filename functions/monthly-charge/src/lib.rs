//! The billing tick and the charge worker.
//!
//! The tick queues the accounts whose add-on is due, and the worker charges them. The tick itself
//! refunds payments that were not owed, resolves holds that their calls left open, deletes orphaned
//! secrets, finishes the deletion of accounts and delivers domain events.

mod deps;
mod outbox;
mod plan;
mod settings;
mod sweep;
mod tick;
mod worker;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

pub use charging::ChargeReport;
pub use deps::Deps;
pub use settings::Settings;
pub use sweep::{Swept, sweep};
pub use tick::{TickReport, tick};
pub use worker::{Batch, BatchAnswer, work};

/// Why an event was not handled.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    #[error("the event is neither a tick with a `time` nor a batch with `Records`")]
    Unknown,
    #[error("the event's `time` is not an RFC 3339 time")]
    Time(#[source] jiff::Error),
    #[error("the response cannot be written")]
    Response(#[source] serde_json::Error),
}

/// Handles one event: the scheduler's tick (our own or EventBridge's envelope), or a batch of due
/// accounts from the queue.
pub async fn handle(deps: &Deps, event: &Value) -> Result<Value, EventError> {
    if let Ok(batch) = Batch::deserialize(event) {
        let (response, _) = Box::pin(work(deps, batch)).await;
        return serde_json::to_value(response).map_err(EventError::Response);
    }
    let time = event.get("time").and_then(Value::as_str);
    let time: Timestamp = time.ok_or(EventError::Unknown)?.parse().map_err(EventError::Time)?;
    // No call is under way in this process.
    let report = Box::pin(tick(deps, time, |_| false)).await;
    serde_json::to_value(report).map_err(EventError::Response)
}
