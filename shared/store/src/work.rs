//! The sparse index of work: what the billing tick finds due.

use account::{AccountId, KeyId};
use jiff::Timestamp;

use crate::accounts::secret_key;
use crate::error::condition_failed;
use crate::item::{self, Item, SHARDS, text, time};
use crate::{Store, StoreError};

/// The kinds of work, each in index partitions of its own, so that none waits behind another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// A secret that must not outlive its key.
    Secret,
    /// A domain event in the outbox.
    Event,
}

impl Work {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Event => "event",
        }
    }

    fn shard(self, shard: u8) -> String {
        format!("{}#{shard}", self.name())
    }
}

/// Puts an item of `account` into the index: due at `due`.
pub(crate) fn due_item(mut item: Item, work: Work, account: &AccountId, due: Timestamp) -> Item {
    let shard = work.shard(item::shard_of(account.as_str()));
    item.insert("due_shard".to_owned(), text(shard));
    item.insert("due_at".to_owned(), time(due));
    item
}

/// A secret whose deletion is due unless it is the account's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueSecret {
    pub account: AccountId,
    pub key: KeyId,
    pub due: Timestamp,
}

/// All partitions of the index, for those who look through it.
pub fn shards() -> std::ops::Range<u8> {
    0..SHARDS
}

impl Store {
    /// The secrets of one shard that are due at `now`, at most `limit`, oldest first. A row that
    /// cannot be read is an error of its own.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn due_secrets(
        &self,
        shard: u8,
        now: Timestamp,
        limit: i32,
    ) -> Result<Vec<Result<DueSecret, StoreError>>, StoreError> {
        let page = self
            .client
            .query()
            .table_name(&self.tables.accounts)
            .index_name("due")
            .key_condition_expression("due_shard = :shard AND due_at <= :now")
            .expression_attribute_values(":shard", text(Work::Secret.shard(shard)))
            .expression_attribute_values(":now", time(now))
            .limit(limit)
            .send()
            .await
            .map_err(|error| StoreError::unavailable("find due secrets", error))?;
        let rows = page.items.unwrap_or_default();
        Ok(rows.iter().map(due_secret).collect())
    }

    /// Takes a due secret on, by putting its time off to `until`: nobody else does, a save that
    /// intended the secret can no longer put it in force, and if the work fails it comes back.
    /// `Ok(None)` if it is not due any more as it was.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn claim_secret(
        &self,
        due: &DueSecret,
        until: Timestamp,
    ) -> Result<Option<DueSecret>, StoreError> {
        let claimed = self
            .client
            .update_item()
            .table_name(&self.tables.accounts)
            .set_key(Some(secret_key(&due.account, &due.key)))
            .update_expression("SET due_at = :until")
            .condition_expression("due_at = :due")
            .expression_attribute_values(":until", time(until))
            .expression_attribute_values(":due", time(due.due))
            .send()
            .await;
        match claimed {
            Ok(_) => Ok(Some(DueSecret {
                due: until,
                ..due.clone()
            })),
            Err(error) if condition_failed(&error) => Ok(None),
            Err(error) => Err(StoreError::unavailable("claim due secret", error)),
        }
    }
}

fn due_secret(item: &Item) -> Result<DueSecret, StoreError> {
    const WHAT: &str = "due secret";
    let account = item::get_text(item, "account_id", WHAT)?;
    let due = item::get_time(item, "due_at", WHAT)?;
    let name = item::get_text(item, "item", WHAT)?;
    let key = name.split_once('#').map(|(_, key)| key.to_owned());
    match (AccountId::new(account), key.map(KeyId::new)) {
        (Ok(account), Some(Ok(key))) => Ok(DueSecret { account, key, due }),
        _ => Err(StoreError::corrupt(WHAT)),
    }
}
