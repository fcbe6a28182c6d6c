//! The steps before a request's endpoint: the secret key, the rate limit, the idempotency key.

use std::collections::{HashMap, VecDeque};

use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::error::ApiError;
use super::params::Params;

/// The time that idempotency keys are remembered
/// (<https://docs.stripe.com/api/idempotent_requests>: at least that long).
const KEY_LIFETIME: SignedDuration = SignedDuration::from_hours(24);

#[derive(Debug, Clone)]
pub struct ApiRequest {
    pub method: Method,
    /// For example `/v1/customers`.
    pub path: String,
    /// The secret key in its `Authorization` header.
    pub api_key: Option<String>,
    pub idempotency_key: Option<String>,
    pub params: Params,
}

impl ApiRequest {
    /// Only POST requests have idempotency keys: all others are idempotent anyway.
    pub(super) fn key(&self) -> Option<&String> {
        let key = self.idempotency_key.as_ref();
        key.filter(|key| self.method == Method::POST && !key.is_empty())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiResponse {
    pub status: u16,
    /// JSON.
    pub body: String,
    /// This repeats the first response to its idempotency key.
    pub replayed: bool,
    /// The connection is closed instead.
    pub lost: bool,
}

impl ApiResponse {
    pub(super) fn new(status: u16, body: String) -> Self {
        Self { status, body, replayed: false, lost: false }
    }
}

impl From<ApiError> for ApiResponse {
    fn from(error: ApiError) -> Self {
        Self {
            lost: error.no_response,
            ..Self::new(error.status, json!({"error": error.error}).to_string())
        }
    }
}

/// Which requests get a 429.
#[derive(Debug, Default)]
pub(super) struct RateLimit {
    /// This many upcoming requests.
    pub next: u32,
    /// Those above this many in one second.
    pub per_second: Option<usize>,
    pub window: VecDeque<Timestamp>,
}

impl RateLimit {
    fn refuses(&mut self, now: Timestamp) -> bool {
        if self.next > 0 {
            self.next -= 1;
            return true;
        }
        let Some(limit) = self.per_second else {
            return false;
        };
        let second_ago = now - SignedDuration::from_secs(1);
        while self.window.front().is_some_and(|at| *at <= second_ago) {
            self.window.pop_front();
        }
        if self.window.len() >= limit {
            return true;
        }
        self.window.push_back(now);
        false
    }
}

/// An idempotency key that was used.
#[derive(Debug)]
struct KeyUse {
    path: String,
    params: Params,
    /// `None` while the first request is in progress.
    first: Option<ApiResponse>,
}

#[derive(Debug, Default)]
pub(super) struct Admission {
    /// All requests, in the order of their arrival.
    pub seen: Vec<ApiRequest>,
    /// The only secret key that is accepted; `None` accepts any.
    pub api_key: Option<String>,
    pub rate_limit: RateLimit,
    keys: HashMap<String, KeyUse>,
    keys_by_age: VecDeque<(Timestamp, String)>,
}

impl Admission {
    /// Admits the request, or responds to it. After an admitted request, [`finish`](Self::finish)
    /// must follow.
    pub(super) fn admit(&mut self, request: &ApiRequest, now: Timestamp) -> Option<ApiResponse> {
        self.seen.push(request.clone());
        let Some(api_key) = &request.api_key else {
            return Some(ApiError::request(401, None, "You did not provide an API key.").into());
        };
        if self.api_key.as_ref().is_some_and(|known| known != api_key) {
            return Some(ApiError::request(401, None, "Invalid API Key provided.").into());
        }
        if self.rate_limit.refuses(now) {
            return Some(
                ApiError::request(429, Some("rate_limit"), "Request rate limit exceeded.").into(),
            );
        }
        while let Some((at, key)) = self.keys_by_age.front() {
            if *at + KEY_LIFETIME > now {
                break;
            }
            self.keys.remove(key);
            self.keys_by_age.pop_front();
        }
        let key = request.key()?;
        let Some(used) = self.keys.get(key) else {
            let (path, params) = (request.path.clone(), request.params.clone());
            self.keys.insert(key.clone(), KeyUse { path, params, first: None });
            return None;
        };
        Some(match &used.first {
            _ if (&used.path, &used.params) != (&request.path, &request.params) => {
                ApiError::key_reused(key).into()
            }
            None => ApiError::key_in_use(key).into(),
            Some(first) => ApiResponse { replayed: true, ..first.clone() },
        })
    }

    /// Keeps the response under the request's idempotency key, if it is a result of its execution.
    pub(super) fn finish(
        &mut self,
        request: &ApiRequest,
        response: &ApiResponse,
        is_result: bool,
        now: Timestamp,
    ) {
        let Some(key) = request.key() else { return };
        match self.keys.get_mut(key).filter(|_| is_result) {
            Some(used) => {
                used.first = Some(ApiResponse::new(response.status, response.body.clone()));
                self.keys_by_age.push_back((now, key.clone()));
            }
            None => drop(self.keys.remove(key)),
        }
    }
}
