//! The issuer's public keys (RFC 7517), cached.
//!
//! A known and fresh key is found without waiting. Everything else goes through one lock, so that
//! at most one request fetches, and only when a fetch is due.

use std::error::Error;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use http_body_util::{BodyExt as _, Limited};
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse,
    RSAKeyParameters,
};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::timeout;
use url::Url;

use crate::clock::Clock;
use crate::error::log_error;

const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
const MAX_BYTES: usize = 256 * 1024;
/// The age at which keys are refreshed.
const FRESH: SignedDuration = SignedDuration::from_hours(1);
/// Time between two fetches while there are keys.
const BETWEEN_TRIES: SignedDuration = SignedDuration::from_mins(1);
/// Time between two fetches while there are none.
const BETWEEN_FIRST_TRIES: SignedDuration = SignedDuration::from_secs(1);
/// `Retry-After` while there are no keys.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A key, and the only algorithm that it may verify.
pub(crate) struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    pub(crate) decoding: DecodingKey,
}

pub(crate) struct Jwks {
    url: Url,
    http: reqwest::Client,
    clock: Clock,
    loaded: RwLock<Option<Arc<Loaded>>>,
    /// Start or end of the last fetch; locked during a fetch.
    last_try: Mutex<Option<Timestamp>>,
}

pub(crate) struct Loaded {
    at: Timestamp,
    keys: Vec<Key>,
}

impl Jwks {
    pub(crate) fn new(url: Url, clock: Clock, http: reqwest::Client) -> Self {
        Self { url, http, clock, loaded: RwLock::new(None), last_try: Mutex::new(None) }
    }

    /// The keys, fetched again if they are old or this one is missing. `None` until a
    /// fetch has succeeded.
    pub(crate) async fn with(&self, id: Option<&str>) -> Option<Arc<Loaded>> {
        if let Some(loaded) = self.loaded()
            && has_passed(FRESH, loaded.at, self.clock.now())
            // Requests do not wait for a refresh that another one makes.
            && let Ok(mut last_try) = self.last_try.try_lock()
            && self.is_due(*last_try, BETWEEN_TRIES)
        {
            self.fetch(&mut last_try).await;
        }
        match self.loaded() {
            Some(loaded) if loaded.knows(id) => Some(loaded),
            _ => self.with_key(id).await,
        }
    }

    /// Waits for a fetch in progress, and fetches if this key is still missing.
    async fn with_key(&self, id: Option<&str>) -> Option<Arc<Loaded>> {
        let mut last_try = self.last_try.lock().await;
        let (missing, between) = match self.loaded() {
            Some(loaded) => (!loaded.knows(id), BETWEEN_TRIES),
            None => (true, BETWEEN_FIRST_TRIES),
        };
        if missing && self.is_due(*last_try, between) {
            self.fetch(&mut last_try).await;
        }
        self.loaded()
    }

    fn is_due(&self, last_try: Option<Timestamp>, between: SignedDuration) -> bool {
        last_try.is_none_or(|at| has_passed(between, at, self.clock.now()))
    }

    /// Replaces the keys; a failure leaves them as they are.
    async fn fetch(&self, last_try: &mut Option<Timestamp>) {
        // Set before the fetch as well, because the request may be dropped during it.
        *last_try = Some(self.clock.now());
        let fetched = self.download().await;
        let now = self.clock.now();
        *last_try = Some(now);
        match fetched {
            Ok(keys) => {
                let loaded = Arc::new(Loaded { at: now, keys });
                *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = Some(loaded);
            }
            Err(error) => log_error(&error, "could not fetch the issuer's keys"),
        }
    }

    async fn download(&self) -> Result<Vec<Key>, FetchError> {
        let fetch = async {
            let response = self.http.get(self.url.clone()).send().await;
            let response = response.map_err(|error| FetchError::Http(error.without_url()))?;
            if response.status() != StatusCode::OK {
                return Err(FetchError::Status(response.status()));
            }
            let body = Limited::new(reqwest::Body::from(response), MAX_BYTES);
            let body = body.collect().await.map_err(FetchError::Body)?;
            Ok(body.to_bytes())
        };
        let document = timeout(FETCH_TIMEOUT, fetch).await;
        usable_keys(&document.map_err(|_| FetchError::TimedOut)??)
    }

    fn loaded(&self) -> Option<Arc<Loaded>> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        loaded.clone()
    }
}

impl Loaded {
    /// Whether the set has this key. A token without a `kid` never needs another set.
    fn knows(&self, id: Option<&str>) -> bool {
        id.is_none_or(|id| self.keys.iter().any(|key| key.id.as_deref() == Some(id)))
    }

    /// The key with this id and algorithm; without an id, the issuer's only key.
    pub(crate) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&Key> {
        let is_only = self.keys.len() == 1;
        self.keys.iter().find(|key| {
            let is_named = if id.is_some() { key.id.as_deref() == id } else { is_only };
            is_named && key.algorithm == algorithm
        })
    }
}

