//! Everything that the function works with.

use charging::Charging;
use edge::{Clock, Setup};
use keyvault::Vault;
use store::Store;
use upstream::{DefaultAiKind, TimeOuts, Upstream};
use url::Url;

use crate::settings::Settings;

/// Cheap to clone.
#[derive(Clone)]
pub struct Deps {
    pub clock: Clock,
    pub store: Store,
    pub charging: Charging,
    pub vault: Vault,
    /// The upstream that reports the cost of calls on credits.
    pub default_ai: Upstream,
    pub default_ai_kind: DefaultAiKind,
    /// The name of the secret that holds the default AI's key.
    pub default_ai_secret: String,
    /// The destination of domain events.
    pub event_bus: aws_sdk_eventbridge::Client,
    pub event_bus_name: String,
    /// Due accounts wait here for the worker.
    pub queue: aws_sdk_sqs::Client,
    pub queue_url: Url,
    /// Accounts that all workers together can charge per second.
    pub charges_per_second: u32,
}

impl Deps {
    pub fn new(setup: Setup) -> Result<Self, edge::Error> {
        let settings = Settings::from_env(setup.env.clone())?;
        let interval = settings.stripe_interval();
        let charges_per_second = settings.charges_per_second();
        let time_outs = TimeOuts::for_questions(settings.charging.connect);
        let http = edge::http_clients(settings.charging.connect)?;
        let dynamodb = aws_sdk_dynamodb::Client::new(&setup.aws);
        let secrets = aws_sdk_secretsmanager::Client::new(&setup.aws);
        let store = Store::new(dynamodb, settings.charging.tables.clone());
        let charging = Charging::new(settings.charging, &setup, http.pooled.clone());
        Ok(Self {
            charging: charging.with_rate_limit(interval),
            clock: setup.clock,
            store,
            vault: Vault::new(secrets, settings.secrets_prefix),
            default_ai: Upstream::new(
                http.pooled,
                http.unpooled,
                &settings.default_ai_url,
                time_outs,
                settings.referer,
            ),
            default_ai_kind: settings.default_ai_kind,
            default_ai_secret: settings.default_ai_secret,
            event_bus: aws_sdk_eventbridge::Client::new(&setup.aws),
            event_bus_name: settings.event_bus,
            queue: aws_sdk_sqs::Client::new(&setup.aws),
            queue_url: settings.queue_url,
            charges_per_second,
        })
    }
}
