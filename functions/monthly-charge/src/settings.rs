//! The function's settings.

use std::time::Duration;

use edge::{Env, SettingsError};
use http::HeaderValue;
use upstream::DefaultAiKind;
use url::Url;

const CHARGE_CONCURRENCY: &str = "CHARGE_CONCURRENCY";
/// With a longer interval, workers would not finish a message before their time-out.
const MAX_INTERVAL: Duration = Duration::from_secs(10);
/// A PaymentIntent is created and confirmed.
const REQUESTS_PER_CHARGE: u32 = 2;

/// See the contract's section 7.
#[derive(Debug, Clone)]
pub struct Settings {
    pub secrets_prefix: String,
    pub default_ai_url: Url,
    pub default_ai_kind: DefaultAiKind,
    /// The name of the secret that holds the default AI's key.
    pub default_ai_secret: String,
    pub charging: charging::Settings,
    /// `STRIPE_REQUESTS_PER_SECOND`: maximum rate of all workers and the tick together.
    pub requests_per_second: u32,
    /// `CHARGE_CONCURRENCY`: maximum number of concurrent workers.
    pub charge_concurrency: u32,
    /// `EVENT_BUS`: the name or ARN of the bus that events go to.
    pub event_bus: String,
    /// `CHARGE_QUEUE_URL`: the queue of due accounts.
    pub queue_url: Url,
    /// Our name upstream: `PUBLIC_BASE_URL`.
    pub referer: HeaderValue,
}

impl Settings {
    /// Fails with one error that names every missing or malformed setting.
    pub fn from_env(mut env: Env) -> Result<Self, SettingsError> {
        let settings = Self {
            secrets_prefix: env.text_or("SECRETS_PREFIX", "greta/openrouter/"),
            default_ai_url: env.url("DEFAULT_AI_BASE_URL"),
            default_ai_kind: env.parse_or("DEFAULT_AI_KIND", DefaultAiKind::OpenRouter, str::parse),
            default_ai_secret: env.text("DEFAULT_AI_SECRET"),
            charging: charging::Settings::from_env(&mut env),
            requests_per_second: number(&mut env, "STRIPE_REQUESTS_PER_SECOND", 20, 10_000),
            charge_concurrency: number(&mut env, CHARGE_CONCURRENCY, 5, 1_000),
            event_bus: env.text("EVENT_BUS"),
            queue_url: env.url("CHARGE_QUEUE_URL"),
            referer: edge::referer(&mut env),
        };
        if settings.stripe_interval() > MAX_INTERVAL {
            env.problem(
                CHARGE_CONCURRENCY,
                "must leave each worker at least one request to Stripe every 10 seconds",
            );
        }
        env.finish(settings)
    }

    /// The time between two requests to Stripe of one process: a worker's share of the rate, or the
    /// tick's.
    pub fn stripe_interval(&self) -> Duration {
        let processes = self.charge_concurrency.saturating_add(1);
        Duration::from_secs(processes.into()) / self.requests_per_second.max(1)
    }

    /// The number of accounts that all workers together can charge in a second.
    pub fn charges_per_second(&self) -> u32 {
        self.requests_per_second.div_ceil(REQUESTS_PER_CHARGE)
    }
}

fn number(env: &mut Env, name: &'static str, default: u32, max: u64) -> u32 {
    u32::try_from(env.number_or(name, default.into(), 1..=max)).unwrap_or(default)
}
