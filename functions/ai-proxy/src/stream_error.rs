//! The error chunk that ends a failed stream, so that it never looks complete.

use account::CallId;
use bytes::Bytes;
use edge::{ApiError, Clock, Code};
use serde_json::json;

use crate::call::Call;

/// The fields that clients need in order to parse the chunk.
#[derive(Debug, Clone)]
pub(crate) struct ErrorChunk {
    id: CallId,
    created: i64,
    model: String,
}

impl ErrorChunk {
    pub(crate) fn new(call: &Call, clock: &Clock) -> Self {
        Self {
            id: call.id.clone(),
            created: clock.now().as_second(),
            model: call.request.model.clone().unwrap_or_default(),
        }
    }

    pub(crate) fn interrupted(&self) -> Bytes {
        let detail = "the response was cut off";
        self.of(&ApiError::new(Code::UpstreamInterrupted, detail))
    }

    /// The chunk for `error`. It starts with an empty line, because the stream may have stopped in
    /// the middle of an event.
    pub(crate) fn of(&self, error: &ApiError) -> Bytes {
        let mut chunk = json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
        });
        let mut error = error.ai_body()["error"].take();
        if let Some(members) = error.as_object_mut() {
            // OpenRouter's SDKs read a chunk's metadata only if it names OpenRouter's own error
            // type.
            members.remove("metadata");
        }
        chunk["error"] = error;
        Bytes::from(format!("\n\ndata: {chunk}\n\n"))
    }
}
