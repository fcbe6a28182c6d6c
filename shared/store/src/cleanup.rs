//! Payments of a deleted account that are still open at Stripe.

use account::{Account, AccountNumber};
use aws_sdk_dynamodb::types::{Put, TransactWriteItem};
use jiff::Timestamp;

use crate::db::{Database, Db};
use crate::due_index::DueTask;
use crate::error::StoreError;
use crate::item::{self, Attributes, Item};
use crate::transaction;

const CLEANUP: &str = "cleanup";

/// Remembers the open payments of deleted accounts until they are cancelled.
#[derive(Debug, Clone)]
pub struct Cleanups {
    pub(crate) db: Db,
}

impl Cleanups {
    /// The Stripe ids of the account's payments that are still open.
    pub async fn stripe_ids(&self, account: &AccountNumber) -> Result<Vec<String>, StoreError> {
        let item = self.db.charge("read cleanup", task(account).key()).await?;
        let Some(item) = item else {
            return Ok(Vec::new());
        };
        let ids = Attributes::of(CLEANUP, &item).optional("objects")?;
        Ok(ids.unwrap_or_default())
    }

    /// Keeps only the payments in `left`, which are tried again at `retry_at`.
    pub async fn keep(
        &self,
        account: &AccountNumber,
        left: &[String],
        retry_at: Timestamp,
    ) -> Result<(), StoreError> {
        let table = &self.db.tables.charges;
        if left.is_empty() {
            let key = task(account).key();
            return self.db.delete("end cleanup", table, key).await;
        }
        let put = self.db.client.put_item().table_name(table);
        let put = put.set_item(Some(cleanup_item(account, left, retry_at)?));
        let put = Box::pin(put.send()).await.map(drop);
        put.map_err(|error| StoreError::unavailable("postpone cleanup", error))
    }
}

/// Makes the account's open payments due for cancellation; `None` if there are none.
pub(crate) fn put_cleanup(
    db: &Database,
    account: &Account,
    due: Timestamp,
) -> Result<Option<TransactWriteItem>, StoreError> {
    let ids = account.profile.billing.open_payments();
    if ids.is_empty() {
        return Ok(None);
    }
    let put = Put::builder()
        .table_name(&db.tables.charges)
        .set_item(Some(cleanup_item(&account.number, &ids, due)?));
    transaction::put(put).map(Some)
}

fn cleanup_item(
    account: &AccountNumber,
    stripe_ids: &[String],
    due: Timestamp,
) -> Result<Item, StoreError> {
    let ids = item::to_attribute(CLEANUP, &stripe_ids)?;
    Ok(item::with(task(account).item(due), [("objects", ids)]))
}

fn task(account: &AccountNumber) -> DueTask {
    DueTask::Cleanup {
        account: account.clone(),
    }
}
