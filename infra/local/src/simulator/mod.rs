//! OpenRouter as it behaves and misbehaves, on a listener of its own; a second one plays the
//! default AI.
//!
//! A call does what its model's name says (`sim/<what>` is not in the model list, `sim-priced/<what>`
//! is), a key does what it was told ([`Simulator::set_key`], or `POST /_sim/keys`) or else what its
//! text says after the prefix (`sk-or-v1-rejected…`). Every chat call is on record with what it
//! cost, also when its reader went away.

mod answer;
mod behaviour;
mod http_api;
mod models;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use account::Usd;
use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::HeaderMap;
use serde::Deserialize;
use tokio::sync::watch;

pub use models::{DEFAULT_MODEL, listed as listed_models};

use crate::serve::Server;

/// When all models and answers were created, in seconds of Unix time: answers are the same each
/// time.
const CREATED: i64 = 1_767_225_600;

const KEY_PREFIX: &str = "sk-or-v1-";

/// How a simulator is set up.
#[derive(Debug, Clone, Copy)]
pub struct SimulatorOptions {
    /// How long a check of a slow key takes.
    pub slow_key: Duration,
}

impl Default for SimulatorOptions {
    fn default() -> Self {
        Self {
            slow_key: Duration::from_secs(30),
        }
    }
}

/// What a key is to OpenRouter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyBehaviour {
    Usable,
    /// 401, on checks and on calls.
    Rejected,
    /// It manages keys and cannot make calls.
    Management,
    /// 503, on checks and on calls whose model does not ask for something else.
    Down,
    /// A check takes [`SimulatorOptions::slow_key`].
    Slow,
    /// Its own limit is used up: 403 on calls.
    Limited,
    /// It can be used for five more days.
    Expiring,
}

impl KeyBehaviour {
    const MARKERS: [(&str, Self); 6] = [
        ("rejected", Self::Rejected),
        ("management", Self::Management),
        ("down", Self::Down),
        ("slow", Self::Slow),
        ("limited", Self::Limited),
        ("expiring", Self::Expiring),
    ];

    /// What a key is by its text alone.
    fn of_text(key: &str) -> Self {
        let Some(rest) = key.strip_prefix(KEY_PREFIX) else {
            return Self::Rejected;
        };
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if !(16..=246).contains(&rest.len()) || !rest.bytes().all(known) {
            return Self::Rejected;
        }
        let marked = Self::MARKERS
            .iter()
            .find(|(marker, _)| rest.starts_with(marker));
        marked.map_or(Self::Usable, |(_, behaviour)| *behaviour)
    }
}

/// A chat call as it arrived, and what became of it.
#[derive(Debug, Clone)]
pub struct RecordedCall {
    pub generation_id: String,
    /// SHA-256 of the bearer key in hex; `None` if there was no key.
    pub key_sha256: Option<String>,
    /// The model that the request names.
    pub model: Option<String>,
    /// The model that answers.
    pub answering_model: String,
    pub stream: bool,
    /// All headers but `Authorization`.
    pub headers: HeaderMap,
    pub body: Bytes,
    pub prompt_tokens: u64,
    /// Tokens of the answer that were generated so far.
    pub completion_tokens: u64,
    /// What OpenRouter takes for it so far, in US dollars as a decimal.
    pub cost: String,
    /// What the provider takes, where the call goes to the user's own account there and `cost` is 0.
    pub upstream_inference_cost: Option<String>,
    /// Why a completed answer ended.
    pub finish_reason: Option<&'static str>,
    pub outcome: CallOutcome,
}

/// How far a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// The answer is not complete yet.
    Running,
    /// An error status and no answer; it costs nothing.
    Refused(u16),
    /// The whole answer was generated; it may carry an error, or lack its end, as asked.
    Completed,
    /// The connection was closed on purpose.
    Cut,
    /// The reader went away before the end.
    ReaderLeft,
}

impl RecordedCall {
    /// There is an answer, and no more of it comes.
    pub fn has_ended(&self) -> bool {
        self.outcome != CallOutcome::Running
    }

    fn was_generated(&self) -> bool {
        !matches!(self.outcome, CallOutcome::Running | CallOutcome::Refused(_))
    }
}

/// A running simulator, until stopped or dropped.
#[derive(Debug)]
pub struct Simulator {
    state: Arc<Sim>,
    server: Server,
}

impl Simulator {
    /// Starts one on a free port, without any record.
    ///
    /// # Errors
    /// If no port can be opened.
    pub async fn start(options: SimulatorOptions) -> io::Result<Self> {
        let state = Arc::new(Sim {
            options,
            changes: watch::Sender::new(()),
            inner: Mutex::default(),
        });
        let server = Server::start(http_api::router(Arc::clone(&state))).await?;
        Ok(Self { state, server })
    }

    /// `http://127.0.0.1:PORT/api/v1`
    pub fn base_url(&self) -> String {
        format!("{}{}", self.server.url(), http_api::BASE)
    }

    /// Where a key's behaviour is set over HTTP: `POST {"key", "state"}`.
    pub fn keys_url(&self) -> String {
        format!("{}{}", self.server.url(), http_api::KEYS)
    }

