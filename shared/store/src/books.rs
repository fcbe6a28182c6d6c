//! Proof that an account's books are right: sum(ledger) = balance, sum(open holds) = held, and
//! every hold has at most one end.
//!
//! Architecture invariant: nothing is ever repaired here.

use std::collections::HashMap;
use std::time::Duration;

use account::hold::HoldState;
use account::{AccountId, AccountNumber, CallId, Credits};
use jiff::{SignedDuration, Timestamp};

use crate::db::Db;
use crate::error::StoreError;
use crate::holds::RESOLVED_KEPT;
use crate::item::{self, Attributes, Item, time_text};
use crate::ledger::{
    EntryKind, LedgerEntry, StoredBalance, entries_between, read_day, stored_balance,
};
use crate::open_holds::{
    FIRST_HOLD, LAST_HOLD, OpenHold, holds_between, open_hold, state_of, stored_hold,
};
use crate::retry::Retry;

/// Maximum number of reads of a busy account's books until nothing moves during one.
const TRIES: u32 = 30;
/// The age after which ledger entries and ended holds no longer change, and are read only once.
const STILL_MOVING: SignedDuration = SignedDuration::from_mins(10);
/// The pause before books that do not add up are read again.
const SECOND_LOOK: Duration = Duration::from_secs(2);
/// Allowance for clocks that differ, and for expired items that DynamoDB removes late.
const MARGIN: SignedDuration = SignedDuration::from_hours(7 * 24);
/// A text that sorts after every id that a call is given.
const LAST_CALL: &str = "call_~";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconciliation {
    pub open_holds: Vec<OpenHold>,
    /// One sentence per mismatch; empty if the books add up.
    pub problems: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct Books {
    pub(crate) db: Db,
}

impl Books {
    /// Adds up the account's books while nothing moves. If they do not add up, they are read again
    /// from the beginning, and only the second result counts. Fails with
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
        // The first look may have seen half of a transaction, which is complete by then.
        tokio::time::sleep(SECOND_LOOK).await;
        self.look(id, number, now, None).await
    }

    /// Items older than `settled_until` are read first; nothing may move while the rest is read.
    async fn look(
        &self,
        id: &AccountId,
        number: &AccountNumber,
        now: Timestamp,
        settled_until: Option<Timestamp>,
    ) -> Result<Reconciliation, StoreError> {
        let db = &self.db;
        let keep_calls_since = now.checked_sub(RESOLVED_KEPT + MARGIN).unwrap_or(now);
        let mut old = Entries { keep_calls_since, ..Entries::default() };
        let (mut ended, mut open) = (Vec::new(), Vec::new());
        let mut new_entries = "e#".to_owned();
        let mut new_holds = (FIRST_HOLD.to_owned(), LAST_HOLD);
        if let Some(at) = settled_until {
            new_entries = format!("e#{}", time_text(at));
            self.read_entries(number, "e#", &new_entries, &mut old).await?;
            new_holds = (first_call_of(at), LAST_CALL);
            for hold in holds_between(db, number, FIRST_HOLD, &new_holds.0).await? {
                match state_of(&hold)? {
                    HoldState::Open => open.push(call_of(&hold)?),
                    HoldState::Settled(_) | HoldState::Released => ended.push(hold),
                }
            }
        }
        let mut retry = Retry::at_most(TRIES, "reconcile account");
        loop {
            let before = stored_balance(db, id).await?;
            let mut entries = old.clone();
            self.read_entries(number, &new_entries, "e#~", &mut entries).await?;
            let mut holds = holds_between(db, number, &new_holds.0, new_holds.1).await?;
            for call in &open {
                holds.extend(stored_hold(db, number, call).await?);
            }
            let days = self.days(number).await?;
            let stored = stored_balance(db, id).await?;
            if before.moves == stored.moves {
                holds.extend(ended);
                return add_up(stored, entries, holds, days, now);
            }
            retry.pause().await?;
        }
    }

    async fn read_entries(
        &self,
        account: &AccountNumber,
        from: &str,
        to: &str,
        entries: &mut Entries,
    ) -> Result<(), StoreError> {
        // Added up page by page: there may be too many to keep.
        let query = entries_between(&self.db, account, from, to);
        let mut items = query.into_paginator().items().send();
        while let Some(item) = items.next().await {
            let item = item.map_err(|error| StoreError::unavailable("sum ledger", error))?;
            entries.add(item)?;
        }
        Ok(())
    }

    async fn days(&self, account: &AccountNumber) -> Result<(Credits, u64), StoreError> {
        let query = entries_between(&self.db, account, "d#", "d#~");
        let (mut spent, mut calls) = (Credits::ZERO, 0);
        for item in self.db.query("read days", query).await? {
            let day = read_day(&item)?;
            spent = plus(spent, day.spent)?;
            calls += day.calls;
        }
        Ok((spent, calls))
    }
}

