//! What is printed: one report as text or as JSON, and errors.

use std::error::Error as _;
use std::ffi::OsString;
use std::fmt::{self, Display, Write as _};

use account::{Balance, Credits};
use clap::error::ErrorKind;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::error::Error;
use crate::{Console, Exit};

/// A command's report, in both its forms.
pub(crate) struct Answer {
    text: String,
    json: String,
    exit: Exit,
}

impl Answer {
    pub(crate) fn of<R: Serialize + Display>(report: &R) -> Result<Self, Error> {
        Self::with_exit(report, Exit::Done)
    }

    pub(crate) fn with_exit<R: Serialize + Display>(report: &R, exit: Exit) -> Result<Self, Error> {
        Ok(Self {
            text: report.to_string(),
            json: serde_json::to_string_pretty(report)?,
            exit,
        })
    }

    pub(crate) fn print(&self, json: bool, console: &mut Console<'_>) -> Exit {
        let written = if json {
            writeln!(console.out, "{}", self.json)
        } else {
            writeln!(console.out, "{}", self.text.trim_end())
        };
        match written.and_then(|()| console.out.flush()) {
            Ok(()) => self.exit,
            // Whoever reads has gone.
            Err(_) => Exit::Failed,
        }
    }
}

/// Tells why a command came to nothing: as text on standard error, as JSON on standard output.
pub(crate) fn failed(error: &Error, json: bool, console: &mut Console<'_>) -> Exit {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    tell(&text, json, console);
    error.exit()
}

/// Tells of arguments that cannot be understood, or gives the help that was asked for.
pub(crate) fn not_parsed(
    error: &clap::Error,
    arguments: &[OsString],
    console: &mut Console<'_>,
) -> Exit {
    let text = error.to_string();
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        return match write!(console.out, "{text}") {
            Ok(()) => Exit::Done,
            Err(_) => Exit::Failed,
        };
    }
    let json = arguments.iter().any(|word| word == "--json");
    match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand if json => {
            tell("a command is missing; see --help", json, console);
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = write!(console.err, "{text}");
        }
        _ => {
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            tell(text.trim_end(), json, console);
        }
    }
    Exit::Usage
}

/// An error that cannot be written has its exit code still.
fn tell(text: &str, json: bool, console: &mut Console<'_>) {
    let _ = if json {
        writeln!(console.out, "{:#}", json!({ "error": text }))
    } else {
        writeln!(console.err, "error: {text}")
    };
}

/// Facts with their names, one a line.
#[derive(Default)]
pub(crate) struct Fields(Vec<(&'static str, String)>);

impl Fields {
    pub(crate) fn new(name: &'static str, value: impl Display) -> Self {
        Self::default().and(name, value)
    }

    pub(crate) fn and(mut self, name: &'static str, value: impl Display) -> Self {
        self.0.push((name, plain(&value.to_string())));
        self
    }
}

impl Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|(name, _)| name.len()).max();
        let width = width.unwrap_or_default();
        for (name, value) in &self.0 {
            writeln!(f, "{name:width$}  {value}")?;
        }
        Ok(())
    }
}

/// Rows under their heads.
pub(crate) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(crate) fn new(heads: [&str; N]) -> Self {
        Self {
            rows: vec![heads.map(str::to_owned)],
        }
    }

    pub(crate) fn push(&mut self, row: [String; N]) {
        self.rows.push(row.map(|cell| plain(&cell)));
    }
}

impl<const N: usize> Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths = [0; N];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        for row in &self.rows {
            let mut line = String::new();
            for (width, cell) in widths.iter().zip(row) {
                write!(line, "{cell:width$}  ")?;
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// The text without what would steer a terminal: some of it is other people's.
fn plain(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}

/// The name of a value, as it is on the wire.
pub(crate) fn name_of(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(name)) => name,
        _ => String::new(),
    }
}

/// To the second, for people.
pub(crate) fn time(at: Timestamp) -> String {
    format!("{at:.0}")
}

/// A value that may be absent.
pub(crate) fn or_dash<T>(value: Option<T>, show: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), show)
}

pub(crate) fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// An account's credits.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct CreditFacts {
    pub(crate) balance: Credits,
    pub(crate) held: Credits,
    pub(crate) available: Credits,
    pub(crate) owed: Credits,
    pub(crate) open_holds: u32,
}

impl From<Balance> for CreditFacts {
    fn from(balance: Balance) -> Self {
        Self {
            balance: balance.balance(),
            held: balance.held(),
            available: balance.available(),
            owed: balance.owed(),
            open_holds: balance.open_holds(),
        }
    }
}

impl Display for CreditFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            balance,
            held,
            available,
            owed,
            open_holds,
        } = self;
        write!(
            f,
            "balance {balance}, held {held} by {open_holds} open holds, available {available}, owed {owed}"
        )
    }
}
