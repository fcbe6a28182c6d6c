//! The caller's request, with the checks that both paths need and its bytes unchanged.

use std::borrow::Cow;

use bytes::Bytes;
use edge::{ApiError, Code};
use serde_json::value::RawValue;
use upstream::{Members, UniqueMembers};

/// A well-formed chat request.
#[derive(Debug, Clone)]
pub(crate) struct ChatRequest {
    /// The caller's bytes, which the OpenRouter path sends unchanged.
    pub(crate) body: Bytes,
    pub(crate) model: Option<String>,
    pub(crate) streamed: bool,
}

impl ChatRequest {
    /// Requires a JSON object with a non-empty array `messages`, and a string `model` if present.
    pub(crate) fn parse(body: Bytes) -> Result<Self, ApiError> {
        let members = members(&body)?;
        let messages = members
            .get("messages")
            .ok_or_else(|| invalid("`messages` is missing; it is an array of chat messages"))?;
        // The JSON is known to be valid, and its content does not matter here.
        let inside = messages.get().strip_prefix('[').map(str::trim_start);
        if inside.is_none_or(|inside| inside.starts_with(']')) {
            return Err(invalid("`messages` must be an array with at least one message"));
        }
        let model = members
            .get("model")
            .map(|model| parse_string(model).ok_or_else(|| invalid("`model` must be a string")));
        let stream = members.get("stream");
        let streamed = stream.is_some_and(|stream| stream.get() == "true");
        Ok(Self { body, model: model.transpose()?, streamed })
    }

    /// The body's members. Refuses duplicate keys.
    pub(crate) fn members(&self) -> Result<Members<'_>, ApiError> {
        let members = serde_json::from_slice(&self.body);
        let UniqueMembers(members) = members
            .map_err(|_| invalid("the body must be a JSON object without duplicate keys"))?;
        Ok(members)
    }
}

fn members(body: &[u8]) -> Result<Members<'_>, ApiError> {
    match serde_json::from_slice(body) {
        Ok(members) => Ok(members),
        Err(error) if error.is_data() => Err(invalid("the body must be a JSON object")),
        Err(_) => Err(ApiError::new(
            Code::InvalidJson,
            "the body is not JSON; send a chat completions request as application/json",
        )),
    }
}

pub(crate) fn parse_string(json: &RawValue) -> Option<String> {
    serde_json::from_str(json.get()).ok()
}

pub(crate) fn invalid(detail: impl Into<Cow<'static, str>>) -> ApiError {
    ApiError::new(Code::InvalidRequest, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of(body: &'static str) -> Result<(), Code> {
        ChatRequest::parse(Bytes::from_static(body.as_bytes()))
            .map(drop)
            .map_err(|error| error.code())
    }

    #[test]
    fn only_well_formed_requests_pass() {
        let good = [
            r#"{"messages":[{"role":"user","content":"hi"}]}"#,
            r#"{"messages":[1],"model":"a/b","stream":true,"anything":{"else":[1,2]}}"#,
            r#" {"\u006dessages":[{}],"stream":null} "#,
        ];
        for body in good {
            assert_eq!(code_of(body), Ok(()), "{body}");
        }
        let not_json = ["", "{", "nonsense", r#"{"messages":[1],}"#, r#"{"messages":[1]} x"#];
        for body in not_json {
            assert_eq!(code_of(body), Err(Code::InvalidJson), "{body}");
        }
        let invalid = [
            "[]",
            "7",
            "null",
            "{}",
            r#"{"messages":[]}"#,
            r#"{"messages":null}"#,
            r#"{"messages":{"0":1}}"#,
            r#"{"messages":[1],"model":null}"#,
            r#"{"messages":[1],"model":7}"#,
        ];
        for body in invalid {
            assert_eq!(code_of(body), Err(Code::InvalidRequest), "{body}");
        }
    }

    #[test]
    fn invalid_utf8_is_not_json() {
        let body = Bytes::from_static(b"{\"messages\":[\"\xff\"]}");
        let error = ChatRequest::parse(body).unwrap_err();
        assert_eq!(error.code(), Code::InvalidJson);
    }
}
