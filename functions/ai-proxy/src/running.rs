//! The calls that hold credits and are under way in this process.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use account::CallId;

/// Which calls are under way. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Running(Arc<Mutex<HashSet<CallId>>>);

impl Running {
    /// Is the call under way here?
    pub fn contains(&self, call: &CallId) -> bool {
        self.calls(|calls| calls.contains(call))
    }

    /// The call is under way until what this gives is dropped.
    pub(crate) fn begin(&self, call: &CallId) -> RunningCall {
        self.calls(|calls| calls.insert(call.clone()));
        RunningCall {
            running: self.clone(),
            call: call.clone(),
        }
    }

    fn calls<T>(&self, what: impl FnOnce(&mut HashSet<CallId>) -> T) -> T {
        what(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug)]
pub(crate) struct RunningCall {
    running: Running,
    call: CallId,
}

impl Drop for RunningCall {
    fn drop(&mut self) {
        self.running.calls(|calls| calls.remove(&self.call));
    }
}
