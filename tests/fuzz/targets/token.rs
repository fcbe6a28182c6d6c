//! The `Authorization` header: the value's prefix, then the parts of a token, one per line: its
//! header, its claims, and its signer (`ed`, `p256`, `rsa`, a stranger outside of the issuer's set,
//! or else the text in place of the signature); then the suffix. With fewer lines, the input is the
//! header's value as it is.
//!
//! Properties: an accepted token has a valid signature by the key that its header names, made for
//! that key's algorithm, and its claims name the caller, for us, now; the caller is the one in the
//! claims. A plain token with all of this is accepted.
//!
//! The issuer responds on 127.0.0.1, once; afterwards its keys are cached. Our clock shows
//! 1800000000.

#![no_main]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair,
    Ed25519KeyPair, KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair,
    UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use edge::{Caller, Clock, Env, Identity, IdentitySettings, Role};
use fuzz::Members;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "greta";
const NOW: i32 = 1_800_000_000;

static WORLD: LazyLock<World> = LazyLock::new(World::new);

fuzz_target!(|data: &[u8]| {
    let world = &*WORLD;
    let Ok(value) = HeaderValue::from_bytes(&header_value(&world.keys, data)) else {
        return;
    };
    let checked = world.check(value.clone());
    let text = value.to_str().unwrap_or_default();
    match checked {
        Some(caller) => assert_good(world, text, &caller),
        None => assert!(!is_plain(world, text), "{text} was refused"),
    }
});

fn header_value(keys: &Keys, data: &[u8]) -> Vec<u8> {
    let lines: Vec<&[u8]> = data.splitn(5, |byte| *byte == b'\n').collect();
    let [begin, header, claims, signer, after @ ..] = lines.as_slice() else {
        return data.to_vec();
    };
    let mut token = URL_SAFE_NO_PAD.encode(header);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(claims, &mut token);
    let signature = keys.sign(signer, token.as_bytes());
    token.push('.');
    [begin, token.as_bytes(), &signature, &after.concat()].concat()
}

struct World {
    runtime: Runtime,
    clock: Clock,
    identity: Identity,
    keys: Keys,
}

impl World {
    fn new() -> Self {
        let keys = Keys::new();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let jwks_url = format!("http://{}", listener.local_addr().expect("an address"));
        let document = keys.public().to_string();
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                answer(connection, &document);
            }
        });
        let mut env = Env::from_pairs([
            ("JWKS_URL", jwks_url.as_str()),
            ("JWT_ISSUER", ISSUER),
            ("JWT_AUDIENCE", AUDIENCE),
        ]);
        let settings = IdentitySettings::from_env(&mut env);
        let settings = env.finish(settings).expect("settings");
        let clock = Clock::system();
        let http = edge::http_client(std::time::Duration::from_secs(1)).expect("a client");
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let world = Self {
            runtime: runtime.enable_all().build().expect("a runtime"),
            identity: Identity::new(&settings, clock.clone(), http),
            clock,
            keys,
        };
        // Loads the keys for an hour, a while before now, so that they are never too old.
        world.set_clock(NOW - 30);
        let token = world.plain_token();
        assert!(world.identity_of(&token).is_some(), "a plain token");
        world
    }

    fn plain_token(&self) -> HeaderValue {
        let header = r#"{"alg":"EdDSA","kid":"ed"}"#;
        let claims = json!({"iss": ISSUER, "aud": AUDIENCE, "exp": NOW, "sub": "user_1",
            "account_id": "acct_1", "role": "owner"});
        let lines = format!("Bearer \n{header}\n{claims}\ned");
        HeaderValue::from_bytes(&header_value(&self.keys, lines.as_bytes())).expect("a value")
    }

    fn check(&self, value: HeaderValue) -> Option<Caller> {
        self.set_clock(NOW);
        self.identity_of(&value)
    }

    fn identity_of(&self, value: &HeaderValue) -> Option<Caller> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.clone());
        self.runtime.block_on(self.identity.caller(&headers)).ok()
    }

    /// Sets the clock to half a second after this second.
    fn set_clock(&self, second: i32) {
        let then = Timestamp::from_millisecond(i64::from(second) * 1_000 + 500);
        let then = then.expect("a time");
        self.clock.advance(then.duration_since(self.clock.now()));
    }
}

