//! Names of secrets to delete unless they hold the account's key.

use account::{AccountId, KeyId};
use jiff::Timestamp;

use crate::accounts::Accounts;
use crate::db::Database;
use crate::due_index::DueTask;
use crate::error::StoreError;
use crate::item::time;
use crate::write::{Write, delete, put};

impl Accounts {
    /// Remembers a secret's name before it exists: it is deleted from `due` on if its save fails.
    pub async fn remember_secret(
        &self,
        id: &AccountId,
        key: &KeyId,
        due: Timestamp,
    ) -> Result<(), StoreError> {
        let put = put_secret(&self.db, id, key, due);
        self.db.write("remember secret", put).await.map(drop)
    }

    /// Forgets a deleted secret's name, unless it has become due at another time since.
    pub async fn forget_secret(
        &self,
        id: &AccountId,
        key: &KeyId,
        due: Timestamp,
    ) -> Result<(), StoreError> {
        let delete = delete_secret(&self.db, id, key, due);
        self.db.write("forget secret", delete).await.map(drop)
    }
}

pub(crate) fn put_secret(db: &Database, id: &AccountId, key: &KeyId, due: Timestamp) -> Write {
    put(&db.tables.accounts, task(id, key).item(due)).into()
}

/// Forgets a secret's name, on the condition that it is still due at `due`.
pub(crate) fn delete_secret(db: &Database, id: &AccountId, key: &KeyId, due: Timestamp) -> Write {
    delete(&db.tables.accounts, task(id, key).key())
        .condition_expression("due_at = :due")
        .expression_attribute_values(":due", time(due))
        .into()
}

fn task(account: &AccountId, key: &KeyId) -> DueTask {
    DueTask::Secret(account.clone(), key.clone())
}
