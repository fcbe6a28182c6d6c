//! Logs: one JSON object per line on standard output, with the fields of all spans around it, so
//! that every line names its request and, within a call, its call.

use std::fmt;
use std::io::Write as _;
use std::sync::Once;

use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
pub use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::{LookupSpan, Registry, Scope};

use crate::clock::Clock;
use crate::settings::Env;

/// What holds whatever the level. Libraries that show events, requests, answers or headers, and with
/// them keys and tokens, in their finest logs are held at `warn`; metrics are always there.
const ALWAYS: [(&str, Level); 10] = [
    (METRIC, Level::INFO),
    ("aws_config", Level::WARN),
    ("aws_runtime", Level::WARN),
    ("aws_sigv4", Level::WARN),
    ("aws_smithy_runtime", Level::WARN),
    ("aws_smithy_runtime_api", Level::WARN),
    ("hyper_util", Level::WARN),
    ("lambda_http", Level::WARN),
    ("lambda_runtime", Level::WARN),
    ("reqwest", Level::WARN),
];

/// The target of the lines that count something.
const METRIC: &str = "metric";
/// Where the metrics are in `CloudWatch`. `infra/template.yaml` names it in its alarms.
const NAMESPACE: &str = "GretaByok";

/// Counts something that operators watch: one line with `metric` and `value`, whatever `LOG_LEVEL` says. It
/// is in `CloudWatch`'s [embedded metric format], so that it is a metric of its function and nothing else:
/// more dimensions would cost more and tell less than the line itself.
///
/// [embedded metric format]: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
pub fn metric(name: &'static str, value: u64) {
    tracing::info!(target: METRIC, metric = name, value, "metric");
}

/// Makes a metric of a line that counts something.
fn embed(line: &mut Map<String, Value>) {
    let [Some(name), Some(value)] = ["metric", "value"].map(|field| line.get(field).cloned())
    else {
        return;
    };
    let format = json!({
        "Timestamp": Clock::system().now().as_millisecond(),
        "CloudWatchMetrics": [{
            "Namespace": NAMESPACE,
            "Dimensions": [["function"]],
            "Metrics": [{"Name": name, "Unit": "Count"}],
        }],
    });
    line.insert("_aws".to_owned(), format);
    line.extend(name.as_str().map(|name| (name.to_owned(), value)));
}

/// Starts logging at the level `LOG_LEVEL` (`error`, `warn`, `info`, `debug` or `trace`; `info`). It
/// is a level and no filter, so that it cannot name a library that must stay quiet. Further calls do
/// nothing.
pub fn init() {
    init_with_default(LevelFilter::INFO);
}

/// Like [`init`], with another level where `LOG_LEVEL` is not set.
pub fn init_with_default(level: LevelFilter) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mut env = Env::process();
        let asked = env.optional("LOG_LEVEL");
        let asked = asked.map(|asked| asked.parse::<LevelFilter>().ok());
        let function = env.optional("AWS_LAMBDA_FUNCTION_NAME");
        let filter = filter(asked.flatten().unwrap_or(level));
        let subscriber = subscriber(filter, function, std::io::stdout);
        // Somebody else's subscriber, as a test may have set one, stays.
        let set = tracing::subscriber::set_global_default(subscriber).is_ok();
        if set && asked == Some(None) {
            tracing::warn!(
                %level,
                "LOG_LEVEL is not a level; logging at the default one"
            );
        }
    });
}

/// Everything of `level`, less what may show a key.
pub fn filter(level: LevelFilter) -> Targets {
    let filter = Targets::new().with_default(level);
    filter.with_targets(ALWAYS)
}

fn subscriber<W>(
    filter: Targets,
    function: Option<String>,
    writer: W,
) -> impl Subscriber + Send + Sync + 'static
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    Registry::default()
        .with(filter)
        .with(Lines { function, writer })
}

/// Writes each event as one flat JSON object. The event's own fields win over those of its spans, inner
/// spans over outer ones.
struct Lines<W> {
    function: Option<String>,
    writer: W,
}

