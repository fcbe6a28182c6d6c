//! Proof that an account's books are right: sum(ledger) = balance, sum(open holds) = held, and every
//! hold has at most one end.
//!
//! Invariant: nothing is ever repaired here.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use account::hold::HoldState;
use account::{AccountId, AccountNumber, CallId, Credits};
use jiff::{SignedDuration, Timestamp};

use crate::holds::{RESOLVED_KEPT, open_hold, state_of};
use crate::item::{self, ACCOUNT, Item, get_text, get_time, text};
use crate::ledger::{EntryKind, Movements, day_from_item, entry_from_item};
use crate::{OpenHold, Store, StoreError, transaction};

/// How often the books of a busy account are looked at until nothing moved meanwhile.
const TRIES: u32 = 30;
/// Entries older than this do not change any more, nor do holds of calls older than this that have
/// ended: they are read once.
const STILL_MOVING: SignedDuration = SignedDuration::from_mins(10);
/// Before books that do not add up are looked at once more.
const SECOND_LOOK: Duration = Duration::from_secs(2);
/// Items that have expired are removed with a delay, and clocks differ.
const MARGIN: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Before and behind all ids of calls, of whatever form.
const FIRST_HOLD: &str = "-";
const LAST_HOLD: &str = "~";
/// Behind the ids that calls are given.
const LAST_CALL: &str = "call_~";

/// What a look through the books found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconciliation {
    pub open_holds: Vec<OpenHold>,
    /// One sentence for each thing that does not add up; empty is good.
    pub problems: Vec<String>,
}

/// A hold as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredHold {
    Open(Box<OpenHold>),
    Ended {
        state: HoldState,
        at: Timestamp,
        /// Who ended it.
        by: String,
    },
}

/// A part of all accounts, so that several can look through them at once: part `index` of `of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub index: i32,
    pub of: i32,
}

impl Segment {
    pub const ALL: Self = Self { index: 0, of: 1 };
}

/// Some accounts, in no order.
#[derive(Debug)]
pub struct AccountsPage {
    /// A row that cannot be read is an error of its own.
    pub accounts: Vec<Result<(AccountId, AccountNumber), StoreError>>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<AccountsCursor>,
}

/// A place among all accounts.
#[derive(Debug, Clone)]
pub struct AccountsCursor(Item);

impl Store {
    /// All accounts of `segment`, page by page; deleted ones too, as long as calls are open on them.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer.
    pub async fn accounts_page(
        &self,
        segment: Segment,
        after: Option<AccountsCursor>,
    ) -> Result<AccountsPage, StoreError> {
        const WHAT: &str = "account";
        let page = self
            .client
            .scan()
            .table_name(&self.tables.accounts)
            .segment(segment.index)
            .total_segments(segment.of)
            .filter_expression("#item = :account AND attribute_exists(account_number)")
            .projection_expression("account_id, account_number")
            .expression_attribute_names("#item", "item")
            .expression_attribute_values(":account", text(ACCOUNT))
            .set_exclusive_start_key(after.map(|after| after.0))
            .send()
            .await
            .map_err(|error| StoreError::unavailable("list accounts", error))?;
        let accounts = page.items.unwrap_or_default();
        let accounts = accounts.iter().map(|item| {
            let id = AccountId::new(get_text(item, "account_id", WHAT)?);
            let number = AccountNumber::new(get_text(item, "account_number", WHAT)?);
            match (id, number) {
                (Ok(id), Ok(number)) => Ok((id, number)),
                _ => Err(StoreError::corrupt(WHAT)),
            }
        });
        Ok(AccountsPage {
            accounts: accounts.collect(),
            next: page.last_evaluated_key.map(AccountsCursor),
        })
    }

