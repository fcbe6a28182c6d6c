//! The key's text is only in Secrets Manager and on the wire to OpenRouter.

use std::fmt::Write as _;
use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};

use edge::telemetry::LevelFilter;
use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt;

use crate::support::{World, hello};

const CANARY: &str = "sk-or-v1-canary-7f3a9c51e2d84b60";

/// Everything that this process logs, at the finest level.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Our own crates log at `trace`; libraries at the most verbose level that `edge` allows.
pub(crate) fn log() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let log = Log::default();
        subscriber(log.clone()).init();
        log
    })
}

/// The log of this thread only, while the guard lives.
pub(crate) fn log_of_this_thread() -> (Log, impl Drop) {
    // With a single subscriber, tracing would cache which lines it wants.
    log();
    let log = Log::default();
    let guard = subscriber(log.clone()).set_default();
    (log, guard)
}

fn subscriber(log: Log) -> impl SubscriberInitExt {
    let lines = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(log);
    lines.finish().with(edge::telemetry::filter(LevelFilter::TRACE))
}

async fn all_items(world: &World) -> String {
    let mut text = String::new();
    for table in ["AccountsTable", "LedgerTable", "HoldsTable", "ChargesTable", "WebhooksTable"] {
        let scanned = world.engines().dynamodb().scan().table_name(table).send().await;
        let _ = write!(text, "{:?}", scanned.unwrap().items());
    }
    text
}

#[tokio::test]
async fn the_canary_key_appears_nowhere() {
    let log = log();
    let world = World::start().await;
    world.set("acme", json!({"plan": "enterprise", "credits": "7"})).await;
    let owner = world.owner("acme");
    let seen = std::cell::RefCell::new(String::new());
    let note = |reply: crate::support::Reply| {
        let text = format!("{:?} {}", reply.headers, reply.text());
        seen.borrow_mut().push_str(&text);
    };
    for key in [
        format!("{CANARY} with words"),
        CANARY.replace("v1-canary", "v1-rejected-canary"),
        CANARY.replace("v1-canary", "v1-down-canary"),
        CANARY.to_owned(),
    ] {
        note(owner.save_key(&key).await);
    }
    let path = "/v1/integrations/openrouter/key";
    for body in
        [json!({"key": CANARY, "extra": CANARY}), json!({"kee": CANARY}), json!({"key": [CANARY]})]
    {
        note(owner.call(http::Method::PUT, path, &body).await);
    }
    note(owner.call(http::Method::PUT, path, &json!(CANARY)).await);
    note(owner.test_key().await);
    note(owner.get("/v1/integrations/openrouter").await);
    note(owner.get("/v1/models").await);
    for model in [
        "openai/gpt-4o-mini",
        "sim/status-401",
        "sim/status-403",
        "sim/status-500",
        "sim/reset",
        "sim/cut",
    ] {
        for streamed in [false, true] {
            let mut body = hello();
            body["model"] = json!(model);
            body["stream"] = json!(streamed);
            note(owner.chat(&body).await);
        }
    }
    note(owner.get("/v1/credits/ledger").await);
    note(owner.switch(json!({"always_use_key": true})).await);
    world.engines().fail_secrets(None, local::engines::SecretsFault::Internal);
    note(owner.save_key(CANARY).await);
    world.engines().heal_secrets();
    let shown = world.shown("acme").await.to_string();
    let stored = all_items(&world).await;
    note(owner.disconnect().await);
    let stored_after = all_items(&world).await;
    let seen = [seen.into_inner(), shown, stored, stored_after].concat();

    // Twelve characters from the middle of the key are enough to find it.
    let part = "7f3a9c51e2d8";
    assert!(!seen.contains(part), "in a response or a table");
    let logged = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(logged.contains("key saved"), "the log is captured");
    // Lines logged while a body is read also name the call.
    let ended = logged.lines().filter(|line| line.contains("stream ended"));
    let of_a_call = |line: &str| line.contains("call_id=");
    assert!(ended.clone().count() > 0 && ended.clone().all(of_a_call));
    assert!(!logged.contains(part), "in the log");
    let platform = "greta-platform-key";
    assert!(!seen.contains(platform) && !logged.contains(platform));
}
