//! Retries of a write that collided with another one.

use std::time::Duration;

use crate::error::StoreError;

/// Maximum number of tries of a write.
const TRIES: u32 = 12;
const FIRST_PAUSE_MS: u64 = 4;
const LONGEST_PAUSE_MS: u64 = 250;

#[derive(Debug)]
pub(crate) struct Retry {
    operation: &'static str,
    max: u32,
    tried: u32,
    was_unknown: bool,
}

impl Retry {
    pub(crate) fn new(operation: &'static str) -> Self {
        Self::at_most(TRIES, operation)
    }

    pub(crate) fn at_most(max: u32, operation: &'static str) -> Self {
        Self { operation, max, tried: 0, was_unknown: false }
    }

    pub(crate) fn is_first_try(&self) -> bool {
        self.tried == 0
    }

    /// Lets other writers finish, for a random time that grows with every try;
    /// [`StoreError::Contended`] if this was the last one.
    pub(crate) async fn pause(&mut self) -> Result<(), StoreError> {
        self.tried += 1;
        if self.tried >= self.max {
            let operation = self.operation;
            return Err(StoreError::Contended { operation });
        }
        let longest = FIRST_PAUSE_MS.saturating_mul(1 << (self.tried - 1).min(16));
        let millis = fastrand::u64(0..=longest.min(LONGEST_PAUSE_MS));
        tokio::time::sleep(Duration::from_millis(millis)).await;
        Ok(())
    }

    /// Whether the write is done. If not, the caller reads and tries again: after a condition
    /// failed, and once after an unknown outcome, which the read then reveals.
    pub(crate) async fn is_done(
        &mut self,
        written: Result<bool, StoreError>,
    ) -> Result<bool, StoreError> {
        match written {
            Err(error @ StoreError::Unavailable { .. }) if !self.was_unknown => {
                tracing::warn!(%error, "unknown outcome of a write; reading what is stored");
                self.was_unknown = true;
            }
            Ok(false) => {}
            done => return done,
        }
        self.pause().await?;
        Ok(false)
    }
}
