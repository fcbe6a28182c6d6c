//! Everything that the function works with.

use std::sync::Arc;

use account::Account;
use api::Api;
use edge::Setup;
use keyvault::{Vault, VaultError};
use secrecy::SecretString;
use upstream::Upstream;

use crate::running::Running;
use crate::settings::Settings;

/// Cheap to clone.
#[derive(Clone)]
pub struct Deps {
    pub settings: Arc<Settings>,
    pub api: Api,
    pub vault: Vault,
    pub openrouter: Upstream,
    /// Calls with an open hold in this process.
    pub running: Running,
}

impl Deps {
    pub fn new(setup: Setup) -> Result<Self, edge::Error> {
        let settings = Settings::from_env(setup.env.clone())?;
        let secrets = aws_sdk_secretsmanager::Client::new(&setup.aws);
        let mut api = Api::new(settings.api.clone(), &setup)?;
        api.store = api.store.with_low_credits_events(settings.api.policy.minimum_balance);
        Ok(Self {
            vault: Vault::new(secrets, &settings.secrets_prefix),
            openrouter: api.upstream(&settings.openrouter_url),
            api,
            running: Running::default(),
            settings: Arc::new(settings),
        })
    }

    /// The account's own key. No other key ever stands in for it.
    pub(crate) async fn user_key(
        &self,
        account: &Account,
    ) -> Result<Arc<SecretString>, VaultError> {
        let saved = account.profile.key.as_ref().ok_or(VaultError::Missing)?;
        self.vault.user_key(&account.id, &saved.id).await
    }
}
