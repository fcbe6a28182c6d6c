//! The settings of every function with a product route.

use account::CreditsPerUsd;
use edge::{Env, HttpSettings, IdentitySettings};
use http::HeaderValue;
use jiff::SignedDuration;
use routing::Policy;
use store::Tables;
use upstream::TimeOuts;
use url::Url;

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// See the contract's section 7.
#[derive(Debug, Clone)]
pub struct Settings {
    pub http: HttpSettings,
    pub identity: IdentitySettings,
    pub tables: Tables,
    /// `MIN_CREDIT_BALANCE` (credits, 1) and `ADD_ON_GRACE_DAYS` (8).
    pub policy: Policy,
    /// `CREDITS_PER_USD` (10).
    pub rate: CreditsPerUsd,
    pub default_ai_url: Url,
    pub default_ai_model: String,
    /// `PUBLIC_BASE_URL`, our name upstream.
    pub referer: HeaderValue,
    pub time_outs: TimeOuts,
}

impl Settings {
    /// Short time-outs, for functions that only ask upstream questions.
    pub fn from_env(env: &mut Env) -> Self {
        let connect = env.millis_or("UPSTREAM_CONNECT_MS", 3_000);
        Self {
            http: HttpSettings::from_env(env),
            identity: IdentitySettings::from_env(env),
            tables: Tables::from_settings(|name| env.text(name)),
            policy: routing_policy(env),
            rate: edge::credits_per_usd(env),
            default_ai_url: env.url("DEFAULT_AI_BASE_URL"),
            default_ai_model: env.text("DEFAULT_AI_MODEL"),
            referer: edge::referer(env),
            time_outs: TimeOuts::for_questions(connect),
        }
    }
}

fn routing_policy(env: &mut Env) -> Policy {
    let days = env.number_or("ADD_ON_GRACE_DAYS", 8, 1..=28);
    Policy {
        minimum_balance: edge::minimum_balance(env),
        grace: DAY.saturating_mul(i32::try_from(days).unwrap_or(i32::MAX)),
    }
}
