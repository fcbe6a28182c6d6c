//! An upstream that responds at once, as OpenRouter would, so that only the round trip is
//! measured.
//!
//! A streamed response has [`CHUNKS`] chunks of content, each with its creation time, then one with
//! the usage, then `[DONE]`. The model determines the interval between them.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::CONTENT_TYPE;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response};

use crate::{Error, nanoseconds};

pub(crate) const CHUNKS: u32 = 20;
/// Chunks come at once.
pub(crate) const MODEL: &str = "bench/model";
/// Chunks come at intervals of [`APART`].
pub(crate) const SLOW_MODEL: &str = "bench/slow";
const APART: Duration = Duration::from_millis(5);
/// After the first chunk nothing comes for [`HELD`].
pub(crate) const HELD_MODEL: &str = "bench/held";
const HELD: Duration = Duration::from_secs(30);

const KEY: &str =
    r#"{"data":{"label":"sk-or-v1-ben...nch","usage":0,"limit":null,"limit_remaining":null}}"#;
const ANSWER: &str = r#"{"id":"gen-bench","object":"chat.completion","created":1764000000,"model":"bench/model","provider":"bench","choices":[{"index":0,"finish_reason":"stop","native_finish_reason":"stop","message":{"role":"assistant","content":"A gateway stands between those who ask and those who answer, and should add nothing to either but the answer to the question of who pays.","refusal":null}}],"usage":{"prompt_tokens":24,"completion_tokens":29,"total_tokens":53,"cost":0.000053}}"#;
const END: &str = "data: {\"id\":\"gen-bench\",\"object\":\"chat.completion.chunk\",\"model\":\"bench/model\",\"choices\":[],\"usage\":{\"prompt_tokens\":24,\"completion_tokens\":20,\"total_tokens\":44,\"cost\":0.000044}}\n\ndata: [DONE]\n\n";

type Body = Either<Full<Bytes>, UnsyncBoxBody<Bytes, Infallible>>;

pub(crate) async fn run(port: u16) -> Result<(), Error> {
    crate::serve::serve(port, answer).await
}

async fn answer(request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    let text = match request.uri().path() {
        "/models" => models(),
        "/key" => KEY.to_owned(),
        _ => {
            let body = request.into_body().collect().await?.to_bytes();
            let has = |text: &str| memchr::memmem::find(&body, text.as_bytes()).is_some();
            if has("\"stream\":true") {
                let held = has(HELD_MODEL).then_some(HELD);
                return Ok(streamed(has(SLOW_MODEL).then_some(APART).or(held)));
            }
            ANSWER.to_owned()
        }
    };
    let mut response = Response::new(Either::Left(Full::from(text)));
    set_headers(&mut response, "application/json");
    Ok(response)
}

fn set_headers(response: &mut Response<Body>, content_type: &'static str) {
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    let id = http::HeaderValue::from_static("gen-bench");
    headers.insert("x-generation-id", id);
}

fn streamed(apart: Option<Duration>) -> Response<Body> {
    let frames = stream::unfold(0, move |made| async move {
        if let (Some(apart), true) = (apart, made > 0) {
            tokio::time::sleep(apart).await;
        }
        let text = match made.cmp(&CHUNKS) {
            std::cmp::Ordering::Less => chunk(),
            std::cmp::Ordering::Equal => END.to_owned(),
            std::cmp::Ordering::Greater => return None,
        };
        Some((Ok(Frame::data(Bytes::from(text))), made + 1))
    });
    let body = StreamBody::new(frames);
    let mut response = Response::new(Either::Right(UnsyncBoxBody::new(body)));
    set_headers(&mut response, "text/event-stream");
    response
}

fn chunk() -> String {
    let now = nanoseconds();
    format!(
        "data: {{\"id\":\"gen-bench\",\"object\":\"chat.completion.chunk\",\"model\":\"bench/model\",\
         \"created_at\":{now},\"choices\":[{{\"index\":0,\"delta\":{{\"role\":\"assistant\",\"content\":\" word\"}},\
         \"finish_reason\":null}}]}}\n\n"
    )
}

fn models() -> String {
    let model = |id: &str| {
        serde_json::json!({
            "id": id,
            "context_length": 128_000,
            "pricing": {"prompt": "0.000001", "completion": "0.000001"},
        })
    };
    serde_json::json!({"data": [model(MODEL), model(SLOW_MODEL), model(HELD_MODEL)]}).to_string()
}