/// What a span's fields are, kept with it.
struct SpanFields(Map<String, Value>);

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Map::new();
            attributes.record(&mut Fields(&mut fields));
            span.extensions_mut().insert(SpanFields(fields));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(SpanFields(fields)) = span.extensions_mut().get_mut()
        {
            values.record(&mut Fields(fields));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut line = Map::new();
        if let Some(function) = &self.function {
            line.insert("function".to_owned(), Value::from(function.as_str()));
        }
        let spans = context.event_scope(event);
        for span in spans.into_iter().flat_map(Scope::from_root) {
            if let Some(SpanFields(fields)) = span.extensions().get() {
                let fields = fields.iter();
                line.extend(fields.map(|(name, value)| (name.clone(), value.clone())));
            }
        }
        event.record(&mut Fields(&mut line));
        let metadata = event.metadata();
        let own = [
            ("timestamp", Clock::system().now().to_string()),
            ("level", metadata.level().to_string()),
            ("target", metadata.target().to_owned()),
        ];
        line.extend(own.map(|(name, text)| (name.to_owned(), Value::from(text))));
        if metadata.target() == METRIC {
            embed(&mut line);
        }
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        // In one write, so that lines of two threads do not mix. There is nowhere to tell of a failure.
        let _ = self
            .writer
            .make_writer_for(metadata)
            .write_all(text.as_bytes());
    }
}

struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: Value) {
        self.0.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, Value::from(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Value::from(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, Value::from(value));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io;
    use std::sync::{Arc, LazyLock, Mutex};

    use serde_json::json;
    use tracing::Dispatch;
    use tracing::subscriber::DefaultGuard;

    use super::*;

    /// What this thread logs while the guard lives.
    #[derive(Clone, Default)]
    pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        pub(crate) fn capture() -> (Self, DefaultGuard) {
            // With only one subscriber alive, tracing asks that of whatever thread comes first to a
            // new log line, and so nobody's; with two, all.
            static SECOND: LazyLock<Dispatch> = LazyLock::new(|| {
                Dispatch::new(subscriber(filter(LevelFilter::OFF), None, io::sink))
            });
            LazyLock::force(&SECOND);

            let log = Self::default();
            let writer = log.clone();
            let function = Some("key-save".to_owned());
            let subscriber =
                subscriber(filter(LevelFilter::INFO), function, move || writer.clone());
            (log, tracing::subscriber::set_default(subscriber))
        }

        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }

        pub(crate) fn lines(&self) -> Vec<Value> {
            let text = self.text();
            text.lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect()
        }
    }

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_line_has_the_fields_of_its_spans_also_in_a_task() {
        let (log, _guard) = Log::capture();
        let request = tracing::info_span!("request", request_id = "req_1", path = "/");
        let task = request.in_scope(|| {
            let call = tracing::info_span!(
                "call",
                call_id = "call_1",
                path = "/inner",
                late = tracing::field::Empty
            );
            call.record("late", 7);
            call.in_scope(|| {
                crate::spawn(async { tracing::warn!(tokens = 3, ok = true, "said \"so\"") })
            })
        });
        task.await.unwrap();
        tracing::debug!("below the level");
        let [line] = log.lines().try_into().unwrap();
        for (name, value) in [
            ("request_id", json!("req_1")),
            ("call_id", json!("call_1")),
            ("path", json!("/inner")),
            ("late", json!(7)),
            ("tokens", json!(3)),
            ("ok", json!(true)),
            ("message", json!("said \"so\"")),
            ("level", json!("WARN")),
            ("function", json!("key-save")),
        ] {
            assert_eq!(line[name], value, "{name}");
        }
        assert!(
            line["timestamp"]
                .as_str()
                .unwrap()
                .parse::<jiff::Timestamp>()
                .is_ok()
        );
    }

    /// As `CloudWatch`'s specification of the embedded metric format asks for it.
    #[test]
    fn a_metric_is_one_of_cloudwatch() {
        let (log, _guard) = Log::capture();
        super::metric("holds_expired", 3);
        tracing::info!(metric = "no", value = 3, "only speaks of one");
        let [line, other] = log.lines().try_into().unwrap();
        assert_eq!(other.get("_aws"), None);
        assert_eq!(line["holds_expired"], 3);
        assert_eq!(line["function"], "key-save");
        assert!(line["_aws"]["Timestamp"].as_i64().unwrap() > 1_700_000_000_000);
        let directive = json!([{
            "Namespace": "GretaByok",
            "Dimensions": [["function"]],
            "Metrics": [{"Name": "holds_expired", "Unit": "Count"}],
        }]);
        assert_eq!(line["_aws"]["CloudWatchMetrics"], directive);
    }
}
