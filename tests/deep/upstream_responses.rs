//! Whatever the default AI sends, its text stays out of every error, the call's hold ends or is
//! due, and the call is charged at most once and never above its ceiling.

use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::json;

use super::{Depth, depth};
use crate::odd_responses::RawUpstream;
use crate::support::{Caller, World, hello};

/// The marker in every upstream text that is not content.
const MARK: &str = "text-of-the-default-ai";
const CONTENT: &str = "a part of the answer";
/// Maximum cost of the prompt and 50 output tokens, in micro-credits.
const CEILING: i64 = 100_000;

const HEADS: [&str; 9] = [
    "content-type: application/json",
    "content-type: text/event-stream",
    "content-type: Text/Event-Stream; charset=utf-8",
    "content-type: text/html",
    "x-generation-id: gen-1",
    "x-generation-id: sk-or-v1-greta-platform-key-0000",
    "x-openrouter-note: text-of-the-default-ai",
    "retry-after: text-of-the-default-ai",
    "content-encoding: gzip",
];

/// A part of a stream.
fn part(dice: &mut Rng) -> String {
    let chunk = |members: &str| format!("data: {{\"id\":\"gen-1\",{members}}}");
    let choice = |delta: &str| chunk(&format!("\"choices\":[{{\"index\":0,\"delta\":{delta}}}]"));
    let cost = ["0", "0.001", "1e-5", "5000", "-1", "\"x\""][dice.usize(..6)];
    match dice.u32(..20) {
        0 | 1 => format!(": {MARK}"),
        2 => choice("{\"role\":\"assistant\",\"content\":\"\"}"),
        3..=6 => choice(&format!("{{\"content\":\"{CONTENT}\"}}")),
        7 | 8 => chunk(&format!("\"choices\":[],\"usage\":{{\"cost\":{cost}}}")),
        9 => format!("data: {{\"error\":{{\"code\":502,\"message\":\"{MARK}\"}}}}"),
        10 => chunk(&format!("\"choices\":[{{\"error\":{{\"message\":\"{MARK}\"}}}}]")),
        11 => format!("event: error\ndata: {{\"message\":\"{MARK}\"}}"),
        12 => format!("data: {{\"error\":\ndata: \"{MARK}\"}}"),
        13 => format!("data: {{\"error\":null,\"error\":\"{MARK}\",\"choices\":[]}}"),
        14 => format!("data: {{\"errors\":[\"{MARK}\"]}}"),
        15 => format!("data: {{\"detail\":\"{MARK}\"}}"),
        16 => MARK.to_owned(),
        17 => format!("data: {MARK}"),
        18 => chunk("\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]"),
        _ => "data: [DONE]".to_owned(),
    }
}

fn body(dice: &mut Rng) -> String {
    if dice.u32(..3) > 0 {
        let line_end = ["\n", "\r\n", "\r"][dice.usize(..3)];
        let mut parts: Vec<_> = (0..dice.usize(..8)).map(|_| part(dice)).collect();
        if dice.bool() {
            parts.push("data: [DONE]".to_owned());
        }
        parts.push(String::new());
        return parts.join("\n\n").replace('\n', line_end);
    }
    let choices = format!("\"choices\":[{{\"message\":{{\"content\":\"{CONTENT}\"}}}}]");
    match dice.u32(..9) {
        0 => String::new(),
        1 => format!("<html>{MARK}</html>"),
        2 => format!("{{\"error\":{{\"code\":429,\"message\":\"{MARK}\"}}}}"),
        3 => format!("{{\"detail\":\"{MARK}\"}}"),
        4 => format!("[\"{MARK}\"]"),
        5 => format!("{{{choices}"),
        6 => format!("{{{choices},\"usage\":{{\"cost\":0.0001}}}}"),
        7 => format!("{{{choices}}}"),
        _ => format!("{{{choices},\"error\":{{\"message\":\"{MARK}\"}},\"usage\":{{\"cost\":1}}}}"),
    }
}

/// A raw response, perhaps broken.
fn response(dice: &mut Rng) -> String {
    let status = [200, 200, 200, 200, 204, 400, 403, 429, 500][dice.usize(..9)];
    let mut head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\n");
    for _ in 0..dice.usize(..4) {
        head.push_str(HEADS[dice.usize(..HEADS.len())]);
        head.push_str("\r\n");
    }
    let body = body(dice);
    match dice.u32(..4) {
        0 => format!("{head}content-length: {}\r\n\r\n{body}", body.len()),
        // The declared length is too long.
        1 => format!("{head}content-length: {}\r\n\r\n{body}", body.len() + 10),
        // Without a length, the body ends with the connection.
        _ => format!("{head}\r\n{body}"),
    }
}

