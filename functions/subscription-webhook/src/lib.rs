//! Stripe's events: `POST /v1/webhooks/stripe`.
//!
//! An event is recorded once, by its id, and then applied; if that fails, the billing tick tries
//! again. Our own stored order determines what a payment buys, never the event.

mod settings;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::post;
use charging::Charging;
use edge::{ApiError, Clock, Code, Setup, Shape};
use http::{HeaderMap, StatusCode};
use keyvault::Vault;
use payments::{Event, signature};
use secrecy::SecretString;

pub use settings::Settings;

/// Everything that the function works with. Cheap to clone.
#[derive(Clone)]
pub struct Deps {
    settings: Arc<Settings>,
    clock: Clock,
    vault: Vault,
    charging: Charging,
}

impl Deps {
    pub fn new(setup: Setup) -> Result<Self, edge::Error> {
        let settings = Settings::from_env(setup.env.clone())?;
        let http = edge::http_client(settings.charging.connect)?;
        let secrets = aws_sdk_secretsmanager::Client::new(&setup.aws);
        Ok(Self {
            charging: Charging::new(settings.charging.clone(), &setup, http),
            // This vault reads no users' secrets, so it needs no prefix.
            vault: Vault::new(secrets, String::new()),
            clock: setup.clock,
            settings: Arc::new(settings),
        })
    }
}

/// The function's routes, for Lambda, `cargo dev` and the tests.
pub fn router(deps: Deps) -> Router {
    let http = deps.settings.http.clone();
    let routes = Router::new().route("/v1/webhooks/stripe", post(receive)).with_state(deps);
    edge::app(routes, Shape::Problem, &http)
}

/// Receives an event of Stripe.
///
/// Responds 2xx once the event is recorded. After anything else, Stripe delivers it again.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/v1/webhooks/stripe", tag = "webhook", operation_id = "receive_stripe_event",
    params(("stripe-signature" = String, Header, description = "Stripe's signature of the body")),
    request_body(content = serde_json::Value, description = "A Stripe event"),
    responses((status = 204, description = "Recorded"), edge::openapi::ChangeProblems),
    security(()),
))]
async fn receive(
    State(deps): State<Deps>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let body = edge::read_body(body, deps.settings.http.max_body_bytes).await?;
    let now = deps.clock.now();
    let secrets = webhook_secrets(&deps).await?;
    let header = headers.get("stripe-signature");
    let header = header.and_then(|header| header.to_str().ok());
    let verified = signature::verify(&body, header.unwrap_or_default(), &secrets, now);
    verified.map_err(|error| {
        edge::metric("webhook_signatures_refused", 1);
        ApiError::new(Code::InvalidSignature, error.to_string())
    })?;
    let event = Event::parse(&body)
        .map_err(|error| ApiError::new(Code::InvalidRequest, error.to_string()))?;
    let received = charging::receive(deps.charging.at(now), &event).await;
    received.map(|_| StatusCode::NO_CONTENT).map_err(|error| {
        edge::log_error(&error, "could not record an event");
        try_later()
    })
}

async fn webhook_secrets(deps: &Deps) -> Result<Vec<SecretString>, ApiError> {
    let mut secrets = Vec::new();
    for name in &deps.settings.webhook_secrets {
        let secret = deps.vault.platform_secret(name).await.map_err(|error| {
            edge::log_error(&error, "could not read a webhook secret");
            try_later()
        })?;
        secrets.push(SecretString::clone(&secret));
    }
    Ok(secrets)
}

fn try_later() -> ApiError {
    ApiError::new(
        Code::StorageUnavailable,
        "the event cannot be recorded at the moment; deliver it again",
    )
}

/// The function's part of the interface.
#[cfg(feature = "openapi")]
pub fn openapi() -> utoipa::openapi::OpenApi {
    #[derive(utoipa::OpenApi)]
    #[openapi(paths(receive), components(schemas(edge::openapi::Problem)))]
    struct Routes;
    <Routes as utoipa::OpenApi>::openapi()
}
