//! The behaviours that a model's name selects.

use std::time::Duration;

/// The prefix of models that misbehave and are not in the list: `sim/<behaviour>`.
pub(super) const UNLISTED: &str = "sim/";
/// The prefix of models that misbehave and are in the list, with a price: `sim-priced/<behaviour>`.
pub(super) const LISTED: &str = "sim-priced/";

/// The behaviour of a chat call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// Like OpenRouter.
    Ok,
    /// An error with this status.
    Status(u16),
    /// 403, because the key's own limit is used up.
    KeyLimit,
    /// 403, because of the content of the messages.
    Moderation,
    /// 302.
    Redirect,
    /// The connection is closed before the head.
    Reset,
    /// The connection is closed after the head, before the body.
    ResetAfterHead,
    /// The head never comes.
    HangHead,
    /// The head comes late.
    SlowHead(Duration),
    /// The connection is closed after two chunks of content.
    Cut,
    /// The same, in the middle of a line.
    CutMidLine,
    /// The stream ends properly, but without `[DONE]`.
    NoDone,
    /// The response breaks off with an error at the top level of a chunk.
    MidstreamError,
    /// The response carries an error inside its choice.
    ChoiceError,
    /// The response has no usage.
    NoUsage,
    /// The call costs nothing at OpenRouter, but something at the upstream provider.
    ZeroCostByok,
    /// The cost is written with an exponent.
    ScientificCost,
    /// A pause before each chunk.
    SlowChunks(Duration),
    /// Two chunks of content, then nothing more, and no end.
    Stall,
    /// A response of two megabytes.
    Big,
    /// CRLF line ends.
    Crlf,
    /// CRLF line ends, and chunks that end inside characters, lines and line ends.
    Split,
}

const NAMED: &[(&str, Behaviour)] = &[
    ("ok", Behaviour::Ok),
    ("status-403-limit", Behaviour::KeyLimit),
    ("status-403-moderation", Behaviour::Moderation),
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

/// The error statuses in the model list.
const STATUSES: [u16; 14] = [400, 401, 402, 403, 404, 408, 413, 422, 429, 500, 502, 503, 524, 529];

/// The delays in the model list, in milliseconds; other numbers also work, unlisted.
const LISTED_DELAYS_MS: [u64; 6] = [10, 50, 200, 500, 1000, 3000];

const STATUS: &str = "status-";
const SLOW_HEAD: &str = "slow-head-";
const SLOW_CHUNKS: &str = "slow-chunks-";

/// Every behaviour in the model list.
pub(super) fn names() -> impl Iterator<Item = String> {
    let delays = [SLOW_HEAD, SLOW_CHUNKS].into_iter().flat_map(|prefix| {
        LISTED_DELAYS_MS.into_iter().map(move |delay| format!("{prefix}{delay}"))
    });
    let statuses = STATUSES.into_iter().map(|status| format!("{STATUS}{status}"));
    let named = NAMED.iter().map(|(name, _)| (*name).to_owned());
    named.chain(statuses).chain(delays)
}

/// The behaviour of `model`. `None` if its name asks for an unknown one.
pub(super) fn of_model(model: &str) -> Option<Behaviour> {
    let mut prefixes = [UNLISTED, LISTED].into_iter();
    let Some(name) = prefixes.find_map(|prefix| model.strip_prefix(prefix)) else {
        return Some(Behaviour::Ok);
    };
    if let Some((_, behaviour)) = NAMED.iter().find(|(known, _)| *known == name) {
        return Some(*behaviour);
    }
    if let Some(status) = name.strip_prefix(STATUS) {
        let status = status.parse().ok();
        return status.filter(|status| STATUSES.contains(status)).map(Behaviour::Status);
    }
    let delay = |ms: &str| ms.parse().ok().map(Duration::from_millis);
    if let Some(ms) = name.strip_prefix(SLOW_HEAD) {
        return delay(ms).map(Behaviour::SlowHead);
    }
    delay(name.strip_prefix(SLOW_CHUNKS)?).map(Behaviour::SlowChunks)
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
