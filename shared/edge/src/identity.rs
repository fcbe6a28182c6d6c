//! The caller's identity, taken only from a JWT in `Authorization: Bearer` or, on AI routes, in
//! `x-api-key` (contract, section 3).
//!
//! A token's header is checked on its own before any key is looked up; the key determines the
//! algorithm, not the token; no part of a token is ever repeated in a response or a log line.

use std::sync::Arc;

use account::AccountId;
use axum::extract::{FromRef, FromRequestParts};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, HeaderName};
use jiff::Timestamp;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;
use serde_json::{Map, Number, Value};
use tracing::Span;

use crate::clock::Clock;
use crate::error::{ApiError, Code};
use crate::jwks::{Jwks, RETRY_AFTER};
use crate::settings::IdentitySettings;

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const MAX_TOKEN_BYTES: usize = 8 * 1024;
const MAX_SUBJECT_CHARS: usize = 255;
/// Accepted clock difference, in seconds.
const LEEWAY: i64 = 60;

/// Checks tokens against the issuer's keys. Clones share the keys.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    issuer: String,
    audience: String,
    keys: Jwks,
    clock: Clock,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user, as the issuer names them.
    pub subject: String,
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

impl Identity {
    /// Fetches the issuer's keys on the first call.
    pub fn new(settings: &IdentitySettings, clock: Clock, http: reqwest::Client) -> Self {
        Self(Arc::new(Inner {
            issuer: settings.issuer.clone(),
            audience: settings.audience.clone(),
            keys: Jwks::new(settings.jwks_url.clone(), clock.clone(), http),
            clock,
        }))
    }

    /// The caller; `identity_unavailable` as long as the issuer's keys have never been loaded.
    pub async fn caller(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        let token = bearer_token(headers)?;
        self.caller_of(token.ok_or_else(no_token)?).await
    }

    /// The caller of an AI route: Anthropic's SDKs send the token as `x-api-key`.
    pub async fn ai_caller(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        let token = match (bearer_token(headers)?, api_key(headers)?) {
            (Some(bearer), Some(api_key)) if bearer != api_key => {
                return Err(invalid(
                    "`Authorization` and `x-api-key` carry different tokens; send one",
                ));
            }
            (bearer, api_key) => bearer.or(api_key).ok_or_else(no_token)?,
        };
        self.caller_of(token).await
    }

    async fn caller_of(&self, token: &str) -> Result<Caller, ApiError> {
        let (algorithm, key_id) = read_header(token)?;
        let keys = self.0.keys.with(key_id.as_deref()).await;
        let keys = keys.ok_or_else(|| {
            let error = ApiError::new(
                Code::IdentityUnavailable,
                "the token issuer's keys could not be loaded yet; try again",
            );
            error.with_retry_after(RETRY_AFTER)
        })?;
        let key = keys.find(key_id.as_deref(), algorithm);
        let key = key.ok_or_else(|| invalid("the token's key is not one of the issuer's"))?;
        let validation = self.validation(algorithm);
        let token = jsonwebtoken::decode::<Claims>(token, &key.decoding, &validation);
        let claims = token.map_err(|error| refusal(error.kind()))?.claims;
        let caller = claims.caller(self.0.clock.now())?;
        Span::current().record("account", caller.account.as_str());
        Ok(caller)
    }

    /// Checks signature, `iss` and `aud`; [`Claims::caller`] checks the times, by our clock.
    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[&self.0.issuer]);
        validation.set_audience(&[&self.0.audience]);
        validation.validate_exp = false;
        validation
    }
}

impl Caller {
    /// Refuses members, because only an owner may change anything.
    pub fn require_owner(&self) -> Result<(), ApiError> {
        if self.role == Role::Owner {
            return Ok(());
        }
        let detail = "only an owner of the account may change this; ask one of them";
        Err(ApiError::new(Code::NotOwner, detail))
    }
}

impl<S> FromRequestParts<S> for Caller
where
    Identity: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Identity::from_ref(state).caller(&parts.headers).await
    }
}

fn invalid(detail: &'static str) -> ApiError {
    ApiError::new(Code::InvalidToken, detail)
}

fn no_token() -> ApiError {
    invalid("send an access token as `Authorization: Bearer …`")
}