fn chunks(mut rest: &[u8], dice: &mut Rng) -> Vec<Vec<u8>> {
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(dice.usize(1..=200).min(rest.len()));
        chunks.push(chunk.to_vec());
        rest = after;
    }
    chunks
}

/// The sum of an account's call entries for `call`, in micro-credits, and their number.
async fn charged(owner: &Caller<'_>, call: &str) -> (i64, usize) {
    let ledger = owner.get("/v1/credits/ledger?limit=20").await.json();
    let entries = ledger["entries"].as_array().unwrap().clone();
    let of_call = entries.iter().filter(|entry| entry["call_id"] == call);
    let amounts: Vec<i64> = of_call
        .map(|entry| {
            let amount = entry["amount"].as_str().unwrap().trim_start_matches('-');
            amount.parse::<account::Credits>().unwrap().micros()
        })
        .collect();
    (amounts.iter().sum(), amounts.len())
}

#[tokio::test]
async fn any_response_of_the_default_ai_leaves_the_books_right() {
    let time = match depth() {
        Depth::Short => Duration::from_secs(5),
        Depth::Bounded => Duration::from_secs(40),
        Depth::All => Duration::from_mins(30),
    };
    let upstream = RawUpstream::start().await;
    let settings = [
        ("DEFAULT_AI_BASE_URL", upstream.url.as_str()),
        ("DEFAULT_AI_MODEL", "m"),
        ("UPSTREAM_IDLE_MS", "1000"),
    ];
    let world = World::with_settings(&settings).await;
    let started = Instant::now();
    let first = if depth() == Depth::All { fastrand::u64(..) } else { 0 };
    let mut seed = first;
    while started.elapsed() < time {
        seed = seed.wrapping_add(1);
        // New accounts, so that their books stay short.
        let account = format!("acme-{}", seed / 40);
        if seed.is_multiple_of(40) || seed == first.wrapping_add(1) {
            world.set(&account, json!({"credits": "1000000"})).await;
        }
        let owner = world.owner(&account);
        let mut dice = Rng::with_seed(seed);
        let sent = response(&mut dice);
        upstream.respond(chunks(sent.as_bytes(), &mut dice));
        let streamed = dice.bool();
        let mut call = hello();
        call["model"] = json!("m");
        call["stream"] = json!(streamed);
        call["max_tokens"] = json!(50);
        let reply = owner.chat(&call).await;
        let (text, id) = (reply.text(), reply.header("x-greta-call-id").to_owned());
        let what = format!("seed {seed}, sent:\n{sent}\ngot {}:\n{text}", reply.status);
        assert!(!text.contains(MARK), "{what}");
        for (name, value) in &reply.headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            assert!(!value.contains(MARK) && !value.contains("sk-or"), "{name}: {value}, {what}");
        }
        // A stream ends with either `[DONE]` or an error.
        if reply.status == 200 && reply.header("content-type") == "text/event-stream" {
            let is_error = text.contains("\"finish_reason\":\"error\"");
            assert_ne!(text.ends_with("data: [DONE]\n\n"), is_error, "{what}");
        } else if reply.status != 200 {
            assert!(reply.json()["error"]["code"] == reply.status.as_u16(), "{what}");
        }
        let shown = world.shown(&account).await;
        assert_eq!(shown["reconciliation"]["ok"], true, "{what}");
        let now = world.system.clock.now();
        let holds = shown["holds"].as_array().unwrap();
        let open = holds.iter().find(|hold| hold["call_id"] == id.as_str());
        let (amount, entries) = charged(&owner, &id).await;
        assert!(entries <= 1 && amount <= CEILING, "{entries} entries of {amount}, {what}");
        if let Some(hold) = open {
            let due: jiff::Timestamp = hold["next_check_at"].as_str().unwrap().parse().unwrap();
            assert!(due <= now && entries == 0, "due at {due}, {what}");
        }
        let is_released = reply.header("x-greta-payer") == "none";
        assert!(!is_released || (open.is_none() && entries == 0), "{what}");
    }
    println!("{} responses from seed {first}", seed.wrapping_sub(first));
}
