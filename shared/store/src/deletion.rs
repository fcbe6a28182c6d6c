//! The end of an account.
//!
//! Deleting marks the account's item as a tombstone, which keeps late events from reviving it. Calls
//! under way still end on it, so its balance and its number stay until no hold is open; then they go,
//! and with the number the only link from ledger and holds to a person.

use account::{Account, AccountId, AccountNumber, Profile};
use aws_sdk_dynamodb::types::{Delete, Put, TransactWriteItem, Update};
use jiff::Timestamp;

use crate::accounts::{Effect, account_key};
use crate::due_index::{DueKind, due_item};
use crate::error::{condition_failed, met_transaction};
use crate::events::row_key;
use crate::item::{self, ACCOUNT, Item, get_text, key, number, text, time};
use crate::payments::number_key;
use crate::transaction::{self, TRIES};
use crate::{HistoryEntry, Store, StoreError};

/// What is known of an account id.
#[derive(Debug, Clone, PartialEq)]
pub enum Presence {
    Never,
    Live(Box<Account>),
    /// Deleted by the event of this version.
    Deleted {
        version: u64,
        /// Nothing is left but the tombstone.
        scrubbed: bool,
    },
}

/// What became of the wish to delete an account.
#[derive(Debug, Clone, PartialEq)]
pub enum Deletion {
    /// It is deleted now; its profile as it was, unless it was gone before.
    Done(Option<Box<Profile>>),
    /// Something of a higher version was heard of the account: it lives.
    Late,
}

impl Store {
    /// What is known of `id`: one consistent read.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer or the item cannot be read.
    pub async fn presence(&self, id: &AccountId) -> Result<Presence, StoreError> {
        let Some(item) = self.account_item(id.as_str(), ACCOUNT).await? else {
            return Ok(Presence::Never);
        };
        if item.contains_key("profile") {
            let account = item::account_from_item(id, &item)?;
            return Ok(Presence::Live(Box::new(account)));
        }
        Ok(Presence::Deleted {
            version: item::get_number(&item, "deleted_version", "tombstone")?,
            scrubbed: !item.contains_key("account_number"),
        })
    }

    /// The number of the account in ledger and holds, also of a deleted one while calls are open on
    /// it: one consistent read.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer or the item cannot be read.
    pub async fn account_number(
        &self,
        id: &AccountId,
    ) -> Result<Option<AccountNumber>, StoreError> {
        let item = self.account_item(id.as_str(), ACCOUNT).await?;
        let Some(item) = item.filter(|item| item.contains_key("account_number")) else {
            return Ok(None);
        };
        let number = AccountNumber::new(get_text(&item, "account_number", "account")?);
        number.map(Some).map_err(|_| StoreError::corrupt("account"))
    }

    /// Deletes the account, on the word of an event of `version`, or leaves a tombstone where there
    /// is none yet. The secret of its key becomes due, and so does [`Store::scrub`].
    ///
    /// # Errors
    /// [`StoreError`] if the outcome is not known; deleting again is safe.
    pub async fn delete_account(
        &self,
        id: &AccountId,
        version: u64,
        why: &HistoryEntry,
    ) -> Result<Deletion, StoreError> {
        for tried in 0..TRIES {
            let written = match self.presence(id).await? {
                Presence::Never => {
                    let put = Put::builder()
                        .table_name(&self.tables.accounts)
                        .set_item(Some(tombstone(id, version, why.at)))
                        .condition_expression("attribute_not_exists(account_id)");
                    self.transact("delete account", vec![transaction::put(put)?])
                        .await?
                        .map(|()| None)
                }
                Presence::Deleted { version: known, .. } if known >= version => {
                    return Ok(Deletion::Done(None));
                }
                Presence::Deleted { .. } => {
                    let update = Update::builder()
                        .table_name(&self.tables.accounts)
                        .set_key(Some(account_key(id)))
                        .update_expression("SET deleted_version = :version")
                        // An account that lives again has none.
                        .condition_expression("deleted_version < :version")
                        .expression_attribute_values(":version", number(version));
                    self.transact("delete account", vec![transaction::update(update)?])
                        .await?
                        .map(|()| None)
                }
                Presence::Live(account) if account.profile.plans.version() > version => {
                    return Ok(Deletion::Late);
                }
                Presence::Live(account) => {
                    let items = self.deletion(&account, version, why)?;
                    self.transact("delete account", items)
                        .await?
                        .map(|()| Some(Box::new(account.profile)))
                }
            };
            match written {
                Ok(profile) => return Ok(Deletion::Done(profile)),
                // Somebody changed it meanwhile, or our own first try got through.
                Err(_) => transaction::pause(tried).await,
            }
        }
        Err(StoreError::Contended {
            operation: "delete account",
        })
    }

    fn deletion(
        &self,
        account: &Account,
        version: u64,
        why: &HistoryEntry,
    ) -> Result<Vec<TransactWriteItem>, StoreError> {
        let marks = Update::builder()
            .table_name(&self.tables.accounts)
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
        let due = due_item(
            deletion_key(&account.id),
            DueKind::Deletion,
            &account.id,
            why.at,
        );
        let due = Put::builder()
            .table_name(&self.tables.accounts)
            .set_item(Some(due));
        let way = Delete::builder()
            .table_name(&self.tables.accounts)
            .set_key(Some(number_key(&account.number)));
        let mut items = vec![
            transaction::update(marks)?,
            transaction::delete(way)?,
            transaction::put(due)?,
            self.new_history(&account.number, why)?,
        ];
        items.extend(self.new_cleanup(account, why.at)?);
        if let Some(key) = &account.profile.key {
            let secret = Effect::SecretDue {
                key: key.id.clone(),
                due: why.at,
            };
            items.push(self.effect(account, secret)?);
        }
        Ok(items)
    }

    /// Removes all that is left of a deleted account but its tombstone, events that nobody heard yet
    /// included, unless a hold is still open: then it stays due. `Ok(true)` if nothing is left.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer; scrubbing again is safe.
    pub async fn scrub(&self, id: &AccountId) -> Result<bool, StoreError> {
        // Looked up while nobody can make the account anew: what is found is the old one's.
        let events = self.event_rows(id).await?;
        let scrubbed = self
            .client
            .update_item()
            .table_name(&self.tables.accounts)
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
            .send()
            .await;
        match scrubbed {
            Ok(_) => {}
            Err(error) if condition_failed(&error) || met_transaction(&error) => return Ok(false),
            Err(error) => return Err(StoreError::unavailable("scrub account", error)),
        }
        for event in &events {
            self.remove_row(row_key(event)).await?;
        }
        for item in ["attempts", DELETION] {
            self.client
                .delete_item()
                .table_name(&self.tables.accounts)
                .set_key(Some(key([("account_id", id.as_str()), ("item", item)])))
                .send()
                .await
                .map_err(|error| StoreError::unavailable("scrub account", error))?;
        }
        Ok(true)
    }
}

/// The range key of the work that a deletion leaves.
pub(crate) const DELETION: &str = "deletion";

pub(crate) fn deletion_key(id: &AccountId) -> Item {
    key([("account_id", id.as_str()), ("item", DELETION)])
}

fn tombstone(id: &AccountId, version: u64, at: Timestamp) -> Item {
    let mut item = account_key(id);
    item.insert("deleted_version".to_owned(), number(version));
    item.insert("deleted_at".to_owned(), text(item::time_text(at)));
    item
}