fn bearer_token(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value,
        (Some(_), Some(_)) => return Err(invalid("there is more than one Authorization header")),
    };
    let token = value.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        let token = token.trim_matches(' ');
        (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
    });
    token.map(Some).ok_or_else(|| invalid("the Authorization header must be `Bearer <token>`"))
}

fn api_key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let mut values = headers.get_all(X_API_KEY).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match value.to_str().map(str::trim) {
            Ok(token) if !token.is_empty() => Ok(Some(token)),
            _ => Err(invalid("the x-api-key header must be an access token")),
        },
        (Some(_), Some(_)) => Err(invalid("there is more than one x-api-key header")),
    }
}

/// The algorithm and the key id of a token's unverified header. Refuses headers that let the token
/// choose its own key, and unknown extensions.
fn read_header(token: &str) -> Result<(Algorithm, Option<String>), ApiError> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(invalid("the token is too long"));
    }
    if token.starts_with("sk-or-") {
        return Err(invalid(
            "this is an OpenRouter API key, not a Greta access token; send a token, and connect \
             the key under Settings, Integrations",
        ));
    }
    let malformed = || invalid("the token is not a signed JWT");
    let (encoded, _) = token.split_once('.').ok_or_else(malformed)?;
    let header = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| malformed())?;
    let header: Map<String, Value> = serde_json::from_slice(&header).map_err(|_| malformed())?;
    if ["crit", "jku", "jwk", "x5u"].iter().any(|name| header.contains_key(*name)) {
        return Err(invalid("the token's header names a key or an extension"));
    }
    let algorithm = match header.get("alg").and_then(Value::as_str) {
        Some("RS256") => Algorithm::RS256,
        Some("ES256") => Algorithm::ES256,
        Some("EdDSA") => Algorithm::EdDSA,
        _ => {
            return Err(invalid("the token's algorithm is not RS256, ES256 or EdDSA"));
        }
    };
    let key_id = match header.get("kid") {
        None => None,
        Some(Value::String(id)) => Some(id.clone()),
        Some(_) => return Err(malformed()),
    };
    Ok((algorithm, key_id))
}

/// The claims that are read here. [`Identity::validation`] checks `aud`.
#[derive(Deserialize)]
struct Claims {
    /// Must be a string: an array that contains our issuer is not from our issuer.
    #[serde(rename = "iss")]
    _issuer: String,
    exp: Number,
    nbf: Option<Number>,
    sub: String,
    account_id: AccountId,
    role: Role,
}

impl Claims {
    fn caller(self, now: Timestamp) -> Result<Caller, ApiError> {
        let unreadable = || invalid("the token's times are not numbers of seconds");
        let exp = seconds(&self.exp).ok_or_else(unreadable)?;
        let nbf = match self.nbf {
            Some(nbf) => seconds(&nbf).ok_or_else(unreadable)?,
            None => i64::MIN,
        };
        if self.sub.is_empty() || self.sub.chars().count() > MAX_SUBJECT_CHARS {
            return Err(invalid("the token's subject is empty or too long"));
        }
        if exp.saturating_add(LEEWAY) < now.as_second() {
            return Err(invalid("the token has expired; get a new one"));
        }
        if nbf.saturating_sub(LEEWAY) > now.as_second() {
            return Err(invalid("the token is not valid yet"));
        }
        Ok(Caller { subject: self.sub, account: self.account_id, role: self.role })
    }
}

/// The whole seconds of a `NumericDate` (RFC 7519), which may have a fraction but no exponent.
fn seconds(number: &Number) -> Option<i64> {
    let text = number.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let is_fraction = fraction.bytes().all(|digit| digit.is_ascii_digit());
    whole.parse().ok().filter(|_| is_fraction)
}

/// Names the failed check without repeating any part of the token.
fn refusal(kind: &ErrorKind) -> ApiError {
    invalid(match kind {
        ErrorKind::InvalidSignature => "the token's signature is not valid",
        ErrorKind::InvalidIssuer => "the token is of another issuer",
        ErrorKind::InvalidAudience => "the token is for another audience",
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::Json(_) => {
            "the token lacks a claim or has one of the wrong form; needed are iss, aud, exp, sub, \
             account_id, role"
        }
        _ => "the token is not valid",
    })
}

#[cfg(test)]
mod tests;
