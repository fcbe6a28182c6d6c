//! The record of a finished run: users' acts and what they saw (from the driver's log), payments and
//! refunds (from Stripe's own record), and the books.

use std::fmt::Write as _;

use jiff::Timestamp;

#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) lives: Vec<Life>,
    pub(crate) payments: Vec<Paid>,
    /// Times of ticks that ran without faults.
    pub(crate) ticks: Vec<Timestamp>,
    /// Jobs that stalled for a while.
    pub(crate) stalls: Vec<Stall>,
    /// From here on there were no faults, and every card succeeded.
    pub(crate) quiet_since: Timestamp,
    pub(crate) ended_at: Timestamp,
    /// Work that is still due.
    pub(crate) left_over: Vec<String>,
}

impl Record {
    /// Everything known about the accounts that `problems` name, for debugging.
    pub(crate) fn about(&self, problems: &[String]) -> String {
        let is_named = |number: &str| problems.iter().any(|problem| problem.contains(number));
        let mut text = String::new();
        for life in self.lives.iter().filter(|life| is_named(&life.number)) {
            let mut lines: Vec<(Timestamp, String)> = Vec::new();
            lines.extend(life.acts.iter().map(|act| (act.began, format!("{act:?}"))));
            let payments = self.payments.iter();
            let payments = payments.filter(|paid| paid.account == life.number);
            lines.extend(payments.map(|paid| (paid.at, format!("{paid:?}"))));
            lines.extend(life.seen.iter().map(|it| (it.at, format!("{it:?}"))));
            lines.extend(life.ledger.iter().map(|it| (it.at, format!("{it:?}"))));
            lines.sort();
            let _ = writeln!(text, "{} ({}): {:?}", life.id, life.number, life.claims);
            for (at, line) in lines {
                let _ = writeln!(text, "    {at}: {line}");
            }
        }
        text
    }
}

/// An account, from its creation to its deletion.
#[derive(Debug, Clone)]
pub(crate) struct Life {
    pub(crate) id: String,
    /// Its name in Stripe's metadata.
    pub(crate) number: String,
    pub(crate) acts: Vec<Act>,
    pub(crate) seen: Vec<Seen>,
    pub(crate) claims: Vec<Claim>,
    pub(crate) ledger: Vec<Entry>,
    /// In micro-credits.
    pub(crate) balance: i64,
    /// Credits that were granted, not bought.
    pub(crate) granted: i64,
    /// Problems that reconciliation found.
    pub(crate) problems: Vec<String>,
}

/// Something that a user or Greta's core system did.
#[derive(Debug, Clone)]
pub(crate) struct Act {
    pub(crate) what: What,
    pub(crate) began: Timestamp,
    /// When it was certainly over; before that it may take effect at any time.
    pub(crate) over: Option<Timestamp>,
    /// The status of the response.
    pub(crate) answer: Option<u16>,
}

impl Act {
    pub(crate) fn is_done(&self) -> bool {
        self.answer.is_some_and(|status| status < 300)
    }

    /// It certainly had no effect.
    pub(crate) fn is_refused(&self) -> bool {
        self.answer.is_some_and(|status| (400..500).contains(&status))
    }

    pub(crate) fn is_over(&self, at: Timestamp) -> bool {
        self.over.is_some_and(|over| over <= at)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// Buys, pays what is due, or resumes.
    Subscribe,
    /// The response said that it resumed, or was paid at once.
    Resume,
    Cancel,
    /// The plan as of this version.
    Enterprise(u64),
    Standard(u64),
    Delete(u64),
}

/// An observation of access.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) at: Timestamp,
    pub(crate) entitled: bool,
}

/// A process that stalled in its job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stall {
    pub(crate) began: Timestamp,
    pub(crate) woke: Timestamp,
}

/// A paid period, according to the books.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub(crate) generation: String,
    pub(crate) period: i64,
    pub(crate) paid_by: String,
}

/// A payment that succeeded at Stripe.
#[derive(Debug, Clone)]
pub(crate) struct Paid {
    /// The account's number.
    pub(crate) account: String,
    /// The Checkout Session, else the invoice or PaymentIntent.
    pub(crate) object: String,
    pub(crate) cents: i64,
    pub(crate) refunded: i64,
    pub(crate) at: Timestamp,
    /// When its decision began: the user's payment, or the job that first confirmed the
    /// PaymentIntent.
    pub(crate) decided_at: Timestamp,
    /// The generation and period in the order's metadata, if Stripe has them.
    pub(crate) ordered: Option<(String, i64)>,
}

/// An entry of the ledger.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) id: String,
    /// As the ledger names it: `purchase`, `add_on`, …
    pub(crate) kind: String,
    pub(crate) at: Timestamp,
    /// In micro-credits.
    pub(crate) amount: i64,
}
