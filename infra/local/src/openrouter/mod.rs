//! An OpenRouter simulator, on its own listener; a second one stands in for the default AI.
//!
//! Its responses have OpenRouter's fields, and its errors are the documented ones. It echoes the
//! user's last message, calls functions (`tools`) with arguments that satisfy their schemas and
//! then answers with text, fills in a `response_format`, and reasons on request (`reasoning`).
//! Every chat call is recorded with its cost, even if the client disconnects.
//!
//! A call behaves as its model's name says. `sim/<behaviour>` is not in the model list, so it has
//! no price and cannot be paid in credits; `sim-priced/<behaviour>` is in it.
//!
//! | behaviour | what happens |
//! |---|---|
//! | `ok` | a usual response |
//! | `error/<id>` | the error of this id in `openrouter-errors.json`, as documented |
//! | `first/<id>` | the same error inside a 200: as its body, or as the stream's first event |
//! | `mid/<id>` | the same after two chunks of content |
//! | `status-<n>` | a documented error of this status, for 400 to 404, 408, 413, 422, 429, 5xx |
//! | `status-403-limit`, `status-403-moderation` | a 403 with that cause |
//! | `context-length` | 400, too long for the model |
//! | `redirect` | 302 |
//! | `reset`, `reset-after-head` | the connection closes before or after the head |
//! | `hang-head`, `stall` | no head ever; two chunks of content, then nothing |
//! | `cut`, `cut-mid-line` | the connection closes after two chunks, or inside the third |
//! | `midstream-error`, `choice-error` | an error in a late chunk, or inside the choice |
//! | `no-done`, `no-usage`, `usage-apart` | no `[DONE]`, no usage, usage in its own chunk |
//! | `zero-cost-byok`, `scientific-cost` | unusual costs |
//! | `slow-head-<ms>`, `slow-chunks-<ms>` | delays |
//! | `big`, `crlf`, `split` | two megabytes; CRLF line endings; chunks split at arbitrary bytes |
//!
//! A key behaves as [`OpenRouterSimulator::set_key`] says, or else as its text says after the
//! prefix: `sk-or-v1-rejected…`, `-management…`, `-down…`, `-busy…`, `-slow…`, `-limited…`,
//! `-expiring…`.

mod behaviour;
mod completion;
mod documented;
mod errors;
mod generated;
mod generation;
mod key;
mod models;
mod playback;
mod record;
mod routes;
mod schema;

use std::io;
use std::sync::Arc;

pub use models::DEFAULT_MODEL;
pub use record::{CallOutcome, KeyBehaviour, RecordedCall, key_sha256};

use crate::serve::Server;
use record::Shared;

/// A simulator that runs until stopped or dropped.
#[derive(Debug)]
pub struct OpenRouterSimulator {
    shared: Arc<Shared>,
    pub(crate) server: Server,
}

impl OpenRouterSimulator {
    pub async fn start() -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let server = Server::start(routes::router(Arc::clone(&shared))).await?;
        Ok(Self { shared, server })
    }

    /// `http://127.0.0.1:PORT/api/v1`
    pub fn base_url(&self) -> String {
        format!("{}{}", self.server.url(), routes::BASE)
    }

    /// All chat calls, in the order of their arrival.
    pub fn calls(&self) -> Vec<RecordedCall> {
        self.shared.calls.borrow().clone()
    }

    /// Returns once `condition` holds for the calls, for example that one has ended.
    pub async fn until(&self, condition: impl Fn(&[RecordedCall]) -> bool) {
        let mut calls = self.shared.calls.subscribe();
        let holds = calls.wait_for(|calls| condition(calls)).await;
        holds.expect("the simulator holds the sender");
    }

    /// The number of `GET /key` requests that had a key.
    pub fn key_checks(&self) -> usize {
        self.shared.inner.lock().unwrap().key_checks
    }

    /// The number of `GET /generation` requests that had a key.
    pub fn generation_checks(&self) -> usize {
        self.shared.inner.lock().unwrap().generation_checks
    }

    /// From now on, `key` behaves like this, whatever its text says.
    pub fn set_key(&self, key: &str, behaviour: KeyBehaviour) {
        self.shared.inner.lock().unwrap().keys.insert(key_sha256(key), behaviour);
    }

    /// While hidden, `GET /generation` finds nothing: OpenRouter's own records lag behind.
    pub fn hide_generations(&self, hidden: bool) {
        self.shared.inner.lock().unwrap().generations_hidden = hidden;
    }

    /// Records a completed call of `key` that was never made, for tests of look-ups only.
    pub fn remember(&self, key: &str, generation_id: &str, cost: &str) {
        let call = RecordedCall {
            generation_id: generation_id.to_owned(),
            key_sha256: Some(key_sha256(key)),
            cost: cost.to_owned(),
            finish_reason: Some("stop"),
            outcome: CallOutcome::Completed,
            ..RecordedCall::default()
        };
        self.shared.calls.send_modify(|calls| calls.push(call));
    }

    pub fn forget(&self) {
        self.shared.calls.send_modify(Vec::clear);
    }
}

#[cfg(test)]
mod tests;
