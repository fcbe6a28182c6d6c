//! Facts about a saved OpenRouter key. This crate never sees the key's text.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::KeyId;

/// The state of the key, as OpenRouter last reported it.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    Usable,
    /// OpenRouter returned 401 for a call, and again for `GET /key`.
    Rejected,
}

/// A connected key, as it may be shown to the account's members.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedKey {
    pub id: KeyId,
    /// OpenRouter's own masked label, for example `sk-or-v1-abc...xyz`.
    pub label: String,
    pub last4: String,
    /// Lower-case hex, for the deep link to the key's page at OpenRouter.
    pub sha256: String,
    pub saved_at: Timestamp,
    /// The `sub` of the token that saved it.
    pub saved_by: String,
    pub state: KeyState,
    pub limits: KeyLimits,
    pub checked_at: Timestamp,
    /// When a call last started a check of the key. Calls check it at most every five minutes.
    #[serde(default)]
    pub check_started_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KeyLimits {
    /// US dollars as a decimal string; `None` if there is no limit.
    pub limit_usd: Option<String>,
    pub limit_remaining_usd: Option<String>,
    pub expires_at: Option<String>,
}

impl SavedKey {
    /// OpenRouter accepted the key at `now`.
    pub fn accept(&mut self, limits: &KeyLimits, now: Timestamp) {
        self.state = KeyState::Usable;
        self.limits = limits.clone();
        self.checked_at = now;
    }

    /// OpenRouter refused the key at `now`. True if it was usable before.
    pub fn reject(&mut self, now: Timestamp) -> bool {
        let is_new = self.state != KeyState::Rejected;
        self.state = KeyState::Rejected;
        self.checked_at = now;
        is_new
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn saved_key(id: &str) -> SavedKey {
        SavedKey {
            id: KeyId::new(id).unwrap(),
            label: "sk-or-v1-abc...xyz".to_owned(),
            last4: "wxyz".to_owned(),
            sha256: "00".repeat(32),
            saved_at: Timestamp::UNIX_EPOCH,
            saved_by: "user_1".to_owned(),
            state: KeyState::Usable,
            limits: KeyLimits::default(),
            checked_at: Timestamp::UNIX_EPOCH,
            check_started_at: None,
        }
    }
}
