//! The credits path: hold, call the default AI, settle.
//!
//! From the hold on, everything runs in a task of its own that the caller's leaving does not end:
//! it reads the answer to its end, within the function's life, and resolves the hold. What cannot be
//! resolved here (a broken answer, an answer without usage) is left to the sweeper with the
//! provider's id of the call.

mod credits_request;
mod stream;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use account::hold::HoldState;
use account::price::{CallSize, Ceiling, PricedModel, Tariff, Usage, ceiling};
use account::{Account, Credits};
use aws_lc_rs::digest;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use edge::{ApiError, Code};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use routing::{FallbackCause, Payer};
use secrecy::SecretString;
use store::{Hold, HoldOutcome, NewHold, Resolution, StoreError};
use tokio::task::JoinHandle;
use upstream::{Answer, ChatError, Failure, PlainAnswer};

use crate::Deps;
use crate::call::Call;
use crate::receipt::Receipt;
use crate::request::invalid;
use crate::running::RunningCall;
use credits_request::CreditsRequest;

/// Who ends a hold, in the ledger.
const ACTOR: &str = "ai-proxy";
/// How often a hold is planned again because the balance fell meanwhile.
const PLANS: usize = 4;
const MAX_IDEMPOTENCY_KEY: usize = 255;

/// How a call came to be paid in credits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// By the routing table; the receipt has the reason already.
    Direct,
    Fallback(FallbackCause),
}

/// Why credits paid nothing.
#[derive(Debug)]
pub(crate) enum CreditsError {
    /// Before the default AI was called.
    Refused(ApiError),
    /// The default AI refused or failed; the hold is released, or left to the sweeper.
    DefaultAi(ApiError),
}

impl CreditsError {
    pub(crate) fn into_error(self) -> ApiError {
        match self {
            Self::Refused(error) | Self::DefaultAi(error) => error,
        }
    }
}

/// Makes the call on the default AI.
pub(crate) async fn answer(
    deps: &Deps,
    account: Account,
    call: Call,
    route: Route,
    receipt: &mut Receipt,
) -> Result<Response, CreditsError> {
    if let Route::Fallback(cause) = route {
        receipt.routed(Payer::GretaCredits, cause.reason());
    }
    let (deps, mut own) = (deps.clone(), receipt.clone());
    let task = edge::spawn(async move {
        // Boxed, or its 17 kB are moved four times before it runs.
        let answered = Box::pin(hold_and_call(&deps, account, call, route, &mut own)).await;
        (answered, own)
    });
    let (answered, own) = task
        .await
        .map_err(|error| CreditsError::DefaultAi(ApiError::internal(&error)))?;
    *receipt = own;
    answered
}

async fn hold_and_call(
    deps: &Deps,
    account: Account,
    call: Call,
    route: Route,
    receipt: &mut Receipt,
) -> Result<Response, CreditsError> {
    let prepared = prepare(deps, account, &call, route).await;
    let Prepared { held, key, body } = prepared
        .inspect_err(|error| receipt.refused(error.code().as_str()))
        .map_err(CreditsError::Refused)?;
    receipt.model = Some(held.hold.model.clone());
    let answer = match deps.default_ai.chat(&key, body, call.kind()).await {
        Ok(answer) if answer.status().is_success() => answer,
        failed => {
            held.release().await;
            return Err(CreditsError::DefaultAi(
                default_ai_error(deps, failed).await,
            ));
        }
    };
    if answer.is_event_stream() {
        return Ok(stream::relay(held, answer, call.deadline));
    }
    plain(held, answer, receipt)
        .await
        .map_err(CreditsError::DefaultAi)
}

/// All that a call needs before it is made.
struct Prepared {
    held: HeldCall,
    key: Arc<SecretString>,
    body: Bytes,
}

/// Every rule of the credits path; the hold is taken last.
async fn prepare(
    deps: &Deps,
    account: Account,
    call: &Call,
    route: Route,
) -> Result<Prepared, ApiError> {
    let bounded = CreditsRequest::of(&call.request)?;
    let model = model_for(deps, call, route).await?;
    let size = bounded.size(&model)?;
    let key = platform_key(deps).await?;
    // Before there is a hold that somebody could take for lost.
    let running = deps.running.begin(&call.id);
    let (hold, ceiling) = take_hold(deps, &account, call, &model, size).await?;
    let kind = deps.settings.default_ai_kind;
    Ok(Prepared {
        body: bounded.body(&model.id, ceiling.output_limit, kind),
        key,
        held: HeldCall {
            _running: running,
            deps: deps.clone(),
            hold,
            waived: ceiling.waived,
        },
    })
}

