//! Proof that an account's books are right: sum(ledger) = balance, sum(open holds) = held.

use account::{Account, AccountNumber, CallId, Credits};
use jiff::Timestamp;

use crate::item::{self, Item, get_credits, get_text, get_time, text};
use crate::{Store, StoreError};

const TRIES: usize = 8;

/// A hold that is still open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenHold {
    pub call: CallId,
    pub amount: Credits,
    pub created_at: Timestamp,
    pub next_check_at: Timestamp,
    pub expires_at: Timestamp,
    pub generation_id: Option<String>,
}

/// What a look through the books found. Nothing is ever repaired here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconciliation {
    pub open_holds: Vec<OpenHold>,
    /// One sentence for each thing that does not add up; empty is good.
    pub problems: Vec<String>,
}

impl Store {
    /// Adds the account's books up. If credits move meanwhile it starts again.
    ///
    /// # Errors
    /// [`StoreError::Contended`] if credits move faster than the books can be read.
    pub async fn reconcile(&self, account: &Account) -> Result<Reconciliation, StoreError> {
        for _ in 0..TRIES {
            let before = self.movements(&account.id).await?;
            let (sum, count) = self.sum_of_ledger(&account.number).await?;
            let open_holds = self.open_holds(&account.number).await?;
            let after = self.movements(&account.id).await?;
            if before != after {
                continue;
            }
            let held = open_holds.iter().map(|hold| hold.amount.micros()).sum();
            let held = Credits::from_micros(held);
            let mut problems = Vec::new();
            let mut equal = |what: &str, found: String, stored: String| {
                if found != stored {
                    problems.push(format!("{what} is {found}, but the account says {stored}"));
                }
            };
            equal(
                "the ledger's sum",
                sum.to_string(),
                before.balance.to_string(),
            );
            equal(
                "the number of ledger entries",
                count.to_string(),
                before.entries.to_string(),
            );
            equal(
                "the sum of open holds",
                held.to_string(),
                before.held.to_string(),
            );
            equal(
                "the number of open holds",
                open_holds.len().to_string(),
                before.open_holds.to_string(),
            );
            let available = before.balance.checked_sub(before.held).unwrap_or_default();
            equal(
                "balance less held",
                available.to_string(),
                before.available.to_string(),
            );
            if before.available.is_negative() {
                problems.push(format!("available is negative: {}", before.available));
            }
            return Ok(Reconciliation {
                open_holds,
                problems,
            });
        }
        Err(StoreError::Contended {
            operation: "reconcile account",
        })
    }

    async fn sum_of_ledger(&self, account: &AccountNumber) -> Result<(Credits, u64), StoreError> {
        let mut pages = self
            .client
            .query()
            .table_name(&self.tables.ledger)
            .key_condition_expression("account_number = :account AND begins_with(entry, :entries)")
            .expression_attribute_values(":account", text(account.as_str()))
            .expression_attribute_values(":entries", text("e#"))
            .projection_expression("amount")
            .consistent_read(true)
            .into_paginator()
            .items()
            .send();
        let (mut sum, mut count) = (Credits::ZERO, 0);
        while let Some(item) = pages.next().await {
            let item = item.map_err(|error| StoreError::unavailable("sum ledger", error))?;
            let amount = get_credits(&item, "amount", "ledger entry")?;
            sum = sum
                .checked_add(amount)
                .ok_or_else(|| StoreError::corrupt("ledger"))?;
            count += 1;
        }
        Ok((sum, count))
    }

    async fn open_holds(&self, account: &AccountNumber) -> Result<Vec<OpenHold>, StoreError> {
        let mut pages = self
            .client
            .query()
            .table_name(&self.tables.holds)
            .key_condition_expression("account_number = :account")
            .filter_expression("#state = :open")
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":account", text(account.as_str()))
            .expression_attribute_values(":open", text("open"))
            .consistent_read(true)
            .into_paginator()
            .items()
            .send();
        let mut holds = Vec::new();
        while let Some(item) = pages.next().await {
            let item = item.map_err(|error| StoreError::unavailable("list holds", error))?;
            holds.push(open_hold(&item)?);
        }
        Ok(holds)
    }
}

fn open_hold(item: &Item) -> Result<OpenHold, StoreError> {
    const WHAT: &str = "hold";
    let call = CallId::new(get_text(item, "hold", WHAT)?);
    Ok(OpenHold {
        call: call.map_err(|_| StoreError::corrupt(WHAT))?,
        amount: get_credits(item, "amount", WHAT)?,
        created_at: get_time(item, "created_at", WHAT)?,
        next_check_at: get_time(item, "next_check_at", WHAT)?,
        expires_at: get_time(item, "expires_at", WHAT)?,
        generation_id: match item.get("generation_id") {
            Some(_) => Some(item::get_text(item, "generation_id", WHAT)?),
            None => None,
        },
    })
}
