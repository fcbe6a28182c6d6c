//! An OpenRouter key as the user typed it.

use std::fmt;

use aws_lc_rs::digest;
use secrecy::{ExposeSecret, SecretString};

const PREFIX: &str = "sk-or-v1-";

/// The text is not an OpenRouter key. The error does not keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an OpenRouter key starts with sk-or-v1-, followed by 16 to 246 letters, digits, _ or -")]
pub struct FormatError;

/// A well-formed OpenRouter key. Never printed; wiped when dropped.
pub struct UserKey(SecretString);

impl UserKey {
    /// Parses a key as typed: trimmed, it must match `^sk-or-v1-[A-Za-z0-9_-]{16,246}$`.
    pub fn parse(typed: &str) -> Result<Self, FormatError> {
        let text = typed.trim();
        let body = text.strip_prefix(PREFIX).ok_or(FormatError)?;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if (16..=246).contains(&body.len()) && body.bytes().all(allowed) {
            Ok(Self(SecretString::from(text)))
        } else {
            Err(FormatError)
        }
    }

    pub fn secret(&self) -> &SecretString {
        &self.0
    }

    /// The last four characters, which may be shown.
    pub fn last4(&self) -> String {
        let text = self.0.expose_secret();
        text.get(text.len().saturating_sub(4)..).unwrap_or_default().to_owned()
    }

    /// OpenRouter's masked label, or our own mask if the label reveals the key.
    pub fn mask(&self, label: String) -> String {
        let body = self.0.expose_secret().get(PREFIX.len()..).unwrap_or_default();
        // Twelve consecutive characters of a key that may have only 16 are too many to show.
        let shown = body.as_bytes().windows(12);
        let reveals = |part: &[u8]| memchr::memmem::find(label.as_bytes(), part).is_some();
        if shown.into_iter().any(reveals) { format!("{PREFIX}...{}", self.last4()) } else { label }
    }

    /// SHA-256 of the key in lower-case hex, by which OpenRouter names it in links.
    pub fn sha256(&self) -> String {
        let key = self.0.expose_secret().as_bytes();
        hex::encode(digest::digest(&digest::SHA256, key))
    }
}

impl fmt::Debug for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserKey(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_trimmed_and_their_format_is_checked() {
        let shortest = format!("{PREFIX}{}", "a".repeat(16));
        let longest = format!("{PREFIX}{}", "a".repeat(246));
        let spaced = format!(" \n{shortest}\t");
        for good in [&shortest, &longest, &spaced] {
            let key = UserKey::parse(good).unwrap();
            assert_eq!(key.secret().expose_secret(), good.trim());
        }
        let bad = [
            String::new(),
            PREFIX.to_owned(),
            format!("{PREFIX}{}", "a".repeat(15)),
            format!("{PREFIX}{}", "a".repeat(247)),
            format!("{PREFIX}{} b", "a".repeat(16)),
            format!("{PREFIX}{}é", "a".repeat(16)),
            format!("sk-{}", "a".repeat(40)),
            format!("SK-OR-V1-{}", "a".repeat(16)),
        ];
        for bad in bad {
            assert_eq!(UserKey::parse(&bad).err(), Some(FormatError), "{bad:?}");
        }
    }

    #[test]
    fn only_the_end_and_the_hash_are_shown() {
        let key = UserKey::parse("sk-or-v1-0123456789abcdefwxyz").unwrap();
        assert_eq!(key.last4(), "wxyz");
        assert_eq!(key.sha256().len(), 64);
        let label = "sk-or-v1-012...xyz".to_owned();
        assert_eq!(key.mask(label.clone()), label);
        let whole = key.secret().expose_secret().to_owned();
        assert_eq!(key.mask(whole), "sk-or-v1-...wxyz");
        assert_eq!(format!("{key:?}"), "UserKey(redacted)");
        assert!(!format!("{:?}", key.secret()).contains("0123"));
    }
}
