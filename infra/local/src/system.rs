//! The system in one process: backends, functions, gateway.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use account::{Account, AccountId};
use aws_config::SdkConfig;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use edge::{ApiError, Clock, Deadline};
use serde_json::Value;
use store::{Store, Tables};

use crate::accounts::{self, change_account};
use crate::bus::Bus;
use crate::dev::{self, Dev};
use crate::engines::{self, Engines};
use crate::functions::Functions;
use crate::issuer::{Issuer, JWKS_PATH};
use crate::openrouter::{DEFAULT_MODEL, OpenRouterSimulator};
use crate::queue::{Drained, Queue};
use crate::serve::{self, Server};
use crate::sign_in::{self, SignIn};
use crate::stripe::StripeSimulator;
use crate::tables;

/// The secrets of Greta's platform: the setting that names the secret, and the one with its value.
const PLATFORM_SECRETS: [(&str, &str); 3] = [
    ("DEFAULT_AI_SECRET", "DEFAULT_AI_API_KEY"),
    ("STRIPE_API_SECRET", "STRIPE_API_KEY"),
    ("STRIPE_WEBHOOK_SECRETS", "STRIPE_WEBHOOK_SECRET"),
];

#[derive(Default)]
pub struct Options {
    /// The gateway's port; 0 for a free one.
    pub port: u16,
    /// Settings by name, which override the defaults.
    pub settings: BTreeMap<String, String>,
    /// The gateway serves the `_dev` helpers only; the functions run elsewhere.
    pub backends_only: bool,
    /// Carries each function's requests to AWS, by the function's name, for tests that watch or
    /// disturb them.
    pub aws_http: Option<Box<dyn Fn(&'static str) -> SharedHttpClient + Send>>,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("could not open port {port} of 127.0.0.1; choose another one with --port")]
    Port {
        port: u16,
        #[source]
        source: io::Error,
    },
    #[error("could not start a backend")]
    Backend(#[from] io::Error),
    #[error(transparent)]
    Function(edge::Error),
}

pub struct System {
    pub engines: Engines,
    /// `None` where the real service replaces it.
    pub openrouter: Option<OpenRouterSimulator>,
    pub default_ai: Option<OpenRouterSimulator>,
    pub stripe: Option<StripeSimulator>,
    pub bus: Bus,
    /// The due accounts waiting for the worker.
    pub queue: Queue,
    pub issuer: Issuer,
    pub clock: Clock,
    pub store: Store,
    pub tables: Tables,
    pub settings: BTreeMap<String, String>,
    functions: Functions,
    gateway: Server,
    jwks: Server,
}

impl System {
    /// Starts everything, and returns once it all responds.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let port = options.port;
        let listener =
            serve::listener_on(port).await.map_err(|source| StartError::Port { port, source })?;
        let public_url = format!("http://{}", listener.local_addr()?);
        let issuer = Issuer::new(&public_url, "greta");
        let jwks = Server::start(issuer.router()).await?;
        let engines = Engines::start().await?;
        let bus = Bus::start().await?;
        let clock = Clock::system();
        let queue = Queue::start(clock.clone()).await?;
        let mut settings = default_settings(&engines, &bus, &queue, &issuer, &jwks, &public_url);
        settings.extend(options.settings);
        let openrouter = openrouter_unless_set(&mut settings, "OPENROUTER_BASE_URL").await?;
        let default_ai = openrouter_unless_set(&mut settings, "DEFAULT_AI_BASE_URL").await?;
        let stripe = stripe_unless_set(&mut settings, &clock).await?;

        tables::create_all(engines.database()).map_err(io::Error::other)?;
        if let Some(stripe) = &stripe {
            let base = settings["PUBLIC_BASE_URL"].trim_end_matches('/');
            let url = format!("{base}/v1/webhooks/stripe");
            stripe.webhooks.set_endpoint(&url, &settings["STRIPE_WEBHOOK_SECRET"]);
        }
        seed_platform_secrets(&engines, &mut settings).await?;
        let mut functions = Functions::new(&settings, &clock, |function| {
            let config = engines::aws_config(&settings).into_builder();
            match &options.aws_http {
                Some(http) => config.http_client(http(function)).build(),
                None => config.build(),
            }
        })
        .map_err(StartError::Function)?;
        let (tables, policy) = (functions.shared.tables.clone(), functions.shared.policy);
        let store = Store::new(engines.dynamodb(), tables.clone())
            .with_low_credits_events(policy.minimum_balance);
        let dev = Dev {
            issuer: issuer.clone(),
            clock: clock.clone(),
            store: store.clone(),
            stripe: stripe.as_deref().cloned(),
            monthly_charge: functions.monthly_charge.clone(),
            consumer: queue.consumer.clone(),
            running: functions.running.clone(),
            sign_in: SignIn::new(issuer.clone(), clock.clone(), &jwks.url()),
        };
        let mut apps = vec![dev::router(dev, &functions.shared.http)];
        if !options.backends_only {
            apps.append(&mut functions.apps);
        }
        let gateway = Server::without_guard(listener, edge::gateway(apps, &functions.shared.http))?;
        Ok(Self {
            engines,
            openrouter,
            default_ai,
            stripe,
            bus,
            queue,
            issuer,
            clock,
            store,
            tables,
            settings,
            functions,
            gateway,
            jwks,
        })
    }

    pub async fn add_demo_accounts(&self) -> Result<(), ApiError> {
        for (id, _, change) in accounts::DEMO {
            let id = AccountId::new(id).expect("an account id");
            let (stripe, now) = (self.stripe.as_deref(), self.clock.now());
            change_account(&self.store, stripe, &id, change, now).await?;
        }
        Ok(())
    }

    /// The configuration of AWS clients, as the functions use it.
    pub fn aws_config(&self) -> SdkConfig {
        engines::aws_config(&self.settings)
    }

    /// Runs `account-events` with an event of the bus.
    pub async fn account_event(&self, event: &Value) -> Result<Value, account_events::EventError> {
        account_events::handle(&self.functions.account_events, event).await
    }

    /// Runs `monthly-charge` with an event of the scheduler or the queue.
    pub async fn monthly_charge(&self, event: &Value) -> Result<Value, monthly_charge::EventError> {
        monthly_charge::handle(&self.functions.monthly_charge, event).await
    }

    /// Hands the queue's messages to the worker.
    pub async fn drain_queue(&self) -> Drained {
        self.queue.consumer.drain(&self.functions.monthly_charge).await
    }

    /// Runs `reconciler` with an event of the scheduler.
    pub async fn reconcile(
        &self,
        event: &Value,
        deadline: Option<Deadline>,
    ) -> Result<Value, reconciler::EventError> {
        reconciler::handle(&self.functions.reconciler, event, deadline).await
    }

    /// The bus's events, in order, in the envelope that a rule's target receives.
    pub fn domain_events(&self) -> Vec<Value> {
        self.bus.events()
    }

    pub fn url(&self) -> String {
        self.gateway.url()
    }

    /// A token for the account, valid for a day.
    pub fn token(&self, account: &str, role: &str) -> String {
        let day = Duration::from_hours(24);
        self.issuer.token(account, role, self.clock.now(), day)
    }

    /// The stored account, which must exist.
    pub async fn account(&self, id: &str) -> Account {
        let id = AccountId::new(id).expect("an account id");
        let account = self.store.accounts.get(&id).await.expect("the engine responds");
        account.expect("the account exists")
    }

    /// Stops everything, the gateway first.
    pub async fn stop(self) {
        self.gateway.stop().await;
        for simulator in [self.openrouter, self.default_ai].into_iter().flatten() {
            simulator.server.stop().await;
        }
        if let Some(stripe) = self.stripe {
            stripe.server.stop().await;
        }
        self.bus.server.stop().await;
        self.queue.server.stop().await;
        self.jwks.stop().await;
        self.engines.stop().await;
    }
}

fn default_settings(
    engines: &Engines,
    bus: &Bus,
    queue: &Queue,
    issuer: &Issuer,
    jwks: &Server,
    public_url: &str,
) -> BTreeMap<String, String> {
    let jwks_url = format!("{}{JWKS_PATH}", jwks.url());
    let (bus_url, sqs_url) = (bus.url(), queue.endpoint());
    let settings = [
        ("ACCOUNTS_TABLE", "AccountsTable"),
        ("LEDGER_TABLE", "LedgerTable"),
        ("HOLDS_TABLE", "HoldsTable"),
        ("CHARGES_TABLE", "ChargesTable"),
        ("WEBHOOKS_TABLE", "WebhooksTable"),
        ("SECRETS_PREFIX", "greta/openrouter/"),
        ("DEFAULT_AI_SECRET", "greta/default-ai"),
        ("STRIPE_API_SECRET", "greta/stripe-api"),
        ("STRIPE_WEBHOOK_SECRETS", "greta/stripe-webhook"),
        ("DEFAULT_AI_API_KEY", "sk-or-v1-greta-platform-key-0000"),
        ("STRIPE_API_KEY", "sk_test_greta_0000"),
        ("STRIPE_WEBHOOK_SECRET", "whsec_greta_0000"),
        ("DEFAULT_AI_MODEL", DEFAULT_MODEL),
        ("JWKS_URL", &jwks_url),
        ("JWT_ISSUER", issuer.issuer()),
        ("JWT_AUDIENCE", issuer.audience()),
        ("PUBLIC_BASE_URL", public_url),
        ("OIDC_AUTHORITY", issuer.issuer()),
        ("OIDC_CLIENT_ID", sign_in::CLIENT_ID),
        ("EVENT_BUS", "greta"),
        ("CHARGE_QUEUE_URL", queue.url()),
        ("AWS_ENDPOINT_URL_EVENTBRIDGE", &bus_url),
        ("AWS_ENDPOINT_URL_SQS", &sqs_url),
        ("AWS_REGION", engines::REGION),
        ("AWS_ACCESS_KEY_ID", "local"),
        ("AWS_SECRET_ACCESS_KEY", "local"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    engines.settings().into_iter().chain(settings).collect()
}

/// An OpenRouter simulator, unless the setting `name` already leads to the real service.
async fn openrouter_unless_set(
    settings: &mut BTreeMap<String, String>,
    name: &str,
) -> io::Result<Option<OpenRouterSimulator>> {
    if settings.contains_key(name) {
        return Ok(None);
    }
    let simulator = OpenRouterSimulator::start().await?;
    settings.insert(name.to_owned(), simulator.base_url());
    Ok(Some(simulator))
}

/// A Stripe simulator, unless `STRIPE_API_BASE_URL` already leads to the real Stripe.
async fn stripe_unless_set(
    settings: &mut BTreeMap<String, String>,
    clock: &Clock,
) -> io::Result<Option<StripeSimulator>> {
    let name = "STRIPE_API_BASE_URL";
    if settings.contains_key(name) {
        return Ok(None);
    }
    let livemode = settings.get("STRIPE_LIVEMODE");
    let livemode = livemode.is_some_and(|live| live == "true");
    let simulator = StripeSimulator::start(clock.clone(), livemode).await?;
    settings.insert(name.to_owned(), simulator.base_url());
    Ok(Some(simulator))
}

/// Moves the platform's secrets from the settings to Secrets Manager, where the functions read
/// them.
async fn seed_platform_secrets(
    engines: &Engines,
    settings: &mut BTreeMap<String, String>,
) -> io::Result<()> {
    for (name, value) in PLATFORM_SECRETS {
        let value = settings.remove(value).unwrap_or_default();
        let create = engines.secrets().create_secret().name(&settings[name]);
        let created = create.secret_string(value).send().await;
        created.map_err(io::Error::other)?;
    }
    Ok(())
}
