//! The functions, each with its own settings and its own clients of AWS, as in a deployment.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;

use account::Credits;
use axum::Router;
use edge::{Clock, Env, HttpSettings, SettingsError};
use store::Tables;

use crate::dev::TRY_A_CALL;

/// The settings whose values only this program knows: the names of what is embedded here.
const EMBEDDED: [&str; 6] = [
    "ACCOUNTS_TABLE",
    "LEDGER_TABLE",
    "HOLDS_TABLE",
    "CHARGES_TABLE",
    "WEBHOOKS_TABLE",
    "CHARGE_QUEUE_URL",
];

#[derive(Debug, thiserror::Error)]
pub enum FunctionsError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("could not set up a function")]
    Function(#[source] Box<dyn Error + Send + Sync>),
}

pub(crate) struct Clients {
    pub(crate) dynamodb: aws_sdk_dynamodb::Client,
    pub(crate) secrets: aws_sdk_secretsmanager::Client,
    pub(crate) event_bus: aws_sdk_eventbridge::Client,
    pub(crate) queue: aws_sdk_sqs::Client,
}

pub(crate) struct Functions {
    pub(crate) http: HttpSettings,
    pub(crate) tables: Tables,
    pub(crate) minimum_balance: Credits,
    pub(crate) account_events: account_events::Deps,
    pub(crate) monthly_charge: monthly_charge::Deps,
    pub(crate) reconciler: reconciler::Deps,
    pub(crate) running: ai_proxy::Running,
    pub(crate) apps: Vec<Router>,
}

impl Functions {
    /// Sets up all functions; `clients_of` returns the clients of the function of this name.
    pub(crate) fn new(
        settings: &BTreeMap<String, String>,
        clock: &Clock,
        clients_of: impl Fn(&'static str) -> Clients,
    ) -> Result<Self, FunctionsError> {
        let env = || Env::from_pairs(settings.clone());
        macro_rules! deps {
            ($function:ident, $name:literal) => {{
                let Clients { dynamodb, secrets, .. } = clients_of($name);
                let settings = $function::Settings::from_env(env())?;
                $function::Deps::new(settings, clock.clone(), dynamodb, secrets)
            }};
        }
        let failed = FunctionsError::Function;
        let proxy_settings = ai_proxy::Settings::from_env(env())?;
        let ai_proxy = deps!(ai_proxy, "ai-proxy").map_err(failed)?;
        let key_save = deps!(key_save, "key-save").map_err(failed)?;
        let integration_settings =
            deps!(integration_settings, "integration-settings").map_err(failed)?;
        let subscription_webhook =
            deps!(subscription_webhook, "subscription-webhook").map_err(failed)?;
        let reconciler = reconciler::Deps::new(
            reconciler::Settings::from_env(env())?,
            clock.clone(),
            clients_of("reconciler").dynamodb,
        );
        let clients = clients_of("monthly-charge");
        let monthly_charge = monthly_charge::Deps::new(
            monthly_charge::Settings::from_env(env())?,
            clock.clone(),
            clients.dynamodb,
            clients.secrets,
            clients.event_bus,
            clients.queue,
        );
        Ok(Self {
            http: proxy_settings.product.http,
            tables: proxy_settings.tables,
            minimum_balance: proxy_settings.product.policy.minimum_balance,
            account_events: deps!(account_events, "account-events"),
            monthly_charge: monthly_charge.map_err(failed)?,
            reconciler,
            running: ai_proxy.running.clone(),
            apps: vec![
                ai_proxy::router(ai_proxy),
                key_save::router(key_save),
                integration_settings::router(integration_settings),
                subscription_webhook::router(subscription_webhook),
                settings_page::router(settings_page::Settings {
                    extra_module: Some(TRY_A_CALL),
                    ..settings_page::Settings::from_env(env())?
                }),
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
            // The names count, not the values, which are all missing.
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
