//! Logs: one JSON object per line on standard output, with the fields of all spans around it, so
//! that every line names its request and, within a call, its call.

use std::fmt;
use std::io::Write as _;
use std::sync::Once;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
pub use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::{LookupSpan, Registry};

use crate::clock::Clock;
use crate::settings::Env;

/// What holds whatever the level. Libraries that show events, requests, answers or headers, and with
/// them keys and tokens, in their finest logs are held at `warn`; metrics are always there.
const ALWAYS: [(&str, Level); 9] = [
    (METRIC, Level::INFO),
    ("aws_config", Level::WARN),
    ("aws_runtime", Level::WARN),
    ("aws_sigv4", Level::WARN),
    ("aws_smithy_runtime", Level::WARN),
    ("aws_smithy_runtime_api", Level::WARN),
    ("hyper_util", Level::WARN),
    ("lambda_http", Level::WARN),
    ("lambda_runtime", Level::WARN),
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
fn embedded(line: &[u8], at: Timestamp) -> serde_json::Result<Vec<u8>> {
    let mut line: Map<String, Value> = serde_json::from_slice(line)?;
    if let [Some(Value::String(name)), Some(value)] =
        ["metric", "value"].map(|field| line.get(field).cloned())
    {
        let format = json!({
            "Timestamp": at.as_millisecond(),
            "CloudWatchMetrics": [{
                "Namespace": NAMESPACE,
                "Dimensions": [["function"]],
                "Metrics": [{"Name": name, "Unit": "Count"}],
            }],
        });
        line.insert("_aws".to_owned(), format);
        line.insert(name, value);
    }
    let mut line = serde_json::to_vec(&line)?;
    line.push(b'\n');
    Ok(line)
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

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let now = Clock::system().now();
        let mut line = Fields::default();
        line.put("timestamp", &now);
        line.put("level", metadata.level().as_str());
        line.put("target", metadata.target());
        event.record(&mut line);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<Fields>() {
                line.take_in(fields);
            }
        }
        if let Some(function) = &self.function {
            line.put_if_new("function", function);
        }
        let mut line = line.into_object();
        if metadata.target() == METRIC {
            line = embedded(&line, now).unwrap_or(line);
        }
        // In one write, so that lines of two threads do not mix. There is nowhere to tell of a failure.
        let _ = self.writer.make_writer_for(metadata).write_all(&line);
    }
}

/// Named values as JSON text: of a span, kept with it, or of a line.
#[derive(Default)]
struct Fields {
    /// The values, one after the other.
    json: Vec<u8>,
    /// What each value is called, and where it ends.
    ends: Vec<(&'static str, usize)>,
}

impl Fields {
    fn put(&mut self, name: &'static str, value: &(impl Serialize + ?Sized)) {
        if serde_json::to_writer(&mut self.json, value).is_ok() {
            self.ends.push((name, self.json.len()));
        } else {
            // A part of it may have been written.
            self.json.truncate(self.end());
        }
    }

    fn put_if_new(&mut self, name: &'static str, value: &(impl Serialize + ?Sized)) {
        if !self.has(name) {
            self.put(name, value);
        }
    }

    /// Adds those whose names are new; of two of a name, the later one.
    fn take_in(&mut self, other: &Self) {
        for (at, (name, end)) in other.ends.iter().enumerate().rev() {
            if !self.has(name) {
                self.json.extend_from_slice(other.value(at, *end));
                self.ends.push((name, self.json.len()));
            }
        }
    }

    fn has(&self, name: &str) -> bool {
        self.ends.iter().any(|(other, _)| *other == name)
    }

    fn end(&self) -> usize {
        self.ends.last().map_or(0, |(_, end)| *end)
    }

    fn value(&self, at: usize, end: usize) -> &[u8] {
        let before = at.checked_sub(1).and_then(|before| self.ends.get(before));
        let start = before.map_or(0, |(_, end)| *end);
        self.json.get(start..end).unwrap_or_default()
    }

    /// One object, and the end of its line. Names are identifiers, which JSON does not escape.
    fn into_object(self) -> Vec<u8> {
        let names = self.ends.iter().map(|(name, _)| name.len() + 4);
        let mut line = Vec::with_capacity(self.json.len() + names.sum::<usize>() + 3);
        for (at, (name, end)) in self.ends.iter().enumerate() {
            line.extend_from_slice(if at == 0 { b"{\"" } else { b",\"" });
            line.extend_from_slice(name.as_bytes());
            line.extend_from_slice(b"\":");
            line.extend_from_slice(self.value(at, *end));
        }
        line.extend_from_slice(b"}\n");
        line
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), &value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field.name(), &value);
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
