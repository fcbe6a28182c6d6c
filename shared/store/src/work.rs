//! The sparse index of work: what the billing tick finds due.

use account::{AccountId, KeyId};
use jiff::Timestamp;

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
}

impl Store {
    /// The secrets due at `now`, at most `limit` a shard, oldest first within a shard.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn due_secrets(
        &self,
        now: Timestamp,
        limit: i32,
    ) -> Result<Vec<DueSecret>, StoreError> {
        let mut found = Vec::new();
        for shard in 0..SHARDS {
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
            for item in page.items.unwrap_or_default() {
                found.push(due_secret(&item)?);
            }
        }
        Ok(found)
    }
}

fn due_secret(item: &Item) -> Result<DueSecret, StoreError> {
    const WHAT: &str = "due secret";
    let account = item::get_text(item, "account_id", WHAT)?;
    let name = item::get_text(item, "item", WHAT)?;
    let key = name.split_once('#').map(|(_, key)| key.to_owned());
    match (AccountId::new(account), key.map(KeyId::new)) {
        (Ok(account), Some(Ok(key))) => Ok(DueSecret { account, key }),
        _ => Err(StoreError::corrupt(WHAT)),
    }
}
