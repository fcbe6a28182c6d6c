//! Signature Version 4 of the requests that are sent without the SDK. They are all of one form, and the key that
//! is derived from the credentials is kept for the day that it serves.
//!
//! Source: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_lc_rs::{digest, hmac};
use http::Uri;
use jiff::Timestamp;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "dynamodb";
pub(crate) const CONTENT_TYPE: &str = "application/x-amz-json-1.0";

/// Signs what goes to one endpoint.
pub(crate) struct Signer {
    host: String,
    region: String,
    derived: Mutex<Option<Derived>>,
}

/// Of one access key and one day.
struct Derived {
    access_key: String,
    day: String,
    key: hmac::Key,
}

/// The values of the headers `x-amz-date` and `authorization`; not to be shown.
pub(crate) struct Signed {
    pub(crate) time: String,
    pub(crate) authorization: String,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

impl Signer {
    /// `None` for an endpoint with a path of its own: that would be another form.
    pub(crate) fn new(endpoint: &Uri, region: &str) -> Option<Self> {
        let standard = match endpoint.scheme_str()? {
            "https" => 443,
            _ => 80,
        };
        // As the header `host` has it.
        let host = match endpoint.port_u16() {
            Some(port) if port != standard => endpoint.authority()?.as_str(),
            _ => endpoint.host()?,
        };
        let is_bare = endpoint.path() == "/" && endpoint.query().is_none();
        is_bare.then(|| Self {
            host: host.to_owned(),
            region: region.to_owned(),
            derived: Mutex::default(),
        })
    }

    /// Of `POST /` with a content type of [`CONTENT_TYPE`], `x-amz-target` and, where the credentials have one,
    /// `x-amz-security-token`.
    ///
    /// # Errors
    /// If `now` is no time that can be written.
    pub(crate) fn sign(
        &self,
        target: &str,
        body: &[u8],
        credentials: &Credentials,
        now: SystemTime,
    ) -> Result<Signed, jiff::Error> {
        let now = Timestamp::try_from(now)?;
        let time = now.strftime("%Y%m%dT%H%M%SZ").to_string();
        let day = now.strftime("%Y%m%d").to_string();
        let Self { host, region, .. } = self;
        let (token, named) = match credentials.session_token() {
            Some(token) => (
                format!("x-amz-security-token:{token}\n"),
                "x-amz-security-token;",
            ),
            None => (String::new(), ""),
        };
        let headers = format!("content-type;host;x-amz-date;{named}x-amz-target");
        let request = format!(
            "POST\n/\n\ncontent-type:{CONTENT_TYPE}\nhost:{host}\nx-amz-date:{time}\n{token}x-amz-target:{target}\n\n\
             {headers}\n{}",
            sha256(body)
        );
        let scope = format!("{day}/{region}/{SERVICE}/aws4_request");
        let text = format!(
            "{ALGORITHM}\n{time}\n{scope}\n{}",
            sha256(request.as_bytes())
        );
        let signature = self.hmac(&text, credentials, day);
        let access_key = credentials.access_key_id();
        let authorization = format!(
            "{ALGORITHM} Credential={access_key}/{scope}, SignedHeaders={headers}, Signature={signature}"
        );
        Ok(Signed {
            time,
            authorization,
        })
    }

    fn hmac(&self, text: &str, credentials: &Credentials, day: String) -> String {
        let access_key = credentials.access_key_id();
        let mut derived = self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        let derived = match &mut *derived {
            Some(derived) if derived.access_key == access_key && derived.day == day => derived,
            other => other.insert(Derived {
                access_key: access_key.to_owned(),
                key: self.derive(credentials.secret_access_key(), &day),
                day,
            }),
        };
        hex(hmac::sign(&derived.key, text.as_bytes()).as_ref())
    }

    fn derive(&self, secret: &str, day: &str) -> hmac::Key {
        let key = |bytes: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, bytes);
        let of_secret = key(format!("AWS4{secret}").as_bytes());
        let parts = [day, &self.region, SERVICE, "aws4_request"];
        parts.into_iter().fold(of_secret, |derived, part| {
            key(hmac::sign(&derived, part.as_bytes()).as_ref())
        })
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let mut hex = String::with_capacity(2 * bytes.len());
    hex.extend(digits.filter_map(|digit| char::from_digit(digit.into(), 16)));
    hex
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
    use aws_sigv4::sign::v4::SigningParams;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    const TARGET: &str = "DynamoDB_20120810.GetItem";

