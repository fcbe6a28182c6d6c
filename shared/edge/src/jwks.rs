//! The issuer's public keys (RFC 7517), cached.
//!
//! A key that is known and fresh is found without waiting for anybody. Everything else goes through
//! one lock, so that at most one request fetches, and only when a fetch is due.
//!
//! A token whose signature a set of keys has verified is known to that set, and need not be verified by
//! it again. The next set knows none.

use std::error::Error;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use http_body_util::{BodyExt as _, Limited};
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, DecodingKey};
use moka::sync::Cache;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::timeout;
use url::Url;

use crate::clock::Clock;
use crate::error::log_error;
use crate::identity::Verified;

const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
const MAX_BYTES: usize = 256 * 1024;
/// Older keys are refreshed.
const FRESH: SignedDuration = SignedDuration::from_hours(1);
/// Between two tries, while there are keys.
const BETWEEN_TRIES: SignedDuration = SignedDuration::from_mins(1);
/// Between two tries, while there are none.
const BETWEEN_FIRST_TRIES: SignedDuration = SignedDuration::from_secs(1);
/// When a caller may try again while there are no keys.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);
/// So many tokens are known at most; the least recently used goes first. About half a kilobyte each.
const MAX_KNOWN_TOKENS: u64 = 1_000;

/// A key, and the one algorithm that it may verify.
pub(crate) struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    pub(crate) decoding: DecodingKey,
}

/// The cache.
pub(crate) struct Jwks {
    url: Url,
    http: reqwest::Client,
    clock: Clock,
    loaded: RwLock<Option<Arc<Loaded>>>,
    /// When the last fetch began or ended; held while fetching.
    last_try: Mutex<Option<Timestamp>>,
}

/// The issuer's keys as they were at a time, and the tokens that they have verified.
pub(crate) struct Loaded {
    at: Timestamp,
    keys: Vec<Key>,
    tokens: Cache<TokenHash, Arc<Verified>>,
}

/// What a token is known by: its SHA-256, so that no token is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TokenHash([u8; 32]);

impl TokenHash {
    pub(crate) fn of(token: &str) -> Option<Self> {
        let hash = digest(&SHA256, token.as_bytes());
        hash.as_ref().try_into().ok().map(Self)
    }
}

impl Jwks {
    pub(crate) fn new(url: Url, clock: Clock, http: reqwest::Client) -> Self {
        Self {
            url,
            http,
            clock,
            loaded: RwLock::new(None),
            last_try: Mutex::new(None),
        }
    }

    /// The keys that there are, fetched again if they are old.
    pub(crate) async fn current(&self) -> Option<Arc<Loaded>> {
        let loaded = self.loaded()?;
        Some(self.refreshed(loaded).await)
    }

    /// The keys, fetched if they do not have this one. `None` if there never were any.
    pub(crate) async fn with(&self, id: Option<&str>) -> Option<Arc<Loaded>> {
        match self.current().await {
            Some(loaded) if loaded.knows(id) => Some(loaded),
            _ => self.with_key(id).await,
        }
    }

    /// The keys, fetched again if they are old. Who finds another one fetching goes on with the keys
    /// that there are.
    async fn refreshed(&self, loaded: Arc<Loaded>) -> Arc<Loaded> {
        if has_passed(FRESH, loaded.at, self.clock.now())
            && let Ok(mut last_try) = self.last_try.try_lock()
            && self.is_due(*last_try, BETWEEN_TRIES)
        {
            self.fetch(&mut last_try).await;
            return self.loaded().unwrap_or(loaded);
        }
        loaded
    }

    /// The keys, fetched if they do not have this one; waits for another one's fetch.
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

