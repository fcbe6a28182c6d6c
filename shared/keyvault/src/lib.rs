//! OpenRouter keys in Secrets Manager: a key's text is stored there, sent to OpenRouter, and kept
//! nowhere else.
//!
//! Each *saved* key is a secret of its own, named prefix + account id + `/` + key id: replacing a
//! key creates a new secret and switches the account's key id, and never overwrites. The cache is
//! keyed by that name too. Only an account's current key is ever looked up, so a swap or a
//! disconnect takes effect on the next call of every instance.
//!
//! Architecture invariant: this crate never lists or prints secrets, and never falls back to
//! another one.

mod key;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use account::{AccountId, KeyId};
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use moka::future::Cache;
use secrecy::{ExposeSecret, SecretString};

pub use key::{FormatError, UserKey};

/// Maximum age of a cached secret.
const MAX_AGE: Duration = Duration::from_mins(15);
/// Maximum number of cached secrets.
const MAX_CACHED: u64 = 10_000;

/// Why a secret could not be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum VaultError {
    #[error("the secret does not exist")]
    Missing,
    #[error("Secrets Manager did not carry out {operation}")]
    Unavailable {
        operation: &'static str,
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
}

/// Secrets Manager with a cache that reads each secret only once at a time, is limited in size and
/// age, and wipes what it drops. Cheap to clone.
#[derive(Clone)]
pub struct Vault {
    client: Client,
    prefix: String,
    kms_key: Option<String>,
    cache: Cache<String, Arc<SecretString>>,
}

impl Vault {
    /// `prefix` (`SECRETS_PREFIX`) precedes the names of users' secrets.
    pub fn new(client: Client, prefix: impl Into<String>) -> Self {
        let cache = Cache::builder().max_capacity(MAX_CACHED).time_to_live(MAX_AGE).build();
        Self { client, prefix: prefix.into(), kms_key: None, cache }
    }

    /// Encrypts new secrets with this KMS key (`SECRETS_KMS_KEY`) instead of the AWS-managed one.
    #[must_use]
    pub fn encrypting_with(mut self, kms_key: Option<String>) -> Self {
        self.kms_key = kms_key;
        self
    }

    /// Creates the secret of a key that is about to be saved. After an error it may exist.
    pub async fn create(
        &self,
        account: &AccountId,
        id: &KeyId,
        key: &UserKey,
    ) -> Result<(), VaultError> {
        self.client
            .create_secret()
            .name(self.name_of(account, id))
            .secret_string(key.secret().expose_secret())
            .set_kms_key_id(self.kms_key.clone())
            .send()
            .await
            .map(drop)
            .map_err(|error| unavailable("create secret", error))
    }

    /// Deletes a key's secret at once, without a recovery window. Deleting a missing secret
    /// succeeds; after an error the secret may be gone.
    pub async fn delete(&self, account: &AccountId, id: &KeyId) -> Result<(), VaultError> {
        let name = self.name_of(account, id);
        self.cache.invalidate(&name).await;
        let deleted = self
            .client
            .delete_secret()
            .secret_id(name)
            .force_delete_without_recovery(true)
            .send()
            .await;
        match deleted {
            Ok(_) => Ok(()),
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(unavailable("delete secret", error)),
        }
    }

    /// The account's key `id`, which must be its current one. No other key replaces a missing one.
    pub async fn user_key(
        &self,
        account: &AccountId,
        id: &KeyId,
    ) -> Result<Arc<SecretString>, VaultError> {
        self.cached(self.name_of(account, id)).await
    }

    /// A secret of the platform, by its full name.
    pub async fn platform_secret(&self, name: &str) -> Result<Arc<SecretString>, VaultError> {
        self.cached(name.to_owned()).await
    }

    /// Drops a platform secret from the cache, because it was not accepted and may have been
    /// rotated.
    pub async fn forget_platform_secret(&self, name: &str) {
        self.cache.invalidate(name).await;
    }

    async fn cached(&self, name: String) -> Result<Arc<SecretString>, VaultError> {
        if let Some(secret) = self.cache.get(&name).await {
            return Ok(secret);
        }
        let read = self.read(name.clone());
        // Boxed, because the future is large and rarely needed.
        Box::pin(self.cache.try_get_with(name, read))
            .await
            .map_err(|error: Arc<VaultError>| (*error).clone())
    }

    async fn read(&self, name: String) -> Result<Arc<SecretString>, VaultError> {
        let read = self.client.get_secret_value().secret_id(name).send().await;
        match read {
            Ok(output) => output
                .secret_string
                .map(|text| Arc::new(SecretString::from(text.trim())))
                .ok_or(VaultError::Missing),
            Err(error) if is_missing(&error) => Err(VaultError::Missing),
            Err(error) => Err(unavailable("read secret", error)),
        }
    }

    fn name_of(&self, account: &AccountId, id: &KeyId) -> String {
        format!("{}{account}/{id}", self.prefix)
    }
}

/// A secret that is marked for deletion counts as missing.
fn is_missing<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    let marked = || {
        let message = error.message().unwrap_or_default();
        message.contains("marked for deletion") || message.contains("marked deleted")
    };
    match error.code() {
        Some("ResourceNotFoundException") => true,
        Some("InvalidRequestException") => marked(),
        _ => false,
    }
}

/// Keeps the service's error, or the reason why it was not reached. The request and the response
/// are dropped: they hold secrets, which the error's `Debug` would show.
fn unavailable<E, R>(operation: &'static str, error: SdkError<E, R>) -> VaultError
where
    E: Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let source: Arc<dyn Error + Send + Sync> = match error {
        SdkError::ServiceError(refused) => Arc::new(refused.into_err()),
        other => Arc::new(NotReached(other.to_string())),
    };
    VaultError::Unavailable { operation, source }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotReached(String);
