//! The responses that several routes share.

use std::convert::Infallible;

use card::Card;
use edge::ApiError;
use serde::Serialize;
use store::UpdateError;

/// The response of the routes that only change the integration.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Serialize)]
pub(crate) struct Changed {
    pub(crate) integration: Card,
}

/// The response to a failed update that no rule can refuse.
pub(crate) fn update_error(error: UpdateError<Infallible>) -> ApiError {
    match error {
        UpdateError::NotFound => ApiError::account_not_found(),
        UpdateError::Store(error) => ApiError::storage(&error),
        UpdateError::Refused(never) => match never {},
    }
}
