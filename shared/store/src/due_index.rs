//! The sparse index of work: what the billing tick finds due.

use account::hold::next_check;
use account::{AccountId, AccountNumber, CallId, KeyId};
use jiff::Timestamp;

use crate::accounts::{account_key, secret_key};
use crate::deletion::deletion_key;
use crate::error::{condition_failed, met_transaction};
use crate::holds::{hold_key, open_hold, state_of};
use crate::item::{self, ACCOUNT, Item, SHARDS, get_text, get_time, text, time};
use crate::{OpenHold, Store, StoreError};

/// The kinds of work, each in index partitions of its own, so that none waits behind another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DueKind {
    /// A secret that must not outlive its key.
    Secret,
    /// A domain event in the outbox.
    Event,
    /// A deleted account of which something is left.
    Deletion,
    /// An account for whose add-on there is something to do.
    Billing,
    /// A page of the provider's that has closed.
    Page,
    /// A payment that is to be given back.
    Refund,
    /// An event of the payment provider that is to be applied again.
    Webhook,
    /// Payments of a deleted account that are to be called off.
    Cleanup,
}

impl DueKind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Event => "event",
            Self::Deletion => "deletion",
            Self::Billing => "billing",
            Self::Page => "page",
            Self::Refund => "refund",
            Self::Webhook => "webhook",
            Self::Cleanup => "cleanup",
        }
    }

    fn shard(self, shard: u8) -> String {
        format!("{}#{shard}", self.name())
    }
}

/// Puts an item of `account` into the index: due at `due`.
pub(crate) fn due_item(mut item: Item, kind: DueKind, account: &AccountId, due: Timestamp) -> Item {
    item.insert(
        "due_shard".to_owned(),
        text(due_shard(kind, account.as_str())),
    );
    item.insert("due_at".to_owned(), time(due));
    item
}

/// The partition of the index in which work on `id` is.
pub(crate) fn due_shard(kind: DueKind, id: &str) -> String {
    kind.shard(item::shard_of(id))
}

/// A secret whose deletion is due unless it is the account's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueSecret {
    pub account: AccountId,
    pub key: KeyId,
    pub due: Timestamp,
}

/// A deleted account of which something is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueDeletion {
    pub account: AccountId,
    pub due: Timestamp,
}

/// An account for whose add-on there is something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueAccount {
    pub account: AccountId,
    pub due: Timestamp,
}

/// An open hold whose next check has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueHold {
    pub account_number: AccountNumber,
    pub call: CallId,
    pub due: Timestamp,
}

/// One partition of an index of what is due.
struct Due {
    index: &'static str,
    condition: &'static str,
    shard: String,
}

/// All partitions of the index, for those who look through it.
pub fn shards() -> std::ops::Range<u8> {
    0..SHARDS
}

