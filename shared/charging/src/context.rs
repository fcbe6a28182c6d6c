//! The clients and settings that all parts of charging share.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use account::{Account, AccountId, Profile};
use edge::Clock;
use jiff::Timestamp;
use keyvault::Vault;
use payments::Stripe;
use store::{Effect, Store};

use crate::error::ChargingError;
use crate::settings::Settings;

/// The actor of our own charges, in the ledger and in an account's history.
pub(crate) const MONTHLY_CHARGE: &str = "monthly-charge";

/// Cheap to clone.
#[derive(Clone)]
pub struct Charging {
    pub(crate) store: Store,
    pub(crate) stripe: Stripe,
    pub(crate) clock: Clock,
    pub(crate) settings: Arc<Settings>,
}

impl Charging {
    /// `secrets` reads Stripe's API key.
    pub fn new(
        settings: Settings,
        clock: Clock,
        store: Store,
        secrets: aws_sdk_secretsmanager::Client,
        http: reqwest::Client,
    ) -> Self {
        // It reads no users' secrets, so it needs no prefix.
        let vault = Vault::new(secrets, String::new());
        let key_name = settings.api_secret.clone();
        Self {
            store: store.with_low_credits_events(settings.minimum_balance),
            stripe: Stripe::new(http, &settings.api_url, vault, key_name),
            clock,
            settings: Arc::new(settings),
        }
    }

    /// Sends Stripe at most one request per `interval`. For work that nobody waits for.
    #[must_use]
    pub fn with_rate_limit(mut self, interval: Duration) -> Self {
        self.stripe = self.stripe.with_rate_limit(interval);
        self
    }

    pub(crate) async fn account(&self, id: &AccountId) -> Result<Account, ChargingError> {
        let account = self.store.accounts.get(id).await?;
        account.ok_or(ChargingError::Gone)
    }

    /// Changes the profile; `change` is called again if the profile has changed meanwhile.
    pub(crate) async fn change(
        &self,
        id: &AccountId,
        now: Timestamp,
        mut change: impl FnMut(&mut Profile),
    ) -> Result<Account, ChargingError> {
        let no_effects = |profile: &mut Profile| {
            change(profile);
            Vec::new()
        };
        self.change_with_effects(id, now, no_effects).await
    }

    pub(crate) async fn change_with_effects(
        &self,
        id: &AccountId,
        now: Timestamp,
        mut change: impl FnMut(&mut Profile) -> Vec<Effect>,
    ) -> Result<Account, ChargingError> {
        let change = |profile: &mut Profile| Ok::<_, Infallible>(change(profile));
        Ok(self.store.accounts.update(id, None, now, change).await?)
    }
}
