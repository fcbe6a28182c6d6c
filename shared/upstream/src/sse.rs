//! Server-sent events, line by line.
//!
//! [`Lines`] splits a byte stream into lines without losing a byte; [`Line::of`] classifies a line.
//! Only lines that can matter are parsed as JSON.

use account::price::Usage;
use bytes::{Bytes, BytesMut};
use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::usage::usage_from_json;

/// Maximum length of a line that is read; longer lines are passed on in pieces, unread.
const MAX_LINE: usize = 4 * 1024 * 1024;

/// Splits a stream into classified lines, each with its line end.
#[derive(Debug)]
pub struct Lines {
    max_line: usize,
    partial: BytesMut,
    /// The beginning of the current line was passed on.
    too_long: bool,
}

impl Default for Lines {
    fn default() -> Self {
        Self::of_at_most(MAX_LINE)
    }
}

impl Lines {
    /// With another maximum length, line ends not counted; for tests.
    #[doc(hidden)]
    pub fn of_at_most(max_line: usize) -> Self {
        Self { max_line, partial: BytesMut::new(), too_long: false }
    }

    /// Adds the next chunk of the stream, and returns the lines that it completes.
    pub fn push(&mut self, mut piece: Bytes) -> Vec<(Bytes, Line)> {
        let mut lines = Vec::new();
        while let Some(end) = memchr::memchr(b'\n', &piece) {
            let rest = piece.split_to(end + 1);
            let line = if self.partial.is_empty() {
                rest
            } else {
                self.partial.extend_from_slice(&rest);
                self.partial.split().freeze()
            };
            lines.push(self.read(line));
            self.too_long = false;
        }
        self.partial.extend_from_slice(&piece);
        if self.partial.len() > self.max_line {
            self.too_long = true;
            lines.push(self.rest());
        }
        lines
    }

    pub fn rest(&mut self) -> (Bytes, Line) {
        let rest = self.partial.split().freeze();
        self.read(rest)
    }

    fn read(&self, line: Bytes) -> (Bytes, Line) {
        let without_end = line.strip_suffix(b"\n").unwrap_or(&line);
        let meaning = if self.too_long || without_end.len() > self.max_line {
            Line::TooLong
        } else {
            Line::of(&line)
        };
        (line, meaning)
    }
}

/// A line's meaning to a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// `data: [DONE]`: the response is complete.
    Done,
    /// A chunk with `usage`.
    Usage(Usage),
    /// A chunk that reports a failure mid-stream, perhaps with the usage so far.
    Error(Option<Usage>),
    Data,
    /// A line, or a piece of one, that is too long to read.
    TooLong,
    /// A comment, another field, or the empty line between events.
    Other,
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

impl Line {
    /// Classifies a line, with or without its line end.
    pub fn of(line: &[u8]) -> Self {
        let Some(payload) = data(line) else {
            return Self::Other;
        };
        if payload == b"[DONE]" {
            return Self::Done;
        }
        let mentions = |name: &str| memmem::find(payload, name.as_bytes()).is_some();
        if !is_object(payload) || (!mentions("\"usage\"") && !mentions("\"error\"")) {
            return Self::Data;
        }
        let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(payload) else {
            return Self::Data;
        };
        let usage = chunk.usage.and_then(|usage| usage_from_json(usage.get()));
        if chunk.error.is_some_and(|error| error.get() != "null") {
            return Self::Error(usage);
        }
        usage.map_or(Self::Data, Self::Usage)
    }
}

/// A chunk's `id`, which is the generation's id if no header named one.
pub fn chunk_id(line: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Id {
        id: String,
    }
    let chunk = data(line).filter(|payload| is_object(payload))?;
    let chunk: Id = serde_json::from_slice(chunk).ok()?;
    Some(chunk.id)
}

/// Adds a member to the JSON object in `line`, if there is one, and changes no other byte.
pub fn with_member(line: &Bytes, name: &str, json: &str) -> Option<Bytes> {
    data(line).filter(|payload| is_object(payload))?;
    let end = line.iter().rposition(|byte| *byte == b'}')?;
    let (head, tail) = line.split_at_checked(end)?;
    let mut longer = BytesMut::with_capacity(line.len() + name.len() + json.len() + 4);
    longer.extend_from_slice(head);
    longer.extend_from_slice(b",\"");
    longer.extend_from_slice(name.as_bytes());
    longer.extend_from_slice(b"\":");
    longer.extend_from_slice(json.as_bytes());
    longer.extend_from_slice(tail);
    Some(longer.freeze())
}

fn data(line: &[u8]) -> Option<&[u8]> {
    line.strip_prefix(b"data:").map(<[u8]>::trim_ascii)
}

/// serde would read an array as a struct too, member by member.
fn is_object(payload: &[u8]) -> bool {
    payload.starts_with(b"{")
}

#[derive(Debug, Default)]
pub struct Scanner {
    lines: Lines,
    pub done: bool,
    pub failed: bool,
    pub usage: Option<Usage>,
}

impl Scanner {
    /// Adds the next chunk of the stream.
    pub fn feed(&mut self, piece: Bytes) {
        for (_, line) in self.lines.push(piece) {
            self.take(line);
        }
    }

