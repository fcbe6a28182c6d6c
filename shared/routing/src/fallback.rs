//! Which failed calls may be made again on the default AI.

/// Does the table allow a fallback for this call?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fallback {
    Allowed,
    Never,
}

/// Why OpenRouter did not serve a call that the default AI may serve instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FallbackCause {
    KeyRejected,
    PaymentRequired,
    RateLimited,
    Unavailable,
    /// The key's secret could not be read. Allowed where `Unavailable` is.
    KeyUnavailable,
}

impl FallbackCause {
    pub const ALL: [Self; 5] = [
        Self::KeyRejected,
        Self::PaymentRequired,
        Self::RateLimited,
        Self::Unavailable,
        Self::KeyUnavailable,
    ];

    /// The route reason of a call that fell back.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::KeyRejected => "fallback_key_rejected",
            Self::PaymentRequired => "fallback_payment_required",
            Self::RateLimited => "fallback_rate_limited",
            Self::Unavailable => "fallback_unavailable",
            Self::KeyUnavailable => "fallback_key_unavailable",
        }
    }
}

/// The causes that this deployment lets fall back (`FALLBACK_CAUSES`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FallbackCauses(Vec<FallbackCause>);

impl FallbackCauses {
    pub fn all() -> Self {
        use FallbackCause::{KeyRejected, PaymentRequired, RateLimited, Unavailable};
        Self(vec![KeyRejected, PaymentRequired, RateLimited, Unavailable])
    }

    /// Reads a comma-separated list. An empty list allows no fallback; the error is the name that is
    /// not a cause.
    pub fn parse(list: &str) -> Result<Self, String> {
        let names = list.split(',').map(str::trim);
        let causes = names.filter(|name| !name.is_empty()).map(|name| match name {
            "key_rejected" => Ok(FallbackCause::KeyRejected),
            "payment_required" => Ok(FallbackCause::PaymentRequired),
            "rate_limited" => Ok(FallbackCause::RateLimited),
            "unavailable" => Ok(FallbackCause::Unavailable),
            other => Err(other.to_owned()),
        });
        causes.collect::<Result<_, _>>().map(Self)
    }
}

/// May a call that failed for `cause` be made on the default AI instead?
pub fn may_fall_back(fallback: Fallback, cause: FallbackCause, causes: &FallbackCauses) -> bool {
    let listed_as = match cause {
        FallbackCause::KeyUnavailable => FallbackCause::Unavailable,
        cause => cause,
    };
    fallback == Fallback::Allowed && causes.0.contains(&listed_as)
}
