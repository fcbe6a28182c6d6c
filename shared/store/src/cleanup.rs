//! What a deleted account leaves at the payment provider, until it can no longer be paid.

use account::{Account, AccountNumber};
use aws_sdk_dynamodb::types::{Put, TransactWriteItem};
use jiff::Timestamp;

use crate::due_index::{DueKind, due_shard};
use crate::item::{self, Item, get_text, key, text, time};
use crate::transaction;
use crate::{Store, StoreError};

/// What a deleted account left at the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueCleanup {
    pub account_number: AccountNumber,
    /// What could still be paid, by the provider's ids.
    pub objects: Vec<String>,
}

impl Store {
    /// What deleted accounts of one shard left at the provider.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn due_cleanups(
        &self,
        shard: u8,
        now: Timestamp,
        limit: i32,
    ) -> Result<Vec<Result<DueCleanup, StoreError>>, StoreError> {
        let table = &self.tables.charges;
        let rows = self.due_in(table, DueKind::Cleanup, shard, now, limit, due_cleanup);
        let mut due = Vec::new();
        for account in rows.await? {
            due.push(match account {
                Ok(account) => self.cleanup(account).await,
                Err(error) => Err(error),
            });
        }
        Ok(due)
    }

    async fn cleanup(&self, account: AccountNumber) -> Result<DueCleanup, StoreError> {
        let read = self
            .charges_item(cleanup_key(&account), "read wind-up")
            .await?;
        let objects = read.and_then(|item| item.get("objects").cloned());
        Ok(DueCleanup {
            account_number: account,
            objects: match objects {
                Some(objects) => item::from_attribute("wind-up", objects)?,
                None => Vec::new(),
            },
        })
    }

    /// What a deleted account left at the provider is done with, but for `left`, which is tried again
    /// at `again`.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer; it then comes up again.
    pub async fn cleanup_done(
        &self,
        account: &AccountNumber,
        left: &[String],
        again: Timestamp,
    ) -> Result<(), StoreError> {
        if left.is_empty() {
            let deleted = self
                .client
                .delete_item()
                .table_name(&self.tables.charges)
                .set_key(Some(cleanup_key(account)))
                .send()
                .await;
            return deleted
                .map(drop)
                .map_err(|error| StoreError::unavailable("wind up", error));
        }
        let item = cleanup_item(account, left, again)?;
        let put = self.client.put_item().table_name(&self.tables.charges);
        put.set_item(Some(item))
            .send()
            .await
            .map(drop)
            .map_err(|error| StoreError::unavailable("wind up", error))
    }

    /// What the account leaves at the provider; `None` if there is nothing.
    pub(crate) fn new_cleanup(
        &self,
        account: &Account,
        due: Timestamp,
    ) -> Result<Option<TransactWriteItem>, StoreError> {
        let objects = account.profile.billing.open_payments();
        if objects.is_empty() {
            return Ok(None);
        }
        let put = Put::builder()
            .table_name(&self.tables.charges)
            .set_item(Some(cleanup_item(&account.number, &objects, due)?));
        transaction::put(put).map(Some)
    }
}

fn cleanup_key(account: &AccountNumber) -> Item {
    key([("account_number", account.as_str()), ("charge", "cleanup")])
}

fn cleanup_item(
    account: &AccountNumber,
    objects: &[String],
    due: Timestamp,
) -> Result<Item, StoreError> {
    let mut item = cleanup_key(account);
    let shard = due_shard(DueKind::Cleanup, account.as_str());
    let objects = item::to_attribute("wind-up", &objects)?;
    item.insert("objects".to_owned(), objects);
    item.insert("due_shard".to_owned(), text(shard));
    item.insert("due_at".to_owned(), time(due));
    Ok(item)
}

fn due_cleanup(item: &Item) -> Result<AccountNumber, StoreError> {
    const WHAT: &str = "due wind-up";
    let account = AccountNumber::new(get_text(item, "account_number", WHAT)?);
    account.map_err(|_| StoreError::corrupt(WHAT))
}