fn answer(mut connection: TcpStream, document: &str) {
    let mut request = [0; 4096];
    let length = document.len();
    let _ = connection.read(&mut request);
    let _ = write!(
        connection,
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{document}"
    );
}

struct Keys {
    ed: Ed25519KeyPair,
    p256: EcdsaKeyPair,
    rsa: RsaKeyPair,
    stranger: Ed25519KeyPair,
}

impl Keys {
    fn new() -> Self {
        let random = SystemRandom::new();
        let p256 = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(p256, &random).expect("a key");
        Self {
            ed: Ed25519KeyPair::generate().expect("a key"),
            p256: EcdsaKeyPair::from_pkcs8(p256, pkcs8.as_ref()).expect("a key"),
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"),
            stranger: Ed25519KeyPair::generate().expect("a key"),
        }
    }

    fn public(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        // The point, uncompressed: 4, x, y.
        let point = self.p256.public_key().as_ref();
        let rsa = self.rsa.public_key();
        let modulus = rsa.modulus().big_endian_without_leading_zero();
        let exponent = rsa.exponent().big_endian_without_leading_zero();
        json!({"keys": [
            {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": text(self.ed.public_key().as_ref())},
            {"kty": "EC", "crv": "P-256", "kid": "p256", "x": text(&point[1..33]), "y": text(&point[33..])},
            {"kty": "RSA", "kid": "rsa", "n": text(modulus), "e": text(exponent)},
        ]})
    }

    /// The signature's text.
    fn sign(&self, signer: &[u8], message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let signature = match signer {
            b"ed" => self.ed.sign(message).as_ref().to_vec(),
            b"p256" => {
                let signature = self.p256.sign(&random, message).expect("a signature");
                signature.as_ref().to_vec()
            }
            b"rsa" => {
                let mut of_rsa = vec![0; self.rsa.public_modulus_len()];
                let made = self.rsa.sign(&RSA_PKCS1_SHA256, &random, message, &mut of_rsa);
                made.expect("a signature");
                of_rsa
            }
            b"stranger" => self.stranger.sign(message).as_ref().to_vec(),
            text => return text.to_vec(),
        };
        URL_SAFE_NO_PAD.encode(signature).into_bytes()
    }

    /// Whether this is a signature by the key of this id, for the algorithm of this name.
    fn verifies(&self, id: &str, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        let (algorithm, key): (&dyn VerificationAlgorithm, &[u8]) = match (id, algorithm) {
            ("ed", "EdDSA") => (&ED25519, self.ed.public_key().as_ref()),
            ("p256", "ES256") => (&ECDSA_P256_SHA256_FIXED, self.p256.public_key().as_ref()),
            ("rsa", "RS256") => (&RSA_PKCS1_2048_8192_SHA256, self.rsa.public_key().as_ref()),
            _ => return false,
        };
        let key = UnparsedPublicKey::new(algorithm, key);
        key.verify(message, signature).is_ok()
    }
}

/// A token's parts, as in the header's value.
struct Token {
    signed: String,
    header: Vec<u8>,
    claims: Vec<u8>,
    signature: Vec<u8>,
}

impl Token {
    fn of(text: &str) -> Option<Self> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
        Some(Self {
            signed: signed.to_owned(),
            header: bytes(header)?,
            claims: bytes(claims)?,
            signature: bytes(signature)?,
        })
    }
}

