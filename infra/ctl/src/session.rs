//! The clients, operator and terminal that all commands share.

use std::fmt::Display;

use account::{Account, AccountId, AccountNumber};
use edge::Clock;
use keyvault::Vault;
use store::{HistoryEntry, Presence, Store};

use crate::console::Console;
use crate::error::Error;
use crate::output::Fields;
use crate::settings::Settings;

pub(crate) struct Session<'a, 'b> {
    pub(crate) store: Store,
    pub(crate) vault: Vault,
    pub(crate) clock: Clock,
    /// The deployment, shown when a confirmation is asked for.
    place: String,
    operator: Option<String>,
    yes: bool,
    console: &'a mut Console<'b>,
}

impl<'a, 'b> Session<'a, 'b> {
    pub(crate) fn new(settings: Settings, yes: bool, console: &'a mut Console<'b>) -> Self {
        let Settings { store, vault, operator, place } = settings;
        Self { store, vault, clock: Clock::system(), place, operator, yes, console }
    }

    /// The operator, as ledger and history name them.
    pub(crate) fn actor(&self) -> Result<String, Error> {
        match &self.operator {
            Some(name) => Ok(format!("operator:{name}")),
            None => Err(Error::usage(
                "no operator: give your name with --operator or in GRETA_OPERATOR",
            )),
        }
    }

    /// An entry for the account's history: `what`, done now.
    pub(crate) fn history(&self, what: String) -> Result<HistoryEntry, Error> {
        Ok(HistoryEntry {
            id: edge::random_id("ctl"),
            at: self.clock.now(),
            actor: self.actor()?,
            what,
        })
    }

    /// The account, which must exist.
    pub(crate) async fn account(&self, id: &AccountId) -> Result<Account, Error> {
        match self.store.accounts.presence(id).await? {
            Presence::Live(account) => Ok(*account),
            Presence::Never => Err(Error::no_account(id)),
            Presence::Deleted { version, .. } => {
                Err(Error::refused(format!("account {id} was deleted (version {version})")))
            }
        }
    }

    /// The account's number. A deleted account keeps its number while it has open holds.
    pub(crate) async fn number(&self, id: &AccountId) -> Result<AccountNumber, Error> {
        match self.store.accounts.number(id).await? {
            Some(number) => Ok(number),
            // The error says why there is no number.
            None => self.account(id).await.map(|account| account.number),
        }
    }

    /// Shows what is about to be done, and asks for confirmation.
    pub(crate) fn confirm(&mut self, question: impl Display, facts: Fields) -> Result<(), Error> {
        if self.yes {
            return Ok(());
        }
        let Some(input) = self.console.input.as_mut() else {
            return Err(Error::usage(
                "this needs confirmation, and standard input is not a terminal; nothing was done; \
                 repeat it with --yes",
            ));
        };
        let facts = facts.and("in", &self.place);
        let mut answer = String::new();
        // A question that cannot be shown cannot be confirmed.
        let read = write!(self.console.err, "{question}\n\n{facts}\nDo it? (yes/no) ")
            .and_then(|()| self.console.err.flush())
            .and_then(|()| input.read_line(&mut answer));
        match read {
            Ok(_) if matches!(answer.trim(), "yes" | "y") => Ok(()),
            _ => Err(Error::usage("not confirmed; nothing was done")),
        }
    }
}
