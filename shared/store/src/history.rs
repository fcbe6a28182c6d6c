//! An account's history: changes that move no credits.

use account::AccountNumber;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::db::Database;
use crate::item::{key, time_text};
use crate::write::{Write, put};

/// A change of an account, and who made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Unique within the account.
    pub id: String,
    pub at: Timestamp,
    pub actor: String,
    pub what: String,
}

/// Written twice, it is the same item: its key consists of its time and id.
pub(crate) fn put_history(db: &Database, account: &AccountNumber, entry: &HistoryEntry) -> Write {
    let at = time_text(entry.at);
    let item = key([
        ("account_number", account.as_str()),
        ("entry", &format!("h#{at}#{}", entry.id)),
        ("id", &entry.id),
        ("at", &at),
        ("actor", &entry.actor),
        ("what", &entry.what),
    ]);
    put(&db.tables.ledger, item).into()
}
