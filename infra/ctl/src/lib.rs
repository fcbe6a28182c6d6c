//! `gretactl`, the operator's command-line tool, against AWS and against `cargo dev` alike.
//!
//! Every command is one function that returns one report, as text and as JSON. Commands make
//! changes through the same code as the functions: credits through [`store::Ledger::post`], holds
//! through `settle` and `release`, keys through `key_save::disconnect_key`. No command bypasses it.
//!
//! Invariants: a key's text is never read; commands that move money ask first; every change names
//! the operator, in the ledger or in the account's history.

mod accounts;
mod cli;
mod console;
mod credits;
mod error;
mod holds;
mod keys;
mod output;
mod session;
mod settings;
mod webhooks;

use std::ffi::OsString;

use clap::Parser as _;
use edge::Env;
use store::{EntryKind, Segment};

pub use console::{Console, Exit};

use crate::cli::{
    AccountCommand, Cli, Command, CreditsCommand, Giving, HoldsCommand, KeyCommand, WebhooksCommand,
};
use crate::error::Error;
use crate::output::Report;
use crate::session::Session;
use crate::settings::Settings;

/// Runs the tool with these arguments, of which the first is the program's name.
pub async fn run(
    arguments: impl IntoIterator<Item = OsString>,
    env: Env,
    mut console: Console<'_>,
) -> Exit {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return output::not_parsed(&error, &arguments, &mut console),
    };
    let json = cli.global.json;
    match carry_out(cli, env, &mut console).await {
        Ok(report) => report.print(json, &mut console),
        Err(error) => output::failed(&error, json, &mut console),
    }
}

async fn carry_out(cli: Cli, env: Env, console: &mut Console<'_>) -> Result<Report, Error> {
    let settings = Settings::read(env, &cli.global).await?;
    let mut session = Session::new(settings, cli.global.yes, console);
    let session = &mut session;
    match cli.command {
        Command::Account(AccountCommand::Create { account, plan, version }) => {
            accounts::create(session, account.account, plan, version.version.unwrap_or(1)).await
        }
        Command::Account(AccountCommand::Show { account }) => {
            accounts::show(session, account.account).await
        }
        Command::Account(AccountCommand::SetPlan { account, plan, version }) => {
            accounts::set_plan(session, account.account, plan, version.version).await
        }
        Command::Account(AccountCommand::Delete { account, version }) => {
            accounts::delete(session, account.account, version.version).await
        }
        Command::Credits(CreditsCommand::Grant(giving)) => {
            credits::give(session, EntryKind::Grant, giving).await
        }
        Command::Credits(CreditsCommand::Refund(giving)) => {
            credits::give(session, EntryKind::Refund, giving).await
        }
        Command::Credits(CreditsCommand::Adjust { account, amount, cause }) => {
            let giving = Giving { account, amount, cause };
            credits::give(session, EntryKind::Adjustment, giving).await
        }
        Command::Credits(CreditsCommand::Reverse { account, entry_id, reason }) => {
            credits::reverse(session, account.account, &entry_id, reason).await
        }
        Command::Credits(CreditsCommand::History { account, limit, all }) => {
            let limit = if all { usize::MAX } else { limit as usize };
            credits::history(session, account.account, limit).await
        }
        Command::Credits(CreditsCommand::Reconcile { account: Some(account), .. }) => {
            credits::reconcile_one(session, account).await
        }
        Command::Credits(CreditsCommand::Reconcile { account: None, segment, .. }) => {
            credits::reconcile_all(session, segment.unwrap_or(Segment::ALL)).await
        }
        Command::Holds(HoldsCommand::List { account }) => {
            holds::list(session, account.account).await
        }
        Command::Holds(HoldsCommand::Resolve { account, call_id, charge, reason, .. }) => {
            holds::resolve(session, account.account, &call_id, charge, &reason).await
        }
        Command::Key(KeyCommand::Status { account }) => {
            keys::status(session, account.account).await
        }
        Command::Key(KeyCommand::Forget { account, reason }) => {
            keys::forget(session, account.account, &reason).await
        }
        Command::Webhooks(WebhooksCommand::List) => webhooks::list(session).await,
        Command::Webhooks(WebhooksCommand::Replay { event_id }) => {
            webhooks::replay(session, &event_id).await
        }
    }
}
