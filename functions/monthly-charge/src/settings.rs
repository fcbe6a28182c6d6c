//! The function's settings.

use std::time::Duration;

use edge::{Env, SettingsError};
use http::HeaderValue;
use store::Tables;
use upstream::DefaultAiKind;
use url::Url;

/// See the contract's section 7.
#[derive(Debug, Clone)]
pub struct Settings {
    pub tables: Tables,
    pub secrets_prefix: String,
    pub default_ai_url: Url,
    pub default_ai_kind: DefaultAiKind,
    /// The name of the secret that holds the default AI's key.
    pub default_ai_secret: String,
    pub connect: Duration,
    pub charging: charging::Settings,
    /// `STRIPE_REQUESTS_PER_SECOND`: maximum for all workers together, for each kind of request.
    pub requests_per_second: u32,
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
            tables: Tables::from_settings(|name| env.text(name)),
            secrets_prefix: env.text_or("SECRETS_PREFIX", "greta/openrouter/"),
            default_ai_url: env.url("DEFAULT_AI_BASE_URL"),
            default_ai_kind: env.parse_or("DEFAULT_AI_KIND", DefaultAiKind::OpenRouter, str::parse),
            default_ai_secret: env.text("DEFAULT_AI_SECRET"),
            connect: env.millis_or("UPSTREAM_CONNECT_MS", 3_000),
            charging: charging::Settings::from_env(&mut env),
            requests_per_second: requests_per_second(&mut env),
            event_bus: env.text("EVENT_BUS"),
            queue_url: env.url("CHARGE_QUEUE_URL"),
            referer: edge::referer(&mut env),
        };
        env.finish(settings)
    }
}

fn requests_per_second(env: &mut Env) -> u32 {
    const DEFAULT: u32 = 20;
    let rate = env.number_or("STRIPE_REQUESTS_PER_SECOND", DEFAULT.into(), 1..=10_000);
    u32::try_from(rate).unwrap_or(DEFAULT)
}
