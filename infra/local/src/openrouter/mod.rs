//! An OpenRouter simulator, on a listener of its own; a second one stands in for the default AI.
//!
//! A call behaves as its model's name says (`sim/<behaviour>` is not in the model list,
//! `sim-priced/<behaviour>` is). A key behaves as [`OpenRouterSimulator::set_key`] says, or else as
//! its text says after the prefix (`sk-or-v1-rejected…`). Every chat call is recorded with its
//! cost, even if its reader left.

mod behaviour;
mod completion;
mod errors;
mod models;
mod playback;
mod record;
mod routes;

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
