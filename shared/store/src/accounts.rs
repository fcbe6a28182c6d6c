//! Accounts: read, create, change.

use account::{Account, AccountId, AccountNumber, KeyId, Profile};
use aws_sdk_dynamodb::types::builders::UpdateBuilder;
use jiff::Timestamp;

use crate::db::{Database, Db};
use crate::due_index::DueTask;
use crate::effects::Effect;
use crate::error::StoreError;
use crate::history::{HistoryEntry, put_history};
use crate::item::{self, ACCOUNT, Attributes, Item, account_key, key, number, text, time};
use crate::outbox::put_add_on_event;
use crate::retry::Retry;
use crate::secrets::{delete_secret, put_secret};
use crate::write::{put, update};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    Now,
    Before,
    /// An account with this id was deleted by a higher version, or some of its items still exist.
    Deleted,
}

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

#[derive(Debug, thiserror::Error)]
pub enum UpdateError<E> {
    #[error("there is no such account")]
    NotFound,
    #[error("the change was refused: {0}")]
    Refused(E),
    #[error("the change could not be stored")]
    Store(#[from] StoreError),
}

/// A part of all accounts, so that several processes can list them at once: part `index` of `of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub index: i32,
    pub of: i32,
}

impl Segment {
    pub const ALL: Self = Self { index: 0, of: 1 };
}

/// Some accounts, in no particular order.
#[derive(Debug)]
pub struct AccountsPage {
    /// A row that cannot be read is an error of its own.
    pub accounts: Vec<Result<(AccountId, AccountNumber), StoreError>>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<AccountsCursor>,
}

#[derive(Debug, Clone)]
pub struct AccountsCursor(Item);

#[derive(Debug, Clone)]
pub struct Accounts {
    pub(crate) db: Db,
}

impl Accounts {
    /// The account as it is now: one strongly consistent read. `None` also for a deleted account.
    pub async fn get(&self, id: &AccountId) -> Result<Option<Account>, StoreError> {
        get_account(&self.db, id).await
    }

    /// The account with this number; `None` once it is deleted.
    pub async fn by_number(&self, number: &AccountNumber) -> Result<Option<Account>, StoreError> {
        account_by_number(&self.db, number).await
    }

    /// The account's number in ledger and holds; a deleted account's too, while calls are open.
    pub async fn number(&self, id: &AccountId) -> Result<Option<AccountNumber>, StoreError> {
        let item = account_item(&self.db, id).await?;
        let number = item.map(|item| Attributes::of(ACCOUNT, &item).optional("account_number"));
        number.transpose().map(Option::flatten)
    }

    pub async fn presence(&self, id: &AccountId) -> Result<Presence, StoreError> {
        let Some(item) = account_item(&self.db, id).await? else {
            return Ok(Presence::Never);
        };
        if item.contains_key("profile") {
            return Ok(Presence::Live(Box::new(item::account(id, &item)?)));
        }
        Ok(Presence::Deleted {
            version: Attributes::of("tombstone", &item).get("deleted_version")?,
            scrubbed: !item.contains_key("account_number"),
        })
    }

    /// Creates an account without credits. Only a higher version creates a deleted account again.
    pub async fn create(
        &self,
        id: &AccountId,
        account_number: &AccountNumber,
        profile: &Profile,
        why: &HistoryEntry,
    ) -> Result<Created, StoreError> {
        let item = item::with(
            account_key(id),
            [
                ("account_number", text(account_number.as_str())),
                ("profile", item::profile(profile)?),
                ("always_use_key", item::switch(profile)),
                ("created_at", time(why.at)),
            ],
        );
        let zeros = "revision balance held available owed open_holds entries moves";
        let table = &self.db.tables.accounts;
        let item = item::with(item, zeros.split(' ').map(|name| (name, number(0))));
        let account = put(table, item)
            .condition_expression(
                "attribute_not_exists(account_number) \
                 AND (attribute_not_exists(deleted_version) OR deleted_version < :version)",
            )
            .expression_attribute_values(":version", number(profile.plans.version()));
        let by_number = put(table, number_key(account_number)).item("id", text(id.as_str()));
        let why = put_history(&self.db, account_number, why);
        let items = vec![account.into(), by_number.into(), why];
        if self.db.transact("create account", items).await?.succeeded() {
            return Ok(Created::Now);
        }
        Ok(match self.presence(id).await? {
            // Our own first try may have created it.
            Presence::Live(stored) if stored.number == *account_number => Created::Now,
            Presence::Live(_) => Created::Before,
            Presence::Never | Presence::Deleted { .. } => Created::Deleted,
        })
    }

    /// Changes the profile with `change`, which is called again on a newer profile if another
    /// writer was faster, or if the response to the write was lost. In the latter case it must
    /// recognize its own change and change nothing. Without a change, nothing is written.
    ///
    /// `known` saves the first read. `at` is the time of the change and of its events.
    pub async fn update<E>(
        &self,
        id: &AccountId,
        mut known: Option<Account>,
        at: Timestamp,
        mut change: impl FnMut(&mut Profile) -> Result<Vec<Effect>, E>,
    ) -> Result<Account, UpdateError<E>> {
        let mut retry = Retry::new("change account");
        loop {
            let before = match known.take() {
                Some(account) => account,
                None => self.get(id).await?.ok_or(UpdateError::NotFound)?,
            };
            let mut after = before.clone();
            let effects = change(&mut after.profile).map_err(UpdateError::Refused)?;
            if after == before && effects.is_empty() {
                return Ok(before);
            }
            after.revision += 1;
            let written = self.write(&before, &after, &effects, at).await;
            if retry.is_done(written).await? {
                return Ok(after);
            }
        }
    }

