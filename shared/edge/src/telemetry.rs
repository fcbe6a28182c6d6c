//! Logs: one JSON object per line, with the fields of the spans around it (request, AI call).

use std::fmt;
use std::sync::Once;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tracing::{Event, Level, Subscriber};
pub use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::{
    FmtContext, FormatEvent, FormatFields as _, FormattedFields, MakeWriter,
};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::{LookupSpan, Registry, Scope};

use crate::clock::Clock;
use crate::settings::Env;

/// Libraries whose debug logs show events, requests, responses or headers, and with them keys and
/// tokens: they stay at `warn`, whatever `LOG_LEVEL` is.
const MUTED: &str = "
    aws_config aws_runtime aws_sigv4 aws_smithy_http_client aws_smithy_runtime
    aws_smithy_runtime_api hyper_util lambda_http lambda_runtime reqwest
";

const METRIC: &str = "metric";
/// The metrics' namespace in `CloudWatch`, which the alarms in `infra/template.yaml` name.
const NAMESPACE: &str = "GretaByok";

/// Counts something that operators watch: one line with `metric` and `value` at any `LOG_LEVEL`, in
/// `CloudWatch`'s [embedded metric format]. The function is its only dimension; more would cost
/// more and say less than the line itself.
///
/// [embedded metric format]: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format.html
pub fn metric(name: &'static str, value: u64) {
    tracing::info!(target: METRIC, metric = name, value, "metric");
}

/// Starts logging at the level `LOG_LEVEL` (`error`, `warn`, `info`, `debug` or `trace`; `info`),
/// which is not a filter, so that it cannot unmute a library. Further calls do nothing.
pub fn init() {
    init_with_default(LevelFilter::INFO);
}

/// Like [`init`], with another default level.
pub fn init_with_default(level: LevelFilter) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mut env = Env::process();
        let wanted = env.optional("LOG_LEVEL");
        let wanted = wanted.map(|wanted| wanted.parse::<LevelFilter>().ok());
        let function = env.optional("AWS_LAMBDA_FUNCTION_NAME");
        let filter = filter(wanted.flatten().unwrap_or(level));
        let subscriber = subscriber(filter, function, std::io::stdout);
        // A subscriber that a test has set stays.
        let set = tracing::subscriber::set_global_default(subscriber).is_ok();
        if set && wanted == Some(None) {
            tracing::warn!(%level, "LOG_LEVEL is not a level; logging at the default one");
        }
    });
}

/// Everything at `level`, except the muted libraries, and metrics always.
pub fn filter(level: LevelFilter) -> Targets {
    let muted = MUTED.split_whitespace().map(|library| (library, Level::WARN));
    Targets::new().with_default(level).with_targets(muted).with_target(METRIC, Level::INFO)
}

fn subscriber<W>(
    filter: Targets,
    function: Option<String>,
    writer: W,
) -> impl Subscriber + Send + Sync + 'static
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer()
        .fmt_fields(JsonFields::new())
        .event_format(FlatJson { function })
        .with_writer(writer);
    Registry::default().with(filter).with(lines)
}

/// Writes each event as one flat JSON object: the library's own JSON nests the fields of spans, but
/// queries and metrics need them at the top. The event's fields win over those of its spans, and
/// inner spans over outer ones.
struct FlatJson {
    function: Option<String>,
}

impl<S> FormatEvent<S, JsonFields> for FlatJson
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let now = Clock::system().now();
        let mut line = Map::new();
        if let Some(function) = &self.function {
            line.insert("function".to_owned(), json!(function));
        }
        for span in context.event_scope().into_iter().flat_map(Scope::from_root) {
            if let Some(fields) = span.extensions().get::<FormattedFields<JsonFields>>() {
                line.extend(object(fields));
            }
        }
        line.insert("timestamp".to_owned(), json!(now));
        line.insert("level".to_owned(), json!(metadata.level().as_str()));
        line.insert("target".to_owned(), json!(metadata.target()));
        let mut fields = String::new();
        context.format_fields(Writer::new(&mut fields), event)?;
        line.extend(object(&fields));
        if metadata.target() == METRIC {
            embed_metric(&mut line, now);
        }
        writeln!(writer, "{}", Value::Object(line))
    }
}

fn object(json: &str) -> Map<String, Value> {
    serde_json::from_str(json).unwrap_or_default()
}

fn embed_metric(line: &mut Map<String, Value>, at: Timestamp) {
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
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io;
    use std::sync::{Arc, LazyLock, Mutex};

    use serde_json::json;
    use tracing::Dispatch;
    use tracing::subscriber::DefaultGuard;

    use super::*;

    /// This thread's log lines while the guard lives.
    #[derive(Clone, Default)]
    pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        pub(crate) fn capture() -> (Self, DefaultGuard) {
            // With a single subscriber alive, the first thread to reach a log line decides whether
            // it is wanted, and that thread may have no subscriber; with two, tracing asks both.
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
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
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
        assert!(line["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    }

    /// As `CloudWatch`'s specification of the embedded metric format requires.
    #[test]
    fn metrics_use_cloudwatchs_embedded_format() {
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
