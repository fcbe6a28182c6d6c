//! Logs: one JSON object per line on standard output, with the fields of all spans around it, so
//! that every line names its request and, within a call, its call.

use std::fmt;
use std::sync::Once;

use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter};
use tracing_subscriber::registry::{LookupSpan, Scope};

use crate::clock::Clock;
use crate::settings::Env;

/// What holds whatever the level. Libraries that show events, requests, answers or headers, and with
/// them keys and tokens, in their finest logs are held at `warn`; metrics are always there.
const ALWAYS: [&str; 10] = [
    "metric=info",
    "aws_config=warn",
    "aws_runtime=warn",
    "aws_sigv4=warn",
    "aws_smithy_runtime=warn",
    "aws_smithy_runtime_api=warn",
    "hyper_util=warn",
    "lambda_http=warn",
    "lambda_runtime=warn",
    "reqwest=warn",
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
    init_with_default("info");
}

/// Like [`init`], with another level where `LOG_LEVEL` is not set.
pub fn init_with_default(level: &'static str) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mut env = Env::process();
        let asked = env.text_or("LOG_LEVEL", level);
        let malformed = asked.parse::<LevelFilter>().is_err();
        let subscriber = subscriber(
            filter(if malformed { level } else { &asked }),
            env.optional("AWS_LAMBDA_FUNCTION_NAME"),
            std::io::stdout,
        );
        // Somebody else's subscriber, as a test may have set one, stays.
        if tracing::subscriber::set_global_default(subscriber).is_ok() && malformed {
            tracing::warn!(
                level,
                "LOG_LEVEL is not a level; logging at the default one"
            );
        }
    });
}

/// Everything of `level`, less what may show a key.
pub fn filter(level: &str) -> EnvFilter {
    let directives = ALWAYS.iter().filter_map(|directive| directive.parse().ok());
    directives.fold(EnvFilter::new(level), EnvFilter::add_directive)
}

fn subscriber<W>(
    filter: EnvFilter,
    function: Option<String>,
    writer: W,
) -> impl Subscriber + Send + Sync + 'static
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .fmt_fields(JsonFields::new())
        .event_format(Line { function })
        .with_writer(writer)
        .finish()
}

/// One event as one flat JSON object. The event's own fields win over those of its spans, inner
/// spans over outer ones.
struct Line {
    function: Option<String>,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Map::new();
        if let Some(function) = &self.function {
            line.insert("function".to_owned(), Value::from(function.as_str()));
        }
        for span in context.event_scope().into_iter().flat_map(Scope::from_root) {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<N>>();
            let fields = fields.and_then(|fields| serde_json::from_str(&fields.fields).ok());
            line.extend(fields.unwrap_or_else(Map::new));
        }
        event.record(&mut Fields(&mut line));
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        line.insert("timestamp".to_owned(), Value::from(time));
        let metadata = event.metadata();
        line.insert("level".to_owned(), Value::from(metadata.level().as_str()));
        line.insert("target".to_owned(), Value::from(metadata.target()));
        if metadata.target() == METRIC {
            embed(&mut line);
        }
        writeln!(writer, "{}", Value::Object(line))
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
            static SECOND: LazyLock<Dispatch> =
                LazyLock::new(|| Dispatch::new(subscriber(EnvFilter::new("off"), None, io::sink)));
            LazyLock::force(&SECOND);

            let log = Self::default();
            let writer = log.clone();
            let function = Some("key-save".to_owned());
            let subscriber = subscriber(EnvFilter::new("info"), function, move || writer.clone());
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
