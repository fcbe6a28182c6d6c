//! Facts about a saved OpenRouter key. The key's own text is nowhere in this crate.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::KeyId;

/// What OpenRouter last said of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    Usable,
    /// OpenRouter answered 401, and said so again when asked about the key itself.
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
    /// US dollars as a decimal string; `None` where OpenRouter names no limit.
    pub limit_usd: Option<String>,
    pub limit_remaining_usd: Option<String>,
    pub expires_at: Option<String>,
    pub checked_at: Timestamp,
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
            limit_usd: None,
            limit_remaining_usd: None,
            expires_at: None,
            checked_at: Timestamp::UNIX_EPOCH,
        }
    }
}
