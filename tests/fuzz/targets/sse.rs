//! A stream of server-sent events: a line of bytes, each the size of a chunk, used cyclically, and
//! the stream that is cut into these chunks.
//!
//! Properties: however the stream is cut, its lines are those of a plain reading, except for too
//! long ones, which are not parsed; the findings are the same as for one chunk; no byte is lost or
//! changed; it is done if a line says so; the usage chunk can take one more member, and nothing
//! else in it changes.

#![no_main]

use bytes::Bytes;
use fuzz::Members;
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use upstream::sse::{Line, Lines, Scanner, chunk_id, with_member};

/// Short enough for lines of this target's streams to be too long.
const SHORT: usize = 64;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let (Some(sizes), Some(stream)) = (parts.next(), parts.next()) else {
        return;
    };
    let stream = Bytes::copy_from_slice(stream);
    let chunks = cut(&stream, sizes);
    assert_lines(Lines::default(), usize::MAX, &stream, &chunks);
    assert_lines(Lines::of_at_most(SHORT), SHORT, &stream, &chunks);

    let found = scanned(&chunks);
    let at_once = scanned(std::slice::from_ref(&stream));
    assert_eq!(
        (found.done, found.failed, found.usage),
        (at_once.done, at_once.failed, at_once.usage)
    );
    let says_done = |line: &[u8]| {
        let data = line.strip_prefix(b"data:");
        data.is_some_and(|data| data.trim_ascii() == b"[DONE]")
    };
    let says_done = stream.split(|byte| *byte == b'\n').any(says_done);
    assert_eq!(found.done, says_done, "done, by a plain reading");
});

fn cut(stream: &Bytes, sizes: &[u8]) -> Vec<Bytes> {
    let mut rest = stream.clone();
    let mut chunks = Vec::new();
    let mut sizes = sizes.iter().map(|size| usize::from(*size)).cycle();
    while let Some(size) = sizes.next().filter(|_| !rest.is_empty()) {
        if chunks.len() > stream.len() {
            // All sizes are zero.
            break;
        }
        chunks.push(rest.split_to(rest.len().min(size)));
    }
    chunks.push(rest);
    chunks
}

fn assert_lines(mut lines: Lines, max_line: usize, stream: &[u8], chunks: &[Bytes]) {
    let mut found = Vec::new();
    for chunk in chunks {
        found.extend(lines.push(chunk.clone()));
    }
    found.push(lines.rest());
    let bytes: Vec<u8> = found.iter().flat_map(|(line, _)| line.to_vec()).collect();
    assert_eq!(bytes, stream, "bytes were lost or changed");

    let found = found.iter().filter(|(_, meaning)| *meaning != Line::TooLong);
    let found: Vec<_> = found.filter(|(line, _)| !line.is_empty()).collect();
    let short = |line: &&[u8]| line.strip_suffix(b"\n").unwrap_or(line).len() <= max_line;
    let plain = stream.split_inclusive(|byte| *byte == b'\n').filter(short);
    assert!(found.iter().map(|(line, _)| &line[..]).eq(plain), "{found:?}");
    for (line, meaning) in found {
        assert_eq!(*meaning, Line::of(line));
        let _ = chunk_id(line);
        // The parsed part of a line can be fine although the rest is not UTF-8.
        let is_text = std::str::from_utf8(line).is_ok();
        if let (true, Line::Usage(_) | Line::Error(Some(_))) = (is_text, meaning) {
            assert_takes_a_member(line);
        }
    }
}

fn scanned(chunks: &[Bytes]) -> Scanner {
    let mut scanner = Scanner::default();
    for chunk in chunks {
        scanner.feed(chunk.clone());
    }
    scanner.end();
    scanner
}

fn assert_takes_a_member(line: &Bytes) {
    let mut expected = members(line);
    let more = ("greta", r#"{"call_id":"call_1"}"#);
    expected.push((more.0.to_owned(), more.1.to_owned()));
    let longer = with_member(line, more.0, more.1).expect("a chunk");
    assert_eq!(members(&longer), expected);
}

/// The members of a chunk, each with its JSON unchanged.
fn members(line: &[u8]) -> Vec<(String, String)> {
    let data = line.strip_prefix(b"data:").expect("a chunk's line");
    let Members(members) = serde_json::from_slice::<Members<&RawValue>>(data.trim_ascii())
        .expect("a chunk is an object");
    let owned = |(name, value): (String, &RawValue)| (name, value.get().to_owned());
    members.into_iter().map(owned).collect()
}
