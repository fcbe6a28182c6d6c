//! The issuer of identity tokens: a key generated at start, its JWKS, and tokens.

use std::time::Duration;

use aws_lc_rs::signature::Ed25519KeyPair;
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

pub const JWKS_PATH: &str = "/.well-known/jwks.json";

/// Signs identity tokens with `EdDSA`.
#[derive(Debug, Clone)]
pub struct Issuer {
    name: String,
    audience: String,
    public_key: Jwk,
    private_key: EncodingKey,
}

impl Issuer {
    /// An issuer with a new key; `issuer` and `audience` are the tokens' `iss` and `aud`.
    pub fn new(issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        let pair = Ed25519KeyPair::generate().expect("the machine has random numbers");
        let pair = pair.to_pkcs8v1().expect("a new key can be encoded");
        let private_key = EncodingKey::from_ed_der(pair.as_ref());
        let public_key = Jwk::from_encoding_key(&private_key, Algorithm::EdDSA);
        let mut public_key = public_key.expect("a new key has a public half");
        public_key.common.public_key_use = Some(PublicKeyUse::Signature);
        public_key.common.key_id = public_key.thumbprint(ThumbprintHash::SHA256).ok();
        Self { name: issuer.into(), audience: audience.into(), public_key, private_key }
    }

    pub fn issuer(&self) -> &str {
        &self.name
    }

    pub fn audience(&self) -> &str {
        &self.audience
    }

    /// The public keys, as [`JWKS_PATH`] serves them.
    pub fn jwks(&self) -> JwkSet {
        JwkSet { keys: vec![self.public_key.clone()] }
    }

    pub fn router(&self) -> Router {
        let jwks = self.jwks();
        Router::new().route(JWKS_PATH, get(async move || Json(jwks)))
    }

    /// A token for a user of `account_id` with `role` (`owner` or `member`), valid from `now` for
    /// `lifetime`.
    pub fn token(
        &self,
        account_id: &str,
        role: &str,
        now: Timestamp,
        lifetime: Duration,
    ) -> String {
        let issued = now.as_second();
        let lifetime = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
        self.sign(json!({
            "iss": self.name,
            "aud": self.audience,
            "sub": format!("user_{account_id}_{role}"),
            "account_id": account_id,
            "role": role,
            "iat": issued,
            "nbf": issued,
            "exp": issued.saturating_add(lifetime),
        }))
    }

    pub fn sign(&self, claims: Value) -> String {
        let header =
            Header { kid: self.public_key.common.key_id.clone(), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, &claims, &self.private_key).expect("JSON can be signed")
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation};

    use super::*;

    #[test]
    fn tokens_verify_against_the_published_keys() {
        let issuer = Issuer::new("https://id.example", "greta");
        let now: Timestamp = "2126-01-01T00:00:00Z".parse().unwrap();
        let token = issuer.token("acme", "owner", now, Duration::from_mins(1));

        let published = serde_json::to_string(&issuer.jwks()).unwrap();
        let keys: JwkSet = serde_json::from_str(&published).unwrap();
        let kid = jsonwebtoken::decode_header(&token).unwrap().kid.unwrap();
        let key = DecodingKey::from_jwk(keys.find(&kid).unwrap()).unwrap();
        let mut checks = Validation::new(Algorithm::EdDSA);
        checks.set_issuer(&["https://id.example"]);
        checks.set_audience(&["greta"]);
        let claims = jsonwebtoken::decode::<Value>(&token, &key, &checks).unwrap().claims;
        assert_eq!(
            claims,
            json!({
                "iss": "https://id.example",
                "aud": "greta",
                "sub": "user_acme_owner",
                "account_id": "acme",
                "role": "owner",
                "iat": 4_922_899_200_i64,
                "nbf": 4_922_899_200_i64,
                "exp": 4_922_899_260_i64,
            })
        );
        let other = Issuer::new("https://id.example", "greta").jwks();
        assert!(other.find(&kid).is_none());
    }
}
