//! `gretactl credits`.

use std::fmt::{self, Display};

use account::{Account, AccountId, AccountNumber, CallId, Credits, EntryId};
use jiff::Timestamp;
use serde::Serialize;
use store::{EntryKind, LedgerEntry, PostError, PostRefused, Posted, Posting, Segment, StoreError};

use crate::Exit;
use crate::cli::{Cause, CreditsCommand, Giving};
use crate::error::Error;
use crate::output::{Answer, CreditFacts, Fields, Table, name_of, time};
use crate::session::Session;

/// Entries that are read at once.
const PAGE: u8 = 100;

pub(crate) async fn carry_out(
    session: &mut Session<'_, '_>,
    command: CreditsCommand,
) -> Result<Answer, Error> {
    match command {
        CreditsCommand::Grant(giving) => give(session, EntryKind::Grant, giving).await,
        CreditsCommand::Refund(giving) => give(session, EntryKind::Refund, giving).await,
        CreditsCommand::Adjust {
            account,
            amount,
            cause,
        } => {
            let account = session.account(&account.account).await?;
            let wish = Wish::new(EntryKind::Adjustment, amount, cause)?;
            post(session, account, wish).await
        }
        CreditsCommand::Reverse {
            account,
            entry_id,
            reason,
        } => reverse(session, account.account, &entry_id, reason).await,
        CreditsCommand::History {
            account,
            limit,
            all,
        } => {
            let limit = if all { usize::MAX } else { limit as usize };
            history(session, account.account, limit).await
        }
        CreditsCommand::Reconcile {
            account: Some(account),
            ..
        } => reconcile_one(session, account).await,
        CreditsCommand::Reconcile {
            account: None,
            segment,
            ..
        } => reconcile_all(session, segment.unwrap_or(Segment::ALL)).await,
    }
}

/// A posting that is to be made.
struct Wish {
    id: EntryId,
    kind: EntryKind,
    amount: Credits,
    reason: String,
}

impl Wish {
    fn new(kind: EntryKind, amount: Credits, cause: Cause) -> Result<Self, Error> {
        let new = || EntryId::new(edge::new_id(kind.as_str()));
        let id = cause.entry.map_or_else(new, Ok);
        Ok(Self {
            id: id.map_err(|error| Error::refused(error.to_string()))?,
            kind,
            amount,
            reason: cause.reason,
        })
    }
}

async fn give(
    session: &mut Session<'_, '_>,
    kind: EntryKind,
    giving: Giving,
) -> Result<Answer, Error> {
    let account = session.account(&giving.account.account).await?;
    let wish = Wish::new(kind, giving.amount, giving.cause)?;
    post(session, account, wish).await
}

async fn reverse(
    session: &mut Session<'_, '_>,
    id: AccountId,
    entry: &EntryId,
    reason: String,
) -> Result<Answer, Error> {
    let account = session.account(&id).await?;
    let known = session.store.ledger.posting(&account.number, entry).await?;
    let known = known.ok_or_else(|| {
        Error::refused(format!(
            "account {id} has no grant or purchase of the id {entry}; `gretactl credits history {id}` has the ids"
        ))
    })?;
    if !matches!(known.kind, EntryKind::Grant | EntryKind::Purchase) {
        return Err(Error::refused(format!(
            "{entry} is a {}; only a grant or a purchase is reversed; `credits adjust` corrects anything else",
            known.kind.as_str()
        )));
    }
    let own = EntryId::new(format!("reversal-{entry}"));
    let amount = known.amount.checked_neg();
    let (Ok(own), Some(amount)) = (own, amount) else {
        return Err(Error::refused(format!(
            "{entry} has no room for a reversal's id; take the credits with `credits adjust`"
        )));
    };
    let wish = Wish {
        id: own,
        kind: EntryKind::Reversal,
        amount,
        reason,
    };
    post(session, account, wish).await
}

/// What was posted.
#[derive(Serialize)]
struct PostingReport {
    account_id: AccountId,
    entry_id: EntryId,
    kind: EntryKind,
    /// What was asked for.
    amount: Credits,
    /// False: the same was posted before, and nothing moved.
    posted: bool,
    /// What the balance changed by.
    moved: Credits,
    /// What is owed more than before, or less.
    owed_change: Credits,
    reason: String,
    actor: String,
    /// As they are now, if that could be read.
    credits: Option<CreditFacts>,
}

impl Display for PostingReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = if self.posted {
            "posted"
        } else {
            "this id was posted before; nothing moved"
        };
        let mut fields = Fields::new("account", &self.account_id)
            .and("entry", &self.entry_id)
            .and("kind", self.kind.as_str())
            .and("amount", self.amount)
            .and("moved", self.moved);
        if self.owed_change.is_negative() {
            fields = fields.and("of it, owed", owed(self.owed_change));
        } else if self.owed_change != Credits::ZERO {
            fields = fields.and("not taken", owed(self.owed_change));
        }
        fields = fields.and("reason", &self.reason).and("by", &self.actor);
        if let Some(credits) = self.credits {
            fields = fields.and("now", credits);
        }
        write!(f, "{done}\n\n{fields}")
    }
}

