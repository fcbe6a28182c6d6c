//! The functions, each with its own settings and its own clients of AWS, as in a deployment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aws_config::SdkConfig;
use axum::Router;
use edge::{Clock, Env, Setup};

use crate::dev::TRY_A_CALL;

/// The settings whose values only this program knows: the embedded tables and queue.
const EMBEDDED: [&str; 6] = [
    "ACCOUNTS_TABLE",
    "LEDGER_TABLE",
    "HOLDS_TABLE",
    "CHARGES_TABLE",
    "WEBHOOKS_TABLE",
    "CHARGE_QUEUE_URL",
];

pub(crate) struct Functions {
    /// The settings that the functions with a product route share.
    pub(crate) shared: Arc<api::Settings>,
    pub(crate) account_events: account_events::Deps,
    pub(crate) monthly_charge: monthly_charge::Deps,
    pub(crate) reconciler: reconciler::Deps,
    pub(crate) running: ai_proxy::Running,
    pub(crate) apps: Vec<Router>,
}

impl Functions {
    /// Sets up all functions; `aws` returns the configuration for a function's name.
    pub(crate) fn new(
        settings: &BTreeMap<String, String>,
        clock: &Clock,
        aws: impl Fn(&'static str) -> SdkConfig,
    ) -> Result<Self, edge::Error> {
        let env = || Env::from_pairs(settings.clone());
        let setup = |function| Setup { env: env(), clock: clock.clone(), aws: aws(function) };
        let ai_proxy = ai_proxy::Deps::new(setup("ai-proxy"))?;
        let key_save = key_save::Deps::new(setup("key-save"))?;
        let integration_settings = integration_settings::Deps::new(setup("integration-settings"))?;
        let subscription_webhook = subscription_webhook::Deps::new(setup("subscription-webhook"))?;
        let pages = settings_page::Settings::from_env(env())?;
        let pages = settings_page::Settings { extra_module: Some(TRY_A_CALL), ..pages };
        Ok(Self {
            shared: Arc::clone(&ai_proxy.api.settings),
            account_events: account_events::Deps::new(setup("account-events"))?,
            monthly_charge: monthly_charge::Deps::new(setup("monthly-charge"))?,
            reconciler: reconciler::Deps::new(setup("reconciler"))?,
            running: ai_proxy.running.clone(),
            apps: vec![
                ai_proxy::router(ai_proxy),
                key_save::router(key_save),
                integration_settings::router(integration_settings),
                subscription_webhook::router(subscription_webhook),
                settings_page::router(pages),
            ],
        })
    }
}

fn setting_names() -> BTreeSet<&'static str> {
    let mut names = BTreeSet::new();
    macro_rules! ask {
        ($($function:ident)*) => {$({
            let env = Env::from_pairs::<&str, &str>([]);
            let read = env.names();
            // Only the names matter: all values are missing.
            let _ = $function::Settings::from_env(env);
            names.extend(read.lock().unwrap().iter().copied());
        })*};
    }
    ask!(account_events ai_proxy integration_settings key_save monthly_charge reconciler
         settings_page subscription_webhook);
    names
}

/// The settings in `env` that the functions read, or that seed the platform's secrets.
pub fn passed_through(mut env: Env) -> BTreeMap<String, String> {
    let mut names = setting_names();
    names.extend(["DEFAULT_AI_API_KEY", "STRIPE_API_KEY", "STRIPE_WEBHOOK_SECRET"]);
    names.retain(|name| !EMBEDDED.contains(name));
    let value = |name: &'static str| Some((name.to_owned(), env.present(name)?));
    names.into_iter().filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_that_a_function_reads_is_passed_through() {
        let all: BTreeSet<&str> = setting_names();
        for name in ["SECRETS_KMS_KEY", "FALLBACK_CAUSES", "ADD_ON_GRACE_DAYS"] {
            assert!(all.contains(name), "{name}");
        }
        let seeds = ["DEFAULT_AI_API_KEY", "STRIPE_API_KEY", "STRIPE_WEBHOOK_SECRET"];
        let names = all.iter().chain(&seeds).chain(&["HOME", "PATH"]);
        let passed = passed_through(Env::from_pairs(names.map(|name| (*name, "value"))));
        let expected = all.iter().chain(&seeds).filter(|name| !EMBEDDED.contains(name));
        let expected: BTreeSet<&str> = expected.copied().collect();
        let passed: BTreeSet<&str> = passed.keys().map(String::as_str).collect();
        assert_eq!(passed, expected);
    }
}
