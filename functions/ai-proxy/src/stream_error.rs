//! The errors that we write into a stream as server-sent events.

use bytes::Bytes;
use edge::{ApiError, Code};

/// Ends a stream that was cut off, so that it never looks complete. It begins with an empty line
/// because the stream may have stopped in the middle of an event.
pub(crate) fn interrupted() -> Bytes {
    let error = ApiError::new(Code::UpstreamInterrupted, "the response was cut off before its end");
    Bytes::from(format!("\n\ndata: {}\n\n", error.openai_body()))
}

/// The line that replaces an error of the default AI, whose own text is not for the caller.
pub(crate) fn default_ai_failed() -> Bytes {
    let error = ApiError::new(
        Code::DefaultAiUnavailable,
        "Greta's AI failed in the middle of the response",
    );
    Bytes::from(format!("data: {}\n", error.openai_body()))
}