    /// Adds the account's books up, until nothing moved meanwhile. What does not add up is looked at
    /// once more from the beginning, before it counts.
    ///
    /// # Errors
    /// [`StoreError::Contended`] if credits move faster than the books can be read.
    pub async fn reconcile(
        &self,
        id: &AccountId,
        number: &AccountNumber,
        now: Timestamp,
    ) -> Result<Reconciliation, StoreError> {
        let settled_until = now.checked_sub(STILL_MOVING).unwrap_or(now);
        let found = self.look(id, number, now, Some(settled_until)).await?;
        if found.problems.is_empty() {
            return Ok(found);
        }
        // What was read may have been half of a transaction: by then it is all there.
        tokio::time::sleep(SECOND_LOOK).await;
        self.look(id, number, now, None).await
    }

    /// What is older than `settled_until` is read before the moment in which nothing may move.
    async fn look(
        &self,
        id: &AccountId,
        number: &AccountNumber,
        now: Timestamp,
        settled_until: Option<Timestamp>,
    ) -> Result<Reconciliation, StoreError> {
        let keep_calls_since = now.checked_sub(RESOLVED_KEPT + MARGIN).unwrap_or(now);
        let mut old = Entries::new(keep_calls_since);
        let (mut ended, mut open) = (Vec::new(), Vec::new());
        let mut new_entries = "e#".to_owned();
        let mut new_holds = (FIRST_HOLD.to_owned(), LAST_HOLD);
        if let Some(at) = settled_until {
            new_entries = format!("e#{}", item::time_text(at));
            self.read_entries(number, "e#", &new_entries, &mut old)
                .await?;
            new_holds = (first_call_of(at), LAST_CALL);
            for hold in self.holds(number, FIRST_HOLD, &new_holds.0).await? {
                match state_of(&hold)? {
                    HoldState::Open => open.push(call_of(&hold)?),
                    HoldState::Settled(_) | HoldState::Released => ended.push(hold),
                }
            }
        }
        for tried in 0..TRIES {
            let before = self.movements(id).await?;
            let mut new = Entries::new(keep_calls_since);
            self.read_entries(number, &new_entries, "e#~", &mut new)
                .await?;
            let mut holds = self.holds(number, &new_holds.0, new_holds.1).await?;
            for call in &open {
                holds.extend(self.stored_hold(number, call).await?);
            }
            let days = self.all_days(number).await?;
            let after = self.movements(id).await?;
            if before.moves == after.moves {
                holds.extend(ended);
                let books = Books {
                    stored: after,
                    entries: old.and(new),
                    holds,
                    days,
                };
                return books.add_up(now);
            }
            transaction::pause(tried).await;
        }
        Err(StoreError::Contended {
            operation: "reconcile account",
        })
    }

    async fn read_entries(
        &self,
        account: &AccountNumber,
        from: &str,
        to: &str,
        entries: &mut Entries,
    ) -> Result<(), StoreError> {
        let mut items = self
            .client
            .query()
            .table_name(&self.tables.ledger)
            .key_condition_expression("account_number = :account AND entry BETWEEN :from AND :to")
            .expression_attribute_values(":account", text(account.as_str()))
            .expression_attribute_values(":from", text(from))
            .expression_attribute_values(":to", text(to))
            .consistent_read(true)
            .into_paginator()
            .items()
            .send();
        while let Some(item) = items.next().await {
            let item = item.map_err(|error| StoreError::unavailable("sum ledger", error))?;
            entries.add(&item)?;
        }
        Ok(())
    }

