//! The system in one process: backends, functions, gateway.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use account::{Account, AccountId, Credits};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use axum::Router;
use edge::{Clock, Deadline, Env, HttpSettings, SettingsError};
use secrecy::SecretString;
use serde_json::Value;
use store::{Store, Tables};

use crate::bus::Bus;
use crate::dev::{self, Dev};
use crate::engines::{Engines, EnginesError};
use crate::issuer::{Issuer, JWKS_PATH};
use crate::provider::{PaymentProvider, ProviderOptions};
use crate::queue::{Drained, Queue};
use crate::serve::{self, Server};
use crate::sign_in::{self, SignIn};
use crate::simulator::{DEFAULT_MODEL, Simulator, SimulatorOptions};
use crate::tables;

/// The settings of the contract's section 7 that a deployment chooses, and that are taken from this
/// program's own environment where they are set there.
const PASSED_THROUGH: [&str; 35] = [
    "SECRETS_PREFIX",
    "OPENROUTER_BASE_URL",
    "DEFAULT_AI_BASE_URL",
    "DEFAULT_AI_KIND",
    "DEFAULT_AI_SECRET",
    "DEFAULT_AI_MODEL",
    "CREDITS_PER_USD",
    "MIN_CREDIT_BALANCE",
    "MIN_OUTPUT_TOKENS",
    "MAX_CONCURRENT_HOLDS",
    "MAX_BODY_BYTES",
    "FALLBACK_CAUSES",
    "UPSTREAM_CONNECT_MS",
    "UPSTREAM_HEAD_STREAM_MS",
    "UPSTREAM_HEAD_PLAIN_MS",
    "UPSTREAM_IDLE_MS",
    "ADD_ON_COLLECTION",
    "ADD_ON_ATTEMPT_DAYS",
    "ADD_ON_GRACE_DAYS",
    "STRIPE_LIVEMODE",
    "OIDC_AUTHORITY",
    "OIDC_CLIENT_ID",
    "STRIPE_API_BASE_URL",
    "STRIPE_API_SECRET",
    "STRIPE_REQUESTS_PER_SECOND",
    "STRIPE_WEBHOOK_SECRETS",
    "JWKS_URL",
    "JWT_ISSUER",
    "JWT_AUDIENCE",
    "ALLOWED_ORIGINS",
    "PUBLIC_BASE_URL",
    "EVENT_BUS",
    // Not the deployment's, but of use here: what the platform's secrets are seeded with.
    "DEFAULT_AI_API_KEY",
    "STRIPE_API_KEY",
    "STRIPE_WEBHOOK_SECRET",
];

/// The key of the simulated default AI.
const SIMULATED_PLATFORM_KEY: &str = "sk-or-v1-greta-platform-key-0000";
const SIMULATED_STRIPE_KEY: &str = "sk_test_greta_0000";
const SIMULATED_WEBHOOK_SECRET: &str = "whsec_greta_0000";
const AUDIENCE: &str = "greta";

