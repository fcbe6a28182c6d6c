//! Sends a completion step by step, as its behaviour asks.

use std::convert::Infallible;
use std::io;
use std::iter::Peekable;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;

use super::behaviour::{Behaviour, ErrorPlace};
use super::completion::{Completion, StreamEvent};
use super::record::{CallOutcome, OpenCall};

/// The maximum chunk of `split`, in bytes: short enough to cut line endings and fields too.
const SPLIT_AT: usize = 7;
/// The step where a response breaks off: after the comment and two chunks of content.
const BREAK_AFTER: usize = 3;

enum Step {
    Send {
        bytes: Bytes,
        /// The number of completion tokens generated once `bytes` is sent.
        tokens: u64,
    },
    Pause(Duration),
    Stall,
    Close,
}

/// The response's body. The call's record follows what is sent.
pub(super) fn body(completion: Completion, stream: bool, call: OpenCall) -> Body {
    let steps = if stream { stream_steps(&completion) } else { plain_steps(&completion) };
    call.progress(0, completion.costs(0));
    let playback = Playback { completion, steps: steps.into_iter().peekable(), call };
    Body::from_stream(stream::unfold(playback, Playback::next))
}

fn stream_steps(completion: &Completion) -> Vec<Step> {
    let mut events = completion.events();
    let mut end = None;
    match completion.behaviour {
        Behaviour::ResetAfterHead => {
            events.clear();
            end = Some(Step::Close);
        }
        Behaviour::Cut => {
            events.truncate(BREAK_AFTER);
            end = Some(Step::Close);
        }
        Behaviour::CutMidLine => {
            events.truncate(BREAK_AFTER + 1);
            if let Some((last, _)) = events.last_mut() {
                last.truncate(last.len() / 2);
            }
            end = Some(Step::Close);
        }
        Behaviour::Stall => {
            events.truncate(BREAK_AFTER);
            end = Some(Step::Stall);
        }
        Behaviour::Error(_, place) => {
            events.truncate(if place == ErrorPlace::Mid { BREAK_AFTER } else { 1 });
            let tokens = events.last().map_or(0, |(_, tokens)| *tokens);
            events.extend(completion.error_event().map(|event| (event, tokens)));
        }
        Behaviour::NoDone => {
            events.pop();
        }
        Behaviour::Crlf | Behaviour::Split => {
            for (event, _) in &mut events {
                *event = event.replace('\n', "\r\n");
            }
        }
        _ => {}
    }
    steps(completion.behaviour, events, end)
}

fn plain_steps(completion: &Completion) -> Vec<Step> {
    let tokens = completion.tokens_of_body();
    let body = completion.body();
    let half = body.floor_char_boundary(body.len() / 2);
    let (parts, end) = match completion.behaviour {
        Behaviour::ResetAfterHead => (vec![], Some(Step::Close)),
        Behaviour::Cut | Behaviour::CutMidLine => (vec![&body[..half]], Some(Step::Close)),
        Behaviour::Stall => (vec![&body[..half]], Some(Step::Stall)),
        Behaviour::SlowChunks(_) => (vec![&body[..half], &body[half..]], None),
        _ => (vec![body.as_str()], None),
    };
    let parts = parts.into_iter().map(|part| (part.to_owned(), tokens));
    steps(completion.behaviour, parts.collect(), end)
}

fn steps(behaviour: Behaviour, events: Vec<StreamEvent>, end: Option<Step>) -> Vec<Step> {
    let mut steps = Vec::new();
    for (event, tokens) in events {
        if let Behaviour::SlowChunks(pause) = behaviour {
            steps.push(Step::Pause(pause));
        }
        let event = Bytes::from(event);
        let chunks = match behaviour {
            Behaviour::Split => split(&event),
            _ => vec![event],
        };
        steps.extend(chunks.into_iter().map(|bytes| Step::Send { bytes, tokens }));
    }
    steps.extend(end);
    steps
}

/// A completion that is being sent.
struct Playback {
    completion: Completion,
    steps: Peekable<std::vec::IntoIter<Step>>,
    call: OpenCall,
}

impl Playback {
    async fn next(mut self) -> Option<(io::Result<Bytes>, Self)> {
        // Lets the previous chunk leave in its own write.
        tokio::task::yield_now().await;
        loop {
            match self.steps.next()? {
                Step::Send { bytes, tokens } => {
                    self.call.progress(tokens, self.completion.costs(tokens));
                    if self.steps.peek().is_none() {
                        // Before the last byte leaves, so that its reader finds the record
                        // complete.
                        self.call.complete(self.completion.finish_reason());
                    }
                    return Some((Ok(bytes), self));
                }
                Step::Pause(time) => tokio::time::sleep(time).await,
                Step::Stall => match std::future::pending::<Infallible>().await {},
                Step::Close => {
                    self.call.end(CallOutcome::Cut);
                    let closed = io::Error::from(io::ErrorKind::ConnectionAborted);
                    return Some((Err(closed), self));
                }
            }
        }
    }
}

/// Cuts inside every multi-byte character, between CR and LF, and every few bytes.
fn split(bytes: &Bytes) -> Vec<Bytes> {
    let mut chunks = Vec::new();
    let mut start = 0;
    for at in 1..bytes.len() {
        let inside_character = bytes[at] & 0b1100_0000 == 0b1000_0000;
        let inside_line_end = bytes[at - 1] == b'\r' && bytes[at] == b'\n';
        if inside_character || inside_line_end || at - start >= SPLIT_AT {
            chunks.push(bytes.slice(start..at));
            start = at;
        }
    }
    chunks.push(bytes.slice(start..));
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_end_inside_characters_and_line_ends() {
        let text = Bytes::from("data: ✓ naïve\r\n\r\n");
        let chunks = split(&text);
        assert_eq!(chunks.concat(), text);
        assert!(chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= SPLIT_AT));
        assert!(chunks.iter().any(|chunk| std::str::from_utf8(chunk).is_err()));
        assert!(chunks.iter().any(|chunk| chunk.ends_with(b"\r")));
    }
}
