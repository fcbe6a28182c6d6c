//! The terminal, and how a command ends on it.

use std::io::{BufRead, Write};
use std::process::ExitCode;

/// Where the tool reads and writes.
pub struct Console<'a> {
    /// Reports, and nothing else.
    pub out: &'a mut dyn Write,
    /// Questions and errors.
    pub err: &'a mut dyn Write,
    /// Confirmations; `None` if nobody is there to give one.
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
