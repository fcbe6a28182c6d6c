//! The behaviours that a model's name selects.

use std::time::Duration;

use super::documented::{self, DocumentedError};

/// The prefix of models that misbehave and are not in the list: `sim/<behaviour>`.
pub(super) const UNLISTED: &str = "sim/";
/// The prefix of models that misbehave and are in the list, with a price: `sim-priced/<behaviour>`.
pub(super) const LISTED: &str = "sim-priced/";

/// The behaviour of a chat call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// Like OpenRouter.
    Ok,
    /// A documented error.
    Error(&'static DocumentedError, ErrorPlace),
    /// 403, because of the content of the messages.
    Moderation,
    /// 400, because the prompt and the output limit exceed the model's context.
    ContextLength,
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
    /// The response carries an error inside its choice.
    ChoiceError,
    /// The response has no usage.
    NoUsage,
    /// The stream reports usage in a chunk without choices.
    UsageApart,
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
    /// CRLF line endings.
    Crlf,
    /// CRLF line endings, and chunks that end inside characters, lines and line endings.
    Split,
}

/// Where a response carries its error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorPlace {
    /// As documented: usually an error status.
    AsDocumented,
    /// A 200 whose body, or whose first event, is the error.
    First,
    /// A stream that ends with the error after two chunks of content. A plain body contains only
    /// the error.
    Mid,
}

const NAMED: &[(&str, Behaviour)] = &[
    ("ok", Behaviour::Ok),
    ("status-403-moderation", Behaviour::Moderation),
    ("context-length", Behaviour::ContextLength),
    ("redirect", Behaviour::Redirect),
    ("reset", Behaviour::Reset),
    ("reset-after-head", Behaviour::ResetAfterHead),
    ("hang-head", Behaviour::HangHead),
    ("cut", Behaviour::Cut),
    ("cut-mid-line", Behaviour::CutMidLine),
    ("no-done", Behaviour::NoDone),
    ("choice-error", Behaviour::ChoiceError),
    ("no-usage", Behaviour::NoUsage),
    ("usage-apart", Behaviour::UsageApart),
    ("zero-cost-byok", Behaviour::ZeroCostByok),
    ("scientific-cost", Behaviour::ScientificCost),
    ("stall", Behaviour::Stall),
    ("big", Behaviour::Big),
    ("crlf", Behaviour::Crlf),
    ("split", Behaviour::Split),
];

/// Short names of documented errors.
const ERRORS: &[(&str, &str, ErrorPlace)] = &[
    ("status-400", "doc-streaming-pre-400", ErrorPlace::AsDocumented),
    ("status-401", "obs-401-user-not-found", ErrorPlace::AsDocumented),
    ("status-402", "doc-limits-402-negative-balance", ErrorPlace::AsDocumented),
    ("status-403", "obs-403-region", ErrorPlace::AsDocumented),
    ("status-403-limit", "new-403-key-limit-limit-source", ErrorPlace::AsDocumented),
    ("status-404", "doc-router-404-no-allowed-providers", ErrorPlace::AsDocumented),
    ("status-408", "oas-408", ErrorPlace::AsDocumented),
    ("status-413", "oas-413", ErrorPlace::AsDocumented),
    ("status-422", "oas-422", ErrorPlace::AsDocumented),
    ("status-429", "doc-provider-error-429", ErrorPlace::AsDocumented),
    ("status-500", "oas-500", ErrorPlace::AsDocumented),
    ("status-502", "oas-502", ErrorPlace::AsDocumented),
    ("status-503", "oas-503", ErrorPlace::AsDocumented),
    ("status-504", "type-timeout", ErrorPlace::AsDocumented),
    ("status-524", "oas-524", ErrorPlace::AsDocumented),
    ("status-529", "oas-529", ErrorPlace::AsDocumented),
    ("midstream-error", "doc-midstream-chat-server_error-string-code", ErrorPlace::Mid),
];

/// The delays in the model list, in milliseconds; other numbers also work, unlisted.
const LISTED_DELAYS_MS: [u64; 6] = [10, 50, 200, 500, 1000, 3000];

const SLOW_HEAD: &str = "slow-head-";
const SLOW_CHUNKS: &str = "slow-chunks-";

/// Model-name prefixes for a documented error's id.
const PLACES: [(&str, ErrorPlace); 3] = [
    ("error/", ErrorPlace::AsDocumented),
    ("first/", ErrorPlace::First),
    ("mid/", ErrorPlace::Mid),
];

/// Every behaviour in the model list.
pub(super) fn names() -> impl Iterator<Item = String> {
    let delays = [SLOW_HEAD, SLOW_CHUNKS].into_iter().flat_map(|prefix| {
        LISTED_DELAYS_MS.into_iter().map(move |delay| format!("{prefix}{delay}"))
    });
    let errors = PLACES.into_iter().flat_map(|(prefix, _)| {
        documented::of_calls().map(move |error| format!("{prefix}{}", error.id))
    });
    let named = NAMED.iter().map(|(name, _)| *name);
    let named = named.chain(ERRORS.iter().map(|(name, _, _)| *name));
    named.map(str::to_owned).chain(delays).chain(errors)
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
    if let Some((_, id, place)) = ERRORS.iter().find(|(known, _, _)| *known == name) {
        return documented::find(id).map(|error| Behaviour::Error(error, *place));
    }
    for (prefix, place) in PLACES {
        if let Some(id) = name.strip_prefix(prefix) {
            let error = documented::of_calls().find(|error| error.id == id)?;
            return Some(Behaviour::Error(error, place));
        }
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
        assert_eq!(of_model("sim/error/nothing"), None);
        assert_eq!(of_model("sim/nothing"), None);
    }
}
