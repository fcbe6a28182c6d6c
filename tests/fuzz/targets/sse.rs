//! A stream of server-sent events: a line of bytes, each the size of a chunk, used cyclically, and
//! the stream that is cut into these chunks.
//!
//! Properties: the events do not depend on how the stream is cut or on its line endings; its lines
//! pass whole and unchanged; adding a member to an event with usage changes nothing else in it.

#![no_main]

use bytes::Bytes;
use fuzz::Members;
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use upstream::sse::{Item, Parser, WholeLines};
use upstream::{Chunk, Parsed, with_member, without_choices};

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let (Some(sizes), Some(stream)) = (parts.next(), parts.next()) else {
        return;
    };
    let stream = Bytes::copy_from_slice(stream);
    let chunks = cut(&stream, sizes);
    assert_lines(&stream, &chunks);

    let found = items(&chunks);
    assert_eq!(found, items(std::slice::from_ref(&stream)));
    if !stream.contains(&b'\r') {
        for line_end in [&b"\r"[..], b"\r\n"] {
            let lines: Vec<_> = stream.split(|byte| *byte == b'\n').collect();
            let other = Bytes::from(lines.join(line_end));
            assert_eq!(found, items(&cut(&other, sizes)));
        }
    }
    for item in found {
        let Item::Event(event) = item else { continue };
        match Parsed::of_event(&event) {
            Parsed::Done => assert_eq!(event.data.trim_ascii(), b"[DONE]"),
            Parsed::Chunk(Chunk { usage: Some(_), .. }) => assert_takes_a_member(&event.data),
            Parsed::Chunk(_) | Parsed::Error(..) | Parsed::Unreadable => {}
        }
    }
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

fn items(chunks: &[Bytes]) -> Vec<Item> {
    let mut parser = Parser::default();
    let mut found: Vec<_> = chunks.iter().flat_map(|chunk| parser.push(chunk.clone())).collect();
    found.extend(parser.end());
    found
}

fn assert_lines(stream: &[u8], chunks: &[Bytes]) {
    let mut lines = WholeLines::default();
    let mut passed = Vec::new();
    for chunk in chunks {
        let whole = lines.push(chunk.clone());
        assert!(whole.last().is_none_or(|last| matches!(last, b'\n' | b'\r')));
        passed.extend_from_slice(&whole);
    }
    passed.extend_from_slice(&lines.rest());
    assert_eq!(passed, stream, "bytes were lost or changed");
}

fn assert_takes_a_member(data: &[u8]) {
    let mut expected = members(data);
    let more = ("greta", r#"{"call_id":"call_1"}"#);
    let ours = without_choices(data).expect("an object");
    assert!(members(ours.as_bytes()).iter().all(|member| {
        expected.contains(member) || *member == ("choices".to_owned(), "[]".to_owned())
    }));
    expected.push((more.0.to_owned(), more.1.to_owned()));
    let longer = with_member(data, more.0, more.1).expect("an object");
    assert_eq!(members(&longer), expected);
}

/// The members of an object, each with its JSON unchanged.
fn members(data: &[u8]) -> Vec<(String, String)> {
    let Members(members) = serde_json::from_slice::<Members<&RawValue>>(data.trim_ascii())
        .expect("a chunk is an object");
    let owned = |(name, value): (String, &RawValue)| (name, value.get().to_owned());
    members.into_iter().map(owned).collect()
}