    /// The holds of calls whose ids are between these.
    async fn holds(
        &self,
        account: &AccountNumber,
        from: &str,
        to: &str,
    ) -> Result<Vec<Item>, StoreError> {
        let pages = self
            .client
            .query()
            .table_name(&self.tables.holds)
            .key_condition_expression("account_number = :account AND #hold BETWEEN :from AND :to")
            .filter_expression("attribute_exists(#state)")
            .expression_attribute_names("#hold", "hold")
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":account", text(account.as_str()))
            .expression_attribute_values(":from", text(from))
            .expression_attribute_values(":to", text(to))
            .consistent_read(true)
            .into_paginator()
            .items()
            .send();
        pages
            .collect::<Result<_, _>>()
            .await
            .map_err(|error| StoreError::unavailable("list holds", error))
    }

    /// Credits spent and calls made on all days.
    async fn all_days(&self, account: &AccountNumber) -> Result<(Credits, u64), StoreError> {
        let mut items = self
            .client
            .query()
            .table_name(&self.tables.ledger)
            .key_condition_expression("account_number = :account AND begins_with(entry, :days)")
            .expression_attribute_values(":account", text(account.as_str()))
            .expression_attribute_values(":days", text("d#"))
            .consistent_read(true)
            .into_paginator()
            .items()
            .send();
        let (mut spent, mut calls) = (Credits::ZERO, 0);
        while let Some(item) = items.next().await {
            let item = item.map_err(|error| StoreError::unavailable("read days", error))?;
            let day = day_from_item(&item)?;
            spent = plus(spent, day.spent)?;
            calls += day.calls;
        }
        Ok((spent, calls))
    }

    /// The account's open holds.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer or a hold cannot be read.
    pub async fn open_holds(&self, account: &AccountNumber) -> Result<Vec<OpenHold>, StoreError> {
        let mut open = Vec::new();
        for item in self.holds(account, FIRST_HOLD, LAST_HOLD).await? {
            if state_of(&item)? == HoldState::Open {
                open.push(open_hold(&item)?);
            }
        }
        Ok(open)
    }

    /// The hold of `call` as it stands; `None` if nothing is known of one.
    ///
    /// # Errors
    /// [`StoreError`] if DynamoDB does not answer or the hold cannot be read.
    pub async fn find_hold(
        &self,
        account: &AccountNumber,
        call: &CallId,
    ) -> Result<Option<StoredHold>, StoreError> {
        let Some(item) = self.stored_hold(account, call).await? else {
            return Ok(None);
        };
        Ok(Some(match state_of(&item)? {
            HoldState::Open => StoredHold::Open(Box::new(open_hold(&item)?)),
            state => StoredHold::Ended {
                state,
                at: get_time(&item, "resolved_at", "hold")?,
                by: get_text(&item, "resolved_by", "hold")?,
            },
        }))
    }
}

/// Before the ids of all calls that begin at `at` or later: calls' ids sort by the time of their
/// making. A hold under another id may be missed by the first look, but not by the second one.
fn first_call_of(at: Timestamp) -> String {
    format!("call_{:012x}", at.as_millisecond().max(0))
}

fn call_of(hold: &Item) -> Result<CallId, StoreError> {
    CallId::new(get_text(hold, "hold", "hold")?).map_err(|_| StoreError::corrupt("hold"))
}

fn plus(a: Credits, b: Credits) -> Result<Credits, StoreError> {
    a.checked_add(b)
        .ok_or_else(|| StoreError::corrupt("ledger"))
}

/// Ledger entries, added up.
struct Entries {
    sum: Credits,
    count: u64,
    call_sum: Credits,
    call_count: u64,
    /// Of calls whose hold may still be there: what was taken for it, and when.
    calls: HashMap<CallId, (Credits, Timestamp)>,
    keep_calls_since: Timestamp,
    problems: Vec<String>,
}

impl Entries {
    fn new(keep_calls_since: Timestamp) -> Self {
        Self {
            sum: Credits::ZERO,
            count: 0,
            call_sum: Credits::ZERO,
            call_count: 0,
            calls: HashMap::new(),
            keep_calls_since,
            problems: Vec::new(),
        }
    }

    fn add(&mut self, item: &Item) -> Result<(), StoreError> {
        let entry = entry_from_item(item)?;
        self.sum = plus(self.sum, entry.amount)?;
        self.count += 1;
        if entry.kind != EntryKind::Call {
            return Ok(());
        }
        self.call_sum = plus(self.call_sum, entry.amount)?;
        self.call_count += 1;
        let call = entry
            .call_id
            .ok_or_else(|| StoreError::corrupt("ledger entry"))?;
        if entry.at >= self.keep_calls_since {
            self.add_call(call, (entry.amount, entry.at));
        }
        Ok(())
    }

    fn add_call(&mut self, call: CallId, taken: (Credits, Timestamp)) {
        match self.calls.entry(call) {
            Entry::Vacant(place) => {
                place.insert(taken);
            }
            Entry::Occupied(known) => {
                let call = known.key();
                self.problems
                    .push(format!("call {call} has two ledger entries"));
            }
        }
    }