/// What the system is started with.
#[derive(Default)]
pub struct Options {
    /// The gateway's port; 0 takes a free one.
    pub port: u16,
    /// Settings by name, over the defaults.
    pub settings: BTreeMap<String, String>,
    /// The gateway serves the `_dev` helpers only; the functions run elsewhere.
    pub backends_only: bool,
    /// What carries the requests to AWS of the function of this name, for tests that look at them or
    /// disturb them.
    pub aws_http: Option<Box<dyn Fn(&'static str) -> SharedHttpClient + Send>>,
}

/// Why the system did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("port {port} of 127.0.0.1 cannot be opened; choose another one with --port")]
    Port {
        port: u16,
        #[source]
        source: io::Error,
    },
    #[error("a backend's port cannot be opened")]
    Listen(#[from] io::Error),
    #[error(transparent)]
    Engines(#[from] EnginesError),
    #[error("the tables cannot be created")]
    Tables(#[source] Box<aws_sdk_dynamodb::Error>),
    #[error("the platform's secrets cannot be created")]
    Secrets(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("a function cannot be set up")]
    Function(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The running system.
pub struct System {
    pub engines: Engines,
    /// `None` where a real one takes its place.
    pub openrouter: Option<Simulator>,
    pub default_ai: Option<Simulator>,
    pub payment_provider: Option<PaymentProvider>,
    pub bus: Bus,
    /// Due accounts wait here for the worker.
    pub queue: Queue,
    pub issuer: Issuer,
    pub clock: Clock,
    pub store: Store,
    pub tables: Tables,
    /// All settings of the functions.
    pub settings: BTreeMap<String, String>,
    account_events: account_events::Deps,
    monthly_charge: monthly_charge::Deps,
    reconciler: reconciler::Deps,
    gateway: Server,
    jwks: Server,
}

impl System {
    /// Starts everything, and returns when all of it answers.
    ///
    /// # Errors
    /// [`StartError`] names what did not start.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let port = options.port;
        let listener = serve::listener_on(port)
            .await
            .map_err(|source| StartError::Port { port, source })?;
        let public_url = format!("http://{}", listener.local_addr()?);
        let issuer = Issuer::new(&public_url, AUDIENCE);
        let jwks = Server::start(issuer.router()).await?;
        let engines = Engines::start().await?;
        let bus = Bus::start().await?;
        let clock = Clock::system();
        let queue = Queue::start(&engines.sdk_config(), clock.clone()).await?;
        let mut settings = default_settings(&engines, &bus, &queue, &issuer, &jwks, &public_url);
        settings.extend(options.settings);
        let openrouter = simulator_unless_set(&mut settings, "OPENROUTER_BASE_URL").await?;
        let default_ai = simulator_unless_set(&mut settings, "DEFAULT_AI_BASE_URL").await?;
        let payment_provider = provider_unless_set(&mut settings, &clock).await?;

        tables::create_all(&engines.dynamodb(), str::to_owned)
            .await
            .map_err(|error| StartError::Tables(Box::new(error)))?;
        if let Some(provider) = &payment_provider {
            let secret = settings.get("STRIPE_WEBHOOK_SECRET");
            let secret = secret.map_or(SIMULATED_WEBHOOK_SECRET, String::as_str);
            let base = settings["PUBLIC_BASE_URL"].trim_end_matches('/');
            provider.set_webhook(&format!("{base}/v1/webhooks/stripe"), secret);
        }
        seed_platform_secrets(&engines, &mut settings).await?;
        let functions = Functions::new(&settings, &clock, |function| {
            let http = options.aws_http.as_ref().map(|http| http(function));
            let config = engines.sdk_config();
            Clients {
                dynamodb: engines.dynamodb_over(http.clone()),
                secrets: engines.secrets_over(http.clone()),
                event_bus: bus.client_over(&config, http.clone()),
                queue: queue.client_over(&config, http),
            }
        })?;
        let store = Store::new(engines.dynamodb(), functions.tables.clone())
            .with_low_credits_events(functions.minimum_balance);
        let dev = Dev {
            issuer: issuer.clone(),
            clock: clock.clone(),
            store: store.clone(),
            payers: payment_provider.as_ref().map(PaymentProvider::payers),
            renewals: payment_provider.as_ref().map(PaymentProvider::renewals),
            monthly_charge: functions.monthly_charge.clone(),
            consumer: queue.consumer.clone(),
            running: functions.running.clone(),
            sign_in: SignIn::new(issuer.clone(), clock.clone(), &jwks.url()),
        };
        let mut apps = vec![dev::router(dev, &functions.http)];
        if !options.backends_only {
            apps.extend(functions.apps);
        }
        let gateway = Server::on(listener, edge::gateway(apps, &functions.http))?;
        Ok(Self {
            engines,
            openrouter,
            default_ai,
            payment_provider,
            bus,
            queue,
            issuer,
            clock,
            store,
            tables: functions.tables,
            settings,
            account_events: functions.account_events,
            monthly_charge: functions.monthly_charge,
            reconciler: functions.reconciler,
            gateway,
            jwks,
        })
    }

    /// Has `account-events` carry out an event, as the bus does.
    ///
    /// # Errors
    /// What the function answers to the bus, which would keep the event.
    pub async fn account_event(&self, event: &Value) -> Result<Value, account_events::EventError> {
        account_events::handle(&self.account_events, event).await
    }

    /// Has `monthly-charge` carry out an event: of the scheduler, or of the queue.
    ///
    /// # Errors
    /// If the event is of neither kind.
    pub async fn monthly_charge(&self, event: &Value) -> Result<Value, monthly_charge::EventError> {
        monthly_charge::handle(&self.monthly_charge, event).await
    }

    /// Hands what waits in the queue to the worker.
    pub async fn drain_queue(&self) -> Drained {
        self.queue.consumer.drain(&self.monthly_charge).await
    }

    /// Has `reconciler` carry out an event of the scheduler.
    ///
    /// # Errors
    /// If the event cannot be read.
    pub async fn reconcile(
        &self,
        event: &Value,
        deadline: Option<Deadline>,
    ) -> Result<Value, reconciler::EventError> {
        reconciler::handle(&self.reconciler, event, deadline).await
    }

    /// What the event bus was given, in order, in the envelope in which a rule's target gets it.
    pub fn domain_events(&self) -> Vec<Value> {
        self.bus.events()
    }

    /// Where the gateway answers: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        self.gateway.url()
    }

    /// A token of the account, good for a day.
    pub fn token(&self, account: &str, role: &str) -> String {
        let day = Duration::from_hours(24);
        self.issuer.token(account, role, self.clock.now(), day)
    }

    /// The account as it is stored.
    ///
    /// # Panics
    /// If there is no such account.
    pub async fn account(&self, id: &str) -> Account {
        let id = AccountId::new(id).expect("an account id");
        let account = self
            .store
            .accounts
            .get(&id)
            .await
            .expect("the engine answers");
        account.expect("the account exists")
    }

    /// Stops everything, the gateway first.
    pub async fn stop(self) {
        self.gateway.stop().await;
        for simulator in [self.openrouter, self.default_ai].into_iter().flatten() {
            simulator.stop().await;
        }
        if let Some(provider) = self.payment_provider {
            provider.stop().await;
        }
        self.bus.stop().await;
        self.queue.stop().await;
        self.jwks.stop().await;
        self.engines.stop().await;
    }
}

/// The settings that this process was started with.
pub fn settings_from_environment() -> BTreeMap<String, String> {
    let mut env = Env::process();
    PASSED_THROUGH
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), env.present(name)?)))
        .collect()
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
        ("DEFAULT_AI_MODEL", DEFAULT_MODEL),
        ("JWKS_URL", &jwks_url),
        ("JWT_ISSUER", issuer.issuer()),
        ("JWT_AUDIENCE", issuer.audience()),
        ("PUBLIC_BASE_URL", public_url),
        ("OIDC_AUTHORITY", issuer.issuer()),
        ("OIDC_CLIENT_ID", sign_in::CLIENT_ID),
        ("EVENT_BUS", "greta"),
        ("CHARGE_QUEUE_URL", queue.url()),
        ("AWS_ENDPOINT_URL_DYNAMODB", &engines.dynamodb_url),
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", &engines.secrets_url),
        ("AWS_ENDPOINT_URL_EVENTBRIDGE", &bus_url),
        ("AWS_ENDPOINT_URL_SQS", &sqs_url),
        ("AWS_REGION", crate::engines::REGION),
        ("AWS_ACCESS_KEY_ID", "local"),
        ("AWS_SECRET_ACCESS_KEY", "local"),
    ];
    settings
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// A simulator in place of the upstream that `name` is to lead to, unless it leads somewhere.
async fn simulator_unless_set(
    settings: &mut BTreeMap<String, String>,
    name: &str,
) -> io::Result<Option<Simulator>> {
    if settings.contains_key(name) {
        return Ok(None);
    }
    let simulator = Simulator::start(SimulatorOptions::default()).await?;
    settings.insert(name.to_owned(), simulator.base_url());
    Ok(Some(simulator))
}

