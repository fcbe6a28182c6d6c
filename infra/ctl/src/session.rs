//! The clients and the operator that all commands work with.

use std::fmt::Display;

use account::{Account, AccountId, AccountNumber};
use edge::Clock;
use keyvault::Vault;
use store::{HistoryEntry, Presence, Store};

use crate::cli::Global;
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
    pub(crate) async fn open(
        settings: Settings,
        global: &Global,
        console: &'a mut Console<'b>,
    ) -> Result<Self, Error> {
        let aws = settings.aws.connect().await;
        Ok(Self {
            place: format!("{} {}", settings.tables.accounts, aws.place),
            store: Store::new(aws.dynamodb, settings.tables),
            vault: Vault::new(aws.secrets, settings.secrets_prefix),
            clock: Clock::system(),
            operator: settings.operator,
            yes: global.yes,
            console,
        })
    }

    /// The operator, as ledger and history name them.
    pub(crate) fn actor(&self) -> Result<String, Error> {
        let name = self.operator.as_ref().ok_or(Error::NoOperator)?;
        Ok(format!("operator:{name}"))
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
            Presence::Never => Err(Error::NoAccount(id.clone())),
            Presence::Deleted { version, .. } => Err(Error::Deleted(id.clone(), version)),
        }
    }

    /// The account's number, also of a deleted account while it has open holds.
    pub(crate) async fn number(&self, id: &AccountId) -> Result<AccountNumber, Error> {
        match self.store.accounts.number(id).await? {
            Some(number) => Ok(number),
            // Its error says why there is none.
            None => self.account(id).await.map(|account| account.number),
        }
    }

    /// Shows what is about to be done, and asks for confirmation.
    pub(crate) fn confirm(&mut self, question: impl Display, facts: Fields) -> Result<(), Error> {
        if self.yes {
            return Ok(());
        }
        let Some(input) = self.console.input.as_mut() else {
            return Err(Error::CannotAsk);
        };
        let facts = facts.and("in", &self.place);
        // A question that cannot be shown cannot be confirmed.
        write!(self.console.err, "{question}\n\n{facts}\nDo it? (yes/no) ")
            .and_then(|()| self.console.err.flush())
            .map_err(|_| Error::NotConfirmed)?;
        let mut answer = String::new();
        match input.read_line(&mut answer) {
            Ok(_) if matches!(answer.trim(), "yes" | "y") => Ok(()),
            _ => Err(Error::NotConfirmed),
        }
    }
}
