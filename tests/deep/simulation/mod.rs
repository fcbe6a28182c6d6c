//! The add-on over years of simulated time: many accounts whose users buy, cancel, return and
//! change cards; cards that decline, time out or stay in processing; ticks, batches and webhooks
//! that are lost, duplicated and late; processes that die at any step, and others that continue
//! after days. The functions are those of a deployment, on the embedded engine and the Stripe
//! simulator.
//!
//! At the end [`judge`] lists the violations, by Stripe's own record and the driver's log. One seed
//! determines all random choices.

mod direct;
mod driver;
mod gate;
mod judge;
mod process;
mod record;

use std::fmt;

pub(crate) use driver::one_period::{Scenario, die_everywhere};
pub(crate) use driver::run;
pub(crate) use judge::judge;
pub(crate) use record::{Act, Life, Paid, Record, What};

/// The parameters of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) accounts: usize,
    pub(crate) months: u32,
    /// Percentages of accounts that pay with credits, and through Stripe's subscriptions.
    pub(crate) by_credits: u32,
    pub(crate) by_stripe: u32,
}

/// Who collects what an account buys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Collection {
    Card,
    Credits,
    Provider,
}

impl Collection {
    pub(crate) const ALL: [Self; 3] = [Self::Card, Self::Credits, Self::Provider];

    /// The value of `ADD_ON_COLLECTION`.
    fn name(self) -> &'static str {
        match self {
            Self::Card => "card",
            Self::Credits => "credits",
            Self::Provider => "provider",
        }
    }
}

/// A finished run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) record: Record,
    pub(crate) counts: Counts,
}

macro_rules! counts {
    ($($name:ident: $what:literal),* $(,)?) => {
        /// How often each thing happened.
        #[derive(Debug, Clone, Copy, Default)]
        pub(crate) struct Counts {
            $(pub(crate) $name: usize,)*
        }

        impl Counts {
            pub(crate) fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }
        }

        impl fmt::Display for Counts {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let counts = [$((self.$name, $what)),*];
                let texts = counts.map(|(count, what)| format!("{count} {what}"));
                f.write_str(&texts.join(", "))
            }
        }
    };
}

counts! {
    account_months: "account-months",
    payments: "payments",
    credit_payments: "payments with credits",
    stripe_payments: "payments that Stripe's subscriptions collected",
    refunds: "refunds",
    declines: "declines",
    checkouts: "checkouts",
    cancellations: "cancellations",
    resumptions: "resumed subscriptions",
    upgrades: "upgrades",
    downgrades: "downgrades",
    deletions: "deletions",
    new_cards: "new cards",
    other_settings: "settings changed",
    purchases: "purchases of credits",
    ticks: "ticks",
    lost_ticks: "lost ticks",
    doubled_ticks: "doubled ticks",
    messages: "messages of the queue",
    lost_messages: "lost messages",
    late_messages: "late messages",
    doubled_messages: "doubled messages",
    batches: "batches",
    doubled_batches: "doubled batches",
    webhooks: "webhooks",
    lost_webhooks: "lost webhooks",
    doubled_webhooks: "doubled webhooks",
    late_webhooks: "late webhooks",
    crashes: "crashes",
    zombies: "zombies",
    lost_requests: "lost requests and responses",
    failed_work: "failed jobs",
    silent_cards: "cards that time out",
    slow_cards: "cards that stay in processing",
    rate_limits: "rate limits",
    observations: "observations of access",
    suspended: "accounts seen suspended",
}
