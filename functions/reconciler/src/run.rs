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

/// Number of accounts checked concurrently.
const CONCURRENT_ACCOUNTS: usize = 8;
/// Maximum number of mismatches in the report; the logs have all of them.
const MAX_REPORTED: usize = 100;

#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Accounts whose books were read.
    accounts: u64,
    mismatches: Vec<Mismatch>,
    /// Accounts whose books could not be read, in two attempts.
    unread: usize,
    /// Whether the run reached every account.
    complete: bool,
}

#[derive(Debug, Serialize)]
struct Mismatch {
    account_number: AccountNumber,
    problems: Vec<String>,
}

/// Checks the accounts of `segment` that it reaches before the deadline.
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
    let all = run.check_segment(segment);
    let ended = match deadline {
        Some(deadline) => timeout_at(deadline.stop_at(), all).await,
        None => Ok(all.await),
    };
    let complete = match ended {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            edge::log_error(&error, "could not list all accounts");
            false
        }
        Err(_) => {
            tracing::error!("not enough time for all accounts; add segments");
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
    /// Number of rows without a readable account.
    unreadable: usize,
}

impl Run<'_> {
    async fn check_segment(&mut self, segment: Segment) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let page = self.store.accounts.page(segment, after).await?;
            let mut accounts = Vec::new();
            for row in page.accounts {
                match row {
                    Ok(account) => accounts.push(account),
                    Err(error) => {
                        edge::log_error(&error, "could not read an account's row");
                        self.unreadable += 1;
                    }
                }
            }
            self.check_accounts(accounts).await;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let second_attempt = self.unread.clone().into_iter();
        let second_attempt = second_attempt.map(|(number, id)| (id, number));
        self.check_accounts(second_attempt.collect()).await;
        Ok(())
    }

    async fn check_accounts(&mut self, accounts: Vec<(AccountId, AccountNumber)>) {
        let (store, now) = (self.store, self.now);
        let checks = stream::iter(accounts).map(async |(id, number)| {
            let problems = problems(store, &id, &number, now).await;
            (id, number, problems)
        });
        let mut checks = pin!(checks.buffer_unordered(CONCURRENT_ACCOUNTS));
        while let Some((id, number, problems)) = checks.next().await {
            self.unread.remove(&number);
            match problems {
                Ok(None) => {}
                Ok(Some(problems)) => self.report(number, problems),
                Err(error) => {
                    let span = tracing::error_span!("account", account_number = number.as_str());
                    span.in_scope(|| edge::log_error(&error, "could not read an account's books"));
                    self.unread.insert(number, id);
                }
            }
        }
    }

    fn report(&mut self, account_number: AccountNumber, problems: Vec<String>) {
        self.report.accounts += 1;
        if problems.is_empty() {
            return;
        }
        for problem in &problems {
            let account_number = account_number.as_str();
            tracing::error!(account_number, problem, "an account's books do not add up");
        }
        self.mismatches += 1;
        if self.report.mismatches.len() < MAX_REPORTED {
            self.report.mismatches.push(Mismatch { account_number, problems });
        }
    }

    fn finish(self, complete: bool) -> Report {
        let unread = self.unread.len() + self.unreadable;
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        edge::metric("reconciliation_accounts", self.report.accounts);
        edge::metric("reconciliation_mismatches", self.mismatches);
        edge::metric("reconciliation_unread", count(unread));
        edge::metric("reconciliation_incomplete", u64::from(!complete));
        Report { unread, complete, ..self.report }
    }
}

/// The problems in an account's books; `None` if the account is gone.
async fn problems(
    store: &Store,
    id: &AccountId,
    number: &AccountNumber,
    now: Timestamp,
) -> Result<Option<Vec<String>>, StoreError> {
    let reconciled = store.books.reconcile(id, number, now).await;
    if let Ok(found) = &reconciled
        && found.problems.is_empty()
    {
        return Ok(Some(Vec::new()));
    }
    // Since it was listed, the account may have been deleted, or even created again. A failure to
    // read its number does not prove that.
    let stored = store.accounts.number(id).await;
    let is_gone = stored.is_ok_and(|stored| stored.as_ref() != Some(number));
    if is_gone {
        return Ok(None);
    }
    reconciled.map(|found| Some(found.problems))
}
