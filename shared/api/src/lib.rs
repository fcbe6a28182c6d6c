//! Shared parts of the functions behind the product's routes: settings, the caller, the caller's
//! account and its card.

mod settings;

use std::sync::Arc;

use account::{Account, AccountId};
use card::Card;
use edge::{ApiError, Caller, Clock, HttpClients, Identity, Role};
use store::Store;
use upstream::{PriceBook, Upstream};
use url::Url;

pub use settings::Settings;

/// Cheap to clone.
#[derive(Clone)]
pub struct Api {
    pub settings: Arc<Settings>,
    pub clock: Clock,
    pub identity: Identity,
    pub store: Store,
    pub default_ai: Upstream,
    /// The default AI's prices.
    pub prices: PriceBook,
    pub http: HttpClients,
}

impl Api {
    pub fn new(settings: Settings, setup: &edge::Setup) -> Result<Self, edge::Error> {
        let clock = setup.clock.clone();
        let http = edge::http_clients(settings.time_outs.connect)?;
        let dynamodb = aws_sdk_dynamodb::Client::new(&setup.aws);
        let default_ai = upstream_at(&settings.default_ai_url, &settings, &http);
        Ok(Self {
            identity: Identity::new(&settings.identity, clock.clone(), http.pooled.clone()),
            clock,
            store: Store::new(dynamodb, settings.tables.clone()),
            prices: PriceBook::new(default_ai.clone()),
            default_ai,
            http,
            settings: Arc::new(settings),
        })
    }

    /// OpenRouter, or another service that speaks its protocol.
    pub fn upstream(&self, base: &Url) -> Upstream {
        upstream_at(base, &self.settings, &self.http)
    }

    /// The account, in one consistent read; 404 without one, 503 if the read fails.
    pub async fn account(&self, id: &AccountId) -> Result<Account, ApiError> {
        let read = self.store.accounts.get(id).await;
        read.map_err(|error| ApiError::storage(&error))?.ok_or_else(ApiError::account_not_found)
    }

    /// The account's integration card, as the caller sees it.
    pub async fn card(&self, account: &Account, caller: &Caller) -> Card {
        let settings = &self.settings;
        let cheapest = self.prices.cheapest_call(&settings.default_ai_model, settings.rate);
        let can_edit = caller.role == Role::Owner;
        Card::of(account, self.clock.now(), &settings.policy, can_edit, cheapest.await)
    }
}

fn upstream_at(base: &Url, settings: &Settings, http: &HttpClients) -> Upstream {
    let HttpClients { pooled, unpooled } = http.clone();
    Upstream::new(pooled, unpooled, base, settings.time_outs, settings.referer.clone())
}
