//! Aims and results: two values of one run, and their ratio.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::stats::micros;

/// One aim: `own` must be at most `at_most` thousandths of `of`.
pub(crate) struct Aim {
    pub(crate) what: &'static str,
    pub(crate) unit: Unit,
    pub(crate) own: i64,
    pub(crate) of: i64,
    pub(crate) at_most: i64,
}

#[derive(Clone, Copy)]
pub(crate) enum Unit {
    /// Shown as µs.
    Nanoseconds,
    Kilobytes,
}

impl Unit {
    fn show(self, value: i64) -> String {
        match self {
            Self::Nanoseconds => format!("{} µs", micros(value)),
            Self::Kilobytes => format!("{value} kB"),
        }
    }
}

impl Aim {
    fn ratio(&self) -> i64 {
        self.own * 1_000 / self.of.max(1)
    }

    fn is_met(&self) -> bool {
        self.ratio() <= self.at_most
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "what": self.what,
            "own": self.own,
            "of": self.of,
            "ratio_permille": self.ratio(),
            "at_most_permille": self.at_most,
            "met": self.is_met(),
        })
    }
}

pub(crate) fn markdown(aims: &[Aim]) -> String {
    let mut text = String::from(
        "\n## Aims\n\n| what | measured | vs. | ratio | aim | met |\n|---|--:|--:|--:|--:|---|\n",
    );
    for aim in aims {
        let met = if aim.is_met() { "yes" } else { "**no**" };
        let (own, of) = (aim.unit.show(aim.own), aim.unit.show(aim.of));
        let (ratio, at_most) = (hundredths(aim.ratio()), hundredths(aim.at_most));
        let _ = writeln!(text, "| {} | {own} | {of} | {ratio} | {at_most} | {met} |", aim.what);
    }
    text
}

/// Thousandths as a decimal with two places.
fn hundredths(thousandths: i64) -> String {
    let rounded = (thousandths + 5) / 10;
    format!("{}.{:02}", rounded / 100, (rounded % 100).abs())
}
