//! A request to the API, and what stands between it and its endpoint: the secret key, the rate limit,
//! the idempotency key. Still without any I/O.

use std::collections::VecDeque;

use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::endpoints::Failure;
use super::form::Form;
use super::refusal::Refusal;
use super::state::ProviderState;

/// How long idempotency keys are remembered
/// (<https://docs.stripe.com/api/idempotent_requests>: at least so long).
const KEY_LIFE: SignedDuration = SignedDuration::from_hours(24);

/// A request to the API.
#[derive(Debug, Clone)]
pub struct ApiRequest {
    pub method: Method,
    /// For example `/v1/customers`.
    pub path: String,
    /// The secret key that it is made with.
    pub api_key: Option<String>,
    pub idempotency_key: Option<String>,
    pub form: Form,
}

/// The reply to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiReply {
    pub status: u16,
    /// JSON.
    pub body: String,
    /// It is the first reply to its idempotency key, once more.
    pub replayed: bool,
    /// The connection is closed instead.
    pub lost: bool,
}

/// A request on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenRequest {
    pub method: Method,
    pub path: String,
    pub idempotency_key: Option<String>,
}

/// Which requests are answered 429.
#[derive(Debug, Default)]
pub(super) struct RateLimit {
    /// So many of the next ones.
    next: u32,
    /// Those after so many in one second.
    per_second: Option<usize>,
    window: VecDeque<Timestamp>,
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

/// What is remembered of an idempotency key.
#[derive(Debug)]
pub(super) struct KeyUse {
    fingerprint: u64,
    /// Status and body; `None` while the first request is under way.
    first: Option<(u16, String)>,
}

impl From<Refusal> for ApiReply {
    fn from(refusal: Refusal) -> Self {
        Self {
            status: refusal.status,
            body: json!({"error": refusal.error}).to_string(),
            replayed: false,
            lost: false,
        }
    }
}

impl ApiRequest {
    /// Only POST requests have keys: the others are idempotent by themselves.
    fn key(&self) -> Option<&String> {
        let key = self.idempotency_key.as_ref();
        key.filter(|key| self.method == Method::POST && !key.is_empty())
    }
}

impl ProviderState {
    /// Which requests are answered 429 from now on: the `next` ones, then those that exceed so many
    /// in a second.
    pub fn limit_rate(&mut self, next: u32, per_second: Option<usize>) {
        self.rate_limit = RateLimit {
            next,
            per_second,
            window: VecDeque::new(),
        };
    }

    /// Answers a request at once.
    pub fn call(&mut self, request: &ApiRequest, now: Timestamp) -> ApiReply {
        match self.begin(request, now) {
            Some(reply) => reply,
            None => self.execute(request, now),
        }
    }

    /// What comes before the execution. Without a reply the request is under way, and
    /// [`execute`](Self::execute) has to follow.
    pub fn begin(&mut self, request: &ApiRequest, now: Timestamp) -> Option<ApiReply> {
        self.seen.push(SeenRequest {
            method: request.method.clone(),
            path: request.path.clone(),
            idempotency_key: request.idempotency_key.clone(),
        });
        let Some(api_key) = &request.api_key else {
            return Some(Refusal::no_key().into());
        };
        if self.api_key.as_ref().is_some_and(|known| known != api_key) {
            return Some(Refusal::wrong_key().into());
        }
        if self.rate_limit.refuses(now) {
            return Some(Refusal::too_many().into());
        }
        while let Some((at, key)) = self.keys_by_age.front() {
            if *at + KEY_LIFE > now {
                break;
            }
            self.keys.remove(key);
            self.keys_by_age.pop_front();
        }
        let key = request.key()?;
        let fingerprint = request.form.fingerprint(&request.path);
        match self.keys.get(key) {
            Some(used) if used.fingerprint != fingerprint => {
                Some(Refusal::other_parameters(key).into())
            }
            Some(KeyUse { first: None, .. }) => Some(Refusal::key_in_use(key).into()),
            Some(KeyUse {
                first: Some((status, body)),
                ..
            }) => Some(ApiReply {
                status: *status,
                body: body.clone(),
                replayed: true,
                lost: false,
            }),
            None => {
                let used = KeyUse {
                    fingerprint,
                    first: None,
                };
                self.keys.insert(key.clone(), used);
                None
            }
        }
    }

    /// Carries out a request that has begun.
    pub fn execute(&mut self, request: &ApiRequest, now: Timestamp) -> ApiReply {
        self.advance_to(now);
        self.current_key = request.key().cloned();
        let result = self.dispatch(request, now);
        self.current_key = None;
        let lost = std::mem::take(&mut self.answer_is_lost);
        let (mut reply, is_result) = match result {
            Ok(value) => {
                let reply = ApiReply {
                    status: 200,
                    body: value.to_string(),
                    replayed: false,
                    lost: false,
                };
                (reply, true)
            }
            Err(Failure::Refused(refusal)) => {
                let is_result = refusal.is_result;
                (refusal.into(), is_result)
            }
            Err(Failure::Unheard) => {
                let reply = ApiReply {
                    status: 504,
                    body: String::new(),
                    replayed: false,
                    lost: true,
                };
                (reply, false)
            }
        };
        reply.lost |= lost;
        if let Some(key) = request.key() {
            match self.keys.get_mut(key).filter(|_| is_result) {
                Some(used) => {
                    used.first = Some((reply.status, reply.body.clone()));
                    self.keys_by_age.push_back((now, key.clone()));
                }
                None => drop(self.keys.remove(key)),
            }
        }
        reply
    }
}
