//! The function's settings.

use edge::{Env, ProductSettings, SettingsError};
use store::Tables;
use upstream::TimeOuts;

/// See the contract's section 7.
#[derive(Debug, Clone)]
pub struct Settings {
    pub product: ProductSettings,
    pub tables: Tables,
    pub time_outs: TimeOuts,
    pub charging: charging::Settings,
}

impl Settings {
    /// The error names every missing or malformed setting.
    pub fn from_env(mut env: Env) -> Result<Self, SettingsError> {
        let settings = Self {
            product: ProductSettings::from_env(&mut env),
            tables: Tables::from_settings(|name| env.text(name)),
            charging: charging::Settings::from_env(&mut env),
            time_outs: TimeOuts::for_questions(env.millis_or("UPSTREAM_CONNECT_MS", 3_000)),
        };
        env.finish(settings)
    }
}
