//! One run through the accounts of a segment.

use std::collections::BTreeMap;
use std::pin::pin;

use account::{AccountId, AccountNumber};
use edge::Deadline;
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use serde::Serialize;
use store::{Segment, Store, StoreError};
use tokio::time::timeout_at;

/// Accounts looked at at once.
const AT_ONCE: usize = 8;
/// So many mismatches are in the answer; all are in the logs.
const TOLD: usize = 100;

/// What a run found.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Accounts whose books were read.
    accounts: u64,
    /// Those whose books do not add up, at most [`TOLD`].
    mismatches: Vec<Mismatch>,
    /// Accounts whose books could not be read, tried twice.
    unread: usize,
    /// Every account was come to.
    complete: bool,
}

#[derive(Debug, Serialize)]
struct Mismatch {
    account_number: AccountNumber,
    problems: Vec<String>,
}

/// Looks at all accounts of `segment` that it comes to before the deadline.
pub(crate) async fn run(
    store: &Store,
    segment: Segment,
    now: Timestamp,
    deadline: Option<Deadline>,
) -> Report {
    let mut run = Run {
        store,
        now,
        report: Report::default(),
        mismatches: 0,
        unread: BTreeMap::new(),
        unreadable: 0,
    };
    let all = run.all(segment);
    let ended = match deadline {
        Some(deadline) => timeout_at(deadline.stop_at(), all).await,
        None => Ok(all.await),
    };
    let complete = match ended {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            edge::log_error(&error, "the accounts could not all be listed");
            false
        }
        Err(_) => {
            tracing::error!("the time was not enough for all accounts; add segments");
            false
        }
    };
    run.finish(complete)
}

struct Run<'a> {
    store: &'a Store,
    now: Timestamp,
    report: Report,
    mismatches: u64,
    /// Accounts that could not be read so far.
    unread: BTreeMap<AccountNumber, AccountId>,
    /// Rows that do not even say which account they are.
    unreadable: usize,
}

impl Run<'_> {
    async fn all(&mut self, segment: Segment) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let page = self.store.accounts.page(segment, after).await?;
            let mut accounts = Vec::new();
            for row in page.accounts {
                match row {
                    Ok(account) => accounts.push(account),
                    Err(error) => {
                        edge::log_error(&error, "an account's row cannot be read");
                        self.unreadable += 1;
                    }
                }
            }
            self.look_at(accounts).await;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let again = self.unread.clone().into_iter();
        let again = again.map(|(number, id)| (id, number));
        self.look_at(again.collect()).await;
        Ok(())
    }

    async fn look_at(&mut self, accounts: Vec<(AccountId, AccountNumber)>) {
        let (store, now) = (self.store, self.now);
        let looks = stream::iter(accounts).map(async |(id, number)| {
            let found = look(store, &id, &number, now).await;
            (id, number, found)
        });
        let mut looks = pin!(looks.buffer_unordered(AT_ONCE));
        while let Some((id, number, found)) = looks.next().await {
            self.unread.remove(&number);
            match found {
                Ok(None) => {}
                Ok(Some(problems)) => self.note(number, problems),
                Err(error) => {
                    let span = tracing::error_span!("account", account_number = number.as_str());
                    span.in_scope(|| edge::log_error(&error, "an account's books were not read"));
                    self.unread.insert(number, id);
                }
            }
        }
    }

    fn note(&mut self, account_number: AccountNumber, problems: Vec<String>) {
        self.report.accounts += 1;
        if problems.is_empty() {
            return;
        }
        for problem in &problems {
            let account_number = account_number.as_str();
            tracing::error!(account_number, problem, "an account's books do not add up");
        }
        self.mismatches += 1;
        if self.report.mismatches.len() < TOLD {
            self.report.mismatches.push(Mismatch {
                account_number,
                problems,
            });
        }
    }

    fn finish(self, complete: bool) -> Report {
        let unread = self.unread.len() + self.unreadable;
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        edge::metric("reconciliation_accounts", self.report.accounts);
        edge::metric("reconciliation_mismatches", self.mismatches);
        edge::metric("reconciliation_unread", count(unread));
        edge::metric("reconciliation_incomplete", u64::from(!complete));
        Report {
            unread,
            complete,
            ..self.report
        }
    }
}

/// What does not add up in an account's books; `None` if the account is gone.
async fn look(
    store: &Store,
    id: &AccountId,
    number: &AccountNumber,
    now: Timestamp,
) -> Result<Option<Vec<String>>, StoreError> {
    let looked = store.books.reconcile(id, number, now).await;
    if let Ok(found) = &looked
        && found.problems.is_empty()
    {
        return Ok(Some(Vec::new()));
    }
    // Between listing and looking the account may have been deleted, or even made anew. That its number
    // cannot be read either is no proof of it.
    let stored = store.accounts.number(id).await;
    let is_gone = stored.is_ok_and(|stored| stored.as_ref() != Some(number));
    if is_gone {
        return Ok(None);
    }
    looked.map(|found| Some(found.problems))
}
