//! Names of secrets to delete unless they hold the account's key.

use account::{AccountId, KeyId};
use jiff::Timestamp;

use crate::db::Database;
use crate::due_index::DueTask;
use crate::item::time;
use crate::write::{Write, delete, put};

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
