//! The function's settings.

use edge::{Env, HttpSettings, SettingsError};

/// See the contract's section 7.
#[derive(Debug, Clone)]
pub struct Settings {
    pub http: HttpSettings,
    pub charging: charging::Settings,
    /// `STRIPE_WEBHOOK_SECRETS`: the names of the signing secrets; several during a rotation.
    pub webhook_secrets: Vec<String>,
}

impl Settings {
    /// The error names every missing or malformed setting.
    pub fn from_env(mut env: Env) -> Result<Self, SettingsError> {
        let settings = Self {
            http: HttpSettings::from_env(&mut env),
            charging: charging::Settings::from_env(&mut env),
            webhook_secrets: env.list("STRIPE_WEBHOOK_SECRETS", ""),
        };
        if settings.webhook_secrets.is_empty() {
            env.problem("STRIPE_WEBHOOK_SECRETS", "is not set");
        }
        env.finish(settings)
    }
}