    /// Fetches the keys; a failure leaves those that there are.
    async fn fetch(&self, last_try: &mut Option<Timestamp>) {
        // Written down first as well, because the request that fetches may be dropped meanwhile.
        *last_try = Some(self.clock.now());
        let fetched = self.download().await;
        let now = self.clock.now();
        *last_try = Some(now);
        match fetched {
            Ok(keys) => {
                let loaded = Arc::new(Loaded {
                    at: now,
                    keys,
                    tokens: Cache::new(MAX_KNOWN_TOKENS),
                });
                *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = Some(loaded);
            }
            Err(error) => log_error(&error, "the issuer's keys could not be fetched"),
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
    /// Is it clear whether there is a key for a token with this `kid`? For one without, it is.
    fn knows(&self, id: Option<&str>) -> bool {
        id.is_none_or(|id| self.keys.iter().any(|key| key.id.as_deref() == Some(id)))
    }

    /// The key of this id and algorithm; without an id, the issuer's only key.
    pub(crate) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&Key> {
        let key = match (id, self.keys.as_slice()) {
            (None, [only]) => Some(only),
            (None, _) => None,
            (Some(_), keys) => keys
                .iter()
                .find(|key| key.id.as_deref() == id && key.algorithm == algorithm),
        };
        key.filter(|key| key.algorithm == algorithm)
    }

    /// What a token says that these keys have verified before.
    pub(crate) fn known(&self, token: TokenHash) -> Option<Arc<Verified>> {
        self.tokens.get(&token)
    }

    pub(crate) fn remember(&self, token: TokenHash, verified: Arc<Verified>) {
        self.tokens.insert(token, verified);
    }

    #[cfg(test)]
    pub(crate) fn number_of_known(&self) -> u64 {
        self.tokens.run_pending_tasks();
        self.tokens.entry_count()
    }
}

/// Has the span passed since `from`? A clock that was set back does not stop time.
fn has_passed(span: SignedDuration, from: Timestamp, now: Timestamp) -> bool {
    !(SignedDuration::ZERO..span).contains(&now.duration_since(from))
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("the issuer does not answer")]
    Http(#[source] reqwest::Error),
    #[error("the issuer does not answer in time")]
    TimedOut,
    #[error("the issuer answered {0}, expected 200")]
    Status(StatusCode),
    #[error("the key set cannot be read")]
    Body(#[source] Box<dyn Error + Send + Sync>),
    #[error("the answer is not a key set")]
    Malformed(#[from] serde_json::Error),
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: Option<String>,
    kid: Option<String>,
    alg: Option<String>,
    r#use: Option<String>,
    key_ops: Option<Vec<String>>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// The keys of a set that can verify our tokens; all others, whatever they are, are passed over.
fn usable_keys(document: &[u8]) -> Result<Vec<Key>, FetchError> {
    let set: KeySet = serde_json::from_slice(document)?;
    let jwks = set.keys.into_iter().map(serde_json::from_value);
    Ok(jwks.flatten().filter_map(usable_key).collect())
}

fn usable_key(jwk: Jwk) -> Option<Key> {
    let (algorithm, name, decoding) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => (Algorithm::RS256, "RS256", rsa_key(&jwk)?),
        ("EC", Some("P-256")) => (Algorithm::ES256, "ES256", p256_key(&jwk)?),
        ("OKP", Some("Ed25519")) => (Algorithm::EdDSA, "EdDSA", ed25519_key(&jwk)?),
        _ => return None,
    };
    let for_signatures = jwk.r#use.is_none_or(|to| to == "sig")
        && jwk
            .key_ops
            .is_none_or(|ops| ops.iter().any(|op| op == "verify"))
        && jwk.alg.is_none_or(|alg| alg == name);
    for_signatures.then_some(Key {
        id: jwk.kid,
        algorithm,
        decoding,
    })
}

fn rsa_key(jwk: &Jwk) -> Option<DecodingKey> {
    let modulus = URL_SAFE_NO_PAD.decode(jwk.n.as_ref()?).ok()?;
    let exponent = URL_SAFE_NO_PAD.decode(jwk.e.as_ref()?).ok()?;
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let modulus = modulus.get(zeros..)?;
    // At least 2048 bits: the 256th byte from the end counts only with its highest bit set.
    let long_enough = modulus.len() > 256 || (modulus.len() == 256 && *modulus.first()? >= 0x80);
    long_enough.then(|| DecodingKey::from_rsa_raw_components(modulus, &exponent))
}

fn p256_key(jwk: &Jwk) -> Option<DecodingKey> {
    let (x, y) = (jwk.x.as_ref()?, jwk.y.as_ref()?);
    let whole = has_32_bytes(x) && has_32_bytes(y);
    whole
        .then(|| DecodingKey::from_ec_components(x, y).ok())
        .flatten()
}

fn ed25519_key(jwk: &Jwk) -> Option<DecodingKey> {
    let x = jwk.x.as_ref()?;
    has_32_bytes(x)
        .then(|| DecodingKey::from_ed_components(x).ok())
        .flatten()
}

fn has_32_bytes(text: &str) -> bool {
    URL_SAFE_NO_PAD
        .decode(text)
        .is_ok_and(|bytes| bytes.len() == 32)
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
            (
                with(rsa(bytes(256, 0x80)), "alg", json!("RS256")),
                Some(Algorithm::RS256),
            ),
            (with(rsa(bytes(256, 0x80)), "alg", json!("PS256")), None),
            (p256.clone(), Some(Algorithm::ES256)),
            (with(p256.clone(), "crv", json!("P-384")), None),
            (with(p256.clone(), "crv", json!("secp256k1")), None),
            (with(p256.clone(), "x", json!(bytes(31, 7))), None),
            (with(p256.clone(), "y", Value::Null), None),
            (with(p256.clone(), "alg", json!("ES256K")), None),
            (ed25519.clone(), Some(Algorithm::EdDSA)),
            (with(ed25519.clone(), "crv", json!("X25519")), None),
            (
                with(ed25519.clone(), "use", json!("sig")),
                Some(Algorithm::EdDSA),
            ),
            (with(ed25519.clone(), "use", json!("enc")), None),
            (
                with(ed25519.clone(), "key_ops", json!(["verify"])),
                Some(Algorithm::EdDSA),
            ),
            (with(ed25519.clone(), "key_ops", json!(["sign"])), None),
            (with(ed25519.clone(), "kid", json!(7)), None),
            (json!({"kty": "oct", "k": word}), None),
            (json!("text"), None),
        ];
        for (jwk, algorithm) in table {
            // A key of another kind beside it does no harm.
            let set = json!({"keys": [{"kty": "new"}, jwk]}).to_string();
            let keys = usable_keys(set.as_bytes()).unwrap();
            let algorithms: Vec<_> = keys.iter().map(|key| key.algorithm).collect();
            assert_eq!(algorithms, Vec::from_iter(algorithm), "{jwk}");
        }
    }
}
