//! Who is calling: `Authorization: Bearer <JWT>` and nothing else says so (contract, section 3).
//!
//! A token's header is checked by itself before any key is looked at; the algorithm is the key's, not
//! the token's; nothing of a token is ever repeated in an answer or a log line.

use std::sync::Arc;

use account::AccountId;
use axum::extract::{FromRef, FromRequestParts};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;
use serde_json::{Map, Number, Value};
use tracing::Span;

use crate::clock::Clock;
use crate::error::{ApiError, Code};
use crate::jwks::{Jwks, Loaded, RETRY_AFTER, TokenHash};
use crate::settings::IdentitySettings;

const MAX_TOKEN_BYTES: usize = 8 * 1024;
const MAX_SUBJECT_CHARS: usize = 255;
const LEEWAY: SignedDuration = SignedDuration::from_secs(60);

/// Checks tokens against the issuer's keys; clones share the keys.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    issuer: String,
    audience: String,
    keys: Jwks,
    clock: Clock,
}

/// Who is calling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user, as the issuer names them.
    pub subject: String,
    /// The account they act for.
    pub account: AccountId,
    pub role: Role,
}

/// What the caller may do in the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything.
    Owner,
    /// Read settings and make AI calls.
    Member,
}

impl Identity {
    /// The issuer's keys are fetched at the first call.
    pub fn new(settings: &IdentitySettings, clock: Clock, http: reqwest::Client) -> Self {
        Self(Arc::new(Inner {
            issuer: settings.issuer.clone(),
            audience: settings.audience.clone(),
            keys: Jwks::new(settings.jwks_url.clone(), clock.clone(), http),
            clock,
        }))
    }

    /// The caller that the request's token names.
    ///
    /// # Errors
    /// `invalid_token`; `identity_unavailable` while the issuer's keys were never loaded.
    pub async fn caller(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        let verified = self.verified(bearer_token(headers)?).await?;
        let caller = verified.caller(self.0.clock.now())?;
        Span::current().record("account", caller.account.as_str());
        Ok(caller)
    }

    /// What the token says, once it is verified; by the keys that verified it, only once.
    async fn verified(&self, token: &str) -> Result<Arc<Verified>, ApiError> {
        let hash = TokenHash::of(token);
        if let (Some(hash), Some(keys)) = (hash, self.0.keys.current().await)
            && let Some(verified) = keys.known(hash)
        {
            return Ok(verified);
        }
        let header = TokenHeader::read(token)?;
        let keys = self.0.keys.with(header.key_id.as_deref()).await;
        let keys = keys.ok_or_else(|| {
            let error = ApiError::new(
                Code::IdentityUnavailable,
                "the token issuer's keys could not be loaded yet; try again",
            );
            error.with_retry_after(RETRY_AFTER)
        })?;
        let verified = Arc::new(self.verify(token, &header, &keys)?);
        if let Some(hash) = hash {
            keys.remember(hash, Arc::clone(&verified));
        }
        Ok(verified)
    }

    fn verify(
        &self,
        token: &str,
        header: &TokenHeader,
        keys: &Loaded,
    ) -> Result<Verified, ApiError> {
        let key = keys.find(header.key_id.as_deref(), header.algorithm);
        let key = key.ok_or_else(|| invalid("the token's key is not one of the issuer's"))?;
        let validation = self.validation(header.algorithm);
        let token = jsonwebtoken::decode::<Claims>(token, &key.decoding, &validation);
        let claims = token.map_err(|error| refusal(error.kind()))?.claims;
        claims.verified()
    }

    /// Signature, `iss` and `aud`. The times are left to [`Verified::caller`], which has our clock.
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
    /// Only an owner may change anything.
    ///
    /// # Errors
    /// `not_owner` for a member.
    pub fn require_owner(&self) -> Result<(), ApiError> {
        match self.role {
            Role::Owner => Ok(()),
            Role::Member => Err(ApiError::new(
                Code::NotOwner,
                "only an owner of the account may change this; ask one of them",
            )),
        }
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

fn bearer_token(headers: &HeaderMap) -> Result<&str, ApiError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (Some(value), None) => value,
        (None, _) => return Err(invalid("send an access token as `Authorization: Bearer …`")),
        (Some(_), Some(_)) => return Err(invalid("there is more than one Authorization header")),
    };
    let token = value.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        let token = token.trim_matches(' ');
        (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
    });
    match token {
        None => Err(invalid(
            "the Authorization header is not `Bearer` and a token",
        )),
        Some(token) if token.len() > MAX_TOKEN_BYTES => Err(invalid("the token is too long")),
        Some(token) => Ok(token),
    }
}

