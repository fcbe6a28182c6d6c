//! The function's settings.

use account::Credits;
use account::add_on::Collection;
use edge::{Env, HttpSettings, SettingsError};
use url::Url;

/// See the contract's section 7.
#[derive(Debug, Clone)]
pub struct Settings {
    pub http: HttpSettings,
    /// `PUBLIC_BASE_URL`: the address of the pages and of the API.
    pub public_base_url: Url,
    /// `OIDC_AUTHORITY`: the OIDC issuer, at which the discovery document is found.
    pub oidc_authority: Url,
    /// `OIDC_CLIENT_ID`: the pages' client id there.
    pub oidc_client_id: String,
    /// The add-on's monthly price in credits, if `ADD_ON_COLLECTION` is `credits`.
    pub price_in_credits: Option<Credits>,
    /// The address of another module for the settings page to load. Set by `cargo dev`, never from
    /// the environment.
    pub extra_module: Option<&'static str>,
}

impl Settings {
    /// The error names every missing or malformed setting.
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
