//! The measurements of calls, and their tables.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::client::Moments;
use crate::stats::{Nanos, Sample, micros};

/// The measurements of one target and one way of calling it.
#[derive(Default)]
pub(crate) struct Measured {
    pub(crate) head: Sample,
    pub(crate) first_byte: Sample,
    pub(crate) first_content: Sample,
    pub(crate) end: Sample,
    /// For each chunk, from its creation to its arrival.
    pub(crate) transit: Sample,
    pub(crate) first_transit: Sample,
    /// CPU time of the process in the middle per call: one value per round.
    pub(crate) cpu: Sample,
    pub(crate) calls: usize,
    pub(crate) elapsed: Nanos,
}

impl Measured {
    pub(crate) fn take(&mut self, moments: Moments) {
        self.head.push(moments.head);
        self.first_byte.push(moments.first_byte);
        self.first_content.push(moments.first_content);
        self.end.push(moments.end);
        self.first_transit.extend(moments.transits.first().copied());
        self.transit.extend(moments.transits);
        self.calls += 1;
    }

    fn is_streamed(&self) -> bool {
        self.transit.len() > 0
    }

    fn json(&self) -> Value {
        let of = |sample: &Sample| json!({"p50_ns": sample.p50(), "p99_ns": sample.p99()});
        json!({
            "calls": self.calls,
            "elapsed_ns": self.elapsed,
            "head": of(&self.head),
            "first_byte": of(&self.first_byte),
            "first_content": of(&self.first_content),
            "end": of(&self.end),
            "transit": of(&self.transit),
            "first_transit": of(&self.first_transit),
            "cpu_ns": self.cpu.p50(),
        })
    }
}

/// Measurements side by side: rows by name. The first row is the baseline.
pub(crate) struct Table {
    pub(crate) title: &'static str,
    rows: Vec<(&'static str, Measured)>,
}

type Column = (&'static str, fn(&Measured) -> &Sample);
const ANSWER: Column = ("answer", |it| &it.end);
const STREAM: [Column; 5] = [
    ("head", |it| &it.head),
    ("first byte", |it| &it.first_byte),
    ("first content", |it| &it.first_content),
    ("transit of a chunk", |it| &it.transit),
    ("end", |it| &it.end),
];

impl Table {
    pub(crate) fn new(title: &'static str) -> Self {
        Self { title, rows: Vec::new() }
    }

    /// The row of this name, created if missing.
    pub(crate) fn row(&mut self, name: &'static str) -> &mut Measured {
        let at = self.rows.iter().position(|(other, _)| *other == name);
        let at = at.unwrap_or_else(|| {
            self.rows.push((name, Measured::default()));
            self.rows.len() - 1
        });
        &mut self.rows[at].1
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Measured> {
        let row = self.rows.iter().find(|(other, _)| *other == name)?;
        Some(&row.1)
    }

    /// In µs. "Added" is the difference from the first row.
    pub(crate) fn markdown(&self) -> String {
        let streamed = self.rows.iter().any(|(_, it)| it.is_streamed());
        let columns = if streamed { &STREAM[..] } else { &[ANSWER] };
        let mut text = format!("\n### {}\n\n| |", self.title);
        for (name, _) in columns {
            let _ = write!(text, " {name}: p50 | p99 | added p50 | p99 |");
        }
        text.push_str(" CPU a call | calls/s |\n|---|");
        text.push_str(&"--:|".repeat(columns.len() * 4 + 2));
        text.push('\n');
        for (name, it) in &self.rows {
            let _ = write!(text, "| {name} |");
            for (_, of) in columns {
                let first = self.rows.first().map(|(_, first)| of(first));
                let added = |of: fn(&Sample) -> Nanos, own: &Sample| {
                    micros(added(of(own), first.map(of).unwrap_or_default()))
                };
                let own = of(it);
                let (p50, p99) = (micros(own.p50()), micros(own.p99()));
                let (more50, more99) = (added(Sample::p50, own), added(Sample::p99, own));
                let _ = write!(text, " {p50} | {p99} | {more50} | {more99} |");
            }
            let calls = u64::try_from(it.calls).unwrap_or(u64::MAX);
            let rate = calls.saturating_mul(1_000_000_000) / it.elapsed.max(1);
            let _ = writeln!(text, " {} | {rate} |", micros(it.cpu.p50()));
        }
        text
    }

    pub(crate) fn json(&self) -> Value {
        let rows = self.rows.iter();
        Value::Object(rows.map(|(name, it)| ((*name).to_owned(), it.json())).collect())
    }
}

pub(crate) fn added(own: Nanos, other: Nanos) -> i64 {
    i64::try_from(own).unwrap_or(i64::MAX) - i64::try_from(other).unwrap_or(i64::MAX)
}