/// The model that credits pay for: the caller's where it has a price. A fallback takes the default
/// model instead of an unpriced one.
async fn model_for(deps: &Deps, call: &Call, route: Route) -> Result<PricedModel, ApiError> {
    let default = &deps.settings.product.default_ai_model;
    let wanted = call.request.model.as_ref().unwrap_or(default);
    let priced = deps.prices.model(wanted).await;
    let priced = match (priced, route) {
        (None, Route::Fallback(_)) => deps.prices.model(default).await,
        (priced, _) => priced,
    };
    priced.ok_or_else(|| {
        if wanted == default {
            tracing::error!("the default AI's model list has no price for DEFAULT_AI_MODEL");
            return default_ai_unavailable();
        }
        ApiError::new(
            Code::ModelNotPriced,
            "Greta has no price for this model, so credits cannot pay for it; choose one of \
             GET /v1/models, or use your OpenRouter key",
        )
    })
}

/// The key of Greta's own AI.
pub(crate) async fn platform_key(deps: &Deps) -> Result<Arc<SecretString>, ApiError> {
    let name = &deps.settings.default_ai_secret;
    deps.vault.platform_secret(name).await.map_err(|error| {
        edge::log_error(&error, "the default AI's key cannot be read");
        default_ai_unavailable()
    })
}

async fn take_hold(
    deps: &Deps,
    account: &Account,
    call: &Call,
    model: &PricedModel,
    size: CallSize,
) -> Result<(Hold, Ceiling), ApiError> {
    let settings = &deps.settings;
    let mut available = account.balance.available();
    for _ in 0..PLANS {
        let ceiling = ceiling(
            model,
            size,
            available,
            settings.min_output_tokens,
            settings.product.rate,
        );
        let Some(ceiling) = ceiling else {
            return Err(uncovered(deps, account, call).await);
        };
        let new = NewHold {
            call: &call.id,
            amount: ceiling.amount,
            at: deps.clock.now(),
            model: &model.id,
            tariff: Tariff {
                prices: model.prices.of(true),
                rate: settings.product.rate,
            },
            idempotency: call.idempotency.as_deref(),
            max_holds: settings.max_concurrent_holds,
        };
        let taken = deps.store.holds.take(account, &new).await;
        match taken.map_err(hold_error)? {
            HoldOutcome::Taken(hold) => return Ok((hold, ceiling)),
            HoldOutcome::Insufficient(balance) => available = balance.available(),
            HoldOutcome::TooMany => return Err(too_many()),
            HoldOutcome::AlwaysUseKey => {
                let error = ApiError::new(
                    Code::StorageUnavailable,
                    "\"Always use this key\" was switched on while the call was being routed; send \
                     it again",
                );
                return Err(error.with_retry_after(Duration::from_secs(1)));
            }
            HoldOutcome::Duplicate => return Err(duplicate()),
            HoldOutcome::NoAccount => return Err(ApiError::account_not_found()),
        }
    }
    Err(too_many())
}

/// Credits do not cover the call; perhaps because its first try holds them.
async fn uncovered(deps: &Deps, account: &Account, call: &Call) -> ApiError {
    if let Some(hash) = &call.idempotency {
        let now = deps.clock.now();
        let in_use = deps
            .store
            .holds
            .idempotency_key_in_use(account, hash, now)
            .await;
        match in_use {
            Ok(true) => return duplicate(),
            Ok(false) => {}
            Err(error) => return ApiError::storage(&error),
        }
    }
    ApiError::new(
        Code::InsufficientCredits,
        "your credits do not cover this call; buy credits, or connect an OpenRouter key",
    )
}

fn duplicate() -> ApiError {
    let error = ApiError::new(
        Code::DuplicateCall,
        "a call with this Idempotency-Key is under way or was paid already",
    );
    error.with_header(
        HeaderName::from_static("x-should-retry"),
        HeaderValue::from_static("false"),
    )
}

fn hold_error(error: StoreError) -> ApiError {
    match error {
        StoreError::Contended { .. } => too_many(),
        error => ApiError::storage(&error),
    }
}

fn too_many() -> ApiError {
    ApiError::new(
        Code::TooManyCalls,
        "too many calls of your account are under way; wait for some to end and try again",
    )
    .with_retry_after(Duration::from_secs(1))
}

/// SHA-256 of the caller's `Idempotency-Key`, so that the store never holds the caller's text.
pub(crate) fn idempotency_hash(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(key) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let key = key.as_bytes();
    if key.is_empty() || key.len() > MAX_IDEMPOTENCY_KEY {
        return Err(invalid("`Idempotency-Key` must have 1 to 255 characters"));
    }
    let hash = digest::digest(&digest::SHA256, key);
    let hex = hash.as_ref().iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    Ok(Some(hex))
}

