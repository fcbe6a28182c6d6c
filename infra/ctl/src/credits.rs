//! `gretactl credits`.

use std::fmt::Write as _;

use account::{Account, AccountId, AccountNumber, Credits, EntryId};
use serde_json::{Value, json};
use store::{EntryKind, PostError, PostRefused, Posted, Posting, Segment, StoreError};

use crate::cli::Giving;
use crate::error::Error;
use crate::output::{Fields, Report, credits_json, credits_text, name_of, table};
use crate::session::Session;

/// Number of ledger entries read at once.
const PAGE_SIZE: u8 = 100;

/// A posting to make.
struct Order {
    id: EntryId,
    kind: EntryKind,
    amount: Credits,
    reason: String,
}

pub(crate) async fn give(
    session: &mut Session<'_, '_>,
    kind: EntryKind,
    giving: Giving,
) -> Result<Report, Error> {
    let Giving { account, amount, cause } = giving;
    let account = session.account(&account.account).await?;
    let id = cause.entry.map_or_else(|| EntryId::new(edge::new_id(kind.as_str())), Ok);
    let id = id.map_err(|error| Error::refused(error.to_string()))?;
    post(session, account, Order { id, kind, amount, reason: cause.reason }).await
}

pub(crate) async fn reverse(
    session: &mut Session<'_, '_>,
    id: AccountId,
    entry: &EntryId,
    reason: String,
) -> Result<Report, Error> {
    let account = session.account(&id).await?;
    let known = session.store.ledger.posting(&account.number, entry).await?;
    let known = known.ok_or_else(|| {
        Error::refused(format!(
            "account {id} has no grant or purchase with the id {entry}; `gretactl credits history \
             {id}` shows the ids"
        ))
    })?;
    if !matches!(known.kind, EntryKind::Grant | EntryKind::Purchase) {
        return Err(Error::refused(format!(
            "{entry} is a {}; only a grant or a purchase can be reversed; use `credits adjust` to \
             correct anything else",
            known.kind.as_str()
        )));
    }
    let own = EntryId::new(format!("reversal-{entry}"));
    let amount = known.amount.checked_neg();
    let (Ok(own), Some(amount)) = (own, amount) else {
        return Err(Error::refused(format!(
            "the id {entry} leaves no room for its reversal's id; remove the credits with `credits \
             adjust`"
        )));
    };
    let order = Order { id: own, kind: EntryKind::Reversal, amount, reason };
    post(session, account, order).await
}

async fn post(
    session: &mut Session<'_, '_>,
    account: Account,
    order: Order,
) -> Result<Report, Error> {
    let actor = session.actor()?;
    let known = session.store.ledger.posting(&account.number, &order.id).await?;
    let posted = match known {
        Some(known) if (known.kind, known.amount) == (order.kind, order.amount) => Posted::Before,
        Some(_) => return Err(id_taken(&order.id)),
        None => {
            confirm(session, &account, &order)?;
            // The time after the confirmation, because the ledger is ordered by time.
            let posting = Posting {
                id: &order.id,
                kind: order.kind,
                amount: order.amount,
                at: session.clock.now(),
                note: &order.reason,
                actor: &actor,
            };
            let posted = session.store.ledger.post(&account.id, &posting).await;
            posted.map_err(|error| match error {
                PostError::Refused(refused) => not_posted(&account.id, &order, &refused),
                PostError::Store(error) => Error::unknown(repeat(&order))(error),
            })?
        }
    };
    let (is_new, moved, owed_change) = match posted {
        Posted::Now { balance, owed } => (true, balance, owed),
        Posted::Before => (false, Credits::ZERO, Credits::ZERO),
    };
    // The posting stands even if the balance cannot be read.
    let after = session.store.accounts.get(&account.id).await.ok().flatten();
    let done = if !is_new {
        "this id was posted before; nothing moved".to_owned()
    } else if owed_change == Credits::ZERO {
        "posted".to_owned()
    } else if let Some(paid) = owed_change.checked_neg().filter(|_| owed_change.is_negative()) {
        format!("posted; {paid} paid what was owed")
    } else {
        format!("posted; {owed_change} were not available and are now owed")
    };
    let json = json!({
        "account_id": account.id,
        "entry_id": order.id,
        "kind": order.kind,
        "amount": order.amount,
        "posted": is_new,
        "moved": moved,
        "owed_change": owed_change,
        "reason": order.reason,
        "actor": actor,
        "credits": after.map(|after| credits_json(&after.balance)),
    });
    Ok(Report::change(json, done))
}

fn confirm(session: &mut Session<'_, '_>, account: &Account, order: &Order) -> Result<(), Error> {
    let amount = order.amount;
    let taken = amount.checked_neg().unwrap_or(amount);
    let question = match order.kind {
        EntryKind::Reversal => {
            let now = taken.min(account.balance.available());
            let later = taken.checked_sub(now).unwrap_or_default();
            format!("{taken} credits are reversed: {now} taken now, {later} owed.")
        }
        _ if amount.is_negative() => format!("{taken} credits are removed."),
        _ => format!("{amount} credits are given."),
    };
    let fields = Fields::new("account", &account.id)
        .and("plan", name_of(&account.profile.plan()))
        .and("entry", &order.id)
        .and("kind", order.kind.as_str())
        .and("amount", amount)
        .and("reason", &order.reason)
        .and("before", credits_text(&account.balance));
    session.confirm(question, fields)
}

fn repeat(order: &Order) -> String {
    match order.kind {
        EntryKind::Reversal => "repeat it: an entry is reversed once".to_owned(),
        _ => format!("repeat it with --id {}: it is posted once", order.id),
    }
}