    /// What AWS's own signer makes of the same request.
    fn by_aws(
        endpoint: &Uri,
        region: &str,
        body: &[u8],
        credentials: &Credentials,
        now: SystemTime,
    ) -> Vec<(String, String)> {
        let identity = credentials.clone().into();
        let params = SigningParams::builder()
            .identity(&identity)
            .region(region)
            .name(SERVICE)
            .time(now)
            .settings(SigningSettings::default())
            .build()
            .unwrap()
            .into();
        let headers = [("content-type", CONTENT_TYPE), ("x-amz-target", TARGET)];
        let (endpoint, body) = (endpoint.to_string(), SignableBody::Bytes(body));
        let request = SignableRequest::new("POST", endpoint, headers.into_iter(), body).unwrap();
        let (signed, _) = sign(request, &params).unwrap().into_parts();
        let (headers, _) = signed.into_parts();
        let headers = headers.into_iter();
        headers
            .map(|header| (header.name().to_owned(), header.value().to_owned()))
            .collect()
    }

    fn credentials() -> impl Strategy<Value = Credentials> {
        // Two, so that a signer meets one again, on the same day or another.
        let pairs = select(vec![
            ("AKIAFIRST", "wJalrXUtnFEMI/K7MDENG"),
            ("AKIASECOND", "x"),
        ]);
        let token = proptest::option::of("[A-Za-z0-9/+=]{1,400}");
        (pairs, token).prop_map(|((access_key, secret), token)| {
            Credentials::new(access_key, secret, token, None, "test")
        })
    }

    proptest! {
        #[test]
        fn every_request_is_signed_as_aws_does_it(
            endpoint in select(vec![
                "https://dynamodb.eu-central-1.amazonaws.com/",
                "https://123456789012.ddb.us-east-1.amazonaws.com",
                "https://dynamodb.us-east-1.amazonaws.com:443/",
                "http://127.0.0.1:8000/",
                "http://127.0.0.1:80/",
            ]),
            region in select(vec!["eu-central-1", "us-east-1"]),
            requests in proptest::collection::vec(
                (credentials(), prop_oneof![0_u64..200_000, 0_u64..4_000_000_000], "\\PC{0,200}"), 1..8
            ),
        ) {
            let endpoint: Uri = endpoint.parse().unwrap();
            let signer = Signer::new(&endpoint, region).unwrap();
            for (credentials, second, body) in requests {
                let now = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
                let signed = signer.sign(TARGET, body.as_bytes(), &credentials, now).unwrap();
                let token = credentials.session_token();
                let ours = [("x-amz-date", signed.time.as_str()), ("authorization", &signed.authorization)];
                let ours = ours.into_iter().chain(token.map(|token| ("x-amz-security-token", token)));
                let mut ours: Vec<_> =
                    ours.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
                let mut theirs = by_aws(&endpoint, region, body.as_bytes(), &credentials, now);
                ours.sort();
                theirs.sort();
                prop_assert_eq!(ours, theirs);
            }
        }
    }

    #[test]
    fn an_endpoint_with_a_path_has_no_signer() {
        for endpoint in ["http://127.0.0.1/dynamodb", "http://127.0.0.1/?a=b", "/"] {
            assert!(
                Signer::new(&endpoint.parse().unwrap(), "us-east-1").is_none(),
                "{endpoint}"
            );
        }
    }

    #[test]
    fn neither_key_nor_secret_is_shown() {
        let signer = Signer::new(&"http://127.0.0.1/".parse().unwrap(), "us-east-1").unwrap();
        let credentials = Credentials::new("AKIAKEY", "a-secret", None, None, "test");
        signer
            .sign(TARGET, b"", &credentials, SystemTime::UNIX_EPOCH)
            .unwrap();
        let shown = format!("{signer:?}");
        assert!(
            !shown.contains("a-secret") && !shown.contains("AKIAKEY"),
            "{shown}"
        );
    }
}
