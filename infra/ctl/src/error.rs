//! Why a command came to nothing.

use std::io;
use std::path::PathBuf;

use account::AccountId;
use edge::SettingsError;
use store::StoreError;

use crate::Exit;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0} (each comes from the environment or from --env-file)")]
    Settings(SettingsError),
    #[error("{} cannot be read", path.display())]
    EnvFile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("line {line} of {} is not NAME=VALUE", path.display())]
    EnvLine { path: PathBuf, line: usize },
    #[error("who is doing this? Give your name with --operator or in GRETA_OPERATOR")]
    NoOperator,
    #[error("not confirmed; nothing was done")]
    NotConfirmed,
    #[error(
        "this has to be confirmed, and standard input is not a terminal; nothing was done; repeat it with --yes"
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
    /// Something was to be written, and may have been.
    #[error("it is not known whether this took place; {advice}")]
    Unknown {
        advice: String,
        #[source]
        source: StoreError,
    },
    #[error("the answer cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

impl Error {
    pub(crate) fn refused(why: impl Into<String>) -> Self {
        Self::Refused(why.into())
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Settings(_)
            | Self::EnvFile { .. }
            | Self::EnvLine { .. }
            | Self::NoOperator
            | Self::NotConfirmed
            | Self::CannotAsk => Exit::Usage,
            Self::NoAccount(_)
            | Self::Deleted(..)
            | Self::Refused(_)
            | Self::Store(_)
            | Self::Unknown { .. }
            | Self::Json(_) => Exit::Failed,
        }
    }

    /// The account was there a moment ago.
    pub(crate) fn gone(id: &AccountId) -> Self {
        Self::refused(format!("account {id} was deleted at this moment"))
    }
}