    /// Replaces `before` with `after`; false if `before` is outdated.
    async fn write(
        &self,
        before: &Account,
        after: &Account,
        effects: &[Effect],
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let operation = "change account";
        let profile = set_profile(&self.db, before, after)?;
        let event = put_add_on_event(&self.db, before, after, at)?;
        if effects.is_empty() && event.is_none() {
            // A plain update costs half as much as a transaction.
            return self.db.write(operation, profile).await;
        }
        let mut items = vec![profile.into()];
        for effect in effects {
            items.push(effect.write(&self.db, before)?);
        }
        items.extend(event);
        Ok(self.db.transact(operation, items).await?.succeeded())
    }

    /// Remembers a secret's name before it exists. If its save fails, it is deleted once `due`.
    pub async fn remember_secret(
        &self,
        id: &AccountId,
        key: &KeyId,
        due: Timestamp,
    ) -> Result<(), StoreError> {
        let put = put_secret(&self.db, id, key, due);
        self.db.write("remember secret", put).await.map(drop)
    }

    /// Forgets a deleted secret's name, unless it has become due at another time since.
    pub async fn forget_secret(
        &self,
        id: &AccountId,
        key: &KeyId,
        due: Timestamp,
    ) -> Result<(), StoreError> {
        let delete = delete_secret(&self.db, id, key, due);
        self.db.write("forget secret", delete).await.map(drop)
    }

    /// All accounts of `segment`, page by page; deleted ones too while calls are open on them.
    pub async fn page(
        &self,
        segment: Segment,
        after: Option<AccountsCursor>,
    ) -> Result<AccountsPage, StoreError> {
        let sent = self
            .db
            .client
            .scan()
            .table_name(&self.db.tables.accounts)
            .segment(segment.index)
            .total_segments(segment.of)
            .filter_expression("#item = :account AND attribute_exists(account_number)")
            .projection_expression("account_id, account_number")
            .expression_attribute_names("#item", "item")
            .expression_attribute_values(":account", text(ACCOUNT))
            .set_exclusive_start_key(after.map(|after| after.0))
            .send();
        let page = Box::pin(sent).await;
        let page = page.map_err(|error| StoreError::unavailable("list accounts", error))?;
        let accounts = page.items.unwrap_or_default();
        let accounts = accounts.iter().map(|item| {
            let item = Attributes::of(ACCOUNT, item);
            Ok((item.get("account_id")?, item.get("account_number")?))
        });
        Ok(AccountsPage {
            accounts: accounts.collect(),
            next: page.last_evaluated_key.map(AccountsCursor),
        })
    }
}

pub(crate) async fn account_item(
    db: &Database,
    id: &AccountId,
) -> Result<Option<Item>, StoreError> {
    let table = &db.tables.accounts;
    db.get("read account", table, account_key(id)).await
}

pub(crate) async fn get_account(
    db: &Database,
    id: &AccountId,
) -> Result<Option<Account>, StoreError> {
    let item = account_item(db, id).await?;
    let item = item.filter(|item| item.contains_key("profile"));
    item.map(|item| item::account(id, &item)).transpose()
}

pub(crate) async fn account_by_number(
    db: &Database,
    number: &AccountNumber,
) -> Result<Option<Account>, StoreError> {
    let table = &db.tables.accounts;
    let item = db.get("read account number", table, number_key(number));
    let Some(item) = item.await? else {
        return Ok(None);
    };
    let id = Attributes::of("account number", &item).get("id")?;
    let account = get_account(db, &id).await?;
    Ok(account.filter(|account| account.number == *number))
}

/// Replaces the profile of `before` with that of `after` if `before` is current.
pub(crate) fn set_profile(
    db: &Database,
    before: &Account,
    after: &Account,
) -> Result<UpdateBuilder, StoreError> {
    let update = update(&db.tables.accounts, account_key(&before.id), "")
        .condition_expression("account_number = :number AND revision = :before")
        .expression_attribute_values(":number", text(before.number.as_str()));
    with_profile(update, "", before, after)
}

/// Makes `update` set the profile and its due time, after `also`; `:before` is the old revision.
pub(crate) fn with_profile(
    update: UpdateBuilder,
    also: &str,
    before: &Account,
    after: &Account,
) -> Result<UpdateBuilder, StoreError> {
    let update = update
        .expression_attribute_values(":profile", item::profile(&after.profile)?)
        .expression_attribute_values(":switch", item::switch(&after.profile))
        .expression_attribute_values(":before", number(before.revision))
        .expression_attribute_values(":after", number(after.revision));
    let set = format!("SET {also}profile = :profile, always_use_key = :switch, revision = :after");
    let Some(due) = billing::due_at(&after.profile) else {
        return Ok(update.update_expression(format!("{set} REMOVE due_shard, due_at")));
    };
    let task = DueTask::Billing(before.id.clone());
    Ok(update
        .update_expression(format!("{set}, due_shard = :shard, due_at = :due"))
        .expression_attribute_values(":shard", text(task.partition()))
        .expression_attribute_values(":due", time(due.max(Timestamp::UNIX_EPOCH))))
}

/// The key of the item that maps an account's number to the account.
pub(crate) fn number_key(account: &AccountNumber) -> Item {
    key([("account_id", account.as_str()), ("item", "number")])
}
