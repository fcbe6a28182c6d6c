//! The account's profile: read, create, change.

use std::error::Error;
use std::fmt;

use account::add_on::GenerationId;
use account::{Account, AccountId, AccountNumber, Attempts, KeyId, Period, Profile, Purpose};
use aws_sdk_dynamodb::types::builders::UpdateBuilder;
use aws_sdk_dynamodb::types::{Delete, Put, TransactWriteItem, Update};
use jiff::{SignedDuration, Timestamp};

use crate::deletion::Presence;
use crate::due_index::{DueKind, due_item, due_shard};
use crate::error::{condition_failed, met_transaction};
use crate::events::DomainEvent;
use crate::item::{self, ACCOUNT, Item, key, number, text, time};
use crate::transaction::{self, TRIES};
use crate::{HistoryEntry, PaymentOrder, Store, StoreError};

/// What became of the wish to make an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    Now,
    /// There is one of this id.
    Before,
    /// There was one, and this is older than its end, or not all of it is gone yet.
    Deleted,
}

/// What a change of the profile brings with it, in the same transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The key's secret is not in force any more: delete it from `due` on, if it still exists.
    SecretDue { key: KeyId, due: Timestamp },
    /// The key's secret is in force: its intended name needs no clean-up. The change does not take
    /// place unless that name is still due when it was said to be: a clean-up or another save may
    /// have taken the secret away.
    SecretInForce { key: KeyId, due: Timestamp },
    /// Greta's other systems are to hear of it.
    Event(DomainEvent),
    /// The account's history tells of it.
    History(HistoryEntry),
    /// This can be paid from now on.
    PaymentOrder(PaymentOrder),
    /// The period was missed, and nobody is to pay it.
    Waived {
        generation: GenerationId,
        period: Period,
        at: Timestamp,
    },
}

/// Why a change of the profile did not take place.
#[derive(Debug)]
pub enum UpdateError<E> {
    NotFound,
    /// The change itself said no.
    Refused(E),
    Store(StoreError),
}

impl<E> From<StoreError> for UpdateError<E> {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl<E: fmt::Display> fmt::Display for UpdateError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("there is no such account"),
            Self::Refused(error) => write!(f, "the change was refused: {error}"),
            Self::Store(_) => f.write_str("the change could not be stored"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> Error for UpdateError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            Self::NotFound | Self::Refused(_) => None,
        }
    }
}

impl Store {
    /// The account as it is now: one strongly consistent read. `None` also of a deleted one.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer or the item cannot be read.
    pub async fn account(&self, id: &AccountId) -> Result<Option<Account>, StoreError> {
        let item = self.account_item(id.as_str(), ACCOUNT).await?;
        item.filter(|item| item.contains_key("profile"))
            .map(|item| item::account_from_item(id, &item))
            .transpose()
    }

    /// Makes an account without credits. A deleted one is made anew only by what is younger than its
    /// end.
    ///
    /// # Errors
    /// [`StoreError`] if the outcome is not known.
    pub async fn create_account(
        &self,
        id: &AccountId,
        number: &AccountNumber,
        profile: &Profile,
        why: &HistoryEntry,
    ) -> Result<Created, StoreError> {
        let mut item = account_key(id);
        let attributes = [
            ("account_number", text(number.as_str())),
            ("profile", item::profile(profile)?),
            ("always_use_key", item::switch(profile)),
            ("created_at", time(why.at)),
        ];
        let zeros = [
            "revision",
            "balance",
            "held",
            "available",
            "owed",
            "open_holds",
            "entries",
            "moves",
        ];
        let zeros = zeros.map(|name| (name, item::number(0)));
        for (name, value) in attributes.into_iter().chain(zeros) {
            item.insert(name.to_owned(), value);
        }
        let put = Put::builder()
            .table_name(&self.tables.accounts)
            .set_item(Some(item))
            .condition_expression(
                "attribute_not_exists(account_number) \
                 AND (attribute_not_exists(deleted_version) OR deleted_version < :version)",
            )
            .expression_attribute_values(":version", item::number(profile.plans.version()));
        let items = vec![
            transaction::put(put)?,
            self.new_number(number, id)?,
            self.new_history(number, why)?,
        ];
        if self.transact("create account", items).await?.is_ok() {
            return Ok(Created::Now);
        }
        Ok(match self.presence(id).await? {
            // Our own first try may have been the one that made it.
            Presence::Live(stored) if stored.number == *number => Created::Now,
            Presence::Live(_) => Created::Before,
            Presence::Never | Presence::Deleted { .. } => Created::Deleted,
        })
    }

