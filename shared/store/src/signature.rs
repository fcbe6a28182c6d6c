//! Signature Version 4 of our own requests to DynamoDB. They are all of one form, and the key that is derived from the
//! credentials is kept for as long as it serves: a day.
//!
//! Source: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_lc_rs::{digest, hmac};
use jiff::Timestamp;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "dynamodb";
pub(crate) const CONTENT_TYPE: &str = "application/x-amz-json-1.0";

/// A request without its signature: `POST /` to `host`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unsigned<'a> {
    pub(crate) host: &'a str,
    pub(crate) region: &'a str,
    /// `DynamoDB_20120810.` and the operation.
    pub(crate) target: &'a str,
    pub(crate) body: &'a [u8],
    pub(crate) at: SystemTime,
}

/// The headers that a request is sent with, besides content type and target.
#[derive(Debug)]
pub(crate) struct Signed {
    pub(crate) date: String,
    pub(crate) authorization: String,
}

/// Signs requests.
#[derive(Default)]
pub(crate) struct Signer(Mutex<Option<Derived>>);

struct Derived {
    access_key: String,
    scope: String,
    key: hmac::Key,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").finish_non_exhaustive()
    }
}

impl Signer {
    /// `None` where the clock tells no time.
    pub(crate) fn sign(&self, request: Unsigned<'_>, credentials: &Credentials) -> Option<Signed> {
        let at = Timestamp::try_from(request.at).ok()?;
        let date = at.strftime("%Y%m%dT%H%M%SZ").to_string();
        let (day, _) = date.split_once('T')?;
        let region = request.region;
        let (mut token_line, mut token_name) = (String::new(), "");
        if let Some(token) = credentials.session_token() {
            token_line = format!("x-amz-security-token:{token}\n");
            token_name = "x-amz-security-token;";
        }
        let headers = format!("content-type;host;x-amz-date;{token_name}x-amz-target");
        let Unsigned { host, target, .. } = request;
        let canonical = format!(
            "POST\n/\n\ncontent-type:{CONTENT_TYPE}\nhost:{host}\nx-amz-date:{date}\n\
             {token_line}x-amz-target:{target}\n\n{headers}\n{}",
            hex(sha256(request.body).as_ref())
        );
        let canonical = hex(sha256(canonical.as_bytes()).as_ref());

        let access_key = credentials.access_key_id();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let serves = |derived: &&mut Derived| {
            let of = derived.scope.strip_prefix(day);
            let of = of.and_then(|rest| rest.strip_prefix('/'));
            derived.access_key == access_key && of.is_some_and(|rest| rest.starts_with(region))
        };
        let derived = match kept.as_mut().filter(serves) {
            Some(derived) => derived,
            None => kept.insert(Derived::new(credentials, day, region)),
        };
        let scope = &derived.scope;
        let text = format!("{ALGORITHM}\n{date}\n{scope}\n{canonical}");
        let signature = hex(hmac::sign(&derived.key, text.as_bytes()).as_ref());
        let authorization = format!(
            "{ALGORITHM} Credential={access_key}/{scope}, SignedHeaders={headers}, Signature={signature}"
        );
        Some(Signed {
            date,
            authorization,
        })
    }
}

impl Derived {
    fn new(credentials: &Credentials, day: &str, region: &str) -> Self {
        let secret = format!("AWS4{}", credentials.secret_access_key());
        let mut key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        for part in [day, region, SERVICE, "aws4_request"] {
            let tag = hmac::sign(&key, part.as_bytes());
            key = hmac::Key::new(hmac::HMAC_SHA256, tag.as_ref());
        }
        Self {
            access_key: credentials.access_key_id().to_owned(),
            scope: format!("{day}/{region}/{SERVICE}/aws4_request"),
            key,
        }
    }
}

fn sha256(bytes: &[u8]) -> digest::Digest {
    digest::digest(&digest::SHA256, bytes)
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let digits = digits.filter_map(|digit| char::from_digit(digit.into(), 16));
    digits.collect()
}
