//! A call's costs, counted and not timed: allocations and copies of bodies; and that a call waits
//! only in its own futures.
//!
//! `ai-proxy` runs on the test's thread, as if Lambda handed out one event at a time, and
//! everything else on another thread: an allocation on this thread is the function's. These tests
//! have their own binary because the allocator counts for a whole program.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on stops with a message"
)]

use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ai_proxy::Deps;
use allocation_counter::AllocationInfo;
use aws_smithy_runtime_api::client::http::http_client_fn;
use axum::Router;
use axum::body::Body;
use axum::routing::post;
use bytes::Bytes;
use edge::{Clock, Env};
use futures_util::future::join_all;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use local::serve::Server;
use local::system::{Options, System};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Barrier, oneshot};
use tower::ServiceExt as _;

mod memory;

const WITH_KEY: &str = "acme";
const ON_CREDITS: &str = "umbrella";
/// Number of calls in flight in tests with several.
const CONCURRENT_CALLS: usize = 32;
/// Length of a long body.
const LONG: usize = 4_000_000;
/// Number of counted calls, after some warm-up calls.
const COUNTED: u64 = 20;

/// `ai-proxy` on this thread, with its surroundings on another.
struct Function {
    runtime: Runtime,
    app: Router,
    with_key: String,
    on_credits: String,
    stop: Option<oneshot::Sender<()>>,
    surroundings: Option<JoinHandle<()>>,
    /// The allocations before its first call.
    started: AllocationInfo,
}

/// The function's dependencies and tokens.
struct Setup {
    deps: Box<dyn FnOnce() -> Deps + Send>,
    with_key: String,
    on_credits: String,
}

impl Function {
    fn start() -> Self {
        Self::with(upstream(), &["OPENROUTER_BASE_URL"])
    }

    /// With this upstream in place of the simulators that the settings name.
    fn with(upstream: Router, replaced: &'static [&'static str]) -> Self {
        let (send_setup, setup) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let surroundings = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let upstream = Server::start(upstream).await.unwrap();
                let system = System::start(Options::default()).await.unwrap();
                send_setup.send(set_up(&system, &upstream.url(), replaced).await).unwrap();
                // The test is over.
                let _ = stopped.await;
                system.stop().await;
            });
        });
        let setup: Setup = setup.recv().unwrap();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let mut app = None;
        let started = allocation_counter::measure(|| app = Some(ai_proxy::router((setup.deps)())));
        Self {
            app: app.unwrap(),
            started,
            runtime,
            with_key: setup.with_key,
            on_credits: setup.on_credits,
            stop: Some(stop),
            surroundings: Some(surroundings),
        }
    }

    /// The allocations of one call.
    fn allocations(&self, token: &str, body: &Bytes) -> AllocationInfo {
        let calls = |times: u64| {
            for _ in 0..times {
                self.runtime.block_on(self.call(token, body));
            }
        };
        calls(5);
        let all = allocation_counter::measure(|| calls(COUNTED));
        AllocationInfo {
            count_total: all.count_total / COUNTED,
            bytes_total: all.bytes_total / COUNTED,
            ..all
        }
    }

    /// Makes a successful call; returns the length of its response.
    async fn call(&self, token: &str, body: &Bytes) -> usize {
        let (status, length) = self.read(token, body, Duration::ZERO).await;
        assert_eq!(status, StatusCode::OK);
        length
    }

    /// Makes a call and, after a pause, reads its response to the end; returns its status and length.
    async fn read(&self, token: &str, body: &Bytes, pause: Duration) -> (StatusCode, usize) {
        let request = Request::post("/v1/chat/completions")
            .header(AUTHORIZATION, token)
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(body.clone()))
            .unwrap();
        let response = self.app.clone().oneshot(request).await.unwrap();
        let (status, mut body) = (response.status(), response.into_body());
        let mut length = 0;
        tokio::time::sleep(pause).await;
        // A body that broke off ends in an error.
        while let Some(Ok(frame)) = body.frame().await {
            length += frame.into_data().unwrap_or_default().len();
        }
        (status, length)
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(surroundings) = self.surroundings.take() {
            let ended = surroundings.join();
            assert!(ended.is_ok() || thread::panicking(), "the system stopped");
        }
    }
}

async fn set_up(system: &System, upstream: &str, replaced: &[&str]) -> Setup {
    let http = reqwest::Client::new();
    let put = async |path: &str, token: &str, body: serde_json::Value| {
        let request = http.put(format!("{}{path}", system.url()));
        let request = request.bearer_auth(token).body(body.to_string());
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
    };
    let accounts =
        [(WITH_KEY, json!({"plan": "enterprise"})), (ON_CREDITS, json!({"credits": "1000"}))];
    for (id, account) in accounts {
        put(&format!("/_dev/accounts/{id}"), "", account).await;
    }
    let with_key = system.token(WITH_KEY, "owner");
    let key = json!({"key": "sk-or-v1-usable-0123456789abcdef"});
    put("/v1/integrations/openrouter/key", &with_key, key).await;
    let mut settings = system.settings.clone();
    for setting in replaced {
        settings.insert((*setting).to_owned(), upstream.to_owned());
    }
    let connector = local::engines::connector();
    let aws = local::engines::aws_config(&settings).into_builder();
    let aws = aws.http_client(http_client_fn(move |_, _| connector.clone())).build();
    Setup {
        deps: Box::new(move || {
            let env = Env::from_pairs(settings);
            Deps::new(edge::Setup { env, clock: Clock::system(), aws }).unwrap()
        }),
        with_key: format!("Bearer {with_key}"),
        on_credits: format!("Bearer {}", system.token(ON_CREDITS, "owner")),
    }
}

