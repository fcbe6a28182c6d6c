//! The calls that have an open hold in this process.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use account::CallId;

/// A set of call ids, shared by its clones.
#[derive(Debug, Clone, Default)]
pub struct Running(Arc<Mutex<HashSet<CallId>>>);

impl Running {
    pub fn contains(&self, call: &CallId) -> bool {
        self.calls().contains(call)
    }

    /// Adds the call until the returned guard is dropped.
    pub(crate) fn begin(&self, call: &CallId) -> RunningCall {
        self.calls().insert(call.clone());
        RunningCall { running: self.clone(), call: call.clone() }
    }

    fn calls(&self) -> MutexGuard<'_, HashSet<CallId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(crate) struct RunningCall {
    running: Running,
    call: CallId,
}

impl Drop for RunningCall {
    fn drop(&mut self) {
        self.running.calls().remove(&self.call);
    }
}
