//! The record of the simulator's calls, and the behaviour of its keys.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::watch;

use super::completion::Costs;

pub(super) const KEY_PREFIX: &str = "sk-or-v1-";

/// The behaviour of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyBehaviour {
    Usable,
    /// 401 for key checks and calls.
    Rejected,
    /// It manages keys and cannot make calls.
    Management,
    /// 503 for key checks, and for calls whose model selects no other behaviour.
    Down,
    /// A check takes half a minute.
    Slow,
    /// 429 for key checks, and for calls whose model selects no other behaviour.
    Busy,
    /// Its own limit is used up: 403 for calls.
    Limited,
    /// It expires in five days.
    Expiring,
}

impl KeyBehaviour {
    const MARKERS: [(&str, Self); 7] = [
        ("rejected", Self::Rejected),
        ("management", Self::Management),
        ("down", Self::Down),
        ("slow", Self::Slow),
        ("busy", Self::Busy),
        ("limited", Self::Limited),
        ("expiring", Self::Expiring),
    ];

    /// The behaviour that the key's text selects.
    fn of_text(key: &str) -> Self {
        let Some(rest) = key.strip_prefix(KEY_PREFIX) else {
            return Self::Rejected;
        };
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if !(16..=246).contains(&rest.len()) || !rest.bytes().all(allowed) {
            return Self::Rejected;
        }
        let mut markers = Self::MARKERS.iter();
        let marked = markers.find(|(marker, _)| rest.starts_with(marker));
        marked.map_or(Self::Usable, |(_, behaviour)| *behaviour)
    }
}

/// A chat call as it arrived, and its outcome.
#[derive(Debug, Clone, Default)]
pub struct RecordedCall {
    pub generation_id: String,
    /// SHA-256 of the bearer key in hex; `None` if there was no key.
    pub key_sha256: Option<String>,
    pub model: Option<String>,
    pub stream: bool,
    /// All headers but `Authorization`.
    pub headers: HeaderMap,
    pub body: Bytes,
    pub prompt_tokens: u64,
    /// The tokens generated so far.
    pub completion_tokens: u64,
    /// OpenRouter's charge so far, in US dollars as a decimal.
    pub cost: String,
    /// The upstream provider's charge, for calls on the user's own account there, whose `cost` is
    /// 0.
    pub upstream_inference_cost: Option<String>,
    /// Why a completed response ended.
    pub finish_reason: Option<&'static str>,
    pub outcome: CallOutcome,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CallOutcome {
    /// The response is not complete yet.
    #[default]
    Running,
    /// An error status and no response; it costs nothing.
    Refused(u16),
    /// The whole response was generated; it may carry an error or lack its end, as asked.
    Completed,
    /// The connection was closed on purpose.
    Cut,
    /// The client disconnected before the end.
    ReaderLeft,
}

impl RecordedCall {
    pub fn has_ended(&self) -> bool {
        self.outcome != CallOutcome::Running
    }

    pub(super) fn was_generated(&self) -> bool {
        !matches!(self.outcome, CallOutcome::Running | CallOutcome::Refused(_))
    }
}

/// The SHA-256 of `key` in hex, as in [`RecordedCall::key_sha256`].
pub fn key_sha256(key: &str) -> String {
    hex::encode(digest(&SHA256, key.as_bytes()))
}

/// The state that the routes share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) calls: watch::Sender<Vec<RecordedCall>>,
    pub(super) inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    /// By the key's SHA-256.
    pub(super) keys: HashMap<String, KeyBehaviour>,
    pub(super) key_checks: usize,
    pub(super) generation_checks: usize,
    pub(super) generations_hidden: bool,
}

impl Shared {
    pub(super) fn key_behaviour(&self, key: &str) -> KeyBehaviour {
        let set = self.inner.lock().unwrap().keys.get(&key_sha256(key)).copied();
        set.unwrap_or_else(|| KeyBehaviour::of_text(key))
    }

    pub(super) fn begin(self: &Arc<Self>, call: RecordedCall) -> OpenCall {
        let mut index = 0;
        self.calls.send_modify(|calls| {
            index = calls.len();
            calls.push(call);
        });
        OpenCall { shared: Arc::clone(self), index }
    }
}

/// A call in progress. If it is dropped before its end, the client has disconnected; the record
/// then keeps the tokens generated so far.
#[derive(Debug)]
pub(super) struct OpenCall {
    shared: Arc<Shared>,
    index: usize,
}

impl OpenCall {
    fn change(&self, change: impl FnOnce(&mut RecordedCall)) {
        let calls = &self.shared.calls;
        calls.send_modify(|calls| change(&mut calls[self.index]));
    }

    /// Records the tokens generated so far, and their cost.
    pub(super) fn progress(&self, tokens: u64, costs: Costs) {
        self.change(|call| {
            call.completion_tokens = tokens;
            (call.cost, call.upstream_inference_cost) = (costs.total, costs.inference);
        });
    }

    pub(super) fn complete(&self, finish_reason: &'static str) {
        self.change(|call| {
            call.finish_reason = Some(finish_reason);
            call.outcome = CallOutcome::Completed;
        });
    }

    pub(super) fn end(&self, outcome: CallOutcome) {
        self.change(|call| call.outcome = outcome);
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.change(|call| {
            if !call.has_ended() {
                call.outcome = CallOutcome::ReaderLeft;
            }
        });
    }
}
