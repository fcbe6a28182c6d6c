//! An issuer of tokens that publishes its keys on 127.0.0.1.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use axum::Router;
use http::{HeaderValue, StatusCode};
use jiff::SignedDuration;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;
use tokio::sync::{Notify, watch};

use super::*;
use crate::settings::Env;

pub(super) const ISSUER: &str = "https://issuer.example";
pub(super) const AUDIENCE: &str = "greta";

/// One of the issuer's key pairs.
pub(super) struct KeyPair {
    pub(super) id: &'static str,
    algorithm: Algorithm,
    pub(super) private: EncodingKey,
}

impl KeyPair {
    pub(super) fn new(id: &'static str, algorithm: Algorithm) -> Self {
        let random = SystemRandom::new();
        let private = match algorithm {
            Algorithm::RS256 => {
                let pair = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
                // jsonwebtoken expects PKCS #1, which follows these 26 bytes of PKCS #8.
                EncodingKey::from_rsa_der(&pair.as_der().unwrap().as_ref()[26..])
            }
            Algorithm::ES256 => {
                let pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
                EncodingKey::from_ec_der(pair.unwrap().as_ref())
            }
            Algorithm::EdDSA => {
                // jsonwebtoken derives a JWK only from version 1 of PKCS #8.
                let pair = Ed25519KeyPair::generate_pkcs8v1(&random);
                EncodingKey::from_ed_der(pair.unwrap().as_ref())
            }
            other => unreachable!("{other:?} is not one of ours"),
        };
        Self { id, algorithm, private }
    }

    pub(super) fn ed25519(id: &'static str) -> Self {
        Self::new(id, Algorithm::EdDSA)
    }

    /// The public key as the issuer publishes it.
    pub(super) fn public(&self) -> Value {
        let jwk = Jwk::from_encoding_key(&self.private, self.algorithm).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        jwk["kid"] = self.id.into();
        jwk["use"] = "sig".into();
        jwk
    }

    pub(super) fn header(&self) -> Header {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.id.to_owned());
        header
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        self.sign_with(&self.header(), claims)
    }

    pub(super) fn sign_with(&self, header: &Header, claims: &Value) -> String {
        jsonwebtoken::encode(header, claims, &self.private).unwrap()
    }
}

/// Publishes keys on 127.0.0.1, and counts the requests for them.
pub(super) struct Issuer {
    answer: Mutex<(StatusCode, String)>,
    requests: AtomicUsize,
    pub(super) arrived: Notify,
    /// Requests are answered while this is true.
    pub(super) open: watch::Sender<bool>,
}

impl Issuer {
    pub(super) fn publish(&self, keys: &[Value]) {
        self.answer(StatusCode::OK, &json!({"keys": keys}).to_string());
    }

    pub(super) fn answer(&self, status: StatusCode, body: &str) {
        *self.answer.lock().unwrap() = (status, body.to_owned());
    }

    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    async fn serve(&self) -> (StatusCode, [(&'static str, &'static str); 1], String) {
        self.requests.fetch_add(1, Ordering::SeqCst);
        self.arrived.notify_one();
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
        let (status, body) = self.answer.lock().unwrap().clone();
        (status, [("location", "/elsewhere")], body)
    }
}

pub(super) struct World {
    pub(super) issuer: Arc<Issuer>,
    pub(super) identity: Identity,
    pub(super) clock: Clock,
}

impl World {
    pub(super) async fn new(keys: &[&KeyPair]) -> Self {
        let issuer = Arc::new(Issuer {
            answer: Mutex::default(),
            requests: AtomicUsize::new(0),
            arrived: Notify::new(),
            open: watch::Sender::new(true),
        });
        let keys: Vec<_> = keys.iter().map(|key| key.public()).collect();
        issuer.publish(&keys);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = Arc::clone(&issuer);
        // A redirect's target counts its requests too.
        let routes = Router::new().fallback(async move || served.serve().await);
        crate::spawn(axum::serve(listener, routes).into_future());
        let clock = Clock::system();
        let identity = identity(&format!("http://{address}/jwks"), &clock);
        Self { issuer, identity, clock }
    }

    pub(super) fn claims(&self) -> Value {
        claims(&self.clock)
    }

    pub(super) async fn check(&self, token: &str) -> Result<Caller, ApiError> {
        check(&self.identity, token).await
    }

    pub(super) async fn refusal(&self, token: &str) -> String {
        let error = self.check(token).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidToken, "{error}");
        let echoed = |part: &str| part.len() > 3 && error.detail().contains(part);
        assert!(!token.split('.').any(echoed), "{error}");
        error.detail().to_owned()
    }

    pub(super) fn later(&self, seconds: i64) {
        self.clock.advance(SignedDuration::from_secs(seconds));
    }
}

pub(super) fn identity(jwks_url: &str, clock: &Clock) -> Identity {
    let mut env = Env::from_pairs([
        ("JWKS_URL", jwks_url),
        ("JWT_ISSUER", ISSUER),
        ("JWT_AUDIENCE", AUDIENCE),
    ]);
    let settings = IdentitySettings::from_env(&mut env);
    let http = crate::http_client(Duration::from_secs(1)).unwrap();
    Identity::new(&env.finish(settings).unwrap(), clock.clone(), http)
}

/// Valid claims that expire in a day.
pub(super) fn claims(clock: &Clock) -> Value {
    json!({
        "iss": ISSUER,
        "aud": AUDIENCE,
        "exp": clock.now().as_second() + 86_400,
        "sub": "user_1",
        "account_id": "acct_1",
        "role": "owner",
    })
}

pub(super) async fn check(identity: &Identity, token: &str) -> Result<Caller, ApiError> {
    let mut headers = HeaderMap::new();
    let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
    headers.insert(AUTHORIZATION, value);
    identity.caller(&headers).await
}

pub(super) fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}
