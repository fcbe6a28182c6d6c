//! Malformed and unusual responses, byte by byte: each has one outcome per path.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Caller, KEY, Reply, World, hello};

/// An upstream that gives each call the same bytes, and then closes the connection.
#[derive(Clone)]
pub(crate) struct RawUpstream {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    response: Vec<Vec<u8>>,
    key_is_rejected: bool,
    /// Number of `POST` requests received.
    calls: usize,
}

impl RawUpstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let upstream = Self { url, state: Arc::default() };
        let serving = upstream.clone();
        edge::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                edge::spawn(serving.clone().serve(stream));
            }
        });
        upstream
    }

    /// Sets the chunks that later calls receive.
    pub(crate) fn respond(&self, chunks: Vec<Vec<u8>>) {
        self.state.lock().unwrap().response = chunks;
    }

    /// From now on, `GET /key` returns 401.
    pub(crate) fn reject_key(&self) {
        self.state.lock().unwrap().key_is_rejected = true;
    }

    /// Number of AI calls received.
    pub(crate) fn calls(&self) -> usize {
        self.state.lock().unwrap().calls
    }

    async fn serve(self, mut stream: TcpStream) {
        let mut request = vec![0; 64 * 1024];
        let read = stream.read(&mut request).await.unwrap_or_default();
        let request = String::from_utf8_lossy(&request[..read]).into_owned();
        if request.starts_with("GET") {
            let pricing = json!({"prompt": "0.000001", "completion": "0.000002"});
            let model = json!({"id": "m", "pricing": pricing, "context_length": 8_000});
            let key_is_rejected = self.state.lock().unwrap().key_is_rejected;
            let (status, body) = match request.split(' ').nth(1).unwrap_or_default() {
                "/v1/models" => (200, json!({"data": [model]}).to_string()),
                "/v1/key" if key_is_rejected => (401, String::new()),
                "/v1/key" => (200, json!({"data": {"label": "sk-or-v1-a...b"}}).to_string()),
                _ => (404, String::new()),
            };
            let length = body.len();
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n");
            let response = format!("{head}connection: close\r\n\r\n{body}");
            let _ = stream.write_all(response.as_bytes()).await;
            return;
        }
        let chunks = {
            let mut state = self.state.lock().unwrap();
            state.calls += 1;
            state.response.clone()
        };
        for chunk in chunks {
            if stream.write_all(&chunk).await.is_err() {
                return;
            }
            let _ = stream.flush().await;
            tokio::task::yield_now().await;
        }
    }
}

pub(crate) const JSON: &str = "content-type: application/json\r\n";
pub(crate) const SSE: &str = "content-type: text/event-stream\r\n";
const ANSWER: &str =
    r#"{"id":"gen-1","choices":[{"message":{"content":"x"}}],"usage":{"cost":0.001}}"#;

pub(crate) fn response(status: u16, head: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\nconnection: close\r\n{head}\r\n{body}").into_bytes()
}

/// A body that is shorter than its declared length.
fn cut(head: &str, body: &str) -> Vec<u8> {
    response(200, &format!("{head}content-length: {}\r\n", body.len() + 5), body)
}

async fn call(owner: &Caller<'_>, streamed: bool) -> Reply {
    let mut body = hello();
    body["model"] = json!("m");
    body["stream"] = json!(streamed);
    body["max_tokens"] = json!(50);
    owner.chat(&body).await
}

async fn on_credits() -> (World, RawUpstream) {
    let upstream = RawUpstream::start().await;
    let settings = [("DEFAULT_AI_BASE_URL", upstream.url.as_str()), ("DEFAULT_AI_MODEL", "m")];
    let world = World::with_settings(&settings).await;
    world.set("acme", json!({"credits": "1000"})).await;
    (world, upstream)
}

