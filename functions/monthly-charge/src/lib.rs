//! The billing tick and the charge worker.
//!
//! The tick queues the accounts for whose add-ons something is due, and the worker does it. The tick
//! itself gives payments back that were not owed, resolves holds that their calls left open, deletes
//! orphaned secrets, finishes the deletion of accounts and delivers events.

mod outbox;
mod plan;
mod settings;
mod sweep;
mod tick;
mod worker;

use charging::Charging;
use edge::Clock;
use jiff::Timestamp;
use keyvault::Vault;
use serde::Deserialize;
use serde_json::Value;
use store::Store;
use upstream::{DefaultAiKind, TimeOuts, Upstream};
use url::Url;

pub use charging::ChargeReport;
pub use settings::Settings;
pub use sweep::{Swept, sweep};
pub use tick::{TickReport, tick};
pub use worker::{Batch, BatchAnswer, work};

/// Everything that the function works with. Cheap to clone.
#[derive(Clone)]
pub struct Deps {
    pub clock: Clock,
    pub store: Store,
    pub charging: Charging,
    pub vault: Vault,
    /// Who knows what calls on credits did cost.
    pub default_ai: Upstream,
    pub default_ai_kind: DefaultAiKind,
    /// The name of the secret that holds the default AI's key.
    pub default_ai_secret: String,
    /// Where events go.
    pub event_bus: aws_sdk_eventbridge::Client,
    pub event_bus_name: String,
    /// Where due accounts wait for the worker.
    pub queue: aws_sdk_sqs::Client,
    pub queue_url: Url,
    /// Accounts that all workers together can charge in a second.
    pub pace: u32,
}

impl Deps {
    /// Puts everything together.
    ///
    /// # Errors
    /// If the HTTP client cannot be built.
    pub fn new(
        settings: Settings,
        clock: Clock,
        dynamodb: aws_sdk_dynamodb::Client,
        secrets: aws_sdk_secretsmanager::Client,
        event_bus: aws_sdk_eventbridge::Client,
        queue: aws_sdk_sqs::Client,
    ) -> Result<Self, edge::Error> {
        let (interval, pace) = (settings.stripe_interval(), settings.charges_per_second());
        let time_outs = TimeOuts::for_questions(settings.connect);
        let http = edge::http_client(settings.connect)?;
        let store = Store::new(dynamodb, settings.tables);
        let charging = Charging::new(
            settings.charging,
            clock.clone(),
            store.clone(),
            secrets.clone(),
            http.clone(),
        );
        Ok(Self {
            charging: charging.with_rate_limit(interval),
            clock,
            store,
            vault: Vault::new(secrets, settings.secrets_prefix),
            default_ai: Upstream::new(http, &settings.default_ai_url, time_outs, settings.referer),
            default_ai_kind: settings.default_ai_kind,
            default_ai_secret: settings.default_ai_secret,
            event_bus,
            event_bus_name: settings.event_bus,
            queue,
            queue_url: settings.queue_url,
            pace,
        })
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
    if let Ok(batch) = Batch::deserialize(event) {
        let (answer, _) = Box::pin(work(deps, batch)).await;
        return serde_json::to_value(answer).map_err(EventError::Answer);
    }
    let time = event.get("time").and_then(Value::as_str);
    let time: Timestamp = time
        .ok_or(EventError::Unknown)?
        .parse()
        .map_err(EventError::Time)?;
    // No call is under way in this process: it makes none.
    let report = Box::pin(tick(deps, time, |_| false)).await;
    serde_json::to_value(report).map_err(EventError::Answer)
}
