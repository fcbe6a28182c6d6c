//! Everything that the function works with.

use edge::{Clock, SettingsError, Setup};
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
    pub fn new(setup: Setup) -> Result<Self, SettingsError> {
        let settings = Settings::from_env(setup.env)?;
        let dynamodb = aws_sdk_dynamodb::Client::new(&setup.aws);
        let secrets = aws_sdk_secretsmanager::Client::new(&setup.aws);
        Ok(Self {
            clock: setup.clock,
            store: Store::new(dynamodb, settings.tables),
            vault: Vault::new(secrets, settings.secrets_prefix),
        })
    }
}
