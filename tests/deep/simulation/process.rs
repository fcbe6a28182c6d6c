//! A process: all functions that handle payments, as a deployment runs them, behind one gate. It
//! does one job at a time.

use aws_smithy_runtime_api::client::http::SharedHttpClient;
use axum::Router;
use axum::body::Body;
use edge::{Env, Setup};
use http::{Method, Request};
use jiff::Timestamp;
use local::serve::Server;
use local::system::System;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tower::ServiceExt as _;

use super::Collection;
use super::direct::Direct;
use super::gate::{Confirmed, Faults, Gate, Wire, proxy_to};

pub(crate) struct Process {
    pub(crate) gate: Gate,
    /// The routes, one router per way of collecting.
    routes: [Router; 3],
    webhook: Router,
    monthly_charge: monthly_charge::Deps,
    account_events: account_events::Deps,
    _proxy: Server,
}

/// A piece of work for a process.
#[derive(Debug, Clone)]
pub(crate) enum Job {
    /// A user's request with this token.
    Route {
        collection: Collection,
        method: Method,
        path: &'static str,
        token: String,
        body: Option<Value>,
    },
    /// A signed event from Stripe.
    Webhook {
        body: String,
        signature: String,
    },
    /// An event from Greta's core system.
    AccountEvent(Value),
    Tick(Timestamp),
    /// Queue messages, in Lambda's format.
    Batch(Vec<Value>),
}

/// The response to a job.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn is_good(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl Process {
    pub(crate) async fn start(system: &System, seed: u64, confirmed: Confirmed) -> Self {
        let gate = Gate::new(seed);
        let stripe = system.stripe.as_ref();
        let stripe = stripe.expect("Stripe is simulated");
        let proxy = proxy_to(stripe, gate.clone(), confirmed).await;
        let proxy = proxy.expect("a free port");
        let mut settings = system.settings.clone();
        settings.insert("STRIPE_API_BASE_URL".to_owned(), proxy.url());
        // Tests do not wait for the rate limit.
        let rate_limit = "STRIPE_REQUESTS_PER_SECOND".to_owned();
        settings.insert(rate_limit, "10000".to_owned());
        let wire = Wire {
            connector: local::engines::connector(),
            dynamodb: Direct::to(&system.engines),
            gate: Some(gate.clone()),
        };
        let aws = system.aws_config().into_builder();
        let aws = aws.http_client(SharedHttpClient::new(wire)).build();
        let setup = |more: &[(&str, &str)]| Setup {
            env: Env::from_pairs(settings.clone())
                .with(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))),
            clock: system.clock.clone(),
            aws: aws.clone(),
        };
        let routes = |collection: Collection| {
            let deps =
                integration_settings::Deps::new(setup(&[("ADD_ON_COLLECTION", collection.name())]));
            integration_settings::router(deps.unwrap())
        };
        Self {
            routes: Collection::ALL.map(routes),
            webhook: subscription_webhook::router(
                subscription_webhook::Deps::new(setup(&[])).unwrap(),
            ),
            monthly_charge: monthly_charge::Deps::new(setup(&[])).unwrap(),
            account_events: account_events::Deps::new(setup(&[])).unwrap(),
            gate,
            _proxy: proxy,
        }
    }

    /// Begins a job.
    pub(crate) fn begin(&self, job: Job, now: Timestamp, faults: Faults) -> JoinHandle<Answer> {
        self.gate.begin(now, faults);
        match job {
            Job::Route { collection, method, path, token, body } => {
                let router = &self.routes[collection as usize];
                let request = Request::builder().method(method).uri(path);
                let request = request.header("authorization", format!("Bearer {token}"));
                let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
                edge::spawn(Box::pin(ask(router.clone(), request.body(body).unwrap())))
            }
            Job::Webhook { body, signature } => {
                let request = Request::post("/v1/webhooks/stripe")
                    .header("stripe-signature", signature)
                    .body(Body::from(body));
                edge::spawn(Box::pin(ask(self.webhook.clone(), request.unwrap())))
            }
            Job::AccountEvent(event) => {
                let deps = self.account_events.clone();
                edge::spawn(Box::pin(async move {
                    let done = account_events::handle(&deps, &event).await;
                    of_event(done.map_err(|error| error.to_string()))
                }))
            }
            Job::Tick(time) => self.invoke(json!({ "time": time })),
            Job::Batch(records) => self.invoke(json!({ "Records": records })),
        }
    }

    fn invoke(&self, event: Value) -> JoinHandle<Answer> {
        let deps = self.monthly_charge.clone();
        edge::spawn(Box::pin(async move {
            let done = monthly_charge::handle(&deps, &event).await;
            of_event(done.map_err(|error| error.to_string()))
        }))
    }
}

async fn ask(router: Router, request: Request<Body>) -> Answer {
    let response = router.oneshot(request).await.unwrap_or_else(|never| match never {});
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await;
    let body = body.unwrap_or_default();
    Answer { status, body: serde_json::from_slice(&body).unwrap_or_default() }
}

fn of_event(done: Result<Value, String>) -> Answer {
    match done {
        Ok(body) => Answer { status: 200, body },
        Err(error) => Answer { status: 500, body: Value::String(error) },
    }
}
