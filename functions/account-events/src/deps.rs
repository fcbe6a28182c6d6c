//! Everything that the function works with.

use edge::Clock;
use keyvault::Vault;
use store::Store;

use crate::settings::Settings;

/// Cheap to clone.
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