/// The partition in which the open hold of `call` is.
pub fn shard_of(call: &CallId) -> u8 {
    item::shard_of(call.as_str())
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
        let table = &self.tables.accounts;
        self.due_in(table, DueKind::Secret, shard, now, limit, due_secret)
            .await
    }

    /// The deleted accounts of one shard of which something is left at `now`.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn due_deletions(
        &self,
        shard: u8,
        now: Timestamp,
        limit: i32,
    ) -> Result<Vec<Result<DueDeletion, StoreError>>, StoreError> {
        let table = &self.tables.accounts;
        self.due_in(table, DueKind::Deletion, shard, now, limit, due_deletion)
            .await
    }

    /// The accounts of one shard for whose add-on there is something to do at `now`.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn due_accounts(
        &self,
        shard: u8,
        now: Timestamp,
        limit: i32,
    ) -> Result<Vec<Result<DueAccount, StoreError>>, StoreError> {
        let table = &self.tables.accounts;
        self.due_in(table, DueKind::Billing, shard, now, limit, due_account)
            .await
    }

    /// The rows of one shard that are due at `now`, oldest first, until `limit` of them could be read.
    /// Those that cannot be read are errors, and stand in nobody's way.
    pub(crate) async fn due_in<T>(
        &self,
        table: &str,
        kind: DueKind,
        shard: u8,
        now: Timestamp,
        limit: i32,
        read: impl Fn(&Item) -> Result<T, StoreError>,
    ) -> Result<Vec<Result<T, StoreError>>, StoreError> {
        let due = Due {
            index: "due",
            condition: "due_shard = :shard AND due_at <= :now",
            shard: kind.shard(shard),
        };
        self.due_rows(table, due, now, limit, read).await
    }

    /// The open holds of one shard whose check is due at `now`, oldest first, until `limit` of them could
    /// be read. A row that cannot be read is an error of its own.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn due_holds(
        &self,
        shard: u8,
        now: Timestamp,
        limit: i32,
    ) -> Result<Vec<Result<DueHold, StoreError>>, StoreError> {
        let due = Due {
            index: "next_check",
            condition: "check_shard = :shard AND next_check_at <= :now",
            shard: shard.to_string(),
        };
        let table = &self.tables.holds;
        self.due_rows(table, due, now, limit, due_hold).await
    }

    async fn due_rows<T>(
        &self,
        table: &str,
        due: Due,
        now: Timestamp,
        limit: i32,
        read: impl Fn(&Item) -> Result<T, StoreError>,
    ) -> Result<Vec<Result<T, StoreError>>, StoreError> {
        let (mut rows, mut from) = (Vec::new(), None);
        let mut readable = 0;
        loop {
            let page = self
                .client
                .query()
                .table_name(table)
                .index_name(due.index)
                .key_condition_expression(due.condition)
                .expression_attribute_values(":shard", text(&due.shard))
                .expression_attribute_values(":now", time(now))
                .limit(limit)
                .set_exclusive_start_key(from)
                .send()
                .await
                .map_err(|error| StoreError::unavailable("find due kind", error))?;
            let found: Vec<_> = page.items.unwrap_or_default().iter().map(&read).collect();
            readable += found.iter().filter(|row| row.is_ok()).count();
            rows.extend(found);
            from = page.last_evaluated_key;
            if from.is_none() || i32::try_from(readable).is_ok_and(|readable| readable >= limit) {
                return Ok(rows);
            }
        }
    }

    /// Takes a due hold on, by putting its next check off: nobody else looks at it before then.
    /// `Ok(None)` if it ended meanwhile, or somebody else was faster.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer or the hold cannot be read.
    pub async fn claim_hold(
        &self,
        due: &DueHold,
        now: Timestamp,
    ) -> Result<Option<OpenHold>, StoreError> {
        let stored = self.stored_hold(&due.account_number, &due.call).await?;
        let Some(item) = stored else {
            return Ok(None);
        };
        if state_of(&item)? != account::hold::HoldState::Open {
            return Ok(None);
        }
        let mut open = open_hold(&item)?;
        open.next_check_at = next_check(open.created_at, open.expires_at, now);
        let claimed = self
            .client
            .update_item()
            .table_name(&self.tables.holds)
            .set_key(Some(hold_key(&due.account_number, &due.call)))
            .update_expression("SET next_check_at = :next")
            // An end removes it.
            .condition_expression("next_check_at = :due")
            .expression_attribute_values(":next", time(open.next_check_at))
            .expression_attribute_values(":due", time(due.due))
            .send()
            .await;
        match claimed {
            Ok(_) => Ok(Some(open)),
            // A transaction on it is an end of it.
            Err(error) if condition_failed(&error) || met_transaction(&error) => Ok(None),
            Err(error) => Err(StoreError::unavailable("claim due hold", error)),
        }
    }

    /// Takes a due account on, by putting its row off to `until`: no tick finds it before then, unless
    /// something is written down for the account, which puts the row where it belongs. The account
    /// itself is not changed. `Ok(false)` if somebody else was faster, or is moving its credits.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn claim_account(
        &self,
        due: &DueAccount,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        self.claim(account_key(&due.account), due.due, until).await
    }

    /// Puts a due deletion off to `until`. `Ok(false)` if somebody else was faster.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn claim_deletion(
        &self,
        due: &DueDeletion,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        self.claim(deletion_key(&due.account), due.due, until).await
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
        let key = secret_key(&due.account, &due.key);
        let claimed = self.claim(key, due.due, until).await?;
        Ok(claimed.then(|| DueSecret {
            due: until,
            ..due.clone()
        }))
    }

    pub(crate) async fn claim(
        &self,
        key: Item,
        due: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        self.claim_in(&self.tables.accounts, key, due, until).await
    }

    pub(crate) async fn claim_in(
        &self,
        table: &str,
        key: Item,
        due: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let claimed = self
            .client
            .update_item()
            .table_name(table)
            .set_key(Some(key))
            .update_expression("SET due_at = :until")
            .condition_expression("due_at = :due")
            .expression_attribute_values(":until", time(until))
            .expression_attribute_values(":due", time(due))
            .send()
            .await;
        match claimed {
            Ok(_) => Ok(true),
            // Met by a transaction, it stays due.
            Err(error) if condition_failed(&error) || met_transaction(&error) => Ok(false),
            Err(error) => Err(StoreError::unavailable("claim due kind", error)),
        }
    }
}

fn due_deletion(item: &Item) -> Result<DueDeletion, StoreError> {
    const WHAT: &str = "due deletion";
    let account = AccountId::new(get_text(item, "account_id", WHAT)?);
    Ok(DueDeletion {
        account: account.map_err(|_| StoreError::corrupt(WHAT))?,
        due: get_time(item, "due_at", WHAT)?,
    })
}

fn due_account(item: &Item) -> Result<DueAccount, StoreError> {
    const WHAT: &str = "due account";
    if get_text(item, "item", WHAT)? != ACCOUNT {
        return Err(StoreError::corrupt(WHAT));
    }
    let account = AccountId::new(get_text(item, "account_id", WHAT)?);
    Ok(DueAccount {
        account: account.map_err(|_| StoreError::corrupt(WHAT))?,
        due: get_time(item, "due_at", WHAT)?,
    })
}

fn due_hold(item: &Item) -> Result<DueHold, StoreError> {
    const WHAT: &str = "due hold";
    let number = AccountNumber::new(get_text(item, "account_number", WHAT)?);
    let call = CallId::new(get_text(item, "hold", WHAT)?);
    match (number, call) {
        (Ok(account_number), Ok(call)) => Ok(DueHold {
            account_number,
            call,
            due: get_time(item, "next_check_at", WHAT)?,
        }),
        _ => Err(StoreError::corrupt(WHAT)),
    }
}

fn due_secret(item: &Item) -> Result<DueSecret, StoreError> {
    const WHAT: &str = "due secret";
    let account = get_text(item, "account_id", WHAT)?;
    let due = get_time(item, "due_at", WHAT)?;
    let name = get_text(item, "item", WHAT)?;
    let key = name.split_once('#').map(|(_, key)| key.to_owned());
    match (AccountId::new(account), key.map(KeyId::new)) {
        (Ok(account), Some(Ok(key))) => Ok(DueSecret { account, key, due }),
        _ => Err(StoreError::corrupt(WHAT)),
    }
}
