//! Upstreams that echo the key wherever they can: it reaches neither a log nor a table, and no
//! response but the user's own from OpenRouter.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use jiff::SignedDuration;
use local::serve::Server;
use serde_json::{Value, json};

use crate::secrecy::{all_items, log};
use crate::support::{Caller, Reply, World, hello};

const USER_KEY: &str = "sk-or-v1-echo-5d20b7c94e61f8a3";
/// Not in OpenRouter's form, so that no rule for that form hides it.
const PLATFORM_KEY: &str = "platform-echo-91f4c6e8a2d07b35";
/// Enough of each to find it.
const PARTS: [&str; 2] = ["5d20b7c94e61", "91f4c6e8a2d0"];

const ERRORS: [u16; 9] = [400, 401, 402, 403, 404, 413, 422, 429, 503];
const PLACES: [&str; 16] = [
    "id",
    "content",
    "usage",
    "member",
    "name",
    "comment",
    "event",
    "error",
    "choice",
    "late-error",
    "no-sse",
    "text",
    "json-text",
    "cut",
    "encoded",
    "headers",
];

/// How `GET /key` responds.
#[derive(Clone, Copy, Default)]
enum KeyCheck {
    #[default]
    Accepted,
    Unreadable,
    Failed(u16),
}

/// An upstream that echoes `key`.
async fn echo(key: &'static str, key_check: Arc<Mutex<KeyCheck>>) -> Server {
    let respond = async move |request: Request| {
        let (head, body) = request.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let call: Value = serde_json::from_slice(&body).unwrap_or_default();
        let is_call = head.method == Method::POST;
        let mut response = match head.uri.path() {
            _ if is_call => chat(key, &call),
            "/key" => match *key_check.lock().unwrap() {
                KeyCheck::Accepted => json_of(&json!({"data": {
                    "label": format!("{key} {key}"), "limit": key, "limit_remaining": key,
                    "expires_at": key, key: key,
                }})),
                KeyCheck::Unreadable => json_of(&json!({"data": key})),
                KeyCheck::Failed(status) => {
                    let status = StatusCode::from_u16(status).unwrap();
                    (status, json_of(&json!({"error": error(key, 503)}))).into_response()
                }
            },
            "/models" => {
                let pricing = json!({"prompt": "0.000001", "completion": "0.000002"});
                let model = |id: String| json!({"id": id, "pricing": pricing, "name": id});
                let errors = ERRORS.iter().map(|status| format!("echo/{status}"));
                let places = PLACES.iter().map(|place| format!("echo/{place}"));
                let models = errors.chain(places).map(model).collect::<Value>();
                // Unless it was sent, no list can have it.
                let sent = head.headers.get("authorization").map(|_| key);
                json_of(&json!({"data": models, "note": sent}))
            }
            "/generation" => {
                json_of(&json!({"data": {"id": key, "total_cost": key, "usage": [key]}}))
            }
            _ => (StatusCode::NOT_FOUND, key).into_response(),
        };
        let mut echoed = HeaderMap::new();
        for name in [
            "x-generation-id",
            "x-openrouter-note",
            "request-id",
            "retry-after",
            "x-ratelimit-reset",
            "set-cookie",
            "location",
        ] {
            echoed.insert(HeaderName::from_static(name), HeaderValue::from_str(key).unwrap());
        }
        response.headers_mut().extend(echoed);
        response
    };
    Server::start(Router::new().fallback(respond)).await.unwrap()
}

fn json_of(body: &Value) -> Response {
    axum::Json(body).into_response()
}

fn error(key: &str, code: u16) -> Value {
    json!({"code": code, "message": format!("key {key} and\n{key}"), "type": key, "metadata": {
        "error_type": key, "provider_name": key, "reasons": [key], "patterns": {key: [key]},
        "raw": key, "flagged_input": key, "retry_after_seconds": key,
        "headers": {"Retry-After": key},
    }})
}

/// The response that the model's name asks for.
fn chat(key: &str, call: &Value) -> Response {
    let model = call["model"].as_str().unwrap_or_default();
    let place = model.trim_start_matches("echo/");
    let streamed = call["stream"] == true;
    if let Ok(status) = place.parse::<u16>() {
        let status = StatusCode::from_u16(status).unwrap();
        let body = json!({"error": error(key, status.as_u16()), "user_id": key});
        return (status, json_of(&body)).into_response();
    }
    let mut answer = json!({
        "id": "gen-1", "model": "m", "usage": {"cost": 0.001},
        "choices": [{"delta": {"content": "x"}, "message": {"content": "x"}}],
    });
    let end = "data: [DONE]\n\n";
    let mut before = String::new();
    let mut after = end.to_owned();
    match place {
        "id" => answer["id"] = json!(format!("gen-{key}")),
        "content" => answer["choices"][0]["delta"]["content"] = json!(key),
        "usage" => answer["usage"] = json!({"cost": key, key: 1}),
        "member" => answer["note"] = json!([key]),
        "name" => answer[key] = json!(1),
        "comment" => before = format!(": {key}\n\n"),
        "event" => before = format!("event: {key}\ndata: {{\"choices\":[]}}\n\n"),
        "error" => answer = json!({"error": error(key, 502)}),
        "choice" => answer["choices"][0]["error"] = error(key, 429),
        "late-error" => after = format!("data: {}\n\n", json!({"error": error(key, 502)})),
        "no-sse" => before = format!("{key}\n\n"),
        "text" => return key.to_owned().into_response(),
        "json-text" => answer = json!(key),
        "cut" => after = format!("data: {{\"x\": \"{key}"),
        "encoded" => {
            let gzip = [("content-encoding", "gzip"), ("content-type", "application/json")];
            return (gzip, key.to_owned()).into_response();
        }
        _ => {}
    }
    if let Some(message) = answer.pointer_mut("/choices/0") {
        message["message"]["content"] = message["delta"]["content"].clone();
    }
    if streamed {
        let stream = format!("{before}data: {answer}\n\n{after}");
        return ([("content-type", "text/event-stream")], Body::from(stream)).into_response();
    }
    json_of(&answer)
}

