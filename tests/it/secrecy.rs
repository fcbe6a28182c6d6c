//! The key's text is only in Secrets Manager and on the wire to OpenRouter.

use std::fmt::Write as _;
use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};

use edge::telemetry::LevelFilter;
use http::Method;
use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt;

use crate::add_on::{DAY, bought};
use crate::support::{World, hello};

/// Part of the text that the simulator and this test put wherever Stripe sends free text.
const STRIPE_TEXT: &str = "someone_at_example";
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

pub(crate) async fn all_items(world: &World) -> String {
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
        note(owner.call(Method::PUT, path, &body).await);
    }
    note(owner.call(Method::PUT, path, &json!(CANARY)).await);
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

/// Stripe's text may contain a caller's input: it is neither stored nor logged.
#[tokio::test]
async fn stripes_text_appears_nowhere() {
    let log = log();
    let world = bought().await;
    let stripe = world.stripe();
    let mut seen = String::new();
    for (path, status) in [("/payment_intents", 400), ("/confirm", 500), ("/confirm", 400)] {
        stripe.fail_next(path, status, 1);
        world.tick_when_due().await;
        for _ in 0..3 {
            world.tick_after(DAY / 2).await;
        }
    }
    stripe.fail_next("/checkout/sessions", 400, 2);
    let owner = world.owner("acme");
    let reply = owner.call(Method::POST, "/v1/credits/checkout", &json!({"usd": "5"})).await;
    assert_eq!(reply.status, 502);
    seen.push_str(&reply.text());
    stripe.webhooks.until_delivered().await;
    for (number, event) in stripe.webhooks.events().into_iter().enumerate() {
        let mut body: Value = serde_json::from_str(&event.body).unwrap();
        body["id"] = json!(format!("evt_text_{number}"));
        let object = body["data"]["object"].as_object_mut().unwrap();
        let error = json!({"code": STRIPE_TEXT, "decline_code": STRIPE_TEXT, "type": STRIPE_TEXT});
        object.insert("last_payment_error".to_owned(), error);
        for name in ["currency", "status", "payment_status", "mode", "url", "description"] {
            object.insert(name.to_owned(), json!(STRIPE_TEXT));
        }
        for kind in [json!(event.kind), json!(STRIPE_TEXT)] {
            body["type"] = kind;
            let changed = local::stripe::Event { body: body.to_string(), ..event.clone() };
            stripe.webhooks.deliver(&changed).await.unwrap();
            body["id"] = json!(format!("evt_text_of_{number}"));
        }
    }
    let broken = local::stripe::Event {
        body: format!("{{\"id\": {STRIPE_TEXT}}}"),
        ..stripe.webhooks.events().remove(0)
    };
    assert_eq!(stripe.webhooks.deliver(&broken).await.unwrap(), 400);
    seen.push_str(&all_items(&world).await);
    assert!(seen.contains("evt_text_0") && seen.contains("evt_text_of_0"), "the events are stored");
    assert!(!seen.contains(STRIPE_TEXT), "in a response or a table");
    let logged = log.text();
    assert!(logged.contains("Stripe did not carry out a call"), "the log is captured");
    let lines = logged.lines().filter(|line| line.contains(STRIPE_TEXT));
    assert_eq!(lines.collect::<Vec<_>>(), [""; 0]);
}
