//! Payments of a deleted account that are still open at Stripe.

use account::{Account, AccountNumber};
use jiff::Timestamp;

use crate::db::Database;
use crate::due_index::DueTask;
use crate::error::StoreError;
use crate::item::{self, Attributes, Item};
use crate::payments::Payments;
use crate::write::{Write, delete, put};

const CLEANUP: &str = "cleanup";

impl Payments {
    /// The Stripe ids of a deleted account's payments that are still open.
    pub async fn left_open(&self, account: &AccountNumber) -> Result<Vec<String>, StoreError> {
        let item = self.db.charge("read cleanup", task(account).key()).await?;
        let Some(item) = item else {
            return Ok(Vec::new());
        };
        let ids = Attributes::of(CLEANUP, &item).optional("objects")?;
        Ok(ids.unwrap_or_default())
    }

    /// Keeps only the payments in `left`, which are tried again at `retry_at`.
    pub async fn set_left_open(
        &self,
        account: &AccountNumber,
        left: &[String],
        retry_at: Timestamp,
    ) -> Result<(), StoreError> {
        let table = &self.db.tables.charges;
        let write: Write = if left.is_empty() {
            delete(table, task(account).key()).into()
        } else {
            put(table, cleanup_item(account, left, retry_at)?).into()
        };
        self.db.write("keep cleanup", write).await.map(drop)
    }
}

/// Makes the account's open payments due for cancellation; `None` if there are none.
pub(crate) fn put_cleanup(
    db: &Database,
    account: &Account,
    due: Timestamp,
) -> Result<Option<Write>, StoreError> {
    let ids = account.profile.billing.open_payments();
    if ids.is_empty() {
        return Ok(None);
    }
    let item = cleanup_item(&account.number, &ids, due)?;
    Ok(Some(put(&db.tables.charges, item).into()))
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
    DueTask::Cleanup(account.clone())
}