async fn plain(
    held: HeldCall,
    answer: Answer,
    receipt: &mut Receipt,
) -> Result<Response, ApiError> {
    let (status, headers) = (answer.status(), answer.headers());
    let generation = answer.generation_id();
    let recording = generation.clone().map(|id| held.record_generation(id));
    let collected = answer.collect().await;
    if let Some(recording) = recording {
        recorded(recording).await;
    }
    let body = match collected {
        Ok(body) => body,
        Err(error) => {
            edge::log_error(&error, "the default AI's answer broke off");
            held.leave_to_sweeper("answer broke off").await;
            return Err(default_ai_unavailable());
        }
    };
    let said = PlainAnswer::from_json(&body);
    let failed = said.failed;
    receipt.charged = match said.usage {
        Some(usage) => held.settle(usage).await,
        None => {
            if let (None, Some(id)) = (generation, said.id) {
                recorded(held.record_generation(id)).await;
            }
            held.leave_to_sweeper("answer without usage").await;
            None
        }
    };
    if failed {
        // Its text is for the platform, not for the caller.
        return Err(default_ai_unavailable());
    }
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// A call under way with its hold. Ends in exactly one of settle, release, or being left to the
/// sweeper.
struct HeldCall {
    deps: Deps,
    hold: Hold,
    /// See [`Ceiling::waived`].
    waived: bool,
    /// While this lives, nobody here takes the call for lost.
    _running: RunningCall,
}

impl HeldCall {
    /// Takes what the call did cost. `None` if that is left to the sweeper.
    async fn settle(&self, usage: Usage) -> Option<Credits> {
        let Some(cost) = self.hold.tariff.cost(&usage) else {
            self.leave_to_sweeper("usage without a cost").await;
            return None;
        };
        if cost > self.hold.amount && !self.waived {
            tracing::error!(%cost, held = %self.hold.amount, "a call cost more than its ceiling");
        }
        let now = self.deps.clock.now();
        let settled = self
            .deps
            .store
            .holds
            .settle(&self.hold, cost, now, ACTOR, None)
            .await;
        match settled.map(Resolution::state) {
            Ok(Some(HoldState::Settled(charged))) => {
                tracing::info!(%charged, model = self.hold.model, "call settled");
                Some(charged)
            }
            Ok(state) => {
                tracing::error!(?state, "the hold was ended by something else");
                None
            }
            Err(error) => {
                edge::log_error(&error, "the hold could not be settled");
                self.leave_to_sweeper("settling failed").await;
                None
            }
        }
    }

    /// Gives the hold back: the call did not take place.
    async fn release(&self) {
        let now = self.deps.clock.now();
        match self
            .deps
            .store
            .holds
            .release(&self.hold, now, ACTOR, None)
            .await
        {
            Ok(_) => edge::metric("holds_released", 1),
            Err(error) => {
                edge::log_error(&error, "the hold could not be released");
                self.leave_to_sweeper("releasing failed").await;
            }
        }
    }

    /// Has the sweeper find out what the call cost, from now on.
    async fn leave_to_sweeper(&self, why: &'static str) {
        tracing::warn!(why, "hold left to the sweeper");
        let now = self.deps.clock.now();
        if let Err(error) = self.deps.store.holds.check_at(&self.hold, now).await {
            // It then finds the hold at its first planned check.
            edge::log_error(&error, "the hold's check could not be brought forward");
        }
    }

    /// Stores the provider's id of the call, beside the answer and not in its way.
    fn record_generation(&self, id: String) -> JoinHandle<()> {
        let (store, hold) = (self.deps.store.clone(), self.hold.clone());
        // What it takes is given back when it ends, not when somebody asks how it ended.
        edge::spawn(Box::pin(async move {
            if let Err(error) = store.holds.record_generation(&hold, &id).await {
                edge::log_error(&error, "the generation id could not be stored");
            }
        }))
    }
}

/// Waits until the generation id is stored (or could not be, which the task itself logs).
async fn recorded(recording: JoinHandle<()>) {
    if let Err(error) = recording.await {
        edge::log_error(&error, "storing the generation id failed");
    }
}

async fn default_ai_error(deps: &Deps, failed: Result<Answer, ChatError>) -> ApiError {
    let answer = match failed {
        Ok(answer) => answer,
        Err(error) => {
            edge::log_error(&error, "the default AI cannot be reached");
            return default_ai_unavailable();
        }
    };
    let (status, retry_after) = (answer.status(), answer.retry_after());
    let body = answer.error_body().await;
    tracing::warn!(status = status.as_u16(), "the default AI refused the call");
    match Failure::of(status, &body).unwrap_or(Failure::Unavailable) {
        Failure::RateLimited => ApiError::new(
            Code::DefaultAiRateLimited,
            "Greta's AI limits the rate of calls; wait and try again",
        )
        .with_retry_after(retry_after.unwrap_or(Duration::from_secs(1))),
        Failure::RequestRejected(status) => request_rejected(status),
        Failure::ContentRefused => request_rejected(StatusCode::FORBIDDEN),
        Failure::KeyRejected => {
            let name = &deps.settings.default_ai_secret;
            deps.vault.forget_platform_secret(name).await;
            default_ai_unavailable()
        }
        Failure::PaymentRequired | Failure::Unavailable => default_ai_unavailable(),
    }
}

fn request_rejected(status: StatusCode) -> ApiError {
    ApiError::new(
        Code::DefaultAiRequestRejected,
        "Greta's AI refused the request; check its content, model and parameters",
    )
    .with_status(status)
}

fn default_ai_unavailable() -> ApiError {
    ApiError::new(
        Code::DefaultAiUnavailable,
        "Greta's AI cannot be reached or failed; try again",
    )
}
