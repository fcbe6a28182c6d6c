//! What is known of a run when it is over: what users did and saw, by the driver's own log, what the
//! payment provider took and gave back, by its own record, and what the books claim.

use std::fmt::Write as _;

use jiff::Timestamp;

/// All of it.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) lives: Vec<Life>,
    pub(crate) payments: Vec<Paid>,
    /// When undisturbed ticks were carried out.
    pub(crate) ticks: Vec<Timestamp>,
    /// Work that stood still for a while.
    pub(crate) stalls: Vec<Stall>,
    /// From here on nothing was disturbed, and every card succeeded.
    pub(crate) quiet_since: Timestamp,
    pub(crate) ended_at: Timestamp,
    /// Work that is due in spite of it.
    pub(crate) left_over: Vec<String>,
}

impl Record {
    /// All that is known of the accounts that `problems` name, for whoever looks into them.
    pub(crate) fn about(&self, problems: &[String]) -> String {
        let is_named = |number: &str| problems.iter().any(|problem| problem.contains(number));
        let mut told = String::new();
        for life in self.lives.iter().filter(|life| is_named(&life.number)) {
            let mut lines: Vec<(Timestamp, String)> = Vec::new();
            lines.extend(life.acts.iter().map(|act| (act.began, format!("{act:?}"))));
            let payments = self.payments.iter();
            let payments = payments.filter(|paid| paid.account == life.number);
            lines.extend(payments.map(|paid| (paid.at, format!("{paid:?}"))));
            lines.extend(life.seen.iter().map(|it| (it.at, format!("{it:?}"))));
            lines.extend(life.ledger.iter().map(|it| (it.at, format!("{it:?}"))));
            lines.sort();
            let _ = writeln!(told, "{} ({}): {:?}", life.id, life.number, life.claims);
            for (at, line) in lines {
                let _ = writeln!(told, "    {at}: {line}");
            }
        }
        told
    }
}

/// An account, from its creation to its deletion.
#[derive(Debug, Clone)]
pub(crate) struct Life {
    pub(crate) id: String,
    /// What the provider knows it by.
    pub(crate) number: String,
    pub(crate) acts: Vec<Act>,
    pub(crate) seen: Vec<Seen>,
    pub(crate) claims: Vec<Claim>,
    pub(crate) ledger: Vec<Entry>,
    /// In micro-credits.
    pub(crate) balance: i64,
    /// Credits that were given, not bought.
    pub(crate) granted: i64,
    /// What the books say of themselves.
    pub(crate) problems: Vec<String>,
}

/// Something that a user or Greta's core system did.
#[derive(Debug, Clone)]
pub(crate) struct Act {
    pub(crate) what: What,
    pub(crate) began: Timestamp,
    /// When it was certainly over; before that it can have any effect at any time.
    pub(crate) over: Option<Timestamp>,
    /// The status that it was answered with.
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
    /// Buying, paying what is due, or taking a cancellation back.
    Subscribe,
    /// That it took a cancellation back, or was paid at once, was answered.
    Resume,
    Cancel,
    /// The plan is this one, as of the version.
    Enterprise(u64),
    Standard(u64),
    Delete(u64),
}

/// Whether there was access.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) at: Timestamp,
    pub(crate) entitled: bool,
}

/// A process stood still in its work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stall {
    pub(crate) began: Timestamp,
    pub(crate) woke: Timestamp,
}

/// A period that is paid, as the books have it.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub(crate) generation: String,
    pub(crate) period: i64,
    pub(crate) paid_by: String,
}

/// A payment that succeeded at the provider.
#[derive(Debug, Clone)]
pub(crate) struct Paid {
    /// The account's number.
    pub(crate) account: String,
    /// The checkout session, or else the payment object.
    pub(crate) object: String,
    pub(crate) cents: i64,
    pub(crate) refunded: i64,
    pub(crate) at: Timestamp,
    /// When whoever made it began: the payer, or the work that confirmed the object first.
    pub(crate) decided_at: Timestamp,
    /// The generation and period that it was asked for, where the provider was told.
    pub(crate) asked_for: Option<(String, i64)>,
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
