//! Changes of the add-on that other systems are told about, for example to send a mail.

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddOnChange {
    /// Access began, or began again.
    Activated,
    /// A charge was declined; access lasts through the grace period.
    PastDue,
    /// Access stopped; a payment or the end of a dispute can restore it.
    Suspended,
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The period was not paid within the grace period.
    Unpaid,
    /// The payment is disputed, or was lost in a dispute.
    Disputed,
    Refunded,
    Cancelled,
    /// The plan includes OpenRouter, or did so until the end of the paid period.
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
