//! A call's memory does not grow with what an upstream sends.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;
use http::header::CONTENT_TYPE;

use super::{Function, chat};

/// Memory limit of a call, in bytes; some upstreams send more.
const LIMIT: u64 = 24_000_000;
/// Time that the client does not read.
const PAUSE: Duration = Duration::from_millis(100);

/// What an upstream sends: a beginning, and a part repeated until this many bytes were sent.
struct Flood {
    name: &'static str,
    status: StatusCode,
    media_type: &'static str,
    start: &'static str,
    part: String,
    end: &'static str,
    bytes: usize,
}

impl Flood {
    fn respond(&self) -> Response {
        // In pieces of about 64 kB, so that the upstream itself needs little memory.
        let piece = Bytes::from(self.part.repeat((65_536 / self.part.len()).max(1)));
        let times = self.bytes / piece.len();
        let parts = std::iter::once(Bytes::from(self.start))
            .chain(std::iter::repeat_n(piece, times))
            .chain(std::iter::once(Bytes::from(self.end)));
        let body = Body::from_stream(stream::iter(parts.map(Ok::<_, Infallible>)));
        (self.status, [(CONTENT_TYPE, self.media_type)], body).into_response()
    }
}

const MB: usize = 1_000_000;

fn floods() -> Vec<Flood> {
    let json = |name, status, start, part: &str, end| Flood {
        name,
        status,
        media_type: "application/json",
        start,
        part: part.to_owned(),
        end,
        bytes: 4 * MB,
    };
    let events = |name, start, part: &str, bytes| Flood {
        name,
        status: StatusCode::OK,
        media_type: "text/event-stream",
        start,
        part: part.to_owned(),
        end: "\n\ndata: [DONE]\n\n",
        bytes,
    };
    let ok = StatusCode::OK;
    let failed = StatusCode::INTERNAL_SERVER_ERROR;
    let usage = "data: {\"choices\":[],\"usage\":{\"cost\":0.001}}\n\n";
    let content = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n";
    let numbers = format!("data: {{\"choices\":[{}0]}}\n\n", "0,".repeat(500_000));
    let members = format!("data: {{\"choices\":[{}{{}}]}}\n\n", "{\"a\":{}},".repeat(100_000));
    vec![
        json("a list of choices", ok, "{\"choices\":[0", ",0", "]}"),
        json("a list of errors", ok, "{\"error\":[0", ",0", "]}"),
        json("nested lists", ok, "{\"choices\":[[]", ",[[]]", "]}"),
        json("a member without an end", ok, "{\"choices\":[],\"x\":\"", "y", ""),
        json("an error's list", failed, "{\"error\":[0", ",0", "]}"),
        Flood {
            bytes: 28 * MB,
            ..json("an error without an end", failed, "{\"error\":\"", "y", "")
        },
        Flood { bytes: 28 * MB, ..json("a body without an end", ok, "{\"x\":\"", "y", "\"}") },
        events("comments", "", ": a comment\n\n", 28 * MB),
        events("comments after content", content, ": a comment\n\n", 28 * MB),
        events("comments after the usage", usage, ": a comment\n\n", 28 * MB),
        events("a line without an end", content, "y", 28 * MB),
        events("a list in an event", content, &numbers, 28 * MB),
        events("objects in an event", content, &members, 28 * MB),
        events("an event of many lines", content, "data:\n", 6 * MB),
        events("usage in every event", usage, usage, 28 * MB),
        events("events without content", "", "data: {\"choices\":[]}\n\n", 28 * MB),
        events("names of events", content, "event: x\n", 28 * MB),
    ]
}

fn hostile() -> Router {
    let respond = async |body: String| {
        let named = |flood: &Flood| body.contains(&format!("\"{}\"", flood.name));
        floods()
            .iter()
            .find(|flood| named(flood))
            .map_or(StatusCode::NOT_FOUND.into_response(), Flood::respond)
    };
    Router::new().route("/chat/completions", post(respond))
}

#[test]
fn a_call_needs_little_memory_whatever_an_upstream_sends() {
    let function = Function::with(hostile(), &["OPENROUTER_BASE_URL", "DEFAULT_AI_BASE_URL"]);
    for (payer, token) in [("OpenRouter", &function.with_key), ("credits", &function.on_credits)] {
        for flood in floods() {
            let streamed = flood.media_type == "text/event-stream";
            let model = "openai/gpt-4o-mini";
            let body = chat(model, streamed, flood.name);
            let used = allocation_counter::measure(|| {
                function.runtime.block_on(function.read(token, &body, PAUSE));
            });
            assert!(used.bytes_max < LIMIT, "{payer}, {}: {used:?}", flood.name);
        }
    }
}
