//! An authenticated caller, and the verified token behind it.

use account::AccountId;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use crate::error::{ApiError, Code};

const LEEWAY: SignedDuration = SignedDuration::from_secs(60);

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user, as the issuer names them.
    pub subject: String,
    /// The account they act for.
    pub account: AccountId,
    pub role: Role,
}

/// A caller's rights in the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything.
    Owner,
    /// Read settings and make AI calls.
    Member,
}

impl Caller {
    /// Refuses members, because only an owner may change anything.
    pub fn require_owner(&self) -> Result<(), ApiError> {
        match self.role {
            Role::Owner => Ok(()),
            Role::Member => Err(ApiError::new(
                Code::NotOwner,
                "only an owner of the account may change this; ask one of them",
            )),
        }
    }
}

/// A token with a valid signature, issuer and audience, whose times are still to be checked.
pub(crate) struct Verified {
    pub(crate) caller: Caller,
    /// Seconds since 1970, as `nbf`.
    pub(crate) exp: i64,
    pub(crate) nbf: Option<i64>,
}

impl Verified {
    pub(crate) fn caller(&self, now: Timestamp) -> Result<Caller, ApiError> {
        if self.exp.saturating_add(LEEWAY.as_secs()) < now.as_second() {
            return Err(invalid("the token has expired; get a new one"));
        }
        if self
            .nbf
            .is_some_and(|nbf| nbf.saturating_sub(LEEWAY.as_secs()) > now.as_second())
        {
            return Err(invalid("the token is not valid yet"));
        }
        Ok(self.caller.clone())
    }
}

pub(crate) fn invalid(detail: &'static str) -> ApiError {
    ApiError::new(Code::InvalidToken, detail)
}
