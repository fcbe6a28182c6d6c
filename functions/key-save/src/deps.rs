//! Everything that the function works with.

use std::sync::Arc;

use account::{Account, AccountId};
use axum::extract::FromRef;
use card::Card;
use edge::{ApiError, Caller, Clock, Identity, Role};
use keyvault::Vault;
use store::Store;
use upstream::{PriceBook, Upstream};
use url::Url;

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
    /// The default AI's prices, for the card.
    pub prices: PriceBook,
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
        Ok(Self {
            identity: Identity::new(&settings.product.identity, clock.clone(), http.clone()),
            clock,
            store: Store::new(dynamodb, settings.tables.clone()),
            vault: Vault::new(secrets, &settings.secrets_prefix)
                .encrypting_with(settings.secrets_kms_key.clone()),
            openrouter: upstream(&settings.openrouter_url),
            prices: PriceBook::new(upstream(&settings.product.default_ai_url)),
            settings: Arc::new(settings),
        })
    }

    pub(crate) async fn account(&self, id: &AccountId) -> Result<Account, ApiError> {
        edge::found_account(self.store.accounts.get(id).await)
    }

    pub(crate) async fn card(&self, account: &Account, caller: &Caller) -> Card {
        let product = &self.settings.product;
        let cheapest = self.prices.cheapest_call(&product.default_ai_model, product.rate);
        let can_edit = caller.role == Role::Owner;
        let now = self.clock.now();
        Card::of(account, now, &product.policy, can_edit, cheapest.await)
    }
}

impl FromRef<Deps> for Identity {
    fn from_ref(deps: &Deps) -> Self {
        deps.identity.clone()
    }
}
