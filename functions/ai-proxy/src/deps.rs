//! Everything that the function works with.

use std::sync::Arc;

use account::{Account, AccountId};
use edge::{ApiError, Clock, Identity};
use keyvault::{Vault, VaultError};
use secrecy::SecretString;
use store::Store;
use upstream::{PriceBook, Upstream};
use url::Url;

use crate::running::Running;
use crate::settings::Settings;

/// Cheap to clone.
#[derive(Clone)]
pub struct Deps {
    pub settings: Arc<Settings>,
    pub clock: Clock,
    pub identity: Identity,
    pub store: Store,
    pub vault: Vault,
    pub openrouter: Upstream,
    pub default_ai: Upstream,
    /// The default AI's prices.
    pub prices: PriceBook,
    /// Calls with an open hold in this process.
    pub running: Running,
}

impl Deps {
    pub fn new(
        settings: Settings,
        clock: Clock,
        dynamodb: aws_sdk_dynamodb::Client,
        secrets: aws_sdk_secretsmanager::Client,
    ) -> Result<Self, edge::Error> {
        let (time_outs, referer) = (settings.time_outs, &settings.product.referer);
        let http = edge::http_client(time_outs.connect)?;
        let upstream = |base: &Url| Upstream::new(http.clone(), base, time_outs, referer.clone());
        let default_ai = upstream(&settings.product.default_ai_url);
        Ok(Self {
            identity: Identity::new(&settings.product.identity, clock.clone(), http.clone()),
            clock,
            store: Store::new(dynamodb, settings.tables.clone())
                .with_low_credits_events(settings.product.policy.minimum_balance),
            vault: Vault::new(secrets, &settings.secrets_prefix),
            openrouter: upstream(&settings.openrouter_url),
            prices: PriceBook::new(default_ai.clone()),
            running: Running::default(),
            default_ai,
            settings: Arc::new(settings),
        })
    }

    /// The caller's account, in one consistent read.
    pub(crate) async fn account(&self, id: &AccountId) -> Result<Account, ApiError> {
        edge::found_account(self.store.accounts.get(id).await)
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