    /// Changes the profile: `change` is given it as it stands. It is called again, on a newer one,
    /// if somebody else was faster or if the answer to its own write was lost: in the latter case it
    /// must find itself done and change nothing. A change that changes nothing writes nothing.
    ///
    /// `known` saves the first read. `at` is the time of the change: what it does to the add-on is told
    /// to others with it, in the same transaction.
    ///
    /// # Errors
    /// [`UpdateError::Refused`] with what `change` refused with.
    pub async fn update<E>(
        &self,
        id: &AccountId,
        known: Option<Account>,
        at: Timestamp,
        mut change: impl FnMut(&mut Profile) -> Result<Vec<Effect>, E>,
    ) -> Result<Account, UpdateError<E>> {
        let mut known = known;
        let mut doubted = false;
        for tried in 0..TRIES {
            let before = match known.take() {
                Some(account) => account,
                None => self.account(id).await?.ok_or(UpdateError::NotFound)?,
            };
            let mut after = before.clone();
            let effects = change(&mut after.profile).map_err(UpdateError::Refused)?;
            if after == before && effects.is_empty() {
                return Ok(before);
            }
            after.revision += 1;
            match self.write_profile(&before, &after, effects, at).await {
                Ok(true) => return Ok(after),
                Ok(false) => transaction::pause(tried).await,
                // The outcome is unknown: what is stored tells.
                Err(error @ StoreError::Unavailable { .. }) if !doubted => {
                    tracing::warn!(%error, "a change of the account may have been stored; looking");
                    doubted = true;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Contended {
            operation: "change account",
        }
        .into())
    }

    /// Remembers a secret's name before the secret exists, so that it is cleaned up if nothing comes
    /// of it.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn intend_secret(
        &self,
        id: &AccountId,
        key: &KeyId,
        due: Timestamp,
    ) -> Result<(), StoreError> {
        self.client
            .put_item()
            .table_name(&self.tables.accounts)
            .set_item(Some(secret_due(id, key, due)))
            .send()
            .await
            .map(drop)
            .map_err(|error| StoreError::unavailable("remember secret", error))
    }

    /// Forgets a secret's name once the secret is gone, if it is still `due` at that time.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn secret_gone(
        &self,
        id: &AccountId,
        key: &KeyId,
        due: Timestamp,
    ) -> Result<(), StoreError> {
        let deleted = self
            .client
            .delete_item()
            .table_name(&self.tables.accounts)
            .set_key(Some(secret_key(id, key)))
            .condition_expression("due_at = :due")
            .expression_attribute_values(":due", time(due))
            .send()
            .await;
        match deleted {
            Ok(_) => Ok(()),
            // Gone already, or written anew for another reason.
            Err(error) if condition_failed(&error) => Ok(()),
            Err(error) => Err(StoreError::unavailable("forget secret", error)),
        }
    }

    /// Is another attempt allowed? Reads only.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn attempt_allowed(
        &self,
        id: &AccountId,
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<Result<(), SignedDuration>, StoreError> {
        let (attempts, _) = self.attempts(id).await?;
        Ok(attempts.allowed(purpose, now))
    }

    /// Counts an attempt that is about to be made, if it is still allowed; else the time to wait.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn count_attempt(
        &self,
        id: &AccountId,
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<Result<(), SignedDuration>, StoreError> {
        self.change_attempts(id, |attempts| {
            if attempts.is_counted(purpose, now) {
                return Ok(());
            }
            attempts.allowed(purpose, now)?;
            attempts.count(purpose, now);
            Ok(())
        })
        .await
    }