/// An AI whose response depends on the model's name.
fn upstream() -> Router {
    let all_calls = std::sync::Arc::new(Barrier::new(CONCURRENT_CALLS));
    let answer = async move |body: Bytes| {
        let model = String::from_utf8_lossy(&body[..100.min(body.len())]).into_owned();
        if model.contains("together") {
            // Nobody gets a response before all calls have arrived.
            let all = tokio::time::timeout(Duration::from_secs(30), all_calls.wait()).await;
            assert!(all.is_ok(), "the calls did not come at once");
        }
        let long = if model.contains("long") { LONG } else { 100 };
        if model.contains("stream") {
            let chunk = Bytes::from(format!("data: {{\"choices\":[{}]}}\n\n", " ".repeat(9_000)));
            let chunks = std::iter::repeat_n(chunk, long / 9_000 + 1);
            let done = std::iter::once(Bytes::from_static(b"data: [DONE]\n\n"));
            let chunks = futures_util::stream::iter(
                chunks.chain(done).map(Ok::<_, std::convert::Infallible>),
            );
            return ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(chunks));
        }
        let content = "w".repeat(long);
        let answer = json!({"id": "gen-1", "choices": [{"message": {"content": content}}]});
        ([(CONTENT_TYPE, "application/json")], Body::from(answer.to_string()))
    };
    Router::new()
        .route(
            "/chat/completions",
            post(move |body| {
                let answer = answer.clone();
                async move { answer(body).await }
            }),
        )
        .layer(axum::extract::DefaultBodyLimit::disable())
}

/// A call whose content has this length; the model's name says whether it is streamed.
fn chat_of(model: &str, content: usize) -> Bytes {
    chat(model, model.contains("stream"), &"w".repeat(content))
}

fn chat(model: &str, stream: bool, content: &str) -> Bytes {
    let messages = [json!({"role": "user", "content": content})];
    // The model comes first, because upstream looks only at the beginning.
    let messages = serde_json::to_string(&messages).unwrap();
    let body = format!("{{\"model\":\"{model}\",\"stream\":{stream},\"messages\":{messages}}}");
    Bytes::from(body)
}

/// The limits are a tenth above the last count: 606 and 171 kB for a call on the user's own key,
/// most of them in the SDK's read of the account; 2,388 and 376 kB on credits, most of them in the
/// SDK's writes.
#[test]
fn a_call_allocates_within_bounds() {
    let function = Function::start();
    let (with_key, on_credits) = (&function.with_key, &function.on_credits);
    let limits = [
        (with_key, "short", 670, 189_000),
        (with_key, "stream", 670, 189_000),
        (on_credits, "openai/gpt-4o-mini", 2_630, 414_000),
    ];
    for (payer, model, times, bytes) in limits {
        let each = function.allocations(payer, &chat_of(model, 100));
        assert!(each.count_total <= times, "{model}: {each:?}");
        assert!(each.bytes_total <= bytes, "{model}: {each:?}");
    }
}

/// The function's own start, without the AWS configuration and the runtime: 989 allocations, which
/// keep 151 kB.
#[test]
fn a_start_allocates_within_bounds() {
    let started = Function::start().started;
    assert!(started.count_total <= 1_090, "{started:?}");
    assert!(started.bytes_current <= 166_000, "{started:?}");
}

#[test]
fn a_body_is_not_copied() {
    let function = Function::start();
    let of = |model, content| function.allocations(&function.with_key, &chat_of(model, content));
    let small = of("short", 100);
    let long = of("short", LONG);
    let more = long.bytes_total.saturating_sub(small.bytes_total);
    assert!(more < 10_000, "a long request: {more} bytes more");
    // Reading from a connection needs a buffer, but reuses it.
    for model in ["long", "stream-long"] {
        let long = of(model, 100);
        let more = long.bytes_total.saturating_sub(small.bytes_total);
        assert!(more < 1_000_000, "a long response: {more} bytes more");
    }
}

/// On one thread, a call that blocked outside its future would keep the others from being sent.
#[test]
fn calls_wait_side_by_side_on_one_thread() {
    let function = Function::start();
    for model in ["together", "stream-together"] {
        let body = chat_of(model, 100);
        let calls = (0..CONCURRENT_CALLS).map(|_| function.call(&function.with_key, &body));
        let answered = function.runtime.block_on(join_all(calls));
        assert_eq!(answered.len(), CONCURRENT_CALLS, "{model}");
    }
}
