//! The function's settings.

use edge::{Env, SettingsError};
use routing::FallbackCauses;
use upstream::{DefaultAiKind, TimeOuts};
use url::Url;

/// See the contract's section 7.
#[derive(Debug, Clone)]
pub struct Settings {
    pub api: api::Settings,
    pub secrets_prefix: String,
    pub fallback_causes: FallbackCauses,
    pub min_output_tokens: u64,
    pub max_concurrent_holds: u32,
    pub openrouter_url: Url,
    pub default_ai_kind: DefaultAiKind,
    /// The name of the secret with the default AI's key.
    pub default_ai_secret: String,
}

impl Settings {
    /// The error names every missing or malformed setting.
    pub fn from_env(mut env: Env) -> Result<Self, SettingsError> {
        let api = api::Settings::from_env(&mut env);
        let time_outs = TimeOuts {
            connect: api.time_outs.connect,
            head_stream: env.millis_or("UPSTREAM_HEAD_STREAM_MS", 60_000),
            plain: env.millis_or("UPSTREAM_HEAD_PLAIN_MS", 280_000),
            idle: env.millis_or("UPSTREAM_IDLE_MS", 120_000),
        };
        let settings = Self {
            api: api::Settings { time_outs, ..api },
            secrets_prefix: env.text_or("SECRETS_PREFIX", "greta/openrouter/"),
            fallback_causes: fallback_causes(&mut env),
            min_output_tokens: env.number_or("MIN_OUTPUT_TOKENS", 16, 1..=1_000_000),
            max_concurrent_holds: env
                .number_or("MAX_CONCURRENT_HOLDS", 64, 1..=10_000)
                .try_into()
                .unwrap_or(64),
            openrouter_url: env.url_or("OPENROUTER_BASE_URL", "https://openrouter.ai/api/v1"),
            default_ai_kind: env.parse_or("DEFAULT_AI_KIND", DefaultAiKind::OpenRouter, str::parse),
            default_ai_secret: env.text("DEFAULT_AI_SECRET"),
        };
        env.finish(settings)
    }
}

/// All causes if the setting is absent; none if it is empty.
fn fallback_causes(env: &mut Env) -> FallbackCauses {
    let Some(list) = env.present("FALLBACK_CAUSES") else {
        return FallbackCauses::all();
    };
    FallbackCauses::parse(&list).unwrap_or_else(|name| {
        let problem = format!("has `{name}`, which is not a cause");
        env.problem("FALLBACK_CAUSES", problem);
        FallbackCauses::all()
    })
}
