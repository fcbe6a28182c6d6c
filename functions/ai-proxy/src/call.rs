//! One chat call, as both payers' paths see it.

use account::CallId;
use aws_lc_rs::digest;
use edge::{ApiError, Deadline};
use http::HeaderMap;
use tokio::time::Instant;
use upstream::Kind;

use crate::request::{ChatRequest, invalid};

const MAX_IDEMPOTENCY_KEY: usize = 255;

pub(crate) struct Call {
    pub(crate) id: CallId,
    pub(crate) request: ChatRequest,
    /// See [`forwarded_headers`].
    pub(crate) headers: HeaderMap,
    /// See [`idempotency_hash`].
    pub(crate) idempotency: Option<String>,
    /// The end of this invocation.
    pub(crate) deadline: Option<Deadline>,
    pub(crate) started: Instant,
}

impl Call {
    pub(crate) fn kind(&self) -> Kind {
        if self.request.streamed { Kind::Streamed } else { Kind::Plain { since: self.started } }
    }
}

/// The caller's headers that are forwarded to OpenRouter. None of them identifies the caller.
pub(crate) fn forwarded_headers(headers: &HeaderMap) -> HeaderMap {
    const NAMES: [&str; 5] = [
        "anthropic-version",
        "anthropic-beta",
        "x-anthropic-beta",
        "x-session-id",
        "x-openrouter-metadata",
    ];
    let listed = |name: &str| NAMES.contains(&name) || name.starts_with("x-openrouter-cache");
    let forwarded = headers.iter().filter(|(name, _)| listed(name.as_str()));
    forwarded.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// SHA-256 of the caller's `Idempotency-Key` in hex, so that the caller's text is never stored.
pub(crate) fn idempotency_hash(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(key) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let is_visible = key.as_bytes().iter().all(u8::is_ascii_graphic);
    if key.is_empty() || key.len() > MAX_IDEMPOTENCY_KEY || !is_visible {
        return Err(invalid("`Idempotency-Key` must have 1 to 255 visible ASCII characters"));
    }
    let hash = digest::digest(&digest::SHA256, key.as_bytes());
    Ok(Some(hex::encode(hash)))
}
