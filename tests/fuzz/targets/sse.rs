//! A stream of server-sent events: a line of bytes, each the size of a piece, in turn and over again,
//! and the stream that is cut into these pieces.
//!
//! Holds: however the stream is cut, the same is found in it as in one piece, and none of its bytes is
//! lost or changed; it is done if a line says so; the chunk with the usage can take a member more, and
//! nothing else of it changes.
//!
//! In the stream, `{4M}` stands for 4 MiB of text, as an image has in it.

#![no_main]

use bytes::Bytes;
use fuzz::Members;
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use upstream::sse::{Line, Lines, Scanner, chunk_id, with_member};

const LARGE: &[u8] = b"{4M}";

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let (Some(sizes), Some(stream)) = (parts.next(), parts.next()) else {
        return;
    };
    let stream = filled_in(stream);
    let pieces = cut(&stream, sizes);
    let (lines, scanner) = followed(&pieces);
    let (mut whole_lines, whole_scanner) = followed(std::slice::from_ref(&stream));
    let bytes: Vec<u8> = lines.iter().flat_map(|(line, _)| line.to_vec()).collect();
    assert!(bytes == stream, "bytes were lost or changed");
    whole_lines.retain(is_read);
    assert!(
        lines.iter().filter(|line| is_read(line)).eq(&whole_lines),
        "other lines"
    );
    assert_eq!(scanner.done, whole_scanner.done, "done");
    assert_eq!(scanner.failed, whole_scanner.failed, "failed");
    assert_eq!(scanner.usage, whole_scanner.usage, "usage");
    let says_done = |line: &[u8]| {
        let data = line.strip_prefix(b"data:");
        data.is_some_and(|data| data.trim_ascii() == b"[DONE]")
    };
    let says_done = stream.split(|byte| *byte == b'\n').any(says_done);
    assert_eq!(scanner.done, says_done, "done, by a plain reading");
    for (line, meaning) in &lines {
        let _ = chunk_id(line);
        // What is read of a line can be fine where the rest of it is no text at all.
        let is_text = std::str::from_utf8(line).is_ok();
        if let (true, Line::Usage(_) | Line::Error(Some(_))) = (is_text, meaning) {
            takes_a_member(line);
        }
    }
});

fn is_read((_, meaning): &(Bytes, Line)) -> bool {
    *meaning != Line::TooLong
}

fn filled_in(stream: &[u8]) -> Bytes {
    let mut filled = Vec::new();
    let mut rest = stream;
    // Once, because each takes its time.
    if let Some(at) = rest.windows(LARGE.len()).position(|part| part == LARGE) {
        filled.extend_from_slice(&rest[..at]);
        filled.resize(at + (4 << 20), b'x');
        rest = &rest[at + LARGE.len()..];
    }
    filled.extend_from_slice(rest);
    Bytes::from(filled)
}

/// The pieces; of a large stream some thousands at most.
fn cut(stream: &Bytes, sizes: &[u8]) -> Vec<Bytes> {
    let unit = 1 + stream.len() / 8_192;
    let mut rest = stream.clone();
    let mut pieces = Vec::new();
    let mut sizes = sizes.iter().map(|size| usize::from(*size)).cycle();
    while let Some(size) = sizes.next().filter(|_| !rest.is_empty()) {
        if pieces.len() > stream.len() {
            // Sizes of nothing but zero.
            break;
        }
        pieces.push(rest.split_to(rest.len().min(size * unit)));
    }
    pieces.push(rest);
    pieces
}

fn followed(pieces: &[Bytes]) -> (Vec<(Bytes, Line)>, Scanner) {
    let mut lines = Lines::default();
    let mut scanner = Scanner::default();
    let mut found = Vec::new();
    for piece in pieces {
        found.extend(lines.push(piece.clone()));
        scanner.feed(piece.clone());
    }
    found.push(lines.rest());
    scanner.end();
    (found, scanner)
}

fn takes_a_member(line: &Bytes) {
    let mut expected = members(line);
    let more = ("greta", r#"{"call_id":"call_1"}"#);
    expected.push((more.0.to_owned(), more.1.to_owned()));
    let longer = with_member(line, more.0, more.1).expect("a chunk");
    assert_eq!(members(&longer), expected);
}

/// The members of a chunk, each with its JSON as it stands.
fn members(line: &[u8]) -> Vec<(String, String)> {
    let data = line.strip_prefix(b"data:").expect("a chunk's line");
    let Members(members) =
        serde_json::from_slice::<Members<&RawValue>>(data).expect("a chunk is an object");
    let owned = |(name, value): (String, &RawValue)| (name, value.get().to_owned());
    members.into_iter().map(owned).collect()
}
