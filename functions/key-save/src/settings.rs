//! The function's settings.

use edge::{Env, ProductSettings, SettingsError};
use store::Tables;
use upstream::TimeOuts;
use url::Url;

/// See the contract's section 7.
#[derive(Debug, Clone)]
pub struct Settings {
    pub product: ProductSettings,
    pub tables: Tables,
    pub secrets_prefix: String,
    /// `SECRETS_KMS_KEY`: the KMS key that encrypts users' secrets, by default the AWS managed one.
    pub secrets_kms_key: Option<String>,
    pub openrouter_url: Url,
    pub time_outs: TimeOuts,
}

impl Settings {
    /// The error names every missing or malformed setting.
    pub fn from_env(mut env: Env) -> Result<Self, SettingsError> {
        let settings = Self {
            product: ProductSettings::from_env(&mut env),
            tables: Tables::from_settings(|name| env.text(name)),
            secrets_prefix: env.text_or("SECRETS_PREFIX", "greta/openrouter/"),
            secrets_kms_key: env.optional("SECRETS_KMS_KEY"),
            openrouter_url: env.url_or("OPENROUTER_BASE_URL", "https://openrouter.ai/api/v1"),
            time_outs: TimeOuts::for_questions(env.millis_or("UPSTREAM_CONNECT_MS", 3_000)),
        };
        env.finish(settings)
    }
}
