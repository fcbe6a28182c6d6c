//! The process that makes a call dies at each step of its I/O in turn. Time passes; the sweeper
//! runs, and dies in the same way. Steps are counted as they happen, so no list of them is needed.
//!
//! After every step the books are right, and the account is charged exactly the cost in the default
//! AI's record. The one exception: between the default AI's accepting the call and the generation
//! id's being stored, the cost cannot be known, and the call is free.

use account::{AccountId, Credits, CreditsPerUsd, Usd};
use axum::body::Body;
use axum::http::Request;
use edge::Setup;
use jiff::SignedDuration;
use local::openrouter::{CallOutcome, RecordedCall};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::steps::{Relay, Steps};
use crate::support::{KEY, World, hello};
use crate::wire::Wire;

pub(crate) const START: &str = "7";

/// A kind of call and its expected end.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    /// The account has a key and OpenRouter refuses: credits pay for the fallback.
    pub(crate) fallback: bool,
    pub(crate) stream: bool,
    pub(crate) model: &'static str,
    /// The default AI accepts the call and reports its cost sooner or later.
    pub(crate) costs: bool,
}

/// The outcome of a call whose process died.
#[derive(Debug)]
struct Death {
    account: String,
    /// The step at which it died, and those before it.
    steps: Vec<String>,
    hold: Option<Value>,
    /// It ran to the end.
    survived: bool,
}

impl Death {
    fn at(&self) -> &str {
        self.steps.last().map_or("the end", String::as_str)
    }
}

/// A world with a relay in front of each upstream.
pub(crate) struct Mortal {
    pub(crate) world: World,
    openrouter: (Relay, String),
    default_ai: (Relay, String),
}

impl Mortal {
    pub(crate) async fn start() -> Self {
        let world = World::start().await;
        let root = |base: String| base.strip_suffix("/api/v1").unwrap().to_owned();
        let openrouter = Relay::start(root(world.openrouter().base_url())).await;
        let default_ai = Relay::start(root(world.default_ai().base_url())).await;
        Self { world, openrouter, default_ai }
    }

    /// Makes a call in its own process, which dies at step `dies_at`.
    async fn call(&self, scenario: Scenario, dies_at: usize) -> Death {
        let account = format!("acme-{dies_at}");
        let plan = if scenario.fallback { "enterprise" } else { "standard" };
        self.world.set(&account, json!({"plan": plan, "credits": START})).await;
        let owner = self.world.owner(&account);
        if scenario.fallback {
            assert_eq!(owner.save_key(KEY).await.status, 200);
        }
        let steps = Steps::until(dies_at);
        let request = request(&owner.token, &account, scenario);
        let make_call = |setup: Setup| async move {
            let router = ai_proxy::router(ai_proxy::Deps::new(setup).unwrap());
            let response = router.oneshot(request).await.unwrap();
            // The caller reads to the end, wherever that is.
            axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        };
        let survived = self.run(&steps, make_call).await;
        // The default AI notices that its reader is gone.
        let ended = |calls: &[RecordedCall]| calls.iter().all(RecordedCall::has_ended);
        self.world.default_ai().until(ended).await;
        let holds = self.world.shown(&account).await["holds"].take();
        Death {
            hold: holds.as_array().unwrap().first().cloned(),
            account,
            steps: steps.names(),
            survived,
        }
    }

    /// Runs `work` in its own process. True if it ran to the end.
    pub(crate) async fn run<W>(
        &self,
        steps: &Steps,
        work: impl FnOnce(Setup) -> W + Send + 'static,
    ) -> bool
    where
        W: Future<Output = ()>,
    {
        self.openrouter.0.count(steps);
        self.default_ai.0.count(steps);
        let [openrouter, default_ai] =
            [&self.openrouter, &self.default_ai].map(|relay| format!("{}/api/v1", relay.1));
        let upstreams =
            [("OPENROUTER_BASE_URL", &*openrouter), ("DEFAULT_AI_BASE_URL", &default_ai)];
        let setup = self.world.setup(Wire::of(steps.clone()), &upstreams);
        let steps = steps.clone();
        // The process is a runtime: dropping it stops every task where it is.
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move {
                tokio::select! {
                    () = work(setup) => true,
                    () = steps.death() => false,
                }
            })
        };
        tokio::task::spawn_blocking(run).await.unwrap()
    }

    /// The default AI's record of the account's call.
    pub(crate) fn record(&self, account: &str) -> Option<RecordedCall> {
        let calls = self.world.default_ai().calls();
        let marker = format!("to {account}.");
        let of_account =
            |call: &RecordedCall| String::from_utf8_lossy(&call.body).contains(&marker);
        let mut calls = calls.into_iter().filter(of_account);
        let call = calls.next();
        assert!(calls.next().is_none(), "one call reaches the default AI");
        call
    }
}

pub(crate) fn body(account: &str, scenario: Scenario) -> Value {
    let mut body = hello();
    body["messages"][0]["content"] = json!(format!("Say hello to {account}."));
    body["model"] = json!(scenario.model);
    body["stream"] = json!(scenario.stream);
    body
}

