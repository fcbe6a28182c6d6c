//! Server-sent events, as <https://html.spec.whatwg.org/multipage/server-sent-events.html> defines
//! them: a line ends in LF, CR or CRLF, and an event can have several `data` lines.

use bytes::{Buf as _, Bytes, BytesMut};

/// Length limit of a line, and of an event's data, in bytes.
const MAX_EVENT: usize = 1024 * 1024;

/// One part of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    Comment,
    Event(Event),
    /// An event that is too long, or that has a line with an unknown field.
    Unreadable,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    /// Empty if it has none.
    pub name: String,
    pub data: Bytes,
}

/// Parses a stream into items.
#[derive(Debug, Default)]
pub struct Parser {
    /// The current line, as far as it has arrived.
    line: BytesMut,
    /// The last chunk ended in a CR, which an LF may follow.
    after_cr: bool,
    /// A line was read, so a byte order mark is no longer expected.
    has_begun: bool,
    name: String,
    /// The event's only line of data, which is not copied.
    data: Option<Bytes>,
    /// All of its lines, if it has several.
    lines: BytesMut,
    unreadable: bool,
}

impl Parser {
    /// Adds the next chunk of the stream, and returns the items that it completes.
    pub fn push(&mut self, mut rest: Bytes) -> Vec<Item> {
        let mut items = Vec::new();
        if std::mem::take(&mut self.after_cr) && rest.starts_with(b"\n") {
            rest.advance(1);
        }
        while let Some(end) = memchr::memchr2(b'\n', b'\r', &rest) {
            let line = rest.split_to(end);
            self.after_cr = rest == b"\r"[..];
            rest.advance(if rest.starts_with(b"\r\n") { 2 } else { 1 });
            let line = if self.line.is_empty() && line.len() <= MAX_EVENT {
                line
            } else {
                self.add_to_line(&line);
                self.line.split().freeze()
            };
            items.extend(self.end_of_line(&line));
        }
        self.add_to_line(&rest);
        items
    }

    /// Ends the stream. The last event may lack its blank line.
    pub fn end(&mut self) -> Vec<Item> {
        let line = self.line.split().freeze();
        let mut items = Vec::new();
        if !line.is_empty() {
            items.extend(self.end_of_line(&line));
        }
        items.extend(self.end_of_event());
        items
    }

    /// Whether the stream is between two events.
    pub fn is_between_events(&self) -> bool {
        self.line.is_empty() && self.data.is_none() && !self.unreadable
    }

    fn add_to_line(&mut self, bytes: &[u8]) {
        if self.line.len().saturating_add(bytes.len()) > MAX_EVENT {
            self.unreadable = true;
            self.line.clear();
        } else {
            self.line.extend_from_slice(bytes);
        }
    }

    fn end_of_line(&mut self, whole: &Bytes) -> Option<Item> {
        let mark: &[u8] =
            if std::mem::replace(&mut self.has_begun, true) { b"" } else { b"\xef\xbb\xbf" };
        let line = whole.strip_prefix(mark).unwrap_or(whole);
        if line.is_empty() {
            return self.end_of_event();
        }
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let (field, value) = line.split_at_checked(colon).unwrap_or((line, b""));
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"" => return Some(Item::Comment),
            b"data" => self.add_data(whole.slice_ref(value)),
            b"event" => self.name = String::from_utf8_lossy(value).into_owned(),
            b"id" | b"retry" => {}
            _ => self.unreadable = true,
        }
        None
    }

    fn add_data(&mut self, value: Bytes) {
        let Some(first) = &self.data else {
            self.data = Some(value);
            return;
        };
        if self.lines.is_empty() {
            self.lines.extend_from_slice(first);
        }
        if self.lines.len().saturating_add(value.len()) > MAX_EVENT {
            self.unreadable = true;
        } else {
            self.lines.extend_from_slice(b"\n");
            self.lines.extend_from_slice(&value);
        }
    }

    fn end_of_event(&mut self) -> Option<Item> {
        let (name, lines) = (std::mem::take(&mut self.name), self.lines.split().freeze());
        let data = self.data.take().map(|only| if lines.is_empty() { only } else { lines });
        if std::mem::take(&mut self.unreadable) {
            return Some(Item::Unreadable);
        }
        // Events without data are ignored.
        Some(Item::Event(Event { name, data: data? }))
    }
}

/// Splits a stream after its line ends, so that a line cut in the middle can be left out.
#[derive(Debug, Default)]
pub struct WholeLines {
    partial: BytesMut,
}

