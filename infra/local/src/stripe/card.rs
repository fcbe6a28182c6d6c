//! Test cards, and the outcomes of charges to them.

const AUTHENTICATION_REQUIRED: &str = "authentication_required";

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
    /// The money is taken, and the connection is closed without a response.
    TimesOutAfterCharging,
    /// `insufficient_funds`, and the connection is closed without a response.
    TimesOutAfterDeclining,
    /// The connection is closed, and nothing was done.
    TimesOutBeforeCharging,
    /// The PaymentIntent is `processing` until [`finish`](super::StripeHandle::finish).
    Processing,
}

impl ChargeOutcome {
    pub(super) const DECLINED: Self = Self::Declined("generic_decline");
}

impl Card {
    /// Every card, its name in the checkout form, and its label there.
    pub(super) const ALL: [(Self, &str, &str); 9] = [
        (Self::Succeeds, "succeeds", "Succeeds"),
        (Self::DeclinesSoftly, "declines_softly", "Declines softly"),
        (Self::DeclinesHard, "declines_hard", "Declines hard"),
        (Self::DeclinesLater, "declines_later", "Succeeds, then declines"),
        (Self::NeedsAuthentication, "authentication", "Needs authentication later"),
        (Self::TimesOutAfterCharging, "charges_silently", "Charges and then times out"),
        (Self::TimesOutAfterDeclining, "declines_silently", "Declines and then times out"),
        (Self::TimesOutBeforeCharging, "times_out", "Times out before charging"),
        (Self::Processing, "processing", "Takes a while"),
    ];

    pub(super) fn named(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(_, known, _)| *known == name);
        found.map(|(card, ..)| *card)
    }

    pub(super) fn charge(self, off_session: bool) -> ChargeOutcome {
        use ChargeOutcome::{Declined, NoResponse, Processing, RequiresAction, Succeeded};
        match (self, off_session) {
            (Self::Succeeds | Self::TimesOutAfterCharging, _) | (Self::DeclinesLater, false) => {
                Succeeded
            }
            (Self::DeclinesSoftly | Self::TimesOutAfterDeclining, _)
            | (Self::DeclinesLater, true) => Declined("insufficient_funds"),
            (Self::DeclinesHard, _) => Declined("lost_card"),
            (Self::NeedsAuthentication, true) => Declined(AUTHENTICATION_REQUIRED),
            (Self::NeedsAuthentication, false) => RequiresAction,
            (Self::TimesOutBeforeCharging, _) => NoResponse,
            (Self::Processing, _) => Processing,
        }
    }

    /// The charge is attempted, and the response never arrives.
    pub(super) fn loses_response(self) -> bool {
        matches!(self, Self::TimesOutAfterCharging | Self::TimesOutAfterDeclining)
    }
}

/// The outcome of one attempt to charge a card.
#[derive(Debug, Clone, Copy)]
pub(super) enum ChargeOutcome {
    Succeeded,
    /// For this reason.
    Declined(&'static str),
    RequiresAction,
    Processing,
    /// Nothing was attempted, and the connection is closed.
    NoResponse,
}

/// Why a page was not paid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayError {
    #[error("there is no such page")]
    NotFound,
    #[error("this was already paid")]
    Complete,
    #[error("this page has expired")]
    Expired,
    #[error("{0}")]
    Declined(&'static str),
    /// The payer's browser gets no response; the page may have been paid all the same.
    #[error("the connection was closed")]
    NoResponse,
}

/// The message to the payer (<https://docs.stripe.com/declines/codes>).
pub(super) fn decline_message(reason: &str) -> &'static str {
    match reason {
        "insufficient_funds" => "Your card has insufficient funds.",
        AUTHENTICATION_REQUIRED => {
            "Your card was declined. This transaction requires authentication."
        }
        _ => "Your card was declined.",
    }
}

/// The error code beside the reason.
pub(super) fn decline_code(reason: &'static str) -> &'static str {
    match reason {
        AUTHENTICATION_REQUIRED => reason,
        _ => "card_declined",
    }
}
