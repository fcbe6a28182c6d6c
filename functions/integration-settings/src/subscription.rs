//! Buying the add-on and credits: refused plainly until payments are part of the system.

use edge::{ApiError, Caller, Code};

/// A member learns that only an owner may pay; an owner, that nobody can yet.
pub(crate) async fn not_yet(caller: Caller) -> Result<(), ApiError> {
    caller.require_owner()?;
    Err(ApiError::new(
        Code::NotImplemented,
        "payments are not part of this version; nothing was bought or changed",
    ))
}
