//! Webhook signatures: the `Stripe-Signature` header over the raw bytes of the body.
//!
//! Invariant: no part of an event is read before [`verify`] accepts it. That requires a signature
//! of exactly these bytes with one of the secrets, made within the last five minutes. Source:
//! <https://docs.stripe.com/webhooks#verify-manually>.

use aws_lc_rs::{constant_time, hmac};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};

/// Maximum difference between the header's time and ours, in seconds, either way.
const TOLERANCE: u64 = 300;
/// Maximum length of the header. Stripe sends about 150 bytes, more while a secret is rolled.
const MAX_HEADER: usize = 4096;
const MAX_SIGNATURES: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("the signature header is not of the form `t=…,v1=…`")]
    Malformed,
    #[error("no signature of the event was made with a secret of ours")]
    Mismatch,
    /// The signature is right: an old event was sent again, or a clock is wrong.
    #[error("the event was signed more than {TOLERANCE} seconds ago, or ahead")]
    OutOfTime,
}

/// Checks that `header` signs `body` with any of `secrets` at about `now`. Any of the header's `v1`
/// may match; the first `t` counts; other schemes (`v0`) are skipped. An empty secret matches
/// nothing. After an error, refuse the event and keep nothing of it.
pub fn verify(
    body: &[u8],
    header: &str,
    secrets: &[SecretString],
    now: Timestamp,
) -> Result<(), SignatureError> {
    if header.len() > MAX_HEADER {
        return Err(SignatureError::Malformed);
    }
    let parts = || {
        let parts = header.split(',');
        parts.filter_map(|part| part.trim().split_once('='))
    };
    let time = parts().find(|(name, _)| *name == "t");
    let (_, time) = time.ok_or(SignatureError::Malformed)?;
    let seconds: i64 = time.parse().map_err(|_| SignatureError::Malformed)?;
    let signatures: Vec<Vec<u8>> = parts()
        .filter(|(name, _)| *name == "v1")
        .take(MAX_SIGNATURES)
        .filter_map(|(_, signature)| hex::decode(signature).ok())
        .collect();
    let is_signed_with = |secret: &SecretString| {
        let tag = tag(body, secret, time);
        let equals =
            |given: &Vec<u8>| constant_time::verify_slices_are_equal(tag.as_ref(), given).is_ok();
        !secret.expose_secret().is_empty() && signatures.iter().any(equals)
    };
    if !secrets.iter().any(is_signed_with) {
        return Err(SignatureError::Mismatch);
    }
    if seconds.abs_diff(now.as_second()) > TOLERANCE {
        return Err(SignatureError::OutOfTime);
    }
    Ok(())
}

/// The header that Stripe would send with `body`; for tests and the simulator.
pub fn sign(body: &[u8], secret: &SecretString, now: Timestamp) -> String {
    let time = now.as_second().to_string();
    let tag = hex::encode(tag(body, secret, &time));
    format!("t={time},v1={tag}")
}