/// A simulated payment provider, unless `STRIPE_API_BASE_URL` leads to one.
async fn provider_unless_set(
    settings: &mut BTreeMap<String, String>,
    clock: &Clock,
) -> io::Result<Option<PaymentProvider>> {
    let name = "STRIPE_API_BASE_URL";
    if settings.contains_key(name) {
        return Ok(None);
    }
    let livemode = settings.get("STRIPE_LIVEMODE");
    let provider = PaymentProvider::start(ProviderOptions {
        clock: clock.clone(),
        livemode: livemode.is_some_and(|live| live == "true"),
        ..ProviderOptions::default()
    })
    .await?;
    settings.insert(name.to_owned(), provider.base_url());
    Ok(Some(provider))
}

/// Puts the platform's secrets where the functions look for them, and out of the settings.
async fn seed_platform_secrets(
    engines: &Engines,
    settings: &mut BTreeMap<String, String>,
) -> Result<(), StartError> {
    let seeds = [
        (
            "DEFAULT_AI_SECRET",
            "DEFAULT_AI_API_KEY",
            SIMULATED_PLATFORM_KEY,
        ),
        ("STRIPE_API_SECRET", "STRIPE_API_KEY", SIMULATED_STRIPE_KEY),
        (
            "STRIPE_WEBHOOK_SECRETS",
            "STRIPE_WEBHOOK_SECRET",
            SIMULATED_WEBHOOK_SECRET,
        ),
    ];
    for (name, value, simulated) in seeds {
        let value = settings.remove(value);
        let value = SecretString::from(value.unwrap_or_else(|| simulated.to_owned()));
        engines
            .secrets()
            .create_secret()
            .name(&settings[name])
            .secret_string(secrecy::ExposeSecret::expose_secret(&value))
            .send()
            .await
            .map_err(|error| StartError::Secrets(Box::new(error)))?;
    }
    Ok(())
}

