//! The function's settings.

use edge::{Env, SettingsError};
use store::Tables;

/// See the contract's section 7.
#[derive(Debug, Clone)]
pub struct Settings {
    pub tables: Tables,
}

impl Settings {
    /// The error names every missing or malformed setting.
    pub fn from_env(mut env: Env) -> Result<Self, SettingsError> {
        let settings = Self { tables: Tables::from_settings(|name| env.text(name)) };
        env.finish(settings)
    }
}
