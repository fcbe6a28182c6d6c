//! A webhook delivery: our clock in seconds, a line with the signature header, and the body.
//!
//! Properties: the header is judged exactly as by a second, plain reading of Stripe's rules. An
//! event is any JSON with a usable id; however its JSON is written, it means the same; and the
//! inbox's copy of it survives being stored.
//!
//! In the header, `{a}` and `{b}` stand for signatures by our secrets, `{A}` for the first in upper
//! case, `{c}` for a stranger's and `{}` for one by an empty secret, each over the header's own
//! time.

#![no_main]

use std::sync::LazyLock;

use fuzz::{hex, sha256};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use payments::signature::{SignatureError, verify};
use payments::{Event, Notice};
use secrecy::SecretString;
use serde_json::Value;

const FIRST: &str = "whsec_first";
/// Longer than a block of SHA-256, so that HMAC hashes it.
const SECOND: &str = "whsec_second_second_second_second_second_second_second_second_second";
static SECRETS: LazyLock<Vec<SecretString>> =
    LazyLock::new(|| vec![FIRST.into(), "".into(), SECOND.into()]);

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(3, |byte| *byte == b'\n');
    let mut line = || std::str::from_utf8(parts.next()?).ok();
    let (Some(clock), Some(header)) = (line(), line()) else {
        return;
    };
    let Some(now) = clock.parse().ok().and_then(|clock| Timestamp::from_second(clock).ok()) else {
        return;
    };
    let body = parts.next().unwrap_or_default();
    let header = filled_in(header, body);
    let expected = judged(&header, body, now.as_second());
    assert_eq!(verify(body, &header, &SECRETS, now), expected, "{header}");
    read(body);
});

/// The header with its signatures.
fn filled_in(template: &str, body: &[u8]) -> String {
    let time = template.split(',').find_map(|part| part.trim().strip_prefix("t="));
    let signed = |secret: &str| signature(secret, time.unwrap_or_default(), body);
    let mut header = template.to_owned();
    for (mark, secret) in [("{a}", FIRST), ("{b}", SECOND), ("{c}", "other"), ("{}", "")] {
        if header.contains(mark) {
            header = header.replace(mark, &signed(secret));
        }
    }
    if header.contains("{A}") {
        header = header.replace("{A}", &signed(FIRST).to_uppercase());
    }
    header
}

/// The rules of <https://docs.stripe.com/webhooks#verify-manually>, with our own limits.
fn judged(header: &str, body: &[u8], now: i64) -> Result<(), SignatureError> {
    if header.len() > 4096 {
        return Err(SignatureError::Malformed);
    }
    let mut time = None;
    let mut signatures = Vec::new();
    for part in header.split(',').map(str::trim) {
        if let Some(value) = part.strip_prefix("t=") {
            time = time.or(Some(value));
        } else if let Some(value) = part.strip_prefix("v1=") {
            signatures.push(value.to_ascii_lowercase());
        }
    }
    signatures.truncate(16);
    let time = time.ok_or(SignatureError::Malformed)?;
    let seconds: i64 = time.parse().map_err(|_| SignatureError::Malformed)?;
    let ours = [FIRST, SECOND].map(|secret| signature(secret, time, body));
    if !ours.iter().any(|ours| signatures.contains(ours)) {
        return Err(SignatureError::Mismatch);
    }
    if (i128::from(seconds) - i128::from(now)).abs() > 300 {
        return Err(SignatureError::OutOfTime);
    }
    Ok(())
}

/// HMAC-SHA-256 over `time.body`, as RFC 2104 writes it.
fn signature(secret: &str, time: &str, body: &[u8]) -> String {
    let mut key = [0; 64];
    let secret = secret.as_bytes();
    if secret.len() > key.len() {
        key[..32].copy_from_slice(&sha256(&[secret]));
    } else {
        key[..secret.len()].copy_from_slice(secret);
    }
    let inner = key.map(|byte| byte ^ 0x36);
    let outer = key.map(|byte| byte ^ 0x5c);
    let inner = sha256(&[&inner, time.as_bytes(), b".", body]);
    hex(&sha256(&[&outer, &inner]))
}

fn read(body: &[u8]) {
    let read = Event::parse(body);
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let id = json.as_ref().and_then(|event| event.get("id")?.as_str());
    let allowed = |id: &&str| {
        let letters = id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        letters && (1..=255).contains(&id.len())
    };
    let id = id.filter(allowed);
    let Ok(event) = read else {
        assert_eq!(id, None, "an event was not read");
        return;
    };
    assert_eq!(id, Some(event.id.as_str()));
    let again = json.unwrap_or_default().to_string();
    let again = Event::parse(again.as_bytes()).expect("the same event");
    assert_eq!(again, event, "the same JSON, written again");
    let stored = serde_json::to_string(&event.notice).expect("what is stored");
    let back: Notice = serde_json::from_str(&stored).expect("what was stored");
    assert_eq!(back, event.notice, "{stored}");
}
