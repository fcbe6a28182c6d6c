//! The ledger's cursor on the wire: opaque, and valid for one account only.

use account::AccountNumber;
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use store::Cursor;

/// Length in bytes of the checksum that binds a cursor to its account.
const CHECKSUM_LENGTH: usize = 8;

pub(crate) fn encode(account: &AccountNumber, cursor: &Cursor) -> String {
    let text = format!("{}|{}", cursor.balance.micros(), cursor.entry);
    URL_SAFE_NO_PAD.encode([checksum(account, &text), text.into_bytes()].concat())
}

/// `None` if the text is not a cursor of this account.
pub(crate) fn decode(account: &AccountNumber, text: &str) -> Option<Cursor> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (found, text) = bytes.split_at_checked(CHECKSUM_LENGTH)?;
    let text = std::str::from_utf8(text).ok()?;
    if found != checksum(account, text) {
        return None;
    }
    let (balance, entry) = text.split_once('|')?;
    Some(Cursor {
        entry: entry.to_owned(),
        balance: account::Credits::from_micros(balance.parse().ok()?),
    })
}

/// Callers cannot compute this, because the account's number is random and never shown.
fn checksum(account: &AccountNumber, text: &str) -> Vec<u8> {
    let text = format!("{account}|{text}");
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    hash.as_ref().iter().copied().take(CHECKSUM_LENGTH).collect()
}

#[cfg(test)]
mod tests {
    use account::Credits;

    use super::*;

    #[test]
    fn a_cursor_is_valid_unchanged_and_for_its_account() {
        let number = |text: &str| AccountNumber::new(text).unwrap();
        let cursor = Cursor {
            entry: "e#2026-01-01T00:00:00.000000Z#call_1".to_owned(),
            balance: Credits::from_micros(-5),
        };
        let text = encode(&number("n1"), &cursor);
        assert_eq!(decode(&number("n1"), &text), Some(cursor));
        assert_eq!(decode(&number("n2"), &text), None);
        for bad in ["", "x", "!!!", &text[1..], &text.to_lowercase()] {
            assert_eq!(decode(&number("n1"), bad), None, "{bad}");
        }
    }
}
