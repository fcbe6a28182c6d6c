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
    /// Nothing was done.
    #[error("{0}")]
    Usage(String),
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

    pub(crate) fn usage(why: impl Into<String>) -> Self {
        Self::Usage(why.into())
    }

    pub(crate) fn no_account(id: &AccountId) -> Self {
        Self::refused(format!("there is no account {id}, and there never was"))
    }

    /// The account existed a moment ago.
    pub(crate) fn gone(id: &AccountId) -> Self {
        Self::refused(format!("account {id} was deleted just now"))
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Settings(_) | Self::EnvFile { .. } | Self::Usage(_) => Exit::Usage,
            _ => Exit::Failed,
        }
    }
}
