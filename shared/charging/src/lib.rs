//! How the add-on is paid: what is done at the payment provider, and what comes of it.
//!
//! The account says what is next ([`account::billing`]); this carries it out at the provider and writes
//! down what came of it. Whoever hears of a payment first, the charge's own answer, a look-up or the
//! provider's webhook, comes to the same place, [`Charging::apply_intent`] and
//! [`Charging::apply_checkout`], and each payment has one outcome.
//!
//! Invariants:
//! - an object of the provider's is stored with what it is for before it can be paid;
//! - an outcome that is not known is looked up until it is, and never tried again under another key;
//! - a payment that was not owed is given back once.

mod apply;
mod attempt;
mod buy;
mod credits;
mod inbox;
mod rate_limit;
mod refunds;
mod run_due;
mod settings;
mod stripe_subscription;

use std::sync::Arc;

use billing::Dunning;
use edge::Clock;
use keyvault::{Vault, VaultError};
use payments::{PaymentError, Stripe};
use secrecy::SecretString;
use store::{PostError, Store, StoreError, UpdateError};
use url::Url;

pub use apply::PaymentUpdate;
pub use buy::{Bought, NotBought};
pub use run_due::ChargeReport;
pub use settings::Settings;

use rate_limit::{RateLimiter, RequestKind};

/// The currency of everything that is asked for.
const CURRENCY: &str = "usd";

/// All that a payment needs. Cheap to clone.
#[derive(Clone)]
pub struct Charging {
    store: Store,
    stripe: Stripe,
    vault: Vault,
    clock: Clock,
    settings: Arc<Settings>,
    /// `None`: the provider is asked without waiting.
    pacer: Option<Arc<RateLimiter>>,
}

/// Why something was not carried out. What was begun is looked up later.
#[derive(Debug, thiserror::Error)]
pub enum ChargingError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the account was deleted meanwhile")]
    Gone,
    #[error("the payment provider's key cannot be read")]
    Key(#[from] VaultError),
    #[error("the payment provider did not carry out what was asked")]
    Provider(#[from] PaymentError),
    #[error("an id of the provider's cannot be read")]
    Id(#[from] payments::IdError),
    #[error("a ledger entry cannot be named")]
    Entry(#[from] account::IdError),
    #[error("the address of the provider's page cannot be read")]
    Url(#[from] url::ParseError),
    #[error("credits cannot be posted")]
    Posting(#[from] store::PostRefused),
    #[error("a recorded event cannot be read or written")]
    Event(#[from] serde_json::Error),
    #[error("the account changes faster than its payment can be carried out")]
    Contended,
}

impl From<PostError> for ChargingError {
    fn from(error: PostError) -> Self {
        match error {
            PostError::Refused(refused) => Self::Posting(refused),
            PostError::Store(error) => Self::Store(error),
        }
    }
}

impl From<UpdateError<std::convert::Infallible>> for ChargingError {
    fn from(error: UpdateError<std::convert::Infallible>) -> Self {
        match error {
            UpdateError::NotFound => Self::Gone,
            UpdateError::Store(error) => Self::Store(error),
            UpdateError::Refused(never) => match never {},
        }
    }
}

impl Charging {
    /// `secrets` reads the provider's key.
    pub fn new(
        settings: Settings,
        clock: Clock,
        store: Store,
        secrets: aws_sdk_secretsmanager::Client,
        http: reqwest::Client,
    ) -> Self {
        Self {
            store: store.with_low_credits_events(settings.minimum_balance),
            stripe: Stripe::new(http, &settings.api_url),
            // Of users' secrets it reads none.
            vault: Vault::new(secrets, String::new()),
            clock,
            settings: Arc::new(settings),
            pacer: None,
        }
    }

    /// One that waits before it asks the provider, so that all of its like together ask no more often
    /// than so many times a second, of each kind of request. For work that nobody waits for.
    #[must_use]
    pub fn paced(mut self, requests_per_second: u32) -> Self {
        let pacer = RateLimiter::new(self.store.clone(), requests_per_second);
        self.pacer = Some(Arc::new(pacer));
        self
    }

    /// The provider, as soon as it may be asked.
    async fn ask(&self, asked: RequestKind) -> Result<&Stripe, ChargingError> {
        if let Some(pacer) = &self.pacer {
            pacer.permit(asked).await?;
        }
        Ok(&self.stripe)
    }

    async fn key(&self) -> Result<Arc<SecretString>, ChargingError> {
        let name = &self.settings.api_secret;
        if self.stripe.take_key_refusal() {
            self.vault.forget_platform_secret(name).await;
        }
        Ok(self.vault.platform_secret(name).await?)
    }

    fn dunning(&self) -> &Dunning {
        &self.settings.dunning
    }

    /// A page of ours to lead back to.
    fn page(&self, path: &str, query: &str) -> Url {
        let mut url = self.settings.public_url.clone();
        url.set_path(&format!("{}{path}", url.path().trim_end_matches('/')));
        url.set_query(Some(query));
        url
    }
}