    /// Ends the stream, whose last line may lack a line end.
    pub fn end(&mut self) {
        let (_, rest) = self.lines.rest();
        self.take(rest);
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::Done => self.done = true,
            Line::Usage(usage) => self.usage = Some(usage),
            Line::Error(usage) => {
                self.failed = true;
                self.usage = usage.or(self.usage);
            }
            Line::Data | Line::TooLong | Line::Other => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": OPENROUTER PROCESSING\n\n\
        data: {\"id\":\"gen-1\",\"choices\":[{\"delta\":{\"content\":\"caf\u{e9} \\\"usage\\\"\"}}]}\r\n\r\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"cost\":0.00001}}\n\n\
        data: [DONE]\n\n";

    #[test]
    fn the_stream_reads_the_same_however_it_is_split() {
        let bytes = STREAM.as_bytes();
        let whole = Lines::default().push(Bytes::from_static(bytes));
        for size in 1..bytes.len() {
            let mut lines = Lines::default();
            let mut scanner = Scanner::default();
            let mut found = Vec::new();
            for piece in bytes.chunks(size) {
                found.extend(lines.push(Bytes::copy_from_slice(piece)));
                scanner.feed(Bytes::copy_from_slice(piece));
            }
            scanner.end();
            assert_eq!(found, whole, "pieces of {size}");
            assert_eq!(concat(&found), bytes);
            assert!(scanner.done && !scanner.failed);
            assert_eq!(scanner.usage.unwrap().completion_tokens, Some(2));
        }
    }

    fn concat(lines: &[(Bytes, Line)]) -> Vec<u8> {
        lines.iter().flat_map(|(line, _)| line.to_vec()).collect()
    }

    /// Not even if its rest looks like a line of its own.
    #[test]
    fn a_line_that_is_too_long_is_never_parsed_however_it_is_split() {
        let done = "data: [DONE]\n";
        // Split after its twentieth byte, the rest looks like a line.
        let longer = format!("{}{done}", "x".repeat(20));
        let of = |line: &str, max_line, size| {
            let mut lines = Lines::of_at_most(max_line);
            let pieces = line.as_bytes().chunks(size).map(Bytes::copy_from_slice);
            let mut found: Vec<_> = pieces.flat_map(|piece| lines.push(piece)).collect();
            found.push(lines.rest());
            assert_eq!(concat(&found), line.as_bytes());
            found.into_iter().map(|(_, meaning)| meaning).collect()
        };
        for size in 1..40 {
            assert_eq!(of(done, 12, size), [Line::Done, Line::Other]);
            for (line, max_line) in [(done, 11), (&longer, 12)] {
                let found: Vec<Line> = of(line, max_line, size);
                assert!(!found.contains(&Line::Done), "{line} in pieces of {size}");
            }
        }
    }

    #[test]
    fn lines_have_one_meaning_each() {
        let usage = Usage { cost: "0.5".parse().ok(), ..Usage::default() };
        let table = [
            ("data: [DONE]", Line::Done),
            ("data:[DONE]\r\n", Line::Done),
            ("data: {\"usage\":{\"cost\":0.5}}\n", Line::Usage(usage)),
            ("data: {\"usage\":null}\n", Line::Data),
            ("data: {\"error\":{\"code\":502},\"choices\":[]}\n", Line::Error(None)),
            ("data: {\"error\":\"gone\"}\n", Line::Error(None)),
            ("data: {\"error\":null,\"usage\":{\"cost\":0.5}}\n", Line::Usage(usage)),
            ("data: {\"error\":{},\"usage\":{\"cost\":0.5}}\n", Line::Error(Some(usage))),
            ("data: {\"choices\":[]}\n", Line::Data),
            ("data: {\"usage\":\n", Line::Data),
            ("data: [{\"usage\":1,\"cost\":5},null]\n", Line::Data),
            ("data: [null,{\"error\":1}]\n", Line::Data),
            (": comment with [DONE]\n", Line::Other),
            ("event: message\n", Line::Other),
            ("\n", Line::Other),
            ("", Line::Other),
        ];
        for (line, expected) in table {
            assert_eq!(Line::of(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn a_last_line_without_its_end_still_counts() {
        let mut scanner = Scanner::default();
        scanner.feed(Bytes::from_static(b"data: [DONE]"));
        assert!(!scanner.done);
        scanner.end();
        assert!(scanner.done);
    }

    #[test]
    fn a_member_is_added_and_nothing_else_changes() {
        let line = Bytes::from_static(b"data: {\"a\": {\"b\":1} }\r\n");
        let longer = with_member(&line, "greta", "{\"x\":2}").unwrap();
        assert_eq!(&longer[..], b"data: {\"a\": {\"b\":1} ,\"greta\":{\"x\":2}}\r\n");
        assert_eq!(with_member(&Bytes::from_static(b": {}\n"), "g", "1"), None);
        assert_eq!(with_member(&Bytes::from_static(b"data: x\n"), "g", "1"), None);
        assert_eq!(with_member(&Bytes::from_static(b"data: [{}]\n"), "g", "1"), None);
        assert_eq!(chunk_id(b"data: {\"id\":\"gen-1\"}\n").as_deref(), Some("gen-1"));
        assert_eq!(chunk_id(b"data: {}\n"), None);
        assert_eq!(chunk_id(b"data: [\"gen-1\"]\n"), None);
    }
}
