//! The function's settings.

use edge::{Env, SettingsError};

/// See the contract's section 7.
#[derive(Debug, Clone)]
pub struct Settings {
    pub api: api::Settings,
    pub charging: charging::Settings,
}

impl Settings {
    /// The error names every missing or malformed setting.
    pub fn from_env(mut env: Env) -> Result<Self, SettingsError> {
        let settings = Self {
            api: api::Settings::from_env(&mut env),
            charging: charging::Settings::from_env(&mut env),
        };
        env.finish(settings)
    }
}
