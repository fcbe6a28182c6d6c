//! What a change of the add-on is to others: what a mail is sent about.

use super::{AddOn, AddOnStatus};

/// What there is to tell of an add-on that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddOnChange {
    /// Access began, or came back.
    Activated,
    /// A charge was declined; access goes on for the grace period.
    PastDue,
    /// Access stopped, and can be regained by a payment or by the end of a dispute.
    Suspended,
    /// It is over.
    Ended,
}

/// Why there is no access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The period was not paid in the grace period.
    Unpaid,
    /// The payment is disputed, or was lost in a dispute.
    Disputed,
    /// The payment was given back.
    Refunded,
    /// The user cancelled.
    Cancelled,
    /// The plan includes what the add-on gives, or did until the add-on had run out.
    PlanChanged,
}

impl Reason {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unpaid => "unpaid",
            Self::Disputed => "disputed",
            Self::Refunded => "refunded",
            Self::Cancelled => "cancelled",
            Self::PlanChanged => "plan_changed",
        }
    }
}

impl AddOn {
    /// What there is to tell of the change from `before` to this. That a cancellation was made or taken
    /// back, and that a period was paid, is none of it.
    pub fn change_since(&self, before: &Self) -> Option<AddOnChange> {
        use AddOnStatus::{Active, Cancelling, Ended, None, PastDue, Suspended};
        let (was, is) = (before.status(), self.status());
        let is_other = self.generation() != before.generation();
        match is {
            None => Option::None,
            Active | Cancelling => {
                let had_access = matches!(was, Active | Cancelling | PastDue);
                (is_other || !had_access).then_some(AddOnChange::Activated)
            }
            PastDue => (was != PastDue).then_some(AddOnChange::PastDue),
            Suspended => (was != Suspended).then_some(AddOnChange::Suspended),
            Ended => (was != Ended).then_some(AddOnChange::Ended),
        }
    }

    /// Why the add-on is suspended or over; `None` if it is neither.
    pub fn reason(&self) -> Option<Reason> {
        self.standing().1
    }
}
