//! `GET /key`: the facts about the key that makes the request.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use jiff::SignedDuration;
use serde_json::json;

use super::documented::USER_ID;
use super::errors::{self, no_key};
use super::record::{KEY_PREFIX, KeyBehaviour, Shared};
use crate::serve;

const SLOW_KEY: Duration = Duration::from_secs(30);

pub(super) async fn show(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let Some(key) = serve::bearer(&headers) else {
        return no_key();
    };
    shared.inner.lock().unwrap().key_checks += 1;
    let behaviour = shared.key_behaviour(key);
    if let Some(error) = errors::of_key(behaviour) {
        return error;
    }
    if behaviour == KeyBehaviour::Slow {
        tokio::time::sleep(SLOW_KEY).await;
    }
    let management = behaviour == KeyBehaviour::Management;
    let (usage, remaining) = match behaviour {
        KeyBehaviour::Limited => (json!(20), json!(0)),
        _ => (json!(7.7), json!(12.3)),
    };
    let expires_at = (behaviour == KeyBehaviour::Expiring)
        .then(|| edge::Clock::system().now() + SignedDuration::from_hours(5 * 24));
    let key = json!({"data": {
        "label": label(key),
        "limit": 20,
        "limit_remaining": remaining,
        "limit_reset": null,
        "include_byok_in_limit": false,
        "usage": usage,
        "usage_daily": 0.5,
        "usage_weekly": 2.5,
        "usage_monthly": usage,
        "byok_usage": 0,
        "byok_usage_daily": 0,
        "byok_usage_weekly": 0,
        "byok_usage_monthly": 0,
        "is_free_tier": false,
        "creator_user_id": USER_ID,
        "rate_limit": {"requests": -1, "interval": "10s", "note": "This field is deprecated."},
        "is_management_key": management,
        "is_provisioning_key": management,
        "expires_at": expires_at,
        "free_model_daily_requests": {"used": 0, "limit": 1000, "remaining": 1000},
        "allowed_data_regions": [],
        "budgets": [],
        "effective_budget": null,
        "organization_id": null,
        "workspace_id": null,
    }});
    Json(key).into_response()
}

/// `sk-or-v1-abc...xyz`
fn label(key: &str) -> String {
    let rest = key.strip_prefix(KEY_PREFIX).unwrap_or(key);
    let first: String = rest.chars().take(3).collect();
    let last = rest.char_indices().rev().nth(2);
    let last = last.map_or("", |(at, _)| &rest[at..]);
    format!("{KEY_PREFIX}{first}...{last}")
}