/// A text that sorts before the ids of all calls that begin at `at` or later: an id begins with
/// its time. The first look may miss a hold under another id, the second one does not.
fn first_call_of(at: Timestamp) -> String {
    format!("call_{:012x}", at.as_millisecond().max(0))
}

fn call_of(hold: &Item) -> Result<CallId, StoreError> {
    Attributes::of("hold", hold).get("hold")
}

fn plus(a: Credits, b: Credits) -> Result<Credits, StoreError> {
    a.checked_add(b).ok_or_else(|| StoreError::corrupt("ledger"))
}

#[derive(Clone, Default)]
struct Entries {
    sum: Credits,
    count: u64,
    call_sum: Credits,
    call_count: u64,
    /// The calls whose hold may still be stored: the amount taken, and when.
    calls: HashMap<CallId, (Credits, Timestamp)>,
    keep_calls_since: Timestamp,
    problems: Vec<String>,
}

impl Entries {
    fn add(&mut self, item: Item) -> Result<(), StoreError> {
        let entry: LedgerEntry = item::read("ledger entry", item)?;
        self.sum = plus(self.sum, entry.amount)?;
        self.count += 1;
        if entry.kind != EntryKind::Call {
            return Ok(());
        }
        self.call_sum = plus(self.call_sum, entry.amount)?;
        self.call_count += 1;
        let call = entry.call_id.ok_or_else(|| StoreError::corrupt("ledger entry"))?;
        if entry.at >= self.keep_calls_since {
            let taken = (entry.amount, entry.at);
            if self.calls.insert(call.clone(), taken).is_some() {
                let problem = format!("call {call} has two ledger entries");
                self.problems.push(problem);
            }
        }
        Ok(())
    }
}

/// Compares everything stored about an account's credits at one moment.
fn add_up(
    stored: StoredBalance,
    entries: Entries,
    holds: Vec<Item>,
    days: (Credits, u64),
    now: Timestamp,
) -> Result<Reconciliation, StoreError> {
    let mut problems = entries.problems;
    let mut calls = entries.calls;
    let mut open_holds = Vec::new();
    for item in holds {
        let call = call_of(&item)?;
        let taken = calls.remove(&call).map(|(amount, _)| amount);
        let state = state_of(&item)?;
        // Removed late: its entry is too old to be kept in `calls`.
        if state != HoldState::Open {
            let resolved_at: Timestamp = Attributes::of("hold", &item).get("resolved_at")?;
            if resolved_at < entries.keep_calls_since {
                continue;
            }
        }
        match (state, taken) {
            (HoldState::Open, None) => open_holds.push(open_hold(&item)?),
            (HoldState::Released, None) => {}
            (HoldState::Settled(charged), Some(taken)) if taken.checked_neg() == Some(charged) => {}
            (state, taken) => problems.push(format!(
                "the hold of call {call} is {state:?}, but the ledger took {taken:?} for it"
            )),
        }
    }
    let must_have_a_hold = now.checked_sub(RESOLVED_KEPT - MARGIN).unwrap_or(now);
    for (call, (_, at)) in calls {
        if at >= must_have_a_hold {
            problems.push(format!("the ledger took credits for call {call}, which has no hold"));
        }
    }
    let micros = |credits: Credits| i128::from(credits.micros());
    let held = open_holds.iter().map(|open| micros(open.hold.amount)).sum();
    let open = u64::try_from(open_holds.len()).unwrap_or(u64::MAX);
    let rest = micros(stored.balance) - micros(stored.held);
    let (spent, calls) = days;
    for (what, found, stored) in [
        ("sum of the ledger", micros(entries.sum), micros(stored.balance)),
        ("ledger entries", entries.count.into(), stored.entries.into()),
        ("sum of open holds", held, micros(stored.held)),
        ("open holds", open.into(), stored.open_holds.into()),
        ("balance less held", rest, micros(stored.available)),
        ("spent by days", micros(spent), -micros(entries.call_sum)),
        ("calls by days", calls.into(), entries.call_count.into()),
    ] {
        if found != stored {
            problems.push(format!("{what}: {found}, but stored is {stored}"));
        }
    }
    for (what, credits) in [("available", stored.available), ("owed", stored.owed)] {
        if credits.is_negative() {
            problems.push(format!("{what} is negative: {credits}"));
        }
    }
    Ok(Reconciliation { open_holds, problems })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9562's example of an id that begins with its time.
    #[test]
    fn the_first_call_of_a_time_sorts_before_every_call_made_then() {
        let id = "call_017f22e279b07cc398c4dc0c0c07398f";
        let at: Timestamp = "2022-02-22T19:22:22Z".parse().unwrap();
        let next = at + SignedDuration::from_millis(1);
        assert!(*first_call_of(at) < *id && *id < *first_call_of(next));
        assert!(*FIRST_HOLD < *id && *id < *LAST_CALL && *LAST_CALL < *LAST_HOLD);
        assert!(*LAST_CALL < *"idem#");
    }
}
