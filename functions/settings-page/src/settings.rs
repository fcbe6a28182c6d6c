//! What the pages are told when they are served.

use account::Credits;
use account::add_on::Collection;
use edge::{Env, HttpSettings, SettingsError};
use url::Url;

/// The function's settings.
#[derive(Debug, Clone)]
pub struct Settings {
    pub http: HttpSettings,
    /// `PUBLIC_BASE_URL`: where users reach us.
    pub public_base_url: Url,
    /// `OIDC_AUTHORITY`: who signs users in; its discovery document is below it.
    pub oidc_authority: Url,
    /// `OIDC_CLIENT_ID`: as whom the pages ask.
    pub oidc_client_id: String,
    /// What a month of the add-on costs in credits, where `ADD_ON_COLLECTION` is `credits`.
    pub price_in_credits: Option<Credits>,
    /// The address of a module that the settings page is to load as well, for the program around the function:
    /// `cargo dev` has one. Never of the environment.
    pub extra_module: Option<&'static str>,
}

impl Settings {
    /// # Errors
    /// If a setting is missing or malformed.
    pub fn from_env(mut env: Env) -> Result<Self, SettingsError> {
        let price = edge::price_in_credits(&mut env);
        let settings = Self {
            http: HttpSettings::from_env(&mut env),
            public_base_url: env.url("PUBLIC_BASE_URL"),
            oidc_authority: env.url("OIDC_AUTHORITY"),
            oidc_client_id: env.text("OIDC_CLIENT_ID"),
            price_in_credits: (edge::collection(&mut env) == Collection::Credits).then_some(price),
            extra_module: None,
        };
        env.finish(settings)
    }
}
