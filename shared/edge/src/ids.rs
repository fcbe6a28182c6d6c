//! New ids: a prefix for the kind of thing, `_`, and a UUID as 32 lower-case hex digits.

use uuid::Uuid;

/// An id that sorts by creation time (UUID v7): `new_id("call")` → `call_0197…`.
pub fn new_id(prefix: &str) -> String {
    format!("{prefix}_{}", Uuid::now_v7().simple())
}

/// An id that reveals nothing, not even when it was created (UUID v4).
pub fn random_id(prefix: &str) -> String {
    format!("{prefix}_{}", Uuid::new_v4().simple())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_their_prefix_and_32_lower_hex_digits() {
        for make in [new_id, random_id] {
            let (one, other) = (make("call"), make("call"));
            assert_ne!(one, other);
            let digits = one.strip_prefix("call_").unwrap();
            assert_eq!(digits.len(), 32);
            assert!(digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
            assert!(account::CallId::new(one).is_ok());
        }
    }
}