fn request(token: &str, account: &str, scenario: Scenario) -> Request<Body> {
    Request::post("/v1/chat/completions")
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .header("idempotency-key", "the-call")
        .body(Body::from(body(account, scenario).to_string()))
        .unwrap()
}

pub(crate) fn in_credits(record: &RecordedCall) -> Credits {
    let cost: Usd = record.cost.parse().unwrap();
    cost.in_credits(CreditsPerUsd::new(10).unwrap()).unwrap()
}

/// Dies at every step of `scenario` and checks each outcome.
async fn die_everywhere(scenario: Scenario) {
    let mortal = Mortal::start().await;
    let mut deaths = Vec::new();
    loop {
        let death = mortal.call(scenario, deaths.len()).await;
        let survived = death.survived;
        deaths.push(death);
        if survived {
            break;
        }
        assert!(deaths.len() < 200, "the call ends");
    }
    // Once early, so that a hold's first look-up is not its last; then past its end.
    for minutes in [0, 25, 25 * 60] {
        let report = mortal.world.tick_in(SignedDuration::from_mins(minutes)).await;
        assert_eq!(report["errors"], 0);
    }
    let mut unknown = Vec::new();
    let mut charged_after_death = 0;
    for death in &deaths {
        let charged = charged(&mortal, death).await;
        let record = mortal.record(&death.account);
        let accepted = record.as_ref().filter(|call| call.outcome != CallOutcome::Refused(500));
        let cost = accepted.map_or(Credits::ZERO, in_credits);
        let id_stored = match &death.hold {
            // The hold was resolved before the process died.
            None => true,
            Some(hold) => !hold["generation_id"].is_null(),
        };
        if id_stored {
            assert_eq!(charged, cost, "died at {}: {death:?}", death.at());
            charged_after_death += u32::from(!death.survived && charged > Credits::ZERO);
        } else {
            assert_eq!(charged, Credits::ZERO, "died at {}", death.at());
            if cost > Credits::ZERO {
                unknown.push(death.at());
            }
        }
        if record.is_some() {
            let held = death.steps.iter().position(|step| step == "TransactWriteItems response");
            assert!(held.is_some(), "no call without a hold: {death:?}");
        }
        retries(&mortal, death, charged, scenario).await;
    }
    let last = deaths.last().unwrap();
    assert!(last.survived && last.steps.len() > 8, "{last:?}");
    if scenario.costs {
        assert!(charged_after_death > 1, "the sweeper settled some calls");
        // The one window: after the default AI accepted the call, before its id was stored.
        let window = |step: &str| {
            step.starts_with("POST /api/v1/chat/completions")
                || step.starts_with("UpdateItem request")
        };
        assert!(!unknown.is_empty(), "some death hit the window");
        assert!(unknown.iter().all(|step| window(step)), "{unknown:?}");
    } else {
        assert_eq!(unknown, Vec::<&str>::new());
    }
}

/// The amount charged to the account. Asserts that the books add up and nothing is held.
async fn charged(mortal: &Mortal, death: &Death) -> Credits {
    let balance: Credits = mortal.world.settled_balance(&death.account).await.parse().unwrap();
    let start: Credits = START.parse().unwrap();
    start.checked_sub(balance).unwrap()
}

/// A client that got no response and sends the call again does not pay twice.
async fn retries(mortal: &Mortal, death: &Death, charged: Credits, scenario: Scenario) {
    if scenario.fallback {
        // OpenRouter may pay this time.
        return;
    }
    let owner = mortal.world.owner(&death.account);
    let request =
        owner.chat_request(&body(&death.account, scenario)).header("idempotency-key", "the-call");
    let again = mortal.world.send(request).await;
    let account = AccountId::new(death.account.clone()).unwrap();
    let settled = charged > Credits::ZERO;
    assert_eq!(again.status == 409, settled, "{account} died at {}", death.at());
}

pub(crate) const PLAIN: Scenario =
    Scenario { fallback: false, stream: false, model: "openai/gpt-4o", costs: true };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_call() {
    die_everywhere(PLAIN).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_streamed_call() {
    die_everywhere(Scenario { stream: true, ..PLAIN }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fallback() {
    die_everywhere(Scenario { fallback: true, model: "sim/status-429", ..PLAIN }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_streamed_fallback() {
    die_everywhere(Scenario { fallback: true, stream: true, model: "sim/status-429", ..PLAIN })
        .await;
}

/// The response does not report its cost: the sweeper has to look it up, even for a call that ran
/// to the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_without_usage() {
    die_everywhere(Scenario { stream: true, model: "sim-priced/no-usage", ..PLAIN }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_breaks_off() {
    die_everywhere(Scenario { stream: true, model: "sim-priced/cut", ..PLAIN }).await;
}

/// The default AI refuses the call: nothing is ever charged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_call() {
    die_everywhere(Scenario { model: "sim-priced/status-500", costs: false, ..PLAIN }).await;
}