    /// Every chat call so far, in the order of their arrival.
    pub fn calls(&self) -> Vec<RecordedCall> {
        self.state.inner().calls.clone()
    }

    /// Waits until `condition` holds of the calls, for example that one has ended.
    ///
    /// # Panics
    /// If `condition` does.
    pub async fn until(&self, condition: impl Fn(&[RecordedCall]) -> bool) {
        let mut changes = self.state.changes.subscribe();
        changes
            .wait_for(|()| condition(&self.state.inner().calls))
            .await
            .expect("the sender is held by this simulator");
    }

    /// How often `GET /key` was asked with a key, whatever the answer.
    pub fn key_checks(&self) -> usize {
        self.state.inner().key_checks
    }

    /// How often `GET /generation` was asked with a key, whatever the answer.
    pub fn generation_checks(&self) -> usize {
        self.state.inner().generation_checks
    }

    /// From now on `key` does this, whatever its text says.
    pub fn set_key(&self, key: &str, behaviour: KeyBehaviour) {
        self.state.set_key(key, behaviour);
    }

    /// While hidden, `GET /generation` knows no call: OpenRouter's own records lag behind.
    pub fn hide_generations(&self, hidden: bool) {
        self.state.inner().generations_hidden = hidden;
    }

    /// Puts a completed call of `key` on record that never was made, for tests of look-ups alone.
    pub fn remember(&self, key: &str, generation_id: &str, cost: &str) {
        self.state.inner().calls.push(RecordedCall {
            generation_id: generation_id.to_owned(),
            key_sha256: Some(key_sha256(key)),
            model: None,
            answering_model: DEFAULT_MODEL.to_owned(),
            stream: false,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            prompt_tokens: 0,
            completion_tokens: 0,
            cost: cost.to_owned(),
            upstream_inference_cost: None,
            finish_reason: Some("stop"),
            outcome: CallOutcome::Completed,
        });
    }

    /// Forgets all calls.
    pub fn forget(&self) {
        self.state.inner().calls.clear();
    }

    /// Stops, and returns once the port is closed; open connections are dropped.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}

/// The SHA-256 of `key` in hex, as [`RecordedCall::key_sha256`] has it.
pub fn key_sha256(key: &str) -> String {
    use std::fmt::Write;
    let hash = digest(&SHA256, key.as_bytes());
    hash.as_ref().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a string takes any text");
        hex
    })
}

/// What the handlers share.
#[derive(Debug)]
struct Sim {
    options: SimulatorOptions,
    /// Told of every change to the calls.
    changes: watch::Sender<()>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    calls: Vec<RecordedCall>,
    /// By the key's SHA-256.
    keys: HashMap<String, KeyBehaviour>,
    key_checks: usize,
    generation_checks: usize,
    generations_hidden: bool,
}

impl Sim {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_key(&self, key: &str, behaviour: KeyBehaviour) {
        self.inner().keys.insert(key_sha256(key), behaviour);
    }

    fn key_behaviour(&self, key: &str) -> KeyBehaviour {
        let set = self.inner().keys.get(&key_sha256(key)).copied();
        set.unwrap_or_else(|| KeyBehaviour::of_text(key))
    }

    /// Puts a call on record.
    fn begin(self: &Arc<Self>, call: RecordedCall) -> OpenCall {
        let index = {
            let mut inner = self.inner();
            inner.calls.push(call);
            inner.calls.len() - 1
        };
        self.changes.send_replace(());
        OpenCall {
            sim: Arc::clone(self),
            index,
        }
    }

    fn change(&self, index: usize, change: impl FnOnce(&mut RecordedCall)) {
        change(&mut self.inner().calls[index]);
        self.changes.send_replace(());
    }
}

/// The record of a call under way. Dropped before its end, the reader went away: then the record
/// stays with what was generated until then.
#[derive(Debug)]
struct OpenCall {
    sim: Arc<Sim>,
    index: usize,
}

/// What a call costs, to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Billing {
    OpenRouter(Usd),
    Provider(Usd),
}

impl OpenCall {
    /// This many tokens of answer were generated, and the call costs this.
    fn progress(&self, completion_tokens: u64, billing: Billing) {
        self.sim.change(self.index, |call| {
            call.completion_tokens = completion_tokens;
            match billing {
                Billing::OpenRouter(cost) => call.cost = cost.to_string(),
                Billing::Provider(cost) => call.upstream_inference_cost = Some(cost.to_string()),
            }
        });
    }

    fn complete(&self, finish_reason: &'static str) {
        self.sim.change(self.index, |call| {
            call.finish_reason = Some(finish_reason);
            call.outcome = CallOutcome::Completed;
        });
    }

    fn end(&self, outcome: CallOutcome) {
        self.sim.change(self.index, |call| call.outcome = outcome);
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.sim.change(self.index, |call| {
            if !call.has_ended() {
                call.outcome = CallOutcome::ReaderLeft;
            }
        });
    }
}

#[cfg(test)]
mod tests;
