//! A key as typed; after a zero byte, OpenRouter's label for it.
//!
//! Properties: a text is a key exactly if it has the form in section 2 of the contract, apart from
//! surrounding white space; nothing printed about a key contains twelve of its characters in a row;
//! its hash is correct, and it can be sent in a header.

#![no_main]

use fuzz::{hex, sha256};
use http::HeaderValue;
use keyvault::UserKey;
use libfuzzer_sys::fuzz_target;
use secrecy::ExposeSecret as _;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let mut text = || String::from_utf8_lossy(parts.next().unwrap_or_default());
    let (typed, label) = (text(), text());
    let Ok(key) = UserKey::parse(&typed) else {
        assert!(!is_key(typed.trim()), "{typed:?} was refused");
        return;
    };
    let secret = key.secret().expose_secret();
    assert_eq!(secret, typed.trim());
    assert!(is_key(secret), "{typed:?} was accepted");
    let printed = [
        format!("{key:?} {key:#?}"),
        format!("{:?}", key.secret()),
        key.mask(label.into_owned()),
        key.last4(),
    ];
    for printed in printed {
        let shown = |part: &[u8]| printed.as_bytes().windows(12).any(|shown| shown == part);
        assert!(!secret.as_bytes()[9..].windows(12).any(shown), "{printed}");
    }
    assert!(key.last4().len() == 4 && secret.ends_with(&key.last4()));
    assert_eq!(key.sha256(), hex(&sha256(&[secret.as_bytes()])));
    HeaderValue::try_from(format!("Bearer {secret}")).expect("a header's value");
});

/// `^sk-or-v1-[A-Za-z0-9_-]{16,246}$`
fn is_key(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("sk-or-v1-") else {
        return false;
    };
    let allowed = |char: char| matches!(char, 'A'..='Z' | 'a'..='z' | '0'..='9' | '_' | '-');
    rest.chars().all(allowed) && (16..=246).contains(&rest.chars().count())
}
