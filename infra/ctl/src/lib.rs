//! `gretactl`, the operator's command-line tool, against AWS and against `cargo dev` alike.
//!
//! Every command is one function that returns one report, as text and as JSON. Commands make
//! changes through the same code as the functions: credits through [`store::Ledger::post`], holds
//! through their single end, keys through `key-save`'s removal. Nothing is repaired past it.
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

pub use console::{Console, Exit};

use crate::cli::{Cli, Command};
use crate::error::Error;
use crate::output::Report;
use crate::session::Session;
use crate::settings::Settings;

/// Runs the tool with these arguments, the program's name first.
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
    match cli.command {
        Command::Account(command) => accounts::carry_out(&mut session, command).await,
        Command::Credits(command) => credits::carry_out(&mut session, command).await,
        Command::Holds(command) => holds::carry_out(&mut session, command).await,
        Command::Key(command) => keys::carry_out(&mut session, command).await,
        Command::Webhooks(command) => webhooks::carry_out(&mut session, command).await,
    }
}
