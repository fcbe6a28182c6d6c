//! JSON parse errors without the text that caused them.

/// A JSON parse error: its class and position, without the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{class} at line {line}, column {column}")]
pub struct JsonError {
    class: &'static str,
    line: usize,
    column: usize,
}

impl From<&serde_json::Error> for JsonError {
    fn from(error: &serde_json::Error) -> Self {
        use serde_json::error::Category;
        let class = match error.classify() {
            Category::Io => "an I/O error",
            Category::Syntax => "not JSON",
            Category::Data => "unexpected data",
            Category::Eof => "truncated JSON",
        };
        Self { class, line: error.line(), column: error.column() }
    }
}

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> Self {
        Self::from(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_error_has_only_a_class_and_a_position() {
        let error = |text: &str| {
            let error = serde_json::from_str::<Vec<u8>>(text).unwrap_err();
            JsonError::from(error).to_string()
        };
        assert_eq!(error("[1, secret]"), "not JSON at line 1, column 5");
        assert_eq!(error("[1,"), "truncated JSON at line 1, column 3");
        assert_eq!(error(r#"["secret"]"#), "unexpected data at line 1, column 9");
    }
}
