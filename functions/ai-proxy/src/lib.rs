//! The AI proxy: `POST /v1/chat/completions` and `GET /v1/models`.
//!
//! A call goes: identity → body → account (one read) → [`routing::decide`] → either [`byok`] (the
//! user's key; bytes pass unchanged; no credit moves) or [`credits`] (hold, call, settle on the
//! default AI). [`byok`] hands a call over to [`credits`] only where the table's row 5 allows it,
//! and only before a byte has gone to the caller.
//!
//! Architecture invariant: under "Always use this key" nothing in [`credits`] is reached.

mod body_chunks;
mod byok;
mod call;
mod credits;
mod key_health;
mod models;
mod receipt;
mod request;
mod running;
mod settings;

use std::sync::Arc;

use account::{Account, AccountId};
use axum::Router;
use axum::routing::{get, post};
use edge::{ApiError, Clock, Identity, Shape};
use http_client::HttpClient;
use keyvault::{Vault, VaultError};
use secrecy::SecretString;
use store::Store;
use upstream::{PriceBook, Upstream};
use url::Url;

pub use running::Running;
pub use settings::Settings;

/// Everything that the function works with. Cheap to clone.
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
    /// Calls with a hold that are under way in this process.
    pub running: Running,
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
        let (time_outs, referer) = (settings.time_outs, &settings.product.referer);
        let http = HttpClient::new(time_outs.connect)?;
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
}

impl Deps {
    /// The account of a caller, by one consistent read.
    async fn account(&self, id: &AccountId) -> Result<Account, ApiError> {
        let account = self.store.accounts.get(id).await;
        account
            .map_err(|error| ApiError::storage(&error))?
            .ok_or_else(ApiError::account_not_found)
    }

    /// The account's own key. No other key ever stands in for it.
    async fn user_key(&self, account: &Account) -> Result<Arc<SecretString>, VaultError> {
        let saved = account.profile.key.as_ref().ok_or(VaultError::Missing)?;
        self.vault.user_key(&account.id, &saved.id).await
    }
}

/// The function's routes, ready to be run by Lambda or by the local gateway.
pub fn router(deps: Deps) -> Router {
    let http = deps.settings.product.http.clone();
    let routes = Router::new()
        .route("/v1/chat/completions", post(call::chat))
        .route("/v1/models", get(models::list))
        // Cloned for each request, several times: one count, and not one for each of its parts.
        .with_state(Arc::new(deps));
    edge::app(routes, Shape::OpenAi, &http)
}
