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
    Done = 0,
    /// It failed, nothing was found, or something does not add up.
    Failed = 1,
    /// It was called wrongly, or not confirmed.
    Usage = 2,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