fn not_posted(account: &AccountId, order: &Order, refused: &PostRefused) -> Error {
    match refused {
        PostRefused::Insufficient(balance) => Error::refused(format!(
            "the account has too few credits for {}: {}; nothing was posted",
            order.amount,
            credits_text(balance)
        )),
        PostRefused::NoAccount => Error::gone(account),
        PostRefused::IdTaken => id_taken(&order.id),
        PostRefused::Amount(_) => Error::refused("the amount is too large: it cannot be counted"),
    }
}

fn id_taken(id: &EntryId) -> Error {
    Error::refused(format!(
        "{id} is the id of another entry of this account; nothing was posted; give another --id"
    ))
}

pub(crate) async fn history(
    session: &Session<'_, '_>,
    id: AccountId,
    limit: usize,
) -> Result<Report, Error> {
    let account = session.account(&id).await?;
    let mut entries = Vec::new();
    let mut cursor = None;
    loop {
        let missing = limit.saturating_sub(entries.len());
        let size = u8::try_from(missing).map_or(PAGE_SIZE, |missing| missing.min(PAGE_SIZE));
        let page = session.store.ledger.page(&account, cursor.as_ref(), size);
        let page = page.await?;
        entries.extend(page.entries);
        cursor = page.next;
        if cursor.is_none() || entries.len() >= limit {
            break;
        }
    }
    let entries = entries.iter().map(|(entry, balance_after)| {
        json!({
            "id": entry.id,
            "at": entry.at,
            "kind": entry.kind,
            "amount": entry.amount,
            "balance_after": balance_after,
            "call_id": entry.call_id,
            "note": entry.note,
            "actor": entry.actor,
        })
    });
    let entries: Vec<_> = entries.collect();
    let columns = ["at", "kind", "amount", "balance_after", "id", "actor", "note"];
    let table = table(columns, &entries);
    let more = cursor.is_some();
    let end = match (entries.is_empty(), more) {
        (true, _) => "no entries",
        (false, true) => "... there are older ones: --limit N or --all",
        (false, false) => "",
    };
    let json = json!({"account_id": id, "entries": entries, "more": more});
    Ok(Report::new(json, format!("{table}{end}")))
}

/// The findings of a reconciliation.
#[derive(Default)]
struct Reconciled {
    accounts: u64,
    open_holds: usize,
    /// Accounts whose books do not add up.
    wrong: Vec<Value>,
    /// Accounts whose books could not be read.
    unread: Vec<Value>,
    /// A line for each finding.
    text: String,
}

impl Reconciled {
    async fn check(&mut self, session: &Session<'_, '_>, id: AccountId, number: &AccountNumber) {
        let now = session.clock.now();
        let found = session.store.books.reconcile(&id, number, now).await;
        let is_good = found.as_ref().is_ok_and(|found| found.problems.is_empty());
        if !is_good && is_gone(session, &id, number).await {
            return;
        }
        self.accounts += 1;
        match found {
            Ok(found) => {
                self.open_holds += found.open_holds.len();
                if !found.problems.is_empty() {
                    for problem in &found.problems {
                        let _ = writeln!(self.text, "{id}: {problem}");
                    }
                    let problems = found.problems;
                    self.wrong.push(json!({"account_id": id, "problems": problems}));
                }
            }
            Err(error) => self.unread(Some(id), &error),
        }
    }

    fn unread(&mut self, id: Option<AccountId>, error: &StoreError) {
        let name = id.as_ref().map_or("an account", AccountId::as_str);
        let _ = writeln!(self.text, "{name}: could not be read: {error}");
        self.unread.push(json!({"account_id": id, "error": error.to_string()}));
    }

    fn report(self) -> Report {
        let (wrong, unread) = (self.wrong.len(), self.unread.len());
        let ok = wrong == 0 && unread == 0;
        let json = json!({
            "ok": ok,
            "accounts": self.accounts,
            "open_holds": self.open_holds,
            "wrong": self.wrong,
            "unread": self.unread,
        });
        let text = format!(
            "{}{} accounts checked, {} open holds; {wrong} do not add up, {unread} could not be \
             read",
            self.text, self.accounts, self.open_holds,
        );
        if ok { Report::new(json, text) } else { Report::failed(json, text) }
    }
}

/// Whether the account was deleted, or even created again, after it was listed. False if this
/// cannot be read either.
async fn is_gone(session: &Session<'_, '_>, id: &AccountId, number: &AccountNumber) -> bool {
    let stored = session.store.accounts.number(id).await;
    stored.is_ok_and(|stored| stored.as_ref() != Some(number))
}

pub(crate) async fn reconcile_one(
    session: &Session<'_, '_>,
    id: AccountId,
) -> Result<Report, Error> {
    let mut reconciled = Reconciled::default();
    let number = session.number(&id).await?;
    reconciled.check(session, id, &number).await;
    Ok(reconciled.report())
}

pub(crate) async fn reconcile_all(
    session: &Session<'_, '_>,
    segment: Segment,
) -> Result<Report, Error> {
    let mut reconciled = Reconciled::default();
    let mut next = None;
    loop {
        let page = session.store.accounts.page(segment, next).await?;
        for row in page.accounts {
            match row {
                Ok((id, number)) => reconciled.check(session, id, &number).await,
                Err(error) => reconciled.unread(None, &error),
            }
        }
        next = page.next;
        if next.is_none() {
            return Ok(reconciled.report());
        }
    }
}
