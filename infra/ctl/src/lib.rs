//! `gretactl`, the operator's command-line tool, against AWS and against `cargo dev` alike.
//!
//! Every command is one function that gives one report; the report is both the text and the JSON.
//! What a command changes, it changes through the same doors as the functions: credits through
//! [`store::Store::post`], holds through their one end, keys through `key-save`'s removal. Nothing is
//! repaired behind their backs.
//!
//! Invariants: a key's text is never read; what moves money asks first; every change names the
//! operator, in the ledger or in the account's history.

mod accounts;
mod cli;
mod credits;
mod error;
mod holds;
mod keys;
mod output;
mod session;
mod settings;
mod webhooks;

use std::ffi::OsString;
use std::io::{BufRead, Write};
use std::process::ExitCode;

use clap::Parser as _;
use edge::Env;

use crate::cli::{Cli, Command};
use crate::error::Error;
use crate::output::Answer;
use crate::session::Session;
use crate::settings::Settings;

/// Where the tool talks.
pub struct Console<'a> {
    /// Answers, and nothing else.
    pub out: &'a mut dyn Write,
    /// Questions and errors.
    pub err: &'a mut dyn Write,
    /// Where a confirmation is read from; `None` if nobody is there to give one.
    pub input: Option<&'a mut dyn BufRead>,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Done,
    /// It failed, nothing was found, or something does not add up.
    Failed,
    /// It was called wrongly, or not confirmed.
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
        })
    }
}

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
        Ok(answer) => answer.print(json, &mut console),
        Err(error) => output::failed(&error, json, &mut console),
    }
}

async fn carry_out(cli: Cli, env: Env, console: &mut Console<'_>) -> Result<Answer, Error> {
    let settings = Settings::read(env, &cli.global)?;
    let mut session = Session::open(settings, &cli.global, console).await?;
    match cli.command {
        Command::Account(command) => accounts::carry_out(&mut session, command).await,
        Command::Credits(command) => credits::carry_out(&mut session, command).await,
        Command::Holds(command) => holds::carry_out(&mut session, command).await,
        Command::Key(command) => keys::carry_out(&mut session, command).await,
        Command::Webhooks(command) => webhooks::carry_out(&mut session, command).await,
    }
}