/// Whether `span` has passed since `from`. A clock that was set back counts as passed.
fn has_passed(span: SignedDuration, from: Timestamp, now: Timestamp) -> bool {
    !(SignedDuration::ZERO..span).contains(&now.duration_since(from))
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("the issuer does not respond")]
    Http(#[source] reqwest::Error),
    #[error("the issuer does not respond in time")]
    TimedOut,
    #[error("the issuer responded with {0}, expected 200")]
    Status(StatusCode),
    #[error("the key set cannot be read")]
    Body(#[source] Box<dyn Error + Send + Sync>),
    #[error("the response is not a key set")]
    Malformed(#[from] serde_json::Error),
}

/// The keys of a set that can verify our tokens; all others are skipped.
fn usable_keys(document: &[u8]) -> Result<Vec<Key>, FetchError> {
    #[derive(Deserialize)]
    struct KeySet {
        keys: Vec<Value>,
    }
    let set: KeySet = serde_json::from_slice(document)?;
    let jwks = set.keys.into_iter().map(serde_json::from_value);
    Ok(jwks.flatten().filter_map(usable_key).collect())
}

fn usable_key(jwk: Jwk) -> Option<Key> {
    let (algorithm, decoding) = match &jwk.algorithm {
        AlgorithmParameters::RSA(key) => (Algorithm::RS256, rsa_key(key)?),
        AlgorithmParameters::EllipticCurve(key)
            if key.curve == EllipticCurve::P256 && has_32_bytes(&key.x) && has_32_bytes(&key.y) =>
        {
            (Algorithm::ES256, DecodingKey::from_jwk(&jwk).ok()?)
        }
        AlgorithmParameters::OctetKeyPair(key)
            if key.curve == EllipticCurve::Ed25519 && has_32_bytes(&key.x) =>
        {
            (Algorithm::EdDSA, DecodingKey::from_jwk(&jwk).ok()?)
        }
        _ => return None,
    };
    let (common, named) = (jwk.common, KeyAlgorithm::from(algorithm));
    let usage = common.public_key_use;
    let operations = common.key_operations;
    let verifies = usage.is_none_or(|usage| usage == PublicKeyUse::Signature)
        && operations.is_none_or(|operations| operations.contains(&KeyOperations::Verify))
        && common.key_algorithm.is_none_or(|other| other == named);
    verifies.then_some(Key { id: common.key_id, algorithm, decoding })
}

/// Accepts leading zeros, which the library does not, and refuses less than 2048 bits: the 256th
/// byte from the end counts only with its highest bit set.
fn rsa_key(key: &RSAKeyParameters) -> Option<DecodingKey> {
    let modulus = URL_SAFE_NO_PAD.decode(&key.n).ok()?;
    let exponent = URL_SAFE_NO_PAD.decode(&key.e).ok()?;
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let modulus = modulus.get(zeros..)?;
    let long_enough = modulus.len() > 256 || (modulus.len() == 256 && *modulus.first()? >= 0x80);
    long_enough.then(|| DecodingKey::from_rsa_raw_components(modulus, &exponent))
}

fn has_32_bytes(text: &str) -> bool {
    URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == 32)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_keys_for_our_algorithms_are_usable() {
        let bytes = |length: usize, first: u8| {
            let mut bytes = vec![1; length];
            bytes[0] = first;
            URL_SAFE_NO_PAD.encode(bytes)
        };
        let word = bytes(32, 7);
        let rsa = |n: String| json!({"kty": "RSA", "n": n, "e": "AQAB"});
        let p256 = json!({"kty": "EC", "crv": "P-256", "x": word, "y": word});
        let ed25519 = json!({"kty": "OKP", "crv": "Ed25519", "x": word});
        let with = |mut jwk: Value, name: &str, value: Value| {
            jwk[name] = value;
            jwk
        };
        let mut padded = vec![0; 8];
        padded.extend([0xff; 255]);
        let table = [
            (rsa(bytes(256, 0x80)), Some(Algorithm::RS256)),
            (rsa(bytes(512, 0x01)), Some(Algorithm::RS256)),
            (rsa(bytes(256, 0x7f)), None),
            (rsa(bytes(128, 0xff)), None),
            (rsa(URL_SAFE_NO_PAD.encode(padded)), None),
            (rsa("not base64!".to_owned()), None),
            (with(rsa(bytes(256, 0x80)), "alg", json!("RS256")), Some(Algorithm::RS256)),
            (with(rsa(bytes(256, 0x80)), "alg", json!("PS256")), None),
            (p256.clone(), Some(Algorithm::ES256)),
            (with(p256.clone(), "crv", json!("P-384")), None),
            (with(p256.clone(), "crv", json!("secp256k1")), None),
            (with(p256.clone(), "x", json!(bytes(31, 7))), None),
            (with(p256.clone(), "y", Value::Null), None),
            (with(p256.clone(), "alg", json!("ES256K")), None),
            (ed25519.clone(), Some(Algorithm::EdDSA)),
            (with(ed25519.clone(), "crv", json!("X25519")), None),
            (with(ed25519.clone(), "use", json!("sig")), Some(Algorithm::EdDSA)),
            (with(ed25519.clone(), "use", json!("enc")), None),
            (with(ed25519.clone(), "key_ops", json!(["verify"])), Some(Algorithm::EdDSA)),
            (with(ed25519.clone(), "key_ops", json!(["sign"])), None),
            (with(ed25519.clone(), "kid", json!(7)), None),
            (json!({"kty": "oct", "k": word}), None),
            (json!("text"), None),
        ];
        for (jwk, algorithm) in table {
            // A key of another kind in the set does no harm.
            let set = json!({"keys": [{"kty": "new"}, jwk]}).to_string();
            let keys = usable_keys(set.as_bytes()).unwrap();
            let algorithms: Vec<_> = keys.iter().map(|key| key.algorithm).collect();
            assert_eq!(algorithms, Vec::from_iter(algorithm), "{jwk}");
        }
    }
}