    fn and(mut self, later: Self) -> Self {
        self.sum = self.sum.checked_add(later.sum).unwrap_or_default();
        self.count += later.count;
        self.call_sum = self
            .call_sum
            .checked_add(later.call_sum)
            .unwrap_or_default();
        self.call_count += later.call_count;
        self.problems.extend(later.problems);
        for (call, taken) in later.calls {
            self.add_call(call, taken);
        }
        self
    }
}

/// All that is stored of an account's credits at one moment.
struct Books {
    stored: Movements,
    entries: Entries,
    holds: Vec<Item>,
    days: (Credits, u64),
}

impl Books {
    fn add_up(self, now: Timestamp) -> Result<Reconciliation, StoreError> {
        let Self {
            stored,
            entries,
            holds,
            days,
        } = self;
        let mut problems = entries.problems;
        let mut calls = entries.calls;
        let mut open_holds = Vec::new();
        for item in holds {
            let call = call_of(&item)?;
            let taken = calls.remove(&call).map(|(amount, _)| amount);
            let state = state_of(&item)?;
            // Removed late: its entry is older than those that are looked at one by one.
            if state != HoldState::Open
                && get_time(&item, "resolved_at", "hold")? < entries.keep_calls_since
            {
                continue;
            }
            match (state, taken) {
                (HoldState::Open, None) => open_holds.push(open_hold(&item)?),
                (HoldState::Released, None) => {}
                (HoldState::Settled(charged), Some(taken))
                    if taken.checked_neg() == Some(charged) => {}
                (state, taken) => problems.push(format!(
                    "the hold of call {call} is {state:?}, but the ledger took {taken:?} for it"
                )),
            }
        }
        let must_have_a_hold = now.checked_sub(RESOLVED_KEPT - MARGIN).unwrap_or(now);
        for (call, (_, at)) in calls {
            if at >= must_have_a_hold {
                problems.push(format!(
                    "the ledger took credits for call {call}, which has no hold"
                ));
            }
        }
        let micros = |credits: Credits| i128::from(credits.micros());
        let amounts = open_holds.iter().map(|open| open.hold.amount);
        let held = amounts.map(micros).sum();
        let mut equal = |what: &str, found: i128, stored: i128| {
            if found != stored {
                problems.push(format!("{what}: {found}, but stored is {stored}"));
            }
        };
        let Movements {
            balance,
            held: stored_held,
            available,
            owed,
            open_holds: stored_open,
            entries: stored_entries,
            moves: _,
        } = stored;
        equal("sum of the ledger", micros(entries.sum), micros(balance));
        equal(
            "ledger entries",
            entries.count.into(),
            stored_entries.into(),
        );
        equal("sum of open holds", held, micros(stored_held));
        let open = u64::try_from(open_holds.len()).unwrap_or(u64::MAX);
        equal("open holds", open.into(), stored_open.into());
        let rest = micros(balance) - micros(stored_held);
        equal("balance less held", rest, micros(available));
        equal("spent by days", micros(days.0), -micros(entries.call_sum));
        equal("calls by days", days.1.into(), entries.call_count.into());
        for (what, credits) in [("available", available), ("owed", owed)] {
            if credits.is_negative() {
                problems.push(format!("{what} is negative: {credits}"));
            }
        }
        Ok(Reconciliation {
            open_holds,
            problems,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 9562 for ids that tell their time.
    #[test]
    fn the_first_call_of_a_time_is_before_all_that_were_made_then() {
        let id = "call_017f22e279b07cc398c4dc0c0c07398f";
        let at: Timestamp = "2022-02-22T19:22:22Z".parse().unwrap();
        let next = at + SignedDuration::from_millis(1);
        assert!(*first_call_of(at) < *id && *id < *first_call_of(next));
        assert!(*FIRST_HOLD < *id && *id < *LAST_CALL && *LAST_CALL < *LAST_HOLD);
        assert!(*LAST_CALL < *"idem#");
    }
}
