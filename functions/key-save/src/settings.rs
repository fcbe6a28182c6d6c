//! The function's settings.

use edge::{Env, SettingsError};
use url::Url;

/// See the contract's section 7.
#[derive(Debug, Clone)]
pub struct Settings {
    pub api: api::Settings,
    pub secrets_prefix: String,
    /// `SECRETS_KMS_KEY`: the KMS key that encrypts users' secrets, by default the AWS managed one.
    pub secrets_kms_key: Option<String>,
    pub openrouter_url: Url,
}

impl Settings {
    /// The error names every missing or malformed setting.
    pub fn from_env(mut env: Env) -> Result<Self, SettingsError> {
        let settings = Self {
            api: api::Settings::from_env(&mut env),
            secrets_prefix: env.text_or("SECRETS_PREFIX", "greta/openrouter/"),
            secrets_kms_key: env.optional("SECRETS_KMS_KEY"),
            openrouter_url: env.url_or("OPENROUTER_BASE_URL", "https://openrouter.ai/api/v1"),
        };
        env.finish(settings)
    }
}
