//! Names of secrets to delete unless they hold the account's key.

use account::{AccountId, KeyId};
use aws_sdk_dynamodb::types::{Delete, Put, TransactWriteItem};
use jiff::Timestamp;

use crate::db::{Database, Db};
use crate::due_index::DueTask;
use crate::error::{StoreError, Written};
use crate::item::time;
use crate::transaction;

/// Remembers the names of secrets, so that an orphaned one is deleted.
#[derive(Debug, Clone)]
pub struct SecretIntents {
    pub(crate) db: Db,
}

impl SecretIntents {
    /// Remembers a secret's name before the secret exists, so that it is deleted from `due` on if its
    /// save fails.
    pub async fn add(&self, id: &AccountId, key: &KeyId, due: Timestamp) -> Result<(), StoreError> {
        let sent = self
            .db
            .client
            .put_item()
            .table_name(&self.db.tables.accounts)
            .set_item(Some(task(id, key).item(due)))
            .send();
        let put = Box::pin(sent).await.map(drop);
        put.map_err(|error| StoreError::unavailable("remember secret", error))
    }

    /// Forgets a deleted secret's name, unless it has become due at another time since.
    pub async fn remove(
        &self,
        id: &AccountId,
        key: &KeyId,
        due: Timestamp,
    ) -> Result<(), StoreError> {
        let sent = self
            .db
            .client
            .delete_item()
            .table_name(&self.db.tables.accounts)
            .set_key(Some(task(id, key).key()))
            .condition_expression("due_at = :due")
            .expression_attribute_values(":due", time(due))
            .send();
        let written = Written::of("forget secret", Box::pin(sent).await)?;
        written.or_conflict("forget secret").map(drop)
    }
}

/// Has the key's secret deleted from `due` on.
pub(crate) fn put_secret(
    db: &Database,
    id: &AccountId,
    key: &KeyId,
    due: Timestamp,
) -> Result<TransactWriteItem, StoreError> {
    let put = Put::builder()
        .table_name(&db.tables.accounts)
        .set_item(Some(task(id, key).item(due)));
    transaction::put(put)
}

/// Forgets the name of a secret that comes into use, on the condition that it is still due at `due`.
pub(crate) fn delete_secret(
    db: &Database,
    id: &AccountId,
    key: &KeyId,
    due: Timestamp,
) -> Result<TransactWriteItem, StoreError> {
    let delete = Delete::builder()
        .table_name(&db.tables.accounts)
        .set_key(Some(task(id, key).key()))
        .condition_expression("due_at = :due")
        .expression_attribute_values(":due", time(due));
    transaction::delete(delete)
}

fn task(account: &AccountId, key: &KeyId) -> DueTask {
    DueTask::Secret {
        account: account.clone(),
        key: key.clone(),
    }
}
