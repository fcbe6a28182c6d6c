//! An error that does not positively say that the key, the money, the rate or the service is the
//! problem never moves a call to credits: it may be about the request, which the user's own rules
//! forbid.

use fastrand::Rng;
use serde_json::{Map, Value, json};

use super::{Depth, depth};
use crate::odd_responses::{JSON, RawUpstream, SSE, response};
use crate::support::{World, hello};

const NAMES: [&str; 20] = [
    "error",
    "errors",
    "code",
    "message",
    "metadata",
    "error_type",
    "type",
    "status",
    "provider_name",
    "patterns",
    "reasons",
    "flagged_input",
    "raw",
    "availability",
    "choices",
    "delta",
    "http_status",
    "response",
    "usage",
    "limit_source",
];
/// Texts that allow no fallback, although some contain words that do elsewhere.
const TEXTS: [&str; 12] = [
    "Provider returned error",
    "Request blocked: prompt injection patterns detected",
    "a Key limit exceeded elsewhere",
    "the Workspace monthly budget of $5",
    "key limit exceeded",
    "content_policy_violation",
    "refusal",
    "permission_denied",
    "invalid_request_error",
    "openrouter_free_tier_daily",
    "failed",
    "",
];
/// Texts that allow a fallback in some place of some responses.
const POSITIVE_TEXTS: [&str; 6] = [
    "openrouter_credits",
    "rate_limit_exceeded",
    "provider_unavailable",
    "server_error",
    "billing_error",
    "Key limit exceeded (total limit)",
];
/// Statuses that always are about the request.
const ABOUT_THE_REQUEST: [u16; 7] = [400, 404, 409, 413, 418, 422, 451];

/// Which numbers and texts a body may have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Markers {
    Any,
    /// No text that allows a fallback.
    NoText,
    /// No number that allows one either.
    None,
}

fn value(dice: &mut Rng, markers: Markers, depth: usize) -> Value {
    match dice.u32(..if depth == 0 { 5 } else { 9 }) {
        0 => Value::Null,
        1 => json!(dice.bool()),
        2 if markers == Markers::None => json!([400, 403, 404, 422, 499, 1][dice.usize(..6)]),
        2 => json!([401, 402, 403, 408, 429, 500, 503, 524][dice.usize(..8)]),
        3 if markers == Markers::Any => json!(POSITIVE_TEXTS[dice.usize(..POSITIVE_TEXTS.len())]),
        3 | 4 => json!(TEXTS[dice.usize(..TEXTS.len())]),
        5 => (0..dice.usize(..3)).map(|_| value(dice, markers, depth - 1)).collect(),
        _ => {
            let names = (0..dice.usize(..6)).map(|_| NAMES[dice.usize(..NAMES.len())].to_owned());
            let names: Vec<_> = names.collect();
            let member = |name| (name, value(dice, markers, depth - 1));
            Value::Object(names.into_iter().map(member).collect::<Map<_, _>>())
        }
    }
}

/// A response of OpenRouter's that must not lead to a fallback.
fn refusal(dice: &mut Rng, streamed: bool) -> Vec<u8> {
    let (status, markers) = match dice.u32(..4) {
        0 | 1 => (403, Markers::NoText),
        2 => (ABOUT_THE_REQUEST[dice.usize(..ABOUT_THE_REQUEST.len())], Markers::Any),
        _ => (200, Markers::None),
    };
    let mut body = value(dice, markers, 4);
    if dice.u32(..4) > 0 {
        body = json!({"error": body});
    }
    if status == 200 && streamed {
        return response(200, SSE, &format!("data: {body}\n\ndata: [DONE]\n\n"));
    }
    response(status, JSON, &body.to_string())
}

#[tokio::test]
async fn an_error_without_a_positive_marker_never_moves_a_call_to_credits() {
    let times = match depth() {
        Depth::Short => 2_000,
        Depth::Bounded => 10_000,
        Depth::All => 100_000,
    };
    let upstream = RawUpstream::start().await;
    let world = World::with_settings(&[("OPENROUTER_BASE_URL", upstream.url.as_str())]).await;
    let owner = world.enterprise_with_key("acme", "1000").await;
    let ledger = owner.get("/v1/credits/ledger").await.json();
    let first = if depth() == Depth::All { fastrand::u64(..) } else { 0 };
    for seed in (0..times).map(|number| first.wrapping_add(number)) {
        let mut dice = Rng::with_seed(seed);
        let streamed = dice.bool();
        let sent = refusal(&mut dice, streamed);
        upstream.respond(vec![sent.clone()]);
        let mut call = hello();
        call["stream"] = json!(streamed);
        let reply = owner.chat(&call).await;
        let what =
            || format!("seed {seed}, sent:\n{}\ngot:\n{}", sent.escape_ascii(), reply.text());
        assert_eq!(reply.receipt().0, "openrouter", "{}", what());
        assert!(world.default_ai().calls().is_empty(), "{}", what());
    }
    assert_eq!(upstream.calls(), usize::try_from(times).unwrap(), "each call was sent once");
    assert_eq!(owner.get("/v1/credits/ledger").await.json(), ledger);
    assert_eq!(owner.get("/v1/credits").await.json()["held"], "0");
}