/// A function's way to AWS.
struct Clients {
    dynamodb: aws_sdk_dynamodb::Client,
    secrets: aws_sdk_secretsmanager::Client,
    event_bus: aws_sdk_eventbridge::Client,
    queue: aws_sdk_sqs::Client,
}

/// The functions, set up by their own settings.
struct Functions {
    http: HttpSettings,
    tables: Tables,
    minimum_balance: Credits,
    account_events: account_events::Deps,
    monthly_charge: monthly_charge::Deps,
    reconciler: reconciler::Deps,
    running: ai_proxy::Running,
    apps: Vec<Router>,
}

impl Functions {
    fn new(
        settings: &BTreeMap<String, String>,
        clock: &Clock,
        clients_of: impl Fn(&'static str) -> Clients,
    ) -> Result<Self, StartError> {
        let env = || Env::from_pairs(settings.clone());
        let proxy_settings = ai_proxy::Settings::from_env(env())?;
        let (http, tables) = (
            proxy_settings.product.http.clone(),
            proxy_settings.tables.clone(),
        );
        let minimum_balance = proxy_settings.product.policy.minimum_balance;
        let Clients {
            dynamodb, secrets, ..
        } = clients_of("ai-proxy");
        let ai_proxy = ai_proxy::Deps::new(proxy_settings, clock.clone(), dynamodb, secrets);
        let Clients {
            dynamodb, secrets, ..
        } = clients_of("key-save");
        let key_save = key_save::Deps::new(
            key_save::Settings::from_env(env())?,
            clock.clone(),
            dynamodb,
            secrets,
        );
        let Clients {
            dynamodb, secrets, ..
        } = clients_of("integration-settings");
        let integration_settings = integration_settings::Deps::new(
            integration_settings::Settings::from_env(env())?,
            clock.clone(),
            dynamodb,
            secrets,
        );
        let Clients {
            dynamodb, secrets, ..
        } = clients_of("subscription-webhook");
        let subscription_webhook = subscription_webhook::Deps::new(
            subscription_webhook::Settings::from_env(env())?,
            clock.clone(),
            dynamodb,
            secrets,
        );
        let Clients {
            dynamodb, secrets, ..
        } = clients_of("account-events");
        let account_events = account_events::Deps::new(
            account_events::Settings::from_env(env())?,
            clock.clone(),
            dynamodb,
            secrets,
        );
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
        let ai_proxy = ai_proxy.map_err(StartError::Function)?;
        let running = ai_proxy.running.clone();
        let apps = vec![
            ai_proxy::router(ai_proxy),
            key_save::router(key_save.map_err(StartError::Function)?),
            integration_settings::router(integration_settings.map_err(StartError::Function)?),
            subscription_webhook::router(subscription_webhook.map_err(StartError::Function)?),
            settings_page::router(settings_page::Settings {
                extra_module: Some(dev::TRY_A_CALL),
                ..settings_page::Settings::from_env(env())?
            }),
        ];
        Ok(Self {
            http,
            tables,
            minimum_balance,
            account_events,
            monthly_charge: monthly_charge.map_err(StartError::Function)?,
            reconciler,
            running,
            apps,
        })
    }
}
