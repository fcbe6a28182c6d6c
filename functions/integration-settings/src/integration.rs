//! The integration card and its two switches.

use account::SwitchError;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use card::Card;
use edge::{ApiError, Caller, Code, Fields};
use serde::Serialize;
use store::UpdateError;

use crate::deps::Deps;

/// At least one of the two.
#[cfg(feature = "openapi")]
#[derive(serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the body's schema; edge::Fields reads it")]
pub(crate) struct Switches {
    #[schema(required = false)]
    enabled: bool,
    #[schema(required = false)]
    always_use_key: bool,
}

/// Reads the integration card.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/v1/integrations/openrouter", tag = "integration", operation_id = "read_integration",
    responses((status = 200, description = "The integration card", body = Card), edge::openapi::ReadProblems),
))]
pub(crate) async fn read(State(deps): State<Deps>, caller: Caller) -> Result<Json<Card>, ApiError> {
    let account = deps.api.account(&caller.account).await?;
    Ok(Json(deps.api.card(&account, &caller).await))
}

#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Serialize)]
pub(crate) struct Switched {
    integration: Card,
}

/// Turns the switches `enabled` and `always_use_key`.
#[cfg_attr(feature = "openapi", utoipa::path(
    patch, path = "/v1/integrations/openrouter", tag = "integration", operation_id = "switch",
    request_body = Switches,
    responses((status = 200, description = "The integration after the change", body = Switched), edge::openapi::ChangeProblems),
))]
pub(crate) async fn switch(
    State(deps): State<Deps>,
    caller: Caller,
    body: Body,
) -> Result<Json<Switched>, ApiError> {
    caller.require_owner()?;
    let body = edge::read_body(body, deps.api.settings.http.max_body_bytes).await?;
    let fields = Fields::parse(&body, &["enabled", "always_use_key"])?;
    let enabled = fields.optional_bool("enabled")?;
    let always_use_key = fields.optional_bool("always_use_key")?;
    let switched = deps
        .api
        .store
        .accounts
        .update(&caller.account, None, deps.api.clock.now(), |profile| {
            profile.switch(enabled, always_use_key)?;
            Ok::<_, SwitchError>(Vec::new())
        })
        .await;
    let account = switched.map_err(|error| match error {
        UpdateError::NotFound => ApiError::account_not_found(),
        UpdateError::Refused(SwitchError::NotConnected) => {
            ApiError::new(Code::NotConnected, "there is no key to switch; connect one first")
        }
        UpdateError::Refused(SwitchError::AlwaysUseKeyOn) => ApiError::new(
            Code::AlwaysUseKeyOn,
            "\"Always use this key\" is on, so the key cannot be switched off; switch \
             always_use_key off first, or in the same request",
        ),
        UpdateError::Store(error) => ApiError::storage(&error),
    })?;
    tracing::info!(
        by = caller.subject,
        enabled = account.profile.enabled,
        always_use_key = account.profile.always_use_key,
        "switches changed"
    );
    Ok(Json(Switched { integration: deps.api.card(&account, &caller).await }))
}
