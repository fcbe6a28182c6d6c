//! The gate of a process: every request that goes out of it, to the store or to the payment provider, and
//! every answer that comes back is a step, counted as it comes. At a step the process can die, or stand
//! still for as long as it pleases the driver; requests and answers can get lost.

use std::collections::HashMap;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use fastrand::Rng;
use http::Method;
use jiff::Timestamp;
use local::serve::{CloseWithoutHead, Server};
use local::stripe::StripeSimulator;
use tokio::sync::watch;

use super::direct::Direct;

/// The beginning of the work in which each payment object was confirmed first.
pub(crate) type Confirmed = Arc<Mutex<HashMap<String, Timestamp>>>;

/// What a piece of work has to expect.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// The process stops at this step, counted from 1.
    pub(crate) stops_at: Option<usize>,
    /// So many in a thousand requests get lost, or their answers.
    pub(crate) losses: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<Situation>,
    stopped: watch::Sender<bool>,
}

#[derive(Debug)]
struct Situation {
    /// Counts deaths: what belongs to an earlier life never goes on.
    life: u64,
    began: Timestamp,
    steps: usize,
    weather: Weather,
    dice: Rng,
    lost: usize,
}

/// What becomes of a request.
enum Fate {
    Arrives,
    NeverArrives,
    AnswerLost,
}

impl Gate {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::new(Situation {
                life: 0,
                began: Timestamp::UNIX_EPOCH,
                steps: 0,
                weather: Weather::default(),
                dice: Rng::with_seed(seed),
                lost: 0,
            }),
            stopped: watch::Sender::new(false),
        }))
    }

    /// A piece of work begins.
    pub(crate) fn begin(&self, now: Timestamp, weather: Weather) {
        let mut state = self.state();
        state.began = now;
        state.steps = 0;
        state.lost = 0;
        state.weather = weather;
    }

    /// The process died: what it had under way never goes on.
    pub(crate) fn bury(&self) {
        self.state().life += 1;
        self.release();
    }

    /// What stood still goes on, undisturbed.
    pub(crate) fn release(&self) {
        self.state().weather = Weather::default();
        self.0.stopped.send_replace(false);
    }

    /// Waits until the process has come to the step at which it stops.
    pub(crate) async fn until_stopped(&self) {
        let mut stopped = self.0.stopped.subscribe();
        let stopped = stopped.wait_for(|stopped| *stopped).await;
        stopped.expect("the sender is held by this gate");
    }

    /// How many steps the work has made.
    pub(crate) fn steps(&self) -> usize {
        self.state().steps
    }

    /// How many requests and answers of the work got lost.
    pub(crate) fn lost(&self) -> usize {
        self.state().lost
    }

    fn began(&self) -> Timestamp {
        self.state().began
    }

    fn state(&self) -> MutexGuard<'_, Situation> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn step(&self) {
        let (life, others) = {
            let mut state = self.state();
            state.steps += 1;
            if Some(state.steps) == state.weather.stops_at {
                self.0.stopped.send_replace(true);
            }
            (state.life, state.dice.u8(..3))
        };
        // Work that is done at the same time comes in between, or does not.
        for _ in 0..others {
            tokio::task::yield_now().await;
        }
        let mut stopped = self.0.stopped.subscribe();
        let released = stopped.wait_for(|stopped| !*stopped).await;
        released.expect("the sender is held by this gate");
        if self.state().life != life {
            pending::<()>().await;
        }
    }

    fn fate(&self) -> Fate {
        let mut state = self.state();
        let losses = state.weather.losses;
        let fate = match state.dice.u32(..1_000) {
            dice if dice >= losses => return Fate::Arrives,
            dice if dice % 2 == 0 => Fate::NeverArrives,
            _ => Fate::AnswerLost,
        };
        state.lost += 1;
        fate
    }
}

/// Carries a process's requests to AWS. Reads of the due index and of secrets are no steps, because
/// nothing depends on them.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    pub(crate) connector: SharedHttpConnector,
    pub(crate) dynamodb: Direct,
    /// `None`: nothing is in the way.
    pub(crate) gate: Option<Gate>,
}

impl Wire {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let operation = target.strip_prefix("DynamoDB_20120810.");
        let body = request.body().bytes().unwrap_or_default();
        let answer = operation.and_then(|operation| self.dynamodb.answer(operation, body));
        if let Some((status, body)) = answer {
            let mut response = http::Response::new(SdkBody::from(body));
            *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
            return Ok(HttpResponse::try_from(response).unwrap());
        }
        self.connector.call(request).await
    }
}

impl HttpClient for Wire {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Wire {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let wire = self.clone();
        HttpConnectorFuture::new(async move {
            let target = request.headers().get("x-amz-target").unwrap_or_default();
            let is_step = !target.ends_with(".Query") && !target.starts_with("secretsmanager.");
            let gate = wire.gate.as_ref().filter(|_| is_step);
            let Some(gate) = gate else {
                return wire.send(request).await;
            };
            gate.step().await;
            let fate = gate.fate();
            // Errors that the SDK does not try again.
            if matches!(fate, Fate::NeverArrives) {
                return Err(ConnectorError::user("the request was lost".into()));
            }
            let answer = wire.send(request).await;
            gate.step().await;
            match fate {
                Fate::AnswerLost => Err(ConnectorError::user("the answer was lost".into())),
                _ => answer,
            }
        })
    }
}

/// The payment provider as one process reaches it.
#[derive(Clone)]
struct Way {
    gate: Gate,
    confirmed: Confirmed,
}

/// Opens a way to the provider that leads through `gate`.
///
/// # Errors
/// If no port can be opened.
pub(crate) async fn way_to(
    provider: &StripeSimulator,
    gate: Gate,
    confirmed: Confirmed,
) -> std::io::Result<Server> {
    let way = Way { gate, confirmed };
    let router: Router = provider.router();
    Server::start(router.layer(middleware::from_fn_with_state(way, pass))).await
}

async fn pass(State(way): State<Way>, request: Request, next: Next) -> Response {
    way.gate.step().await;
    let fate = way.gate.fate();
    if matches!(fate, Fate::NeverArrives) {
        return no_answer();
    }
    let path = request.uri().path();
    let intent =
        path.strip_prefix("/v1/payment_intents/").and_then(|rest| rest.strip_suffix("/confirm"));
    if let (Some(intent), &Method::POST) = (intent, request.method()) {
        let began = way.gate.began();
        let mut confirmed = way.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        let first = confirmed.entry(intent.to_owned()).or_insert(began);
        *first = began.min(*first);
    }
    let answer = next.run(request).await;
    way.gate.step().await;
    match fate {
        Fate::AnswerLost => no_answer(),
        _ => answer,
    }
}

fn no_answer() -> Response {
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(CloseWithoutHead);
    response
}