/// Size from which a partial line is passed on in pieces; an image is one line of some megabytes.
const MAX_PARTIAL: usize = 4 * 1024 * 1024;

impl WholeLines {
    /// The lines that the next chunk completes, unchanged.
    pub fn push(&mut self, mut chunk: Bytes) -> Bytes {
        let end = memchr::memrchr2(b'\n', b'\r', &chunk).map_or(0, |end| end.saturating_add(1));
        let lines = chunk.split_to(end);
        let whole = if self.partial.is_empty() {
            lines
        } else if lines.is_empty() {
            Bytes::new()
        } else {
            self.partial.extend_from_slice(&lines);
            self.partial.split().freeze()
        };
        self.partial.extend_from_slice(&chunk);
        if self.partial.len() > MAX_PARTIAL {
            return [&whole[..], &self.partial.split()[..]].concat().into();
        }
        whole
    }

    /// The last line, which has no line end.
    pub fn rest(&mut self) -> Bytes {
        self.partial.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(data: &str) -> Item {
        Item::Event(Event { name: String::new(), data: Bytes::copy_from_slice(data.as_bytes()) })
    }

    fn named(name: &str, data: &str) -> Item {
        let data = Bytes::copy_from_slice(data.as_bytes());
        Item::Event(Event { name: name.to_owned(), data })
    }

    fn items(stream: &[u8], size: usize) -> Vec<Item> {
        let mut parser = Parser::default();
        let mut found: Vec<_> = stream
            .chunks(size)
            .flat_map(|chunk| parser.push(Bytes::copy_from_slice(chunk)))
            .collect();
        found.extend(parser.end());
        found
    }

    #[test]
    fn parsing_is_independent_of_chunking_and_line_endings() {
        let stream = "\u{feff}: OPENROUTER PROCESSING\n\ndata: {\"a\":\n\
                      data:1}\n\nevent: error\ndata: x\nid: 7\nretry: 5\n\nevent: ping\n\n\
                      data\n\ndata:  two\n\nnot a field\n\n: end\ndata: [DONE]";
        let expected = [
            Item::Comment,
            event("{\"a\":\n1}"),
            named("error", "x"),
            event(""),
            event(" two"),
            Item::Unreadable,
            Item::Comment,
            event("[DONE]"),
        ];
        for line_end in ["\n", "\r", "\r\n"] {
            let stream = stream.replace('\n', line_end);
            for size in 1..=stream.len() {
                assert_eq!(items(stream.as_bytes(), size), expected, "{line_end:?}, {size}");
            }
        }
    }

    #[test]
    fn an_overlong_event_is_unreadable() {
        let line = format!("data: {}\n", "x".repeat(MAX_EVENT));
        let short = format!("data: {}\n", "x".repeat(MAX_EVENT / 2));
        for long in [line, format!("{short}{short}{short}")] {
            let stream = format!("{long}\ndata: [DONE]\n\n");
            for size in [65_536, stream.len()] {
                let found = items(stream.as_bytes(), size);
                assert_eq!(found, [Item::Unreadable, event("[DONE]")], "{size}");
            }
        }
    }

    #[test]
    fn a_stream_that_stops_in_the_middle_of_an_event_is_noticed() {
        for (stream, between) in [
            ("", true),
            ("data: x\n\n", true),
            (": comment\n", true),
            ("data: x\n", false),
            ("data: x", false),
            ("garbage\n", false),
        ] {
            let mut parser = Parser::default();
            parser.push(Bytes::from(stream));
            assert_eq!(parser.is_between_events(), between, "{stream:?}");
        }
    }

    #[test]
    fn lines_pass_unchanged_and_a_partial_line_waits() {
        let stream = b"data: one\r\n\r\ndata: two\n\ndata: thr";
        for size in 1..=stream.len() {
            let mut lines = WholeLines::default();
            let mut passed = Vec::new();
            for chunk in stream.chunks(size) {
                let whole = lines.push(Bytes::copy_from_slice(chunk));
                assert!(whole.is_empty() || whole.ends_with(b"\n") || whole.ends_with(b"\r"));
                passed.extend_from_slice(&whole);
            }
            assert_eq!(passed, b"data: one\r\n\r\ndata: two\n\n");
            assert_eq!(lines.rest(), "data: thr");
        }
        let mut lines = WholeLines::default();
        lines.push(Bytes::from_static(b"data: "));
        let long = Bytes::from(vec![b'x'; MAX_PARTIAL]);
        assert_eq!(lines.push(long).len(), MAX_PARTIAL + 6);
    }
}
