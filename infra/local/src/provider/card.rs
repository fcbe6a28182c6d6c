//! What happens when a card is charged.

use std::fmt;
use std::str::FromStr;

/// How a card behaves, at each attempt to charge it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Card {
    Succeeds,
    /// `insufficient_funds`.
    DeclinesSoftly,
    /// `lost_card`.
    DeclinesHard,
    /// The first payment, with the customer present, succeeds; then `insufficient_funds`.
    DeclinesLater,
    /// `authentication_required` off session. On the checkout page the customer authenticates.
    NeedsAuthentication,
    /// The money is taken, and the connection is closed without an answer.
    TimesOutAfterCharging,
    /// `insufficient_funds`, and the connection is closed without an answer.
    TimesOutAfterDeclining,
    /// The connection is closed, and nothing was done.
    TimesOutBeforeCharging,
    /// The intent is `processing` until [`finish`](super::ProviderState::finish) says how it ended.
    Processing,
}

impl Card {
    /// Every card by its name, and how the checkout page describes it.
    pub const ALL: [(Self, &str, &str); 9] = [
        (Self::Succeeds, "succeeds", "Succeeds"),
        (Self::DeclinesSoftly, "declines_softly", "Declines softly"),
        (Self::DeclinesHard, "declines_hard", "Declines hard"),
        (
            Self::DeclinesLater,
            "declines_later",
            "Succeeds, then declines",
        ),
        (
            Self::NeedsAuthentication,
            "authentication",
            "Needs authentication later",
        ),
        (
            Self::TimesOutAfterCharging,
            "charges_silently",
            "Charges and then times out",
        ),
        (
            Self::TimesOutAfterDeclining,
            "declines_silently",
            "Declines and then times out",
        ),
        (
            Self::TimesOutBeforeCharging,
            "times_out",
            "Times out before charging",
        ),
        (Self::Processing, "processing", "Takes a while"),
    ];

    pub(super) fn verdict(self, off_session: bool) -> Verdict {
        let insufficient = Verdict::Decline(&Decline::INSUFFICIENT_FUNDS);
        match (self, off_session) {
            (Self::Succeeds | Self::TimesOutAfterCharging, _) | (Self::DeclinesLater, false) => {
                Verdict::Charge
            }
            (Self::DeclinesSoftly | Self::TimesOutAfterDeclining, _)
            | (Self::DeclinesLater, true) => insufficient,
            (Self::DeclinesHard, _) => Verdict::Decline(&Decline::LOST_CARD),
            (Self::NeedsAuthentication, true) => {
                Verdict::Decline(&Decline::AUTHENTICATION_REQUIRED)
            }
            (Self::NeedsAuthentication, false) => Verdict::Authenticate,
            (Self::TimesOutBeforeCharging, _) => Verdict::Nothing,
            (Self::Processing, _) => Verdict::Process,
        }
    }

    /// The attempt is carried out, and its answer does not arrive.
    pub(super) fn loses_the_answer(self) -> bool {
        matches!(
            self,
            Self::TimesOutAfterCharging | Self::TimesOutAfterDeclining
        )
    }
}

#[derive(Debug, thiserror::Error)]
#[error("there is no such test card")]
pub struct UnknownCard;

impl FromStr for Card {
    type Err = UnknownCard;

    fn from_str(text: &str) -> Result<Self, UnknownCard> {
        let found = Self::ALL.iter().find(|(_, name, _)| *name == text);
        found.map(|(card, ..)| *card).ok_or(UnknownCard)
    }
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Self::ALL.iter().find(|(card, ..)| card == self);
        f.write_str(found.map_or("", |(_, name, _)| name))
    }
}

/// What the bank says to one attempt.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verdict {
    Charge,
    Decline(&'static Decline),
    Authenticate,
    Process,
    /// It never hears of it.
    Nothing,
}

/// Why a card was declined, as <https://docs.stripe.com/declines/codes> has it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decline {
    pub(super) code: &'static str,
    pub(super) reason: &'static str,
    pub(super) message: &'static str,
}

impl Decline {
    pub(super) const GENERIC: Self = Self {
        code: "card_declined",
        reason: "generic_decline",
        message: "Your card was declined.",
    };
    const INSUFFICIENT_FUNDS: Self = Self {
        code: "card_declined",
        reason: "insufficient_funds",
        message: "Your card has insufficient funds.",
    };
    const LOST_CARD: Self = Self {
        code: "card_declined",
        reason: "lost_card",
        message: "Your card was declined.",
    };
    const AUTHENTICATION_REQUIRED: Self = Self {
        code: "authentication_required",
        reason: "authentication_required",
        message: "Your card was declined. This transaction requires authentication.",
    };
}
