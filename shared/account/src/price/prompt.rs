//! Upper bounds of a prompt's tokens, from its JSON text.
//!
//! No tokeniser makes more tokens of a text than the text has UTF-8 bytes: byte-level vocabularies
//! have a token for each byte, and the others fall back to bytes. So bytes bound tokens, for any
//! model, without its vocabulary.

/// Tokens that a chat template adds to any prompt: the marks of the first message and of the
/// response, and the system message with which some models' templates begin (Llama 3.1's names two
/// dates in 25 tokens, gpt-oss's the channels in about 70, Grok's is reported to have up to 194).
/// The JSON around a message outweighs the marks of that message: `{"role":"user","content":""}`
/// has 28 bytes, while OpenAI marks a message with 4 tokens and Llama 3 with 5.
pub const TEMPLATE_TOKENS: u64 = 256;

/// Tokens that providers add for tools or a response format. Anthropic documents up to 530 tokens
/// for tools on Claude 3 Opus, and 159 to 400 on other models (docs.anthropic.com, "tool use system
/// prompt token count").
pub const TOOLS_TOKENS: u64 = 1_024;

/// The bytes of `json` with the escapes in its strings undone, as a model reads them. Quotes,
/// braces and names count as they are.
pub fn read_bytes(json: &str) -> u64 {
    units(json).map(Unit::bytes).fold(0, u64::saturating_add)
}

/// The maximum number of tokens of JSON that the provider formats again: spread over lines and
/// indented by four spaces, in ASCII, or escaped for HTML. JSON in a string may be written out as
/// JSON, and counts as if it were.
pub fn rewritten_tokens(json: &str) -> u64 {
    let (mut depth, mut after_digit) = (0_u64, false);
    let tokens = units(json).map(|unit| {
        match unit {
            Unit::Char('{' | '[') => depth = depth.saturating_add(1),
            Unit::Char('}' | ']') => depth = depth.saturating_sub(1),
            _ => {}
        }
        let tokens = match unit {
            Unit::Char('{' | '[' | '}' | ']' | ',') => {
                depth.div_ceil(INDENTATION).saturating_add(2)
            }
            Unit::Char('e' | 'E') if after_digit => EXPONENT,
            unit => unit.rewritten(),
        };
        after_digit = matches!(unit, Unit::Char('0'..='9'));
        tokens
    });
    tokens.fold(0, u64::saturating_add)
}

/// Levels of indentation per token: vocabularies have a token for 16 or more spaces.
const INDENTATION: u64 = 4;

/// The `e` of `1e20`, which JavaScript writes in 21 digits.
const EXPONENT: u64 = 20;

/// A character of a JSON text, or an escape in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Char(char),
    /// `\n`, `\"` and the like, by the character after the backslash.
    Short(Option<char>),
    /// `\uXXXX`. `None`: the digits are not hexadecimal, so it is not JSON.
    Utf16(Option<u16>),
}

impl Unit {
    /// A surrogate is half of a character of four bytes; alone, it becomes a character of three.
    fn bytes(self) -> u64 {
        match self {
            Self::Char(char) => utf8_bytes(char),
            Self::Short(_) | Self::Utf16(Some(0..0x80)) => 1,
            Self::Utf16(Some(0x80..0x800)) => 2,
            Self::Utf16(_) => 3,
        }
    }

    fn rewritten(self) -> u64 {
        match self {
            // With a space.
            Self::Char(':') => 2,
            Self::Char('<' | '>' | '&' | '\'') | Self::Short(Some('b' | 'f')) => 6,
            Self::Char(char) if char.is_ascii() => 1,
            Self::Char(char) if utf8_bytes(char) == 4 => 12,
            Self::Char(_) | Self::Utf16(_) => 6,
            Self::Short(_) => 2,
        }
    }
}

fn utf8_bytes(char: char) -> u64 {
    u64::try_from(char.len_utf8()).unwrap_or(u64::MAX)
}

fn units(json: &str) -> impl Iterator<Item = Unit> {
    let mut chars = json.chars();
    std::iter::from_fn(move || {
        let char = chars.next()?;
        if char != '\\' {
            return Some(Unit::Char(char));
        }
        let escaped = chars.next();
        if escaped != Some('u') {
            return Some(Unit::Short(escaped));
        }
        let digits: String = chars.by_ref().take(4).collect();
        Some(Unit::Utf16(u16::from_str_radix(&digits, 16).ok()))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_count_as_what_they_stand_for() {
        let table = [
            (r#""abc""#, 5, 5),
            (r#""a\nb\"c\\""#, 8, 11),
            (r#""a\b\f""#, 5, 15),
            (r#""你好""#, 8, 14),
            (r#""\u4f60\u597d""#, 8, 14),
            (r#""é\u00e9""#, 6, 14),
            (r#""\u0041""#, 3, 8),
            (r#""<&""#, 4, 14),
            (r#""👋""#, 6, 14),
            // A pair of surrogates counts as two of three bytes: more than its four.
            (r#""\ud83d\udc4b""#, 8, 14),
            (r#"{"a":[1,true]}"#, 14, 24),
            (r#""{\"a\":[1,true]}""#, 16, 28),
            ("[[[[[1]]]]]", 11, 31),
            ("1e20", 4, 23),
            ("false", 5, 5),
        ];
        for (json, read, rewritten) in table {
            assert_eq!((read_bytes(json), rewritten_tokens(json)), (read, rewritten), "{json}");
        }
    }

    fn ascii_json(text: &str) -> String {
        let units = text.encode_utf16().map(|unit| match u8::try_from(unit) {
            Ok(byte @ 0x20..0x7f) if byte != b'"' && byte != b'\\' => char::from(byte).to_string(),
            _ => format!("\\u{unit:04x}"),
        });
        format!("\"{}\"", units.collect::<String>())
    }

    proptest! {
        /// However a client writes its text, no byte of the text goes uncounted, and JSON escapes
        /// cost it little.
        #[test]
        fn all_bytes_are_counted(text in any::<String>()) {
            let bytes = u64::try_from(text.len()).unwrap();
            let ascii = ascii_json(&text);
            for json in [serde_json::to_string(&text).unwrap(), ascii.clone()] {
                let read = read_bytes(&json);
                prop_assert!(read >= bytes + 2, "{json}");
                prop_assert!(read <= bytes + bytes / 2 + 2, "{json}");
                let rewritten = rewritten_tokens(&json);
                prop_assert!(rewritten >= u64::try_from(json.len()).unwrap());
            }
        }
    }
}
