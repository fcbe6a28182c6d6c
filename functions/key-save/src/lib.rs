//! Connect, replace, test and disconnect the OpenRouter key: the only writer of users' secrets.
//!
//! A key and its record are in two stores. Their order makes every crash harmless:
//!
//! - saving: the intended secret's name is written down with a due time → the secret is created → the
//!   account is switched to it, and in the same transaction the old secret is written down as due →
//!   the old secret is deleted;
//! - disconnecting: the account's record goes, the secret is written down as due → the secret is
//!   deleted.
//!
//! What a crash leaves behind is a secret that no account names, and that the billing tick deletes.

mod disconnect;
mod removal;
mod save;
mod settings;
mod test;

use std::convert::Infallible;
use std::sync::Arc;

use account::{Account, AccountId, Purpose};
use axum::Router;
use axum::routing::{post, put};
use card::Card;
use edge::{ApiError, Caller, Clock, Code, Identity, Role, Shape};
use http_client::HttpClient;
use jiff::{SignedDuration, Timestamp};
use keyvault::Vault;
use serde::Serialize;
use store::{AttemptLimit, Store, StoreError, UpdateError};
use upstream::{PriceBook, Upstream};
use url::Url;

pub use removal::{Disconnected, delete_secret, disconnect_key};
pub use settings::Settings;

/// A secret that no account names is deleted after this time.
const ORPHAN_LIFE: SignedDuration = SignedDuration::from_hours(1);

/// Everything that the function works with. Cheap to clone.
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
            "/v1/integrations/openrouter/key",
            put(save::save).delete(disconnect::disconnect),
        )
        .route("/v1/integrations/openrouter/key/test", post(test::test_key))
        .with_state(deps);
    edge::app(routes, Shape::Problem, &http)
}

/// The answer of routes that change the integration.
#[derive(Serialize)]
struct Changed {
    integration: Card,
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

    /// Counts a key check that is about to be made.
    async fn count_check(
        &self,
        account: &AccountId,
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        within_limit(self.store.attempts.count(account, purpose, now).await)
    }
}

/// A change of the account that never refuses, as an answer.
fn changed<T>(update: Result<T, UpdateError<Infallible>>) -> Result<T, ApiError> {
    update.map_err(|error| match error {
        UpdateError::NotFound => ApiError::account_not_found(),
        UpdateError::Store(error) => ApiError::storage(&error),
        UpdateError::Refused(never) => match never {},
    })
}

fn within_limit(limit: Result<AttemptLimit, StoreError>) -> Result<(), ApiError> {
    let wait = match limit.map_err(|error| ApiError::storage(&error))? {
        AttemptLimit::Allowed => return Ok(()),
        AttemptLimit::WaitFor(wait) => wait,
    };
    let error = ApiError::new(
        Code::TooManyAttempts,
        "an account may have a key checked 10 times and saved 5 times in an hour; try again later",
    );
    Err(error.with_retry_after(wait.unsigned_abs()))
}

fn openrouter_unavailable() -> ApiError {
    ApiError::new(
        Code::OpenRouterUnavailable,
        "OpenRouter could not check the key at the moment; nothing was changed; try again",
    )
}