#[tokio::test]
async fn on_credits_each_odd_response_has_one_outcome() {
    let (world, upstream) = on_credits().await;
    let owner = world.owner("acme");
    let role = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
    let limited = r#"{"error":{"code":429,"message":"theirs"}}"#;
    let encoded = format!("{JSON}content-encoding: gzip\r\n");
    let released = (502, "default_ai_unavailable", "none");
    let looked_up = (424, "default_ai_failed", "greta_credits");
    let table = [
        ("an empty 200", false, response(200, "content-length: 0\r\n", ""), released),
        ("a 204", false, response(204, "", ""), released),
        ("an empty object", false, response(200, JSON, "{}"), released),
        ("no choices", false, response(200, JSON, r#"{"choices":[]}"#), released),
        (
            "only an error",
            false,
            response(200, JSON, limited),
            (429, "default_ai_rate_limited", "none"),
        ),
        ("not JSON", false, response(200, JSON, "{\"choices\":["), looked_up),
        ("a list", false, response(200, JSON, "[1]"), looked_up),
        ("cut off", false, cut(JSON, ANSWER), looked_up),
        ("encoded", false, response(200, &encoded, "\u{1f}gz"), looked_up),
        ("an empty stream", true, response(200, SSE, ""), released),
        ("only comments", true, response(200, SSE, ": x\n\n: y\n\n"), released),
        ("only [DONE]", true, response(200, SSE, "data: [DONE]\n\n"), released),
        (
            "only a role, complete",
            true,
            response(200, SSE, &format!("{role}data: [DONE]\n\n")),
            released,
        ),
        ("only a role", true, response(200, SSE, role), looked_up),
        ("not SSE", true, response(200, SSE, "theirs\n\n"), looked_up),
        (
            "an error first",
            true,
            response(200, SSE, &format!("{role}data: {limited}\n\n")),
            (429, "default_ai_rate_limited", "none"),
        ),
    ];
    for (what, streamed, sent, (status, code, payer)) in table {
        upstream.respond(vec![sent]);
        let reply = call(&owner, streamed).await;
        assert_eq!(reply.error(), (status, code.to_owned()), "{what}: {}", reply.text());
        assert_eq!(reply.receipt().0, payer, "{what}");
        assert!(!reply.text().contains("theirs"), "{what}");
        let is_final = if status == 424 { "false" } else { "" };
        assert_eq!(reply.header("x-should-retry"), is_final, "{what}");
        let holds = world.shown("acme").await["holds"].clone();
        let is_open = |hold: &Value| hold["call_id"] == reply.header("x-greta-call-id");
        let open = holds.as_array().unwrap().iter().filter(|hold| is_open(hold)).count();
        assert_eq!(open, usize::from(status == 424), "{what}");
    }
    assert_eq!(world.shown("acme").await["account"]["credits"]["balance"], "1000");
}

#[tokio::test]
async fn on_credits_the_highest_usage_is_charged() {
    let (world, upstream) = on_credits().await;
    let owner = world.owner("acme");
    let content = r#"data: {"id":"gen-1","choices":[{"delta":{"content":"x"}}]}"#;
    let both =
        r#"data: {"id":"gen-1","choices":[{"delta":{"content":"x"}}],"usage":{"cost":0.0002}}"#;
    let usage = |cost: &str| format!(r#"data: {{"id":"gen-1","choices":[],"usage":{{{cost}}}}}"#);
    let done = "data: [DONE]";
    let (one, zero) = (usage(r#""cost":0.0001"#), usage(r#""cost":0,"prompt_tokens":0"#));
    let byok =
        usage(r#""cost":0.0001,"is_byok":true,"cost_details":{"upstream_inference_cost":0.0002}"#);
    let table: [(&str, &[&str], &str); 6] = [
        ("last", &[content, &one, done], "0.001"),
        ("first", &[&one, content, done], "0.001"),
        ("zeros after it", &[content, &one, &zero, done], "0.001"),
        ("with content only", &[both, done], "0.002"),
        ("in every event", &[both, &one, both, done], "0.002"),
        ("by a key of our own", &[content, &byok, done], "0.003"),
    ];
    for (what, events, charged) in table {
        for line_end in ["\n", "\r", "\r\n"] {
            let content_type = "content-type: Text/Event-Stream; charset=utf-8\r\n";
            let events = events.iter().map(|event| format!("{event}\n\n")).collect::<Vec<_>>();
            let stream = events.concat().replace('\n', line_end);
            upstream.respond(vec![response(200, content_type, &stream)]);
            let reply = call(&owner, true).await;
            let text = reply.text();
            assert_eq!(reply.status, 200, "{what}: {text}");
            assert_eq!(text.matches("\"greta\":{").count(), 1, "{what}: {text}");
            assert!(text.contains(&format!("\"credits_charged\":\"{charged}\"")), "{what}: {text}");
            assert!(text.ends_with("data: [DONE]\n\n"), "{what}: {text}");
            let entry = owner.ledger().await.remove(0);
            assert_eq!(entry["amount"], format!("-{charged}"), "{what}");
        }
    }
}

#[tokio::test]
async fn on_the_users_key_odd_responses_pass_unchanged() {
    let upstream = RawUpstream::start().await;
    let world = World::with_settings(&[("OPENROUTER_BASE_URL", &upstream.url)]).await;
    let owner = world.enterprise_with_key("acme", "7").await;
    assert_eq!(owner.save_key(KEY).await.status, 200);
    let encoded = format!("{JSON}content-encoding: gzip\r\nx-openrouter-cache-status: HIT\r\n");
    let many = "x-header: 1\r\n".repeat(200);
    let table = [
        ("an empty 200", response(200, "content-length: 0\r\n", ""), 200, ""),
        ("an empty stream", response(200, SSE, ""), 200, ""),
        ("a 204", response(204, "", ""), 204, ""),
        ("not JSON", response(200, JSON, "{\"choices\":["), 200, "{\"choices\":["),
        ("no type", response(200, "", "anything"), 200, "anything"),
        ("encoded", response(200, &encoded, "gz"), 200, "gz"),
        ("200 headers", response(200, &format!("{JSON}{many}"), ANSWER), 200, ANSWER),
    ];
    for (what, sent, status, body) in table {
        upstream.respond(vec![sent]);
        let reply = call(&owner, false).await;
        assert_eq!((reply.status.as_u16(), reply.text().as_str()), (status, body), "{what}");
        let receipt = ("openrouter".to_owned(), "key_enabled".to_owned());
        assert_eq!(reply.receipt(), receipt, "{what}");
        let encoding = if what == "encoded" { ("gzip", "HIT") } else { ("", "") };
        let shown = (reply.header("content-encoding"), reply.header("x-openrouter-cache-status"));
        assert_eq!(shown, encoding, "{what}");
    }
    upstream.respond(vec![cut(JSON, ANSWER)]);
    let reply = call(&owner, false).await;
    assert_eq!(reply.error(), (502, "openrouter_unavailable".to_owned()));
    assert_eq!(reply.header("x-should-retry"), "false");
}
