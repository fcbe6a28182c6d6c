//! Accounts created, changed and deleted by Greta's core system.
//!
//! The events come at least once and in any order; a version number in each decides. What they lead to
//! does therefore not depend on how they come: plans are joined by version ([`account::Plans`]), and a
//! deleted account leaves a tombstone that events older than its end do not get past.
//!
//! Invariant: an event that could not be carried out is an error, so that the bus keeps it. Carrying one
//! out again changes nothing.

mod deleted;
mod event;
mod settings;
mod upserted;

use account::IdError;
use edge::Clock;
use keyvault::Vault;
use serde::Serialize;
use serde_json::{Value, json};
use store::{Store, StoreError};

pub use event::{AccountEvent, Malformed, What};
pub use settings::Settings;

/// Who did it, in the account's history.
const ACTOR: &str = "account-events";

/// Everything that the function works with. Cheap to clone.
#[derive(Clone)]
pub struct Deps {
    pub clock: Clock,
    pub store: Store,
    pub vault: Vault,
}

impl Deps {
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

/// What an event led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Done {
    Created,
    /// The plan is another one now.
    Changed,
    /// The plan was so before.
    Unchanged,
    /// Something of a higher version was heard before.
    Late,
    Deleted,
}

/// Why an event was not carried out. Sending it again is always safe.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("calls are still open on the account as it was before its deletion; try again later")]
    StillOpen,
    #[error("others changed the account again and again; try again")]
    Contended,
    #[error("the account could not be read or written; try again")]
    Store(#[from] StoreError),
    #[error("an account number cannot be made")]
    Number(#[from] IdError),
}

/// Carries out one event of the bus, and says what it led to.
///
/// # Errors
/// [`EventError`] if it was not carried out: the bus is to keep it.
pub async fn handle(deps: &Deps, event: &Value) -> Result<Value, EventError> {
    let carried_out = Box::pin(carry_out(deps, event)).await;
    carried_out.inspect_err(|error| edge::log_error(error, "an account event stays with the bus"))
}

async fn carry_out(deps: &Deps, event: &Value) -> Result<Value, EventError> {
    let event = AccountEvent::parse(event)?;
    let done = match event.what {
        What::Upserted(plan) => upserted::upserted(deps, &event, plan).await?,
        What::Deleted => deleted::deleted(deps, &event).await?,
    };
    tracing::info!(?done, version = event.version, "account event carried out");
    Ok(json!({ "account_id": event.account, "done": done }))
}
