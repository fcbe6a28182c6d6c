//! The terminal, and a command's exit code.

use std::io::{BufRead, Write};
use std::process::ExitCode;

/// Where the tool reads and writes.
pub struct Console<'a> {
    /// Reports, and nothing else.
    pub out: &'a mut dyn Write,
    /// Questions and errors.
    pub err: &'a mut dyn Write,
    /// Confirmations; `None` without a terminal.
    pub input: Option<&'a mut dyn BufRead>,
}

/// A command's outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    /// The command failed, nothing was found, or something does not add up.
    Failed = 1,
    /// The arguments or settings were wrong, or the command was not confirmed.
    Usage = 2,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
