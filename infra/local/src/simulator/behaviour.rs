//! What a model's name asks the simulator to do.

use std::time::Duration;

use super::models::{LISTED, UNLISTED};

/// How a chat call is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// As OpenRouter does.
    Ok,
    /// An error of this status instead of an answer.
    Status(u16),
    /// 403, because the key's own limit is used up.
    KeyLimit,
    /// 403, because of what the messages say.
    Moderation,
    /// 302.
    Redirect,
    /// The connection is closed before the head.
    Reset,
    /// The connection is closed after the head, before the body.
    ResetAfterHead,
    /// No head, ever.
    HangHead,
    /// The head comes late.
    SlowHead(Duration),
    /// The connection is closed after two pieces of the answer.
    Cut,
    /// The same, inside a line.
    CutMidLine,
    /// The stream ends in good order, but without `[DONE]`.
    NoDone,
    /// The answer breaks off with an error at the top of a chunk.
    MidstreamError,
    /// The answer carries an error inside its choice.
    ChoiceError,
    /// The answer does not say what it cost.
    NoUsage,
    /// The answer cost nothing at OpenRouter, and something at the provider.
    ZeroCostByok,
    /// The cost is written with an exponent.
    ScientificCost,
    /// A pause before each piece.
    SlowChunks(Duration),
    /// Two pieces, then nothing more, and no end.
    Stall,
    /// Two megabytes of answer.
    Big,
    /// CRLF line ends.
    Crlf,
    /// CRLF line ends, and pieces that end inside characters, lines and line ends.
    Split,
}

const NAMED: &[(&str, Behaviour)] = &[
    ("ok", Behaviour::Ok),
    ("status-400", Behaviour::Status(400)),
    ("status-401", Behaviour::Status(401)),
    ("status-402", Behaviour::Status(402)),
    ("status-403", Behaviour::Status(403)),
    ("status-403-limit", Behaviour::KeyLimit),
    ("status-403-moderation", Behaviour::Moderation),
    ("status-404", Behaviour::Status(404)),
    ("status-408", Behaviour::Status(408)),
    ("status-413", Behaviour::Status(413)),
    ("status-422", Behaviour::Status(422)),
    ("status-429", Behaviour::Status(429)),
    ("status-500", Behaviour::Status(500)),
    ("status-502", Behaviour::Status(502)),
    ("status-503", Behaviour::Status(503)),
    ("status-524", Behaviour::Status(524)),
    ("status-529", Behaviour::Status(529)),
    ("redirect", Behaviour::Redirect),
    ("reset", Behaviour::Reset),
    ("reset-after-head", Behaviour::ResetAfterHead),
    ("hang-head", Behaviour::HangHead),
    ("cut", Behaviour::Cut),
    ("cut-mid-line", Behaviour::CutMidLine),
    ("no-done", Behaviour::NoDone),
    ("midstream-error", Behaviour::MidstreamError),
    ("choice-error", Behaviour::ChoiceError),
    ("no-usage", Behaviour::NoUsage),
    ("zero-cost-byok", Behaviour::ZeroCostByok),
    ("scientific-cost", Behaviour::ScientificCost),
    ("stall", Behaviour::Stall),
    ("big", Behaviour::Big),
    ("crlf", Behaviour::Crlf),
    ("split", Behaviour::Split),
];

/// The delays that the model list names; a name with another number works as well, unlisted.
const LISTED_DELAYS_MS: [u64; 6] = [10, 50, 200, 500, 1000, 3000];

const SLOW_HEAD: &str = "slow-head-";
const SLOW_CHUNKS: &str = "slow-chunks-";

/// Every `<what>` that the model list names.
pub(super) fn names() -> impl Iterator<Item = String> {
    let delays = [SLOW_HEAD, SLOW_CHUNKS].into_iter().flat_map(|prefix| {
        LISTED_DELAYS_MS
            .into_iter()
            .map(move |delay| format!("{prefix}{delay}"))
    });
    NAMED
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .chain(delays)
}

/// What calling `model` does. `None`: its name asks for something unknown.
pub(super) fn of_model(model: &str) -> Option<Behaviour> {
    let Some(what) = model
        .strip_prefix(UNLISTED)
        .or_else(|| model.strip_prefix(LISTED))
    else {
        return Some(Behaviour::Ok);
    };
    if let Some((_, behaviour)) = NAMED.iter().find(|(name, _)| *name == what) {
        return Some(*behaviour);
    }
    let delay = |ms: &str| ms.parse().ok().map(Duration::from_millis);
    if let Some(ms) = what.strip_prefix(SLOW_HEAD) {
        return delay(ms).map(Behaviour::SlowHead);
    }
    delay(what.strip_prefix(SLOW_CHUNKS)?).map(Behaviour::SlowChunks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_name_does_something() {
        for name in names() {
            let listed = of_model(&format!("{LISTED}{name}"));
            assert!(listed.is_some(), "{name}");
            assert_eq!(listed, of_model(&format!("{UNLISTED}{name}")));
        }
        let slow = Behaviour::SlowChunks(Duration::from_millis(7));
        assert_eq!(of_model("sim/slow-chunks-7"), Some(slow));
        assert_eq!(of_model("openai/gpt-4o"), Some(Behaviour::Ok));
        assert_eq!(of_model("sim/slow-chunks-soon"), None);
        assert_eq!(of_model("sim/nothing"), None);
    }
}
