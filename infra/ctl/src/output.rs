//! The output: reports as text or as JSON, and errors.

use std::error::Error as _;
use std::ffi::OsString;
use std::fmt::{self, Display, Write as _};

use account::Balance;
use clap::error::ErrorKind;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::console::{Console, Exit};
use crate::error::Error;

/// A command's report, as text and as JSON.
pub(crate) struct Report {
    text: String,
    json: Value,
    exit: Exit,
}

impl Report {
    pub(crate) fn new(json: Value, text: impl Display) -> Self {
        Self { text: text.to_string(), json, exit: Exit::Done }
    }

    /// A report of a change. Its text is `what`, followed by the members of `json`.
    pub(crate) fn change(json: Value, what: impl Display) -> Self {
        let members = Fields::default().members("", &json);
        Self::new(json, format!("{what}\n\n{members}"))
    }

    /// A report of something that is missing or wrong.
    pub(crate) fn failed(json: Value, text: impl Display) -> Self {
        Self { exit: Exit::Failed, ..Self::new(json, text) }
    }

    pub(crate) fn print(&self, json: bool, console: &mut Console<'_>) -> Exit {
        let written = if json {
            writeln!(console.out, "{:#}", self.json)
        } else {
            writeln!(console.out, "{}", self.text.trim_end())
        };
        match written.and_then(|()| console.out.flush()) {
            Ok(()) => self.exit,
            // The reader has gone.
            Err(_) => Exit::Failed,
        }
    }
}

/// Prints why a command failed: as text on standard error, as JSON on standard output.
pub(crate) fn failed(error: &Error, json: bool, console: &mut Console<'_>) -> Exit {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    print_error(&text, json, console);
    error.exit()
}

/// Prints the problem with the arguments, or the requested help.
pub(crate) fn not_parsed(
    error: &clap::Error,
    arguments: &[OsString],
    console: &mut Console<'_>,
) -> Exit {
    let text = error.to_string();
    let json = arguments.iter().any(|argument| argument == "--json");
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let written = write!(console.out, "{text}");
            return written.map_or(Exit::Failed, |()| Exit::Done);
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand if json => {
            print_error("a command is missing; see --help", json, console);
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = write!(console.err, "{text}");
        }
        _ => {
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            print_error(text.trim_end(), json, console);
        }
    }
    Exit::Usage
}

/// If the error cannot be printed, the exit code still reports it.
fn print_error(text: &str, json: bool, console: &mut Console<'_>) {
    let _ = if json {
        writeln!(console.out, "{:#}", json!({ "error": text }))
    } else {
        writeln!(console.err, "error: {text}")
    };
}

/// Named values, one per line.
#[derive(Default)]
pub(crate) struct Fields(Vec<(String, String)>);

impl Fields {
    pub(crate) fn new(name: &str, value: impl Display) -> Self {
        Self::default().and(name, value)
    }

    pub(crate) fn and(mut self, name: &str, value: impl Display) -> Self {
        self.0.push((name.to_owned(), plain(&value.to_string())));
        self
    }

    /// Adds all members of a JSON object.
    pub(crate) fn members(self, prefix: &str, object: &Value) -> Self {
        let members = object.as_object().into_iter().flatten();
        members.fold(self, |fields, (name, value)| {
            fields.and(&format!("{prefix}{}", name.replace('_', " ")), shown(value))
        })
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

/// A table of these members of JSON objects; its headings drop `_id` and `_at`.
pub(crate) fn table<const N: usize>(columns: [&str; N], rows: &[Value]) -> String {
    let cells = |row: &Value| columns.map(|column| plain(&shown(&row[column])));
    let headings = columns.map(|column| {
        let short = column.strip_suffix("_id").or_else(|| column.strip_suffix("_at"));
        short.unwrap_or(column).replace('_', " ")
    });
    let lines: Vec<_> = std::iter::once(headings).chain(rows.iter().map(cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or_default());
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(widths);
        let cells: Vec<_> = cells.map(|(cell, width)| format!("{cell:width$}")).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// A JSON value without its quotes; times to the second.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.parse().map_or_else(|_| text.clone(), time),
        Value::Object(members) => {
            let members = members.iter();
            let members = members.map(|(name, value)| (name.replace('_', " "), shown(value)));
            members.map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

/// The text without control characters: some of it comes from users and could steer the terminal.
fn plain(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

/// The value's name in JSON.
pub(crate) fn name_of(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(name)) => name,
        _ => String::new(),
    }
}

/// The time to the second.
pub(crate) fn time(at: Timestamp) -> String {
    format!("{at:.0}")
}

pub(crate) fn credits_json(balance: &Balance) -> Value {
    json!({
        "balance": balance.balance(),
        "held": balance.held(),
        "available": balance.available(),
        "owed": balance.owed(),
        "open_holds": balance.open_holds(),
    })
}

pub(crate) fn credits_text(balance: &Balance) -> String {
    format!(
        "balance {}, held {} by {} open holds, available {}, owed {}",
        balance.balance(),
        balance.held(),
        balance.open_holds(),
        balance.available(),
        balance.owed(),
    )
}
