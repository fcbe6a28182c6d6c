//! Everything that the function works with.

use api::Api;
use axum::extract::FromRef;
use edge::{Identity, Setup};
use keyvault::Vault;
use upstream::Upstream;

use crate::settings::Settings;

/// Cheap to clone.
#[derive(Clone)]
pub struct Deps {
    pub api: Api,
    pub vault: Vault,
    pub openrouter: Upstream,
}

impl Deps {
    pub fn new(setup: Setup) -> Result<Self, edge::Error> {
        let settings = Settings::from_env(setup.env.clone())?;
        let secrets = aws_sdk_secretsmanager::Client::new(&setup.aws);
        let api = Api::new(settings.api, &setup)?;
        Ok(Self {
            vault: Vault::new(secrets, settings.secrets_prefix)
                .encrypting_with(settings.secrets_kms_key),
            openrouter: api.upstream(&settings.openrouter_url),
            api,
        })
    }
}

impl FromRef<Deps> for Identity {
    fn from_ref(deps: &Deps) -> Self {
        deps.api.identity.clone()
    }
}
