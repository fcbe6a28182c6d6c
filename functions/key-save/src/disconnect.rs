//! `DELETE …/key`: disconnect. Repeating it changes nothing.

use axum::Json;
use axum::extract::State;
use edge::{ApiError, Caller};

use crate::deps::Deps;
use crate::removal::disconnect_key;
use crate::response::{Changed, update_error};

/// Disconnects the key and deletes it.
#[cfg_attr(feature = "openapi", utoipa::path(
    delete, path = "/v1/integrations/openrouter/key", tag = "key", operation_id = "disconnect_key",
    responses((status = 200, description = "Disconnected", body = Changed), edge::openapi::ChangeProblems),
))]
pub(crate) async fn disconnect(
    State(deps): State<Deps>,
    caller: Caller,
) -> Result<Json<Changed>, ApiError> {
    caller.require_owner()?;
    let now = deps.api.clock.now();
    let (store, vault, account) = (&deps.api.store, &deps.vault, &caller.account);
    let disconnected = disconnect_key(store, vault, account, |_| Ok(()), now, None).await;
    let disconnected = disconnected.map_err(update_error)?;
    if disconnected.secret.is_some() {
        tracing::info!(by = caller.subject, "key disconnected");
    }
    Ok(Json(Changed { integration: deps.api.card(&disconnected.account, &caller).await }))
}