/// All that was seen of a response.
fn seen(reply: &Reply) -> String {
    format!("{:?} {}", reply.headers, reply.text())
}

/// Calls every place, plain and streamed. Returns what was seen, without bodies from OpenRouter,
/// which are the user's own.
async fn call_all(caller: &Caller<'_>, payers: &mut Vec<String>) -> String {
    let mut all = String::new();
    let models = PLACES.iter().map(ToString::to_string).chain(ERRORS.iter().map(u16::to_string));
    for model in models {
        for streamed in [false, true] {
            let mut call = hello();
            call["model"] = json!(format!("echo/{model}"));
            call["stream"] = json!(streamed);
            call["max_tokens"] = json!(50);
            let reply = caller.chat(&call).await;
            let (payer, _) = reply.receipt();
            let is_own = payer == "openrouter" && reply.status.is_success();
            let shown = if is_own { format!("{:?}", reply.headers) } else { seen(&reply) };
            for part in PARTS {
                assert!(!shown.contains(part), "{model}, streamed: {streamed}: {shown}");
            }
            payers.push(payer);
            let _ = writeln!(all, "{shown}");
        }
    }
    all
}

#[tokio::test]
async fn an_echoed_key_appears_nowhere() {
    let log = log();
    let key_check = Arc::default();
    let openrouter = echo(USER_KEY, Arc::clone(&key_check)).await;
    let default_ai = echo(PLATFORM_KEY, Arc::default()).await;
    let (openrouter, default_ai) = (openrouter.url(), default_ai.url());
    let world = World::with_settings(&[
        ("OPENROUTER_BASE_URL", openrouter.as_str()),
        ("DEFAULT_AI_BASE_URL", default_ai.as_str()),
        ("DEFAULT_AI_API_KEY", PLATFORM_KEY),
        ("DEFAULT_AI_KIND", "openrouter"),
        ("MAX_CONCURRENT_HOLDS", "200"),
    ])
    .await;
    world.set("acme", json!({"plan": "enterprise", "credits": "1000"})).await;
    world.set("umbrella", json!({"credits": "1000"})).await;
    let (owner, umbrella) = (world.owner("acme"), world.owner("umbrella"));
    let mut payers = Vec::new();

    let mut all = seen(&owner.save_key(USER_KEY).await);
    for outcome in [KeyCheck::Unreadable, KeyCheck::Failed(503), KeyCheck::Accepted] {
        *key_check.lock().unwrap() = outcome;
        all.push_str(&seen(&owner.test_key().await));
    }
    all.push_str(&call_all(&owner, &mut payers).await);
    owner.switch(json!({"always_use_key": true})).await;
    all.push_str(&call_all(&owner, &mut payers).await);
    all.push_str(&call_all(&umbrella, &mut payers).await);
    *key_check.lock().unwrap() = KeyCheck::Failed(401);
    all.push_str(&seen(&owner.say_hello_to("echo/401").await));
    for payer in ["openrouter", "greta_credits", "none"] {
        assert!(payers.iter().any(|paid| paid == payer), "no call was paid by {payer}");
    }
    // The sweeper looks up the calls whose cost is unknown.
    for _ in 0..3 {
        let swept = world.tick_in(SignedDuration::from_hours(2)).await;
        let _ = writeln!(all, "{swept}");
    }
    for caller in [&owner, &umbrella] {
        for path in ["/v1/integrations/openrouter", "/v1/credits", "/v1/credits/ledger"] {
            all.push_str(&seen(&caller.get(path).await));
        }
    }
    all.push_str(&seen(&umbrella.get("/v1/models").await));
    all.push_str(&world.shown("acme").await.to_string());
    all.push_str(&world.shown("umbrella").await.to_string());
    let (events, items) = (world.system.bus.events(), all_items(&world).await);
    assert!(!events.is_empty() && items.contains("umbrella"));
    all.push_str(&json!(events).to_string());
    all.push_str(&items);
    let logged = log.text();
    assert!(logged.contains("OpenRouter refused the call"), "the log is captured");
    for part in PARTS {
        let at = all.find(part).map(|at| &all[at.saturating_sub(300)..at + 50]);
        assert_eq!(at, None, "in a response, an item or an event");
        let lines = logged.lines().filter(|line| line.contains(part));
        assert_eq!(lines.collect::<Vec<_>>(), [""; 0], "in the log");
    }
}

#[tokio::test]
async fn a_model_list_with_the_platform_key_is_not_passed_on() {
    let default_ai = echo(PLATFORM_KEY, Arc::default()).await;
    let default_ai = default_ai.url();
    let world = World::with_settings(&[
        ("DEFAULT_AI_BASE_URL", default_ai.as_str()),
        ("DEFAULT_AI_API_KEY", PLATFORM_KEY),
        ("DEFAULT_AI_KIND", "openai"),
    ])
    .await;
    world.set("umbrella", json!({"credits": "10"})).await;
    let list = world.owner("umbrella").get("/v1/models").await;
    assert_eq!(list.error(), (502, "default_ai_unavailable".to_owned()));
    assert!(!seen(&list).contains(PARTS[1]));
}