    /// Gives back the save that was counted at `counted_at`.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn give_back_save(
        &self,
        id: &AccountId,
        counted_at: Timestamp,
    ) -> Result<(), StoreError> {
        self.change_attempts(id, |attempts| {
            attempts.give_back_save(counted_at);
            Ok::<_, std::convert::Infallible>(())
        })
        .await
        .map(|Ok(())| ())
    }

    async fn change_attempts<E>(
        &self,
        id: &AccountId,
        change: impl Fn(&mut Attempts) -> Result<(), E>,
    ) -> Result<Result<(), E>, StoreError> {
        for tried in 0..TRIES {
            let (mut attempts, version) = self.attempts(id).await?;
            let before = attempts.clone();
            if let Err(refused) = change(&mut attempts) {
                return Ok(Err(refused));
            }
            if attempts == before {
                return Ok(Ok(()));
            }
            let put = self
                .client
                .put_item()
                .table_name(&self.tables.accounts)
                .item("account_id", text(id.as_str()))
                .item("item", text("attempts"))
                .item("attempts", item::to_attribute("attempts", &attempts)?)
                .item("version", number(version + 1))
                .condition_expression("attribute_not_exists(version) OR version = :version")
                .expression_attribute_values(":version", number(version))
                .send()
                .await;
            match put {
                Ok(_) => return Ok(Ok(())),
                // Somebody else's change, or our own whose answer was lost.
                Err(error) if condition_failed(&error) => transaction::pause(tried).await,
                Err(error) => return Err(StoreError::unavailable("count attempt", error)),
            }
        }
        Err(StoreError::Contended {
            operation: "count attempt",
        })
    }

    async fn attempts(&self, id: &AccountId) -> Result<(Attempts, u64), StoreError> {
        const WHAT: &str = "attempts";
        let Some(mut item) = self.account_item(id.as_str(), "attempts").await? else {
            return Ok((Attempts::default(), 0));
        };
        let version = item::get_number(&item, "version", WHAT)?;
        let attempts = item
            .remove("attempts")
            .ok_or_else(|| StoreError::corrupt(WHAT))?;
        Ok((item::from_attribute(WHAT, attempts)?, version))
    }

    pub(crate) async fn account_item(
        &self,
        id: &str,
        item: &str,
    ) -> Result<Option<Item>, StoreError> {
        let key = key([("account_id", id), ("item", item)]);
        self.read("read account", &self.tables.accounts, key).await
    }

    /// Writes `after` where `before` still stands; `Ok(false)` if it does not.
    async fn write_profile(
        &self,
        before: &Account,
        after: &Account,
        mut effects: Vec<Effect>,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let update = self.profile_update_builder(before, after)?;
        effects.extend(DomainEvent::add_on(before, after, at).map(Effect::Event));
        if effects.is_empty() {
            return self.write_profile_alone(update).await;
        }
        let mut items = vec![transaction::update(update)?];
        for effect in effects {
            items.push(self.effect(before, effect)?);
        }
        self.transact("change account", items)
            .await
            .map(|outcome| outcome.is_ok())
    }

    fn profile_update_builder(
        &self,
        before: &Account,
        after: &Account,
    ) -> Result<UpdateBuilder, StoreError> {
        let update = Update::builder()
            .table_name(&self.tables.accounts)
            .set_key(Some(account_key(&before.id)))
            .condition_expression("account_number = :number AND revision = :before")
            .expression_attribute_values(":number", text(before.number.as_str()));
        set_profile(update, "", before, after)
    }

    pub(crate) fn profile_update(
        &self,
        before: &Account,
        after: &Account,
    ) -> Result<TransactWriteItem, StoreError> {
        transaction::update(self.profile_update_builder(before, after)?)
    }

    async fn write_profile_alone(&self, update: UpdateBuilder) -> Result<bool, StoreError> {
        let update = update.build().map_err(StoreError::invalid)?;
        let sent = self
            .client
            .update_item()
            .table_name(update.table_name)
            .set_key(Some(update.key))
            .update_expression(update.update_expression)
            .set_condition_expression(update.condition_expression)
            .set_expression_attribute_values(update.expression_attribute_values)
            .send()
            .await;
        match sent {
            Ok(_) => Ok(true),
            // Perhaps our own write, whose answer was lost: the caller reads again, and its change
            // then finds itself done.
            Err(error) if condition_failed(&error) => Ok(false),
            // A call is moving credits of the same item at this moment.
            Err(error) if met_transaction(&error) => Ok(false),
            Err(error) => Err(StoreError::unavailable("change account", error)),
        }
    }

    pub(crate) fn effect(
        &self,
        account: &Account,
        effect: Effect,
    ) -> Result<TransactWriteItem, StoreError> {
        let (table, id) = (&self.tables.accounts, &account.id);
        let put =
            |item: Item| transaction::put(Put::builder().table_name(table).set_item(Some(item)));
        match effect {
            Effect::SecretDue { key, due } => put(secret_due(id, &key, due)),
            Effect::SecretInForce { key, due } => {
                let delete = Delete::builder()
                    .table_name(table)
                    .set_key(Some(secret_key(id, &key)))
                    .condition_expression("due_at = :due")
                    .expression_attribute_values(":due", time(due));
                transaction::delete(delete)
            }
            Effect::Event(event) => self.new_event(id, &event, account.revision + 1),
            Effect::History(entry) => self.new_history(&account.number, &entry),
            Effect::PaymentOrder(order) => self.new_payable(&order),
            Effect::Waived {
                generation,
                period,
                at,
            } => self.waived(&account.number, &generation, period, at),
        }
    }
}

/// Has `update` set the profile, with its place in the index of what is due, after `also`, and names
/// the revision before it `:before`.
pub(crate) fn set_profile(
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
    Ok(match billing::due_at(&after.profile) {
        Some(due) => update
            .update_expression(format!("{set}, due_shard = :shard, due_at = :due"))
            .expression_attribute_values(
                ":shard",
                text(due_shard(DueKind::Billing, before.id.as_str())),
            )
            .expression_attribute_values(":due", time(due.max(Timestamp::UNIX_EPOCH))),
        None => update.update_expression(format!("{set} REMOVE due_shard, due_at")),
    })
}

pub(crate) fn account_key(id: &AccountId) -> Item {
    key([("account_id", id.as_str()), ("item", ACCOUNT)])
}

pub(crate) fn secret_key(id: &AccountId, key_id: &KeyId) -> Item {
    let item = format!("secret#{key_id}");
    key([("account_id", id.as_str()), ("item", &item)])
}

fn secret_due(id: &AccountId, key: &KeyId, due: Timestamp) -> Item {
    due_item(secret_key(id, key), DueKind::Secret, id, due)
}
