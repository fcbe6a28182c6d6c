//! Everything that the function works with.

use api::Api;
use axum::extract::FromRef;
use charging::Charging;
use edge::{Identity, Setup};

use crate::settings::Settings;

/// Cheap to clone.
#[derive(Clone)]
pub struct Deps {
    pub api: Api,
    pub charging: Charging,
}

impl Deps {
    pub fn new(setup: Setup) -> Result<Self, edge::Error> {
        let settings = Settings::from_env(setup.env.clone())?;
        let api = Api::new(settings.api, &setup)?;
        let charging = Charging::new(settings.charging, &setup, api.http.pooled.clone());
        Ok(Self { api, charging })
    }
}

impl FromRef<Deps> for Identity {
    fn from_ref(deps: &Deps) -> Self {
        deps.api.identity.clone()
    }
}
