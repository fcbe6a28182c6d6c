//! The clients and settings that all parts of charging share.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use account::{Account, AccountId, Profile};
use edge::{Clock, Setup};
use jiff::{SignedDuration, Timestamp};
use keyvault::Vault;
use payments::Stripe;
use store::{Effect, Store};

use crate::error::{ChargingError, Result};
use crate::settings::Settings;

/// The actor of our own charges in the ledger and in an account's history.
pub(crate) const MONTHLY_CHARGE: &str = "monthly-charge";

/// Everything that charging needs except the time. Cheap to clone.
#[derive(Clone)]
pub struct Charging {
    store: Store,
    stripe: Stripe,
    clock: Clock,
    settings: Arc<Settings>,
}

/// Everything that charging needs, including the time.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub(crate) store: &'a Store,
    pub(crate) stripe: &'a Stripe,
    pub(crate) clock: &'a Clock,
    pub(crate) settings: &'a Settings,
    pub(crate) now: Timestamp,
}

impl Charging {
    pub fn new(settings: Settings, setup: &Setup, http: reqwest::Client) -> Self {
        let dynamodb = aws_sdk_dynamodb::Client::new(&setup.aws);
        let secrets = aws_sdk_secretsmanager::Client::new(&setup.aws);
        // This vault reads no users' secrets, so it needs no prefix.
        let vault = Vault::new(secrets, String::new());
        let key_name = settings.api_secret.clone();
        Self {
            store: Store::new(dynamodb, settings.tables.clone())
                .with_low_credits_events(settings.minimum_balance),
            stripe: Stripe::new(http, &settings.api_url, vault, key_name),
            clock: setup.clock.clone(),
            settings: Arc::new(settings),
        }
    }

    /// Sends Stripe at most one request per `interval`. For background work.
    #[must_use]
    pub fn with_rate_limit(mut self, interval: Duration) -> Self {
        self.stripe = self.stripe.with_rate_limit(interval);
        self
    }

    pub fn at(&self, now: Timestamp) -> Context<'_> {
        Context {
            store: &self.store,
            stripe: &self.stripe,
            clock: &self.clock,
            settings: &self.settings,
            now,
        }
    }
}

impl Context<'_> {
    pub(crate) fn later(&self, delay: SignedDuration) -> Timestamp {
        self.now.saturating_add(delay).unwrap_or(self.now)
    }

    pub(crate) async fn account(&self, id: &AccountId) -> Result<Account> {
        let account = self.store.accounts.get(id).await?;
        account.ok_or(ChargingError::Gone)
    }

    /// Changes the profile; calls `change` again if the profile was changed in the meantime.
    pub(crate) async fn change(
        &self,
        id: &AccountId,
        mut change: impl FnMut(&mut Profile),
    ) -> Result<Account> {
        let no_effects = |profile: &mut Profile| {
            change(profile);
            Vec::new()
        };
        self.change_with_effects(id, no_effects).await
    }

    pub(crate) async fn change_with_effects(
        &self,
        id: &AccountId,
        mut change: impl FnMut(&mut Profile) -> Vec<Effect>,
    ) -> Result<Account> {
        let change = |profile: &mut Profile| Ok::<_, Infallible>(change(profile));
        let updated = self.store.accounts.update(id, None, self.now, change);
        Ok(updated.await?)
    }
}