fn owed(change: Credits) -> String {
    match change.checked_neg().filter(|_| change.is_negative()) {
        Some(paid) => format!("{paid} paid what was owed"),
        None => format!("{change}, which is owed from now on"),
    }
}

async fn post(
    session: &mut Session<'_, '_>,
    account: Account,
    wish: Wish,
) -> Result<Answer, Error> {
    let actor = session.actor()?;
    let known = session
        .store
        .ledger
        .posting(&account.number, &wish.id)
        .await?;
    let posted = match known {
        Some(known) if (known.kind, known.amount) == (wish.kind, wish.amount) => Posted::Before,
        Some(_) => return Err(id_taken(&wish.id)),
        None => {
            confirm(session, &account, &wish)?;
            // The time after the confirmation: the ledger is read in the order of time.
            let posting = Posting {
                id: &wish.id,
                kind: wish.kind,
                amount: wish.amount,
                at: session.clock.now(),
                note: &wish.reason,
                actor: &actor,
            };
            let posted = session.store.ledger.post(&account.id, &posting).await;
            posted.map_err(|error| match error {
                PostError::Refused(refused) => not_posted(&account.id, &wish, &refused),
                PostError::Store(source) => Error::Unknown {
                    advice: repeat(&wish),
                    source,
                },
            })?
        }
    };
    let (posted, moved, owed_change) = match posted {
        Posted::Now { balance, owed } => (true, balance, owed),
        Posted::Before => (false, Credits::ZERO, Credits::ZERO),
    };
    let after = session.store.accounts.get(&account.id).await.ok().flatten();
    Answer::of(&PostingReport {
        account_id: account.id,
        entry_id: wish.id,
        kind: wish.kind,
        amount: wish.amount,
        posted,
        moved,
        owed_change,
        reason: wish.reason,
        actor,
        credits: after.map(|after| after.balance.into()),
    })
}

fn confirm(session: &mut Session<'_, '_>, account: &Account, wish: &Wish) -> Result<(), Error> {
    let amount = wish.amount;
    let taken = amount.checked_neg().unwrap_or(amount);
    let what = match wish.kind {
        EntryKind::Reversal => {
            let now = taken.min(account.balance.available());
            let later = taken.checked_sub(now).unwrap_or_default();
            format!("{taken} credits are reversed: {now} taken now, {later} owed.")
        }
        _ if amount.is_negative() => format!("{taken} credits are taken."),
        _ => format!("{amount} credits are given."),
    };
    let facts = Fields::new("account", &account.id)
        .and("plan", name_of(&account.profile.plan()))
        .and("entry", &wish.id)
        .and("kind", wish.kind.as_str())
        .and("amount", amount)
        .and("reason", &wish.reason)
        .and("before", CreditFacts::from(account.balance));
    session.confirm(what, facts)
}

fn repeat(wish: &Wish) -> String {
    match wish.kind {
        EntryKind::Reversal => "repeat it: an entry is reversed once".to_owned(),
        _ => format!("repeat it with --id {}: it is posted once", wish.id),
    }
}

fn not_posted(account: &AccountId, wish: &Wish, refused: &PostRefused) -> Error {
    match refused {
        PostRefused::Insufficient(balance) => Error::refused(format!(
            "{} credits are more than there are: {}; nothing was posted",
            wish.amount,
            CreditFacts::from(*balance)
        )),
        PostRefused::NoAccount => Error::gone(account),
        PostRefused::IdTaken => id_taken(&wish.id),
        PostRefused::Amount(_) => Error::refused("so many credits cannot be counted"),
    }
}

fn id_taken(id: &EntryId) -> Error {
    Error::refused(format!(
        "{id} is the id of another entry of this account; nothing was posted; give another --id"
    ))
}

#[derive(Serialize)]
struct History {
    account_id: AccountId,
    /// Newest first.
    entries: Vec<EntryFacts>,
    /// There are older ones.
    more: bool,
}

#[derive(Serialize)]
struct EntryFacts {
    id: EntryId,
    at: Timestamp,
    kind: EntryKind,
    amount: Credits,
    balance_after: Credits,
    call_id: Option<CallId>,
    note: String,
    actor: String,
}

impl From<(LedgerEntry, Credits)> for EntryFacts {
    fn from((entry, balance_after): (LedgerEntry, Credits)) -> Self {
        Self {
            id: entry.id,
            at: entry.at,
            kind: entry.kind,
            amount: entry.amount,
            balance_after,
            call_id: entry.call_id,
            note: entry.note,
            actor: entry.actor,
        }
    }
}

