//! Why a command failed.

use std::io;
use std::path::PathBuf;

use account::AccountId;
use edge::SettingsError;
use store::StoreError;

use crate::console::Exit;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0} (set them in the environment or in --env-file)")]
    Settings(SettingsError),
    #[error("{} cannot be read", path.display())]
    EnvFile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("line {line} of {} is not NAME=VALUE", path.display())]
    EnvLine { path: PathBuf, line: usize },
    #[error("no operator: give your name with --operator or in GRETA_OPERATOR")]
    NoOperator,
    #[error("not confirmed; nothing was done")]
    NotConfirmed,
    #[error(
        "this needs confirmation, and standard input is not a terminal; nothing was done; repeat \
         it with --yes"
    )]
    CannotAsk,
    #[error("there is no account {0}, and there never was")]
    NoAccount(AccountId),
    #[error("account {0} was deleted (version {1})")]
    Deleted(AccountId, u64),
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A write that may or may not have happened.
    #[error("it is not known whether this took place; {advice}")]
    Unknown {
        advice: String,
        #[source]
        source: StoreError,
    },
}

impl Error {
    pub(crate) fn refused(why: impl Into<String>) -> Self {
        Self::Refused(why.into())
    }

    pub(crate) fn unknown(advice: impl Into<String>) -> impl FnOnce(StoreError) -> Self {
        let advice = advice.into();
        |source| Self::Unknown { advice, source }
    }

    /// The account existed a moment ago.
    pub(crate) fn gone(id: &AccountId) -> Self {
        Self::refused(format!("account {id} was deleted just now"))
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Settings(_)
            | Self::EnvFile { .. }
            | Self::EnvLine { .. }
            | Self::NoOperator
            | Self::NotConfirmed
            | Self::CannotAsk => Exit::Usage,
            _ => Exit::Failed,
        }
    }
}