fn assert_good(world: &World, text: &str, caller: &Caller) {
    let (scheme, token) = text.split_once(' ').expect("a scheme and a token");
    assert!(scheme.eq_ignore_ascii_case("bearer"));
    let token = Token::of(token.trim_matches(' ')).expect("a token's parts");
    let header: Members<Value> = serde_json::from_slice(&token.header).expect("a header");
    let named = |name: &str| header.last(name).and_then(Value::as_str);
    let (id, algorithm) = (named("kid").expect("a kid"), named("alg").expect("an alg"));
    for name in ["crit", "jku", "jwk", "x5u"] {
        assert!(header.last(name).is_none(), "{name}");
    }
    let message = token.signed.as_bytes();
    assert!(world.keys.verifies(id, algorithm, message, &token.signature), "the signature");

    // Unread claims need not be UTF-8.
    let claims = String::from_utf8_lossy(&token.claims);
    let claims: Members<&RawValue> = serde_json::from_str(&claims).expect("claims");
    let claim = |name: &str| {
        let values = claims.0.iter().filter(|(other, _)| other == name);
        let values: Vec<Value> =
            values.map(|(_, value)| serde_json::from_str(value.get()).expect("a claim")).collect();
        assert!(values.len() < 2, "{name} is claimed twice");
        values.into_iter().next().unwrap_or_default()
    };
    assert_eq!(claim("iss"), ISSUER);
    assert!(is_for_us(&claim("aud")));
    // The clock runs on from where it was set.
    let now = i32::try_from(world.clock.now().as_second()).expect("a time");
    let exp = claim("exp").as_f64().expect("a number");
    assert!(exp >= f64::from(NOW - 60), "it expired at {exp}");
    if let Some(nbf) = claim("nbf").as_f64() {
        assert!(nbf < f64::from(now + 61), "it is not valid before {nbf}");
    } else {
        assert_eq!(claim("nbf"), Value::Null);
    }
    assert_eq!(claim("sub"), caller.subject.as_str());
    assert!((1..=255).contains(&caller.subject.chars().count()));
    let account = caller.account.as_str();
    assert_eq!(claim("account_id"), account);
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    assert!((1..=64).contains(&account.len()) && account.bytes().all(allowed));
    let role = match caller.role {
        Role::Owner => "owner",
        Role::Member => "member",
    };
    assert_eq!(claim("role"), role);
}

fn is_for_us(audience: &Value) -> bool {
    let ours = |audience: &Value| audience == AUDIENCE;
    ours(audience) || audience.as_array().is_some_and(|list| list.iter().any(ours))
}

/// A valid token of the usual form: only the key and its algorithm in its header, each claim once,
/// times in whole seconds.
fn is_plain(world: &World, text: &str) -> bool {
    let Some(token) = text.strip_prefix("Bearer ").filter(|it| it.len() <= 8 << 10) else {
        return false;
    };
    let Some(token) = Token::of(token) else {
        return false;
    };
    let header: Option<Members<String>> = serde_json::from_slice(&token.header).ok();
    let claims: Option<Members<Value>> = serde_json::from_slice(&token.claims).ok();
    let (Some(header), Some(claims)) = (header, claims) else {
        return false;
    };
    let mut names: Vec<&str> = header.0.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    if names != ["alg", "kid"] {
        return false;
    }
    let (Some(id), Some(algorithm)) = (header.last("kid"), header.last("alg")) else {
        return false;
    };
    let mut names: Vec<&str> = claims.0.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return false;
    }
    let claim = |name: &str| claims.last(name).cloned().unwrap_or_default();
    let text = |name: &str| claim(name).as_str().unwrap_or_default().to_owned();
    let audience = claim("aud");
    let all_texts = audience.as_array().is_none_or(|list| list.iter().all(Value::is_string));
    let letters = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    let (subject, account, role) = (text("sub"), text("account_id"), text("role"));
    // One second less than allowed, because the clock does not stand quite still.
    claim("exp").as_i64().is_some_and(|exp| exp > i64::from(NOW - 60))
        && (claim("nbf").is_null()
            || claim("nbf").as_i64().is_some_and(|nbf| nbf <= i64::from(NOW + 60)))
        && text("iss") == ISSUER
        && is_for_us(&audience)
        && all_texts
        && (1..=255).contains(&subject.chars().count())
        && (1..=64).contains(&account.len())
        && account.bytes().all(letters)
        && ["owner", "member"].contains(&role.as_str())
        && world.keys.verifies(id, algorithm, token.signed.as_bytes(), &token.signature)
}
