//! The function's settings.

use account::CreditsPerUsd;
use edge::{Env, HttpSettings, IdentitySettings, SettingsError};
use http::HeaderValue;
use routing::Policy;
use store::Tables;
use upstream::TimeOuts;
use url::Url;

/// See the contract's section 7.
#[derive(Debug, Clone)]
pub struct Settings {
    pub http: HttpSettings,
    pub identity: IdentitySettings,
    pub tables: Tables,
    pub policy: Policy,
    pub rate: CreditsPerUsd,
    pub default_ai_url: Url,
    pub default_ai_model: String,
    pub time_outs: TimeOuts,
    pub referer: HeaderValue,
}

impl Settings {
    /// Reads all settings.
    ///
    /// # Errors
    /// One error that names every missing or malformed setting.
    pub fn from_env(mut env: Env) -> Result<Self, SettingsError> {
        let settings = Self {
            http: HttpSettings::from_env(&mut env),
            identity: IdentitySettings::from_env(&mut env),
            tables: Tables {
                accounts: env.text("ACCOUNTS_TABLE"),
                ledger: env.text("LEDGER_TABLE"),
                holds: env.text("HOLDS_TABLE"),
            },
            policy: edge::routing_policy(&mut env),
            rate: edge::credits_per_usd(&mut env),
            default_ai_url: env.url("DEFAULT_AI_BASE_URL"),
            default_ai_model: env.text("DEFAULT_AI_MODEL"),
            time_outs: TimeOuts::for_questions(env.millis_or("UPSTREAM_CONNECT_MS", 3_000)),
            referer: edge::referer(&mut env),
        };
        env.finish(settings)
    }
}
