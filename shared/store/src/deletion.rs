//! The end of an account.
//!
//! A deleted account's item becomes a tombstone, so that late events do not revive the account. Calls
//! that are still open end on it, so it keeps its balance and number until no hold is open. Then they
//! are removed, and with the number the only link from ledger and holds to a person.

use account::{Account, AccountId, Profile};
use aws_sdk_dynamodb::types::{Delete, Put, TransactWriteItem, Update};

use crate::accounts::{Accounts, Presence, number_key};
use crate::attempts::attempts_key;
use crate::cleanup::put_cleanup;
use crate::due_index::DueTask;
use crate::error::{StoreError, Written};
use crate::item::{self, Attributes, account_key, number, text, time};
use crate::ledger::{HistoryEntry, put_history};
use crate::outbox::event_rows;
use crate::secrets::put_secret;
use crate::transaction::{self, Retry};

/// The outcome of deleting an account.
#[derive(Debug, Clone, PartialEq)]
pub enum Deletion {
    /// It is deleted. With its last profile, unless it was deleted before or never existed.
    Done(Option<Box<Profile>>),
    /// A higher version created or changed the account: it lives.
    Late,
}

impl Accounts {
    /// Deletes the account because of an event of `version`, or leaves a tombstone where there was no
    /// account. The secret of its key becomes due, and so does [`Accounts::scrub`]. Deleting again is
    /// safe.
    pub async fn delete(
        &self,
        id: &AccountId,
        version: u64,
        why: &HistoryEntry,
    ) -> Result<Deletion, StoreError> {
        let mut retry = Retry::new("delete account");
        loop {
            let (items, profile) = match self.presence(id).await? {
                Presence::Never => {
                    let put = Put::builder()
                        .table_name(&self.db.tables.accounts)
                        .set_item(Some(account_key(id)))
                        .item("deleted_version", number(version))
                        .item("deleted_at", time(why.at))
                        .condition_expression("attribute_not_exists(account_id)");
                    (vec![transaction::put(put)?], None)
                }
                Presence::Deleted { version: known, .. } if known >= version => {
                    return Ok(Deletion::Done(None));
                }
                Presence::Deleted { .. } => {
                    let update = Update::builder()
                        .table_name(&self.db.tables.accounts)
                        .set_key(Some(account_key(id)))
                        .update_expression("SET deleted_version = :version")
                        // An account that was created again has no such attribute.
                        .condition_expression("deleted_version < :version")
                        .expression_attribute_values(":version", number(version));
                    (vec![transaction::update(update)?], None)
                }
                Presence::Live(account) if account.profile.plans.version() > version => {
                    return Ok(Deletion::Late);
                }
                Presence::Live(account) => {
                    let items = self.deletion(&account, version, why)?;
                    (items, Some(Box::new(account.profile)))
                }
            };
            // Refused after another change, or after our own first try.
            if self.db.transact("delete account", items).await?.is_done() {
                return Ok(Deletion::Done(profile));
            }
            retry.pause().await?;
        }
    }

    fn deletion(
        &self,
        account: &Account,
        version: u64,
        why: &HistoryEntry,
    ) -> Result<Vec<TransactWriteItem>, StoreError> {
        let table = &self.db.tables.accounts;
        let bury = Update::builder()
            .table_name(table)
            .set_key(Some(account_key(&account.id)))
            .update_expression(
                "SET deleted_version = :version, deleted_at = :at, revision = :after \
                 REMOVE profile, always_use_key, due_shard, due_at",
            )
            .condition_expression("account_number = :number AND revision = :before")
            .expression_attribute_values(":number", text(account.number.as_str()))
            .expression_attribute_values(":version", number(version))
            .expression_attribute_values(":at", time(why.at))
            .expression_attribute_values(":before", number(account.revision))
            .expression_attribute_values(":after", number(account.revision + 1));
        let by_number = Delete::builder()
            .table_name(table)
            .set_key(Some(number_key(&account.number)));
        let due = Put::builder()
            .table_name(table)
            .set_item(Some(task(&account.id).item(why.at)));
        let mut items = vec![
            transaction::update(bury)?,
            transaction::delete(by_number)?,
            transaction::put(due)?,
            put_history(&self.db, &account.number, why)?,
        ];
        items.extend(put_cleanup(&self.db, account, why.at)?);
        if let Some(key) = &account.profile.key {
            items.push(put_secret(&self.db, &account.id, &key.id, why.at)?);
        }
        Ok(items)
    }

    /// Removes everything of a deleted account but its tombstone, undelivered events included. True if
    /// nothing is left; false while a hold is open, and the deletion stays due. Scrubbing again is
    /// safe.
    pub async fn scrub(&self, id: &AccountId) -> Result<bool, StoreError> {
        let table = &self.db.tables.accounts;
        // Read before the account can be created again: these are events of the old one.
        let events = event_rows(&self.db, id).await?;
        let sent = self
            .db
            .client
            .update_item()
            .table_name(table)
            .set_key(Some(account_key(id)))
            .update_expression(
                "REMOVE account_number, revision, created_at, balance, held, available, owed, \
                 open_holds, entries, moves",
            )
            .condition_expression(
                "attribute_not_exists(profile) \
                 AND (attribute_not_exists(account_number) OR open_holds = :none)",
            )
            .expression_attribute_values(":none", number(0))
            .send();
        if Written::of("scrub account", Box::pin(sent).await)? != Written::Done {
            return Ok(false);
        }
        for event in &events {
            let name = Attributes::of("event", event).text("item")?;
            let key = item::key([("account_id", id.as_str()), ("item", name)]);
            self.db.delete("scrub account", table, key).await?;
        }
        for key in [attempts_key(id), task(id).key()] {
            self.db.delete("scrub account", table, key).await?;
        }
        Ok(true)
    }
}

fn task(account: &AccountId) -> DueTask {
    DueTask::Deletion {
        account: account.clone(),
    }
}