/// What a token says about itself before it is believed.
struct TokenHeader {
    algorithm: Algorithm,
    key_id: Option<String>,
}

impl TokenHeader {
    /// Refuses whatever would make the token choose its own key, and extensions nobody knows.
    fn read(token: &str) -> Result<Self, ApiError> {
        let malformed = || invalid("the token is not a signed JWT");
        let (encoded, _) = token.split_once('.').ok_or_else(malformed)?;
        let header = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| malformed())?;
        let header: Map<String, Value> =
            serde_json::from_slice(&header).map_err(|_| malformed())?;
        if ["crit", "jku", "jwk", "x5u"]
            .iter()
            .any(|name| header.contains_key(*name))
        {
            return Err(invalid("the token's header names a key or an extension"));
        }
        let algorithm = match header.get("alg").and_then(Value::as_str) {
            Some("RS256") => Algorithm::RS256,
            Some("ES256") => Algorithm::ES256,
            Some("EdDSA") => Algorithm::EdDSA,
            _ => {
                return Err(invalid(
                    "the token's algorithm is not RS256, ES256 or EdDSA",
                ));
            }
        };
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err(malformed()),
        };
        Ok(Self { algorithm, key_id })
    }
}

/// The claims that are read here; `aud` is checked by [`Identity::validation`].
#[derive(Deserialize)]
struct Claims {
    /// A string: an array that contains our issuer is not from our issuer.
    #[serde(rename = "iss")]
    _issuer: String,
    exp: Number,
    nbf: Option<Number>,
    sub: String,
    account_id: AccountId,
    role: Role,
}

impl Claims {
    fn verified(self) -> Result<Verified, ApiError> {
        let unreadable = || invalid("the token's times are not numbers of seconds");
        let exp = seconds(&self.exp).ok_or_else(unreadable)?;
        let nbf = match self.nbf {
            Some(nbf) => Some(seconds(&nbf).ok_or_else(unreadable)?),
            None => None,
        };
        if self.sub.is_empty() || self.sub.chars().count() > MAX_SUBJECT_CHARS {
            return Err(invalid("the token's subject is empty or too long"));
        }
        Ok(Verified {
            caller: Caller {
                subject: self.sub,
                account: self.account_id,
                role: self.role,
            },
            exp,
            nbf,
        })
    }
}

/// What a token says whose signature, issuer and audience are right. Its time is not judged yet.
pub(crate) struct Verified {
    caller: Caller,
    /// Seconds since 1970, as `nbf`.
    exp: i64,
    nbf: Option<i64>,
}

impl Verified {
    fn caller(&self, now: Timestamp) -> Result<Caller, ApiError> {
        if self.exp.saturating_add(LEEWAY.as_secs()) < now.as_second() {
            return Err(invalid("the token has expired; get a new one"));
        }
        if self
            .nbf
            .is_some_and(|nbf| nbf.saturating_sub(LEEWAY.as_secs()) > now.as_second())
        {
            return Err(invalid("the token is not valid yet"));
        }
        Ok(self.caller.clone())
    }
}

/// The whole seconds of a `NumericDate` (RFC 7519), which may have a fraction. One with an exponent is
/// no time that anybody means.
fn seconds(number: &Number) -> Option<i64> {
    let text = number.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let is_fraction = fraction.bytes().all(|digit| digit.is_ascii_digit());
    whole.parse().ok().filter(|_| is_fraction)
}

/// Says which check failed; the token itself stays out of it.
fn refusal(kind: &ErrorKind) -> ApiError {
    invalid(match kind {
        ErrorKind::InvalidSignature => "the token's signature is not valid",
        ErrorKind::InvalidIssuer => "the token is of another issuer",
        ErrorKind::InvalidAudience => "the token is for another audience",
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::Json(_) => {
            "the token lacks a claim or has one of the wrong form; needed are iss, aud, exp, sub, account_id, role"
        }
        _ => "the token is not valid",
    })
}

#[cfg(test)]
mod tests;
