//! Everything that the function works with.

use std::sync::Arc;

use account::{Account, AccountId};
use axum::extract::FromRef;
use card::Card;
use charging::Charging;
use edge::{ApiError, Caller, Clock, Identity, Role};
use store::Store;
use upstream::{PriceBook, Upstream};

use crate::settings::Settings;

/// Cheap to clone.
#[derive(Clone)]
pub struct Deps {
    pub settings: Arc<Settings>,
    pub clock: Clock,
    pub identity: Identity,
    pub store: Store,
    /// The default AI's prices, for the card.
    pub prices: PriceBook,
    pub charging: Charging,
}

impl Deps {
    pub fn new(
        settings: Settings,
        clock: Clock,
        dynamodb: aws_sdk_dynamodb::Client,
        secrets: aws_sdk_secretsmanager::Client,
    ) -> Result<Self, edge::Error> {
        let http = edge::http_client(settings.time_outs.connect)?;
        let default_ai = Upstream::new(
            http.clone(),
            &settings.product.default_ai_url,
            settings.time_outs,
            settings.product.referer.clone(),
        );
        let store = Store::new(dynamodb, settings.tables.clone());
        Ok(Self {
            charging: Charging::new(
                settings.charging.clone(),
                clock.clone(),
                store.clone(),
                secrets,
                http.clone(),
            ),
            identity: Identity::new(&settings.product.identity, clock.clone(), http),
            clock,
            store,
            prices: PriceBook::new(default_ai),
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
