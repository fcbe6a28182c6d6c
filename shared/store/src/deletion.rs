//! The end of an account.
//!
//! A deleted account's item becomes a tombstone, so that late events do not revive the account.
//! Open calls still end on it, so it keeps its balance and number until no hold is open. Removing
//! the number then removes the only link from ledger and holds to a person.

use account::{Account, AccountId, Profile};

use crate::accounts::{Accounts, Presence, number_key};
use crate::attempts::attempts_key;
use crate::cleanup::put_cleanup;
use crate::due_index::DueTask;
use crate::error::StoreError;
use crate::history::{HistoryEntry, put_history};
use crate::item::{Attributes, account_key, key, number, text, time};
use crate::outbox::event_rows;
use crate::retry::Retry;
use crate::secrets::put_secret;
use crate::write::{Write, delete, put, update};

#[derive(Debug, Clone, PartialEq)]
pub enum Deletion {
    /// The last profile of the deleted account, unless it was deleted before or never existed.
    Done(Option<Box<Profile>>),
    /// A higher version created or changed the account: it is kept.
    Late,
}

impl Accounts {
    /// Deletes the account because of an event of `version`, or leaves a tombstone where there was
    /// no account. The secret of its key becomes due, and so does [`Accounts::scrub`]. Deleting
    /// again is safe.
    pub async fn delete(
        &self,
        id: &AccountId,
        version: u64,
        why: &HistoryEntry,
    ) -> Result<Deletion, StoreError> {
        let table = &self.db.tables.accounts;
        let mut retry = Retry::new("delete account");
        loop {
            let (items, profile) = match self.presence(id).await? {
                Presence::Never => {
                    let tombstone = put(table, account_key(id))
                        .item("deleted_version", number(version))
                        .item("deleted_at", time(why.at))
                        .condition_expression("attribute_not_exists(account_id)");
                    (vec![tombstone.into()], None)
                }
                Presence::Deleted { version: known, .. } if known >= version => {
                    return Ok(Deletion::Done(None));
                }
                Presence::Deleted { .. } => {
                    let expression = "SET deleted_version = :version";
                    let update = update(table, account_key(id), expression)
                        // An account that was created again has no such attribute.
                        .condition_expression("deleted_version < :version")
                        .expression_attribute_values(":version", number(version));
                    (vec![update.into()], None)
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
            if self.db.transact("delete account", items).await?.succeeded() {
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
    ) -> Result<Vec<Write>, StoreError> {
        let table = &self.db.tables.accounts;
        let expression = "SET deleted_version = :version, deleted_at = :at, revision = :after \
                          REMOVE profile, always_use_key, due_shard, due_at";
        let bury = update(table, account_key(&account.id), expression)
            .condition_expression("account_number = :number AND revision = :before")
            .expression_attribute_values(":number", text(account.number.as_str()))
            .expression_attribute_values(":version", number(version))
            .expression_attribute_values(":at", time(why.at))
            .expression_attribute_values(":before", number(account.revision))
            .expression_attribute_values(":after", number(account.revision + 1));
        let mut items = vec![
            bury.into(),
            delete(table, number_key(&account.number)).into(),
            put(table, task(&account.id).item(why.at)).into(),
            put_history(&self.db, &account.number, why),
        ];
        items.extend(put_cleanup(&self.db, account, why.at)?);
        if let Some(key) = &account.profile.key {
            items.push(put_secret(&self.db, &account.id, &key.id, why.at));
        }
        Ok(items)
    }

    /// Removes everything of a deleted account except its tombstone, including undelivered events.
    /// True if nothing is left; false while a hold is open, and the deletion stays due. Scrubbing
    /// again is safe.
    pub async fn scrub(&self, id: &AccountId) -> Result<bool, StoreError> {
        let table = &self.db.tables.accounts;
        // Read before the account can be created again: these are events of the old one.
        let events = event_rows(&self.db, id).await?;
        let expression = "REMOVE account_number, revision, created_at, balance, held, available, \
                          owed, open_holds, entries, moves";
        let scrub = update(table, account_key(id), expression)
            .condition_expression(
                "attribute_not_exists(profile) \
                 AND (attribute_not_exists(account_number) OR open_holds = :none)",
            )
            .expression_attribute_values(":none", number(0));
        if !self.db.write("scrub account", scrub).await? {
            return Ok(false);
        }
        let mut left = Vec::new();
        for event in &events {
            let name = Attributes::of("event", event).text("item")?;
            left.push(key([("account_id", id.as_str()), ("item", name)]));
        }
        // The task comes last: until then, the deletion stays due.
        left.extend([attempts_key(id), task(id).key()]);
        for key in left {
            self.db.write("scrub account", delete(table, key)).await?;
        }
        Ok(true)
    }
}

fn task(account: &AccountId) -> DueTask {
    DueTask::Deletion(account.clone())
}
