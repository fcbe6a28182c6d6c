//! The integration card and its switches; credits, their ledger and their days; the add-on's
//! subscription.
//!
//! Architecture invariant: this function has no access to users' secrets. It never sees a key.

mod credits;
mod cursor;
mod integration;
mod settings;
mod subscription;

use std::sync::Arc;

use account::{Account, AccountId};
use axum::Router;
use axum::routing::{get, post};
use card::Card;
use charging::Charging;
use edge::{ApiError, Caller, Clock, Identity, Role, Shape};
use http_client::HttpClient;
use store::Store;
use upstream::{PriceBook, Upstream};

pub use settings::Settings;

/// Everything that the function works with. Cheap to clone.
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
    /// Puts everything together.
    ///
    /// # Errors
    /// If an HTTP client cannot be built.
    pub fn new(
        settings: Settings,
        clock: Clock,
        dynamodb: aws_sdk_dynamodb::Client,
        secrets: aws_sdk_secretsmanager::Client,
    ) -> Result<Self, lambda_http::Error> {
        let http = HttpClient::new(settings.time_outs.connect)?;
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
}

impl axum::extract::FromRef<Deps> for Identity {
    fn from_ref(deps: &Deps) -> Self {
        deps.identity.clone()
    }
}

/// The function's routes, ready to be run by Lambda or by the local gateway.
pub fn router(deps: Deps) -> Router {
    let http = deps.settings.product.http.clone();
    let routes = Router::new()
        .route(
            "/v1/integrations/openrouter",
            get(integration::read).patch(integration::switch),
        )
        .route(
            "/v1/integrations/openrouter/subscription",
            post(subscription::subscribe).delete(subscription::cancel),
        )
        .route(
            "/v1/integrations/openrouter/subscription/payment-method",
            post(subscription::payment_method),
        )
        .route("/v1/credits", get(credits::read))
        .route("/v1/credits/ledger", get(credits::ledger))
        .route("/v1/credits/daily", get(credits::daily))
        .route("/v1/credits/checkout", post(subscription::credits))
        .with_state(deps);
    edge::app(routes, Shape::Problem, &http)
}

impl Deps {
    async fn account(&self, id: &AccountId) -> Result<Account, ApiError> {
        let account = self.store.accounts.get(id).await;
        account
            .map_err(|error| ApiError::storage(&error))?
            .ok_or_else(ApiError::account_not_found)
    }

    async fn card(&self, account: &Account, caller: &Caller) -> Card {
        let product = &self.settings.product;
        let cheapest = self
            .prices
            .cheapest_call(&product.default_ai_model, product.rate);
        let can_edit = caller.role == Role::Owner;
        let now = self.clock.now();
        Card::of(account, now, &product.policy, can_edit, cheapest.await)
    }
}