fn tag(body: &[u8], secret: &SecretString, time: &str) -> hmac::Tag {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(time.as_bytes());
    context.update(b".");
    context.update(body);
    context.sign()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::SignatureError::{Malformed, Mismatch, OutOfTime};
    use super::*;

    /// From async-stripe's `test_webhook_construct_event` (secret `secret`), with the JSON as serde
    /// writes it there; the header comes from Stripe's own code, `v0` included.
    const THEIR_BODY: &[u8] = br#"{"account":"acct_123","api_version":"2017-05-25","created":1533204620,"data":{"object":{"amount":1000,"currency":"usd","customer":"cus_123","date":1533204620,"description":"Test Invoice Item","discountable":false,"id":"ii_123","invoice":"in_123","livemode":false,"metadata":{},"object":"invoiceitem","period":{"end":1533204620,"start":1533204620},"proration":false,"quantity":3,"quantity_decimal":"0"}},"id":"evt_123","livemode":false,"object":"event","pending_webhooks":1,"request":{"id":"req_123","idempotency_key":"idempotency-key-123"},"type":"invoiceitem.created"}"#;
    const THEIR_V1: &str = "d7373bc68f4bd320b253cd7461f87af6e1cdf1b4d7db1614d8d1d746972d2d0a";
    const THEIR_V0: &str = "63f3a72374a733066c4be69ed7f8e5ac85c22c9f0a6a612ab9a025a9e4ee7eef";
    const THEN: i64 = 1_533_204_620;

    fn secrets(secrets: &[&str]) -> Vec<SecretString> {
        secrets.iter().map(|text| (*text).into()).collect()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn headers_are_judged_by_stripes_rules() {
        let v0 = THEIR_V0;
        let v1 = THEIR_V1;
        let upper = v1.to_uppercase();
        let short = &v1[2..];
        let not_hex = "+f".repeat(32);
        let many = format!("v1={v0},").repeat(MAX_SIGNATURES - 1);
        let too_many = format!("v1={v0},").repeat(MAX_SIGNATURES);
        let long = "x".repeat(MAX_HEADER);
        let table = [
            (format!("t={THEN},v1={v1},v0={v0}"), Ok(())),
            (format!("t={THEN},v1={v1}"), Ok(())),
            (format!("v1={v1},t={THEN}"), Ok(())),
            (format!("t={THEN}, v1={v1}"), Ok(())),
            (format!("t={THEN},v1={upper}"), Ok(())),
            (format!("t={THEN},v1={v0},v1={v1}"), Ok(())),
            (format!("t={THEN},v1={v1},v1={v0}"), Ok(())),
            (format!("t={THEN},v1=zz,v1={short},v1=,v1={v1}"), Ok(())),
            (format!("t={THEN},v1={not_hex},v1={v1}"), Ok(())),
            (format!("t={THEN},nonsense,x=y,v1={v1}"), Ok(())),
            (format!("t={THEN},t=1,v1={v1}"), Ok(())),
            (format!("t={THEN},{many}v1={v1}"), Ok(())),
            (format!("t={THEN},{too_many}v1={v1}"), Err(Mismatch)),
            (format!("t=1,t={THEN},v1={v1}"), Err(Mismatch)),
            (format!("t=0{THEN},v1={v1}"), Err(Mismatch)),
            (format!("t={THEN},v0={v1}"), Err(Mismatch)),
            (format!("t={THEN},v1={v0}"), Err(Mismatch)),
            (format!("t={THEN},v1={v1}00"), Err(Mismatch)),
            (format!("t={THEN}"), Err(Mismatch)),
            (format!("v1={v1}"), Err(Malformed)),
            (format!("t=,v1={v1}"), Err(Malformed)),
            (format!("t=soon,v1={v1}"), Err(Malformed)),
            (format!("t=99999999999999999999,v1={v1}"), Err(Malformed)),
            (format!("t={THEN},v1={v1},{long}"), Err(Malformed)),
            (String::new(), Err(Malformed)),
        ];
        for (header, expected) in table {
            let judged = verify(THEIR_BODY, &header, &secrets(&["secret"]), at(THEN));
            assert_eq!(judged, expected, "{header}");
        }
    }

    #[test]
    fn any_of_several_secrets_is_accepted() {
        let table = [
            (&["secret"][..], Ok(())),
            (&["other", "secret"], Ok(())),
            (&["secret", "other"], Ok(())),
            (&["other"], Err(Mismatch)),
            (&["Secret"], Err(Mismatch)),
            (&[""], Err(Mismatch)),
            (&[], Err(Mismatch)),
        ];
        let header = format!("t={THEN},v1={THEIR_V1}");
        for (given, expected) in table {
            let judged = verify(THEIR_BODY, &header, &secrets(given), at(THEN));
            assert_eq!(judged, expected, "{given:?}");
        }
        let unsigned = sign(THEIR_BODY, &"".into(), at(THEN));
        let judged = verify(THEIR_BODY, &unsigned, &secrets(&[""]), at(THEN));
        assert_eq!(judged, Err(Mismatch), "an empty secret is no secret");
    }

    #[test]
    fn the_time_may_differ_by_five_minutes() {
        let header = format!("t={THEN},v1={THEIR_V1}");
        for (late, expected) in [
            (0, Ok(())),
            (300, Ok(())),
            (-300, Ok(())),
            (301, Err(OutOfTime)),
            (-301, Err(OutOfTime)),
        ] {
            let judged = verify(THEIR_BODY, &header, &secrets(&["secret"]), at(THEN + late));
            assert_eq!(judged, expected, "{late}");
        }
        let first = format!("t={},v1={THEIR_V1}", i64::MIN);
        let judged = verify(THEIR_BODY, &first, &secrets(&["secret"]), Timestamp::MAX);
        assert_eq!(judged, Err(Mismatch));
    }

    #[test]
    fn the_raw_bytes_are_signed() {
        let ours = secrets(&["whsec_1"]);
        let now = at(THEN);
        for body in [&b"{}"[..], b"", b"{\r\n}\r\n", b"\xff\xfe\x00", "ä😀".as_bytes()] {
            let header = sign(body, &ours[0], now);
            assert_eq!(verify(body, &header, &ours, now), Ok(()), "{body:?}");
            let more = [body, b"\n"].concat();
            assert_eq!(verify(&more, &header, &ours, now), Err(Mismatch));
        }
        let header = sign(b"{\r\n}", &ours[0], now);
        assert_eq!(verify(b"{\n}", &header, &ours, now), Err(Mismatch));
        let header = sign(THEIR_BODY, &"secret".into(), now);
        assert_eq!(header, format!("t={THEN},v1={THEIR_V1}"));
    }

    proptest! {
        /// A single changed bit of the body is refused.
        #[test]
        fn a_changed_body_never_passes(body: Vec<u8>, at_byte: prop::sample::Index, bit in 0..8_u8) {
            let ours = secrets(&["whsec_1"]);
            let now = at(THEN);
            let header = sign(&body, &ours[0], now);
            prop_assert_eq!(verify(&body, &header, &ours, now), Ok(()));
            let mut changed = body;
            if !changed.is_empty() {
                let index = at_byte.index(changed.len());
                changed[index] ^= 1 << bit;
                prop_assert_eq!(verify(&changed, &header, &ours, now), Err(Mismatch));
            }
        }

        #[test]
        fn no_header_causes_a_panic(header: String) {
            let judged = verify(b"{}", &header, &secrets(&["whsec_1"]), at(THEN));
            prop_assert!(judged.is_err());
        }
    }
}
