//! The error chunk that ends a stream, so that a stream that was cut off never looks complete.

use account::CallId;
use bytes::Bytes;
use edge::{ApiError, Clock, Code};
use serde_json::json;

use crate::call::Call;

/// The members of the chunk that clients need to read it.
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
        let detail = "the response was cut off before its end";
        self.of(&ApiError::new(Code::UpstreamInterrupted, detail))
    }

    /// It begins with an empty line, because the stream may have stopped in the middle of an event.
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
            // OpenRouter's SDKs read a chunk's metadata only if it names OpenRouter's own error type.
            members.remove("metadata");
        }
        chunk["error"] = error;
        Bytes::from(format!("\n\ndata: {chunk}\n\n"))
    }
}
