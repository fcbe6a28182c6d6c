//! Rate limits of an account: its attempts of the last hour.

use account::{AccountId, Attempts, Purpose};
use jiff::{SignedDuration, Timestamp};

use crate::accounts::Accounts;
use crate::error::StoreError;
use crate::item::{self, Attributes, Item, key, number};
use crate::retry::Retry;
use crate::write::put;

const ATTEMPTS: &str = "attempts";

impl Accounts {
    /// The time until another attempt is allowed; `None` if one is allowed now. Reads only.
    pub async fn attempt_wait(
        &self,
        id: &AccountId,
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<Option<SignedDuration>, StoreError> {
        let (attempts, _) = self.attempts(id).await?;
        Ok(attempts.wait(purpose, now))
    }

    /// Counts an attempt that is about to be made, or returns the time until it is allowed.
    pub async fn count_attempt(
        &self,
        id: &AccountId,
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<Option<SignedDuration>, StoreError> {
        self.change_attempts(id, |attempts| {
            if attempts.is_counted(purpose, now) {
                return None;
            }
            let wait = attempts.wait(purpose, now);
            if wait.is_none() {
                attempts.count(purpose, now);
            }
            wait
        })
        .await
    }

    /// Removes the save counted at `counted_at` from the count.
    pub async fn uncount_save(
        &self,
        id: &AccountId,
        counted_at: Timestamp,
    ) -> Result<(), StoreError> {
        self.change_attempts(id, |attempts| attempts.uncount_save(counted_at)).await
    }

    async fn change_attempts<T>(
        &self,
        id: &AccountId,
        change: impl Fn(&mut Attempts) -> T,
    ) -> Result<T, StoreError> {
        let operation = "count attempt";
        let mut retry = Retry::new(operation);
        loop {
            let (before, version) = self.attempts(id).await?;
            let mut after = before.clone();
            let result = change(&mut after);
            if after == before {
                return Ok(result);
            }
            let put = put(&self.db.tables.accounts, attempts_key(id))
                .item("attempts", item::to_attribute(ATTEMPTS, &after)?)
                .item("version", number(version + 1))
                .condition_expression("attribute_not_exists(version) OR version = :version")
                .expression_attribute_values(":version", number(version));
            if self.db.write(operation, put).await? {
                return Ok(result);
            }
            retry.pause().await?;
        }
    }

    async fn attempts(&self, id: &AccountId) -> Result<(Attempts, u64), StoreError> {
        let table = &self.db.tables.accounts;
        let item = self.db.get("read attempts", table, attempts_key(id)).await?;
        let Some(item) = item else {
            return Ok((Attempts::default(), 0));
        };
        let item = Attributes::of(ATTEMPTS, &item);
        Ok((item.get("attempts")?, item.get("version")?))
    }
}

pub(crate) fn attempts_key(id: &AccountId) -> Item {
    key([("account_id", id.as_str()), ("item", ATTEMPTS)])
}