impl Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(["at", "kind", "amount", "balance", "id", "by", "note"]);
        for entry in &self.entries {
            table.push([
                time(entry.at),
                entry.kind.as_str().to_owned(),
                entry.amount.to_string(),
                entry.balance_after.to_string(),
                entry.id.to_string(),
                entry.actor.clone(),
                entry.note.clone(),
            ]);
        }
        write!(f, "{table}")?;
        match (self.entries.is_empty(), self.more) {
            (true, _) => writeln!(f, "no entries"),
            (false, true) => writeln!(f, "... there are older ones: --limit N or --all"),
            (false, false) => Ok(()),
        }
    }
}

async fn history(session: &Session<'_, '_>, id: AccountId, limit: usize) -> Result<Answer, Error> {
    let account = session.account(&id).await?;
    let mut entries = Vec::new();
    let mut cursor = None;
    loop {
        let missing = limit.saturating_sub(entries.len());
        let size = u8::try_from(missing).map_or(PAGE, |missing| missing.min(PAGE));
        let page = session.store.ledger.page(&account, cursor.as_ref(), size);
        let page = page.await?;
        entries.extend(page.entries.into_iter().map(EntryFacts::from));
        cursor = page.next;
        if cursor.is_none() || entries.len() >= limit {
            break;
        }
    }
    Answer::of(&History {
        account_id: id,
        entries,
        more: cursor.is_some(),
    })
}

/// What a look through the books found.
#[derive(Default, Serialize)]
struct Reconciled {
    /// True if all that was looked at adds up.
    ok: bool,
    /// Accounts that were looked at.
    accounts: u64,
    open_holds: usize,
    /// Accounts whose books do not add up.
    wrong: Vec<Wrong>,
    /// Accounts whose books could not be read.
    unread: Vec<Unread>,
}

#[derive(Serialize)]
struct Wrong {
    account_id: AccountId,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct Unread {
    /// `null` where not even that could be read.
    account_id: Option<AccountId>,
    error: String,
}

impl Display for Reconciled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for wrong in &self.wrong {
            for problem in &wrong.problems {
                writeln!(f, "{}: {problem}", wrong.account_id)?;
            }
        }
        for unread in &self.unread {
            let id = unread
                .account_id
                .as_ref()
                .map_or("an account", AccountId::as_str);
            writeln!(f, "{id}: not read: {}", unread.error)?;
        }
        writeln!(
            f,
            "{} accounts looked at, {} open holds; {} do not add up, {} could not be read",
            self.accounts,
            self.open_holds,
            self.wrong.len(),
            self.unread.len()
        )
    }
}

impl Reconciled {
    async fn look_at(&mut self, session: &Session<'_, '_>, id: AccountId, number: &AccountNumber) {
        let now = session.clock.now();
        let looked = session.store.books.reconcile(&id, number, now).await;
        let is_good = looked.as_ref().is_ok_and(|found| found.problems.is_empty());
        if !is_good && is_gone(session, &id, number).await {
            return;
        }
        self.accounts += 1;
        match looked {
            Ok(found) => {
                self.open_holds += found.open_holds.len();
                if !found.problems.is_empty() {
                    self.wrong.push(Wrong {
                        account_id: id,
                        problems: found.problems,
                    });
                }
            }
            Err(error) => self.not_read(Some(id), &error),
        }
    }

    fn not_read(&mut self, account_id: Option<AccountId>, error: &StoreError) {
        self.unread.push(Unread {
            account_id,
            error: error.to_string(),
        });
    }

    fn answer(mut self) -> Result<Answer, Error> {
        self.ok = self.wrong.is_empty() && self.unread.is_empty();
        let exit = if self.ok { Exit::Done } else { Exit::Failed };
        Answer::with_exit(&self, exit)
    }
}

/// Was the account's deletion finished, or was it even made anew, after it was listed? That this cannot
/// be read either is no proof of it.
async fn is_gone(session: &Session<'_, '_>, id: &AccountId, number: &AccountNumber) -> bool {
    let stored = session.store.accounts.number(id).await;
    stored.is_ok_and(|stored| stored.as_ref() != Some(number))
}

async fn reconcile_one(session: &Session<'_, '_>, id: AccountId) -> Result<Answer, Error> {
    let mut reconciled = Reconciled::default();
    let number = session.number(&id).await?;
    reconciled.look_at(session, id, &number).await;
    reconciled.answer()
}

async fn reconcile_all(session: &Session<'_, '_>, segment: Segment) -> Result<Answer, Error> {
    let mut reconciled = Reconciled::default();
    let mut next = None;
    loop {
        let page = session.store.accounts.page(segment, next).await?;
        for row in page.accounts {
            match row {
                Ok((id, number)) => reconciled.look_at(session, id, &number).await,
                Err(error) => reconciled.not_read(None, &error),
            }
        }
        next = page.next;
        if next.is_none() {
            return reconciled.answer();
        }
    }
}
