//! The add-on's lifecycle (contract, section 5).
//!
//! Facts come from the webhook, the monthly charge and the user, at least once, late, and in any
//! order. [`AddOn`] therefore does not step from state to state: it keeps the *join* of all known
//! facts (highest period paid, highest user action, …), and [`AddOn::status`] is computed from
//! that. A join does not depend on order or repetition, so neither does the status.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::period::{Period, end_of_period};
use crate::plan::PlanChange;

/// The status of the add-on, as the integration card shows it.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddOnStatus {
    /// Never bought.
    None,
    /// Paid, and renews.
    Active,
    /// A charge was declined; access lasts through the grace period.
    PastDue,
    /// Cancelled; access lasts until the end of the paid period.
    Cancelling,
    /// Unpaid after the grace period, or under dispute.
    Suspended,
    Ended,
}

/// Why there is no access.
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

/// How the monthly price is collected; copied to the generation at its activation. (The order of
/// the variants has no meaning; it only defines the join of two activations of one generation.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Collection {
    /// We charge the saved card.
    Card,
    /// We take credits.
    Credits,
    /// Stripe runs a subscription.
    Provider,
}

/// A purchase with all its periods, named by its Checkout Session or, for credits, ledger entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GenerationId(String);

impl GenerationId {
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Something that happened to the add-on. Each fact names its generation and period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// The first period is paid. `at`, by Stripe's clock, is the anchor of all periods.
    Activated { generation: GenerationId, at: Timestamp, collection: Collection },
    /// A payment that was owed. Any other payment is refunded, and is not a fact about the add-on.
    Paid { generation: GenerationId, period: Period },
    /// A charge for the period was declined.
    Declined { generation: GenerationId, period: Period },
    /// The grace period ran out and the period is still unpaid.
    GraceOver { generation: GenerationId, period: Period },
    /// The user cancelled. `counter` is the account's own count of such actions; `while_due` is the
    /// unpaid period, if the add-on was past due.
    Cancelled { generation: GenerationId, counter: u64, while_due: Option<Period> },
    /// The user resumed the add-on.
    Resumed { generation: GenerationId, counter: u64, at: Timestamp },
    /// The paid period has ended.
    PeriodOver { generation: GenerationId, period: Period },
    /// The whole payment of a period was refunded, but not by us.
    RefundedInFull { generation: GenerationId, period: Period },
    /// The payment of the period is disputed.
    Disputed { generation: GenerationId, period: Period, dispute: String },
    /// The dispute is decided.
    DisputeClosed { generation: GenerationId, dispute: String, won: bool, at: Timestamp },
}

/// All known facts about one account's add-on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AddOn {
    generations: BTreeMap<GenerationId, Generation>,
    pub(crate) plan_change: Option<PlanChange>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Generation {
    /// `None` while the only known facts are ones that overtook the activation.
    activation: Option<Activation>,
    last_paid: Option<Period>,
    last_declined: Option<Period>,
    last_grace_over: Option<Period>,
    last_period_over: Option<Period>,
    user_action: Option<UserAction>,
    refunded: BTreeSet<Period>,
    disputes: BTreeMap<String, Dispute>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Activation {
    anchor: Timestamp,
    collection: Collection,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct UserAction {
    counter: u64,
    did: Did,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Did {
    Cancel { while_due: Option<Period> },
    Resume { at: Timestamp },
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Dispute {
    period: Option<Period>,
    closed: Option<DisputeEnd>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct DisputeEnd {
    at: Timestamp,
    won: bool,
}

impl AddOn {
    /// Applies a fact. Facts that are already known, or overtaken by later ones, change nothing.
    pub fn apply(&mut self, fact: Fact) {
        match fact {
            Fact::Activated { generation, at, collection } => {
                let activation = Activation { anchor: at, collection };
                let known = &mut self.generation_mut(generation).activation;
                *known = Some(known.map_or(activation, |known| known.min(activation)));
            }
            Fact::Paid { generation, period } => {
                raise(&mut self.generation_mut(generation).last_paid, period);
            }
            Fact::Declined { generation, period } => {
                raise(&mut self.generation_mut(generation).last_declined, period);
            }
            Fact::GraceOver { generation, period } => {
                raise(&mut self.generation_mut(generation).last_grace_over, period);
            }
            Fact::PeriodOver { generation, period } => {
                raise(&mut self.generation_mut(generation).last_period_over, period);
            }
            Fact::Cancelled { generation, counter, while_due } => {
                self.user_did(generation, counter, Did::Cancel { while_due });
            }
            Fact::Resumed { generation, counter, at } => {
                self.user_did(generation, counter, Did::Resume { at });
            }
            Fact::RefundedInFull { generation, period } => {
                self.generation_mut(generation).refunded.insert(period);
            }
            Fact::Disputed { generation, period, dispute } => {
                let disputes = &mut self.generation_mut(generation).disputes;
                raise(&mut disputes.entry(dispute).or_default().period, period);
            }
            Fact::DisputeClosed { generation, dispute, won, at } => {
                let disputes = &mut self.generation_mut(generation).disputes;
                let known = &mut disputes.entry(dispute).or_default().closed;
                *known = (*known).max(Some(DisputeEnd { at, won }));
            }
        }
    }

    pub fn status(&self) -> AddOnStatus {
        self.status_and_reason().0
    }

    /// The status, and the reason where there is no access.
    fn status_and_reason(&self) -> (AddOnStatus, Option<Reason>) {
        let Some(current) = self.current() else {
            return (AddOnStatus::None, None);
        };
        let by_its_own_facts = current.generation.status_and_reason(current.paid_through());
        let Some(change) = self.plan_change else {
            return by_its_own_facts;
        };
        if change.at < current.activation.anchor || current.generation.resumed_after(change.at) {
            return by_its_own_facts;
        }
        let over = current.generation.paid_period_is_over();
        // A disputed add-on stays suspended until the dispute is decided.
        let disputed = by_its_own_facts.0 == AddOnStatus::Suspended;
        if disputed && !change.upgraded && current.paid_through() > change.at {
            return by_its_own_facts;
        }
        if by_its_own_facts.0 == AddOnStatus::Ended {
            by_its_own_facts
        } else if change.upgraded || current.paid_through() <= change.at || over {
            (AddOnStatus::Ended, Some(Reason::PlanChanged))
        } else {
            (AddOnStatus::Cancelling, None)
        }
    }

    /// The new status, if other systems need to know of the change since `before`; `Active` if
    /// access began. They need not know of a cancellation, a resumption or a paid period.
    pub fn change_since(&self, before: &Self) -> Option<AddOnStatus> {
        use AddOnStatus::{Active, Cancelling, Ended, PastDue, Suspended};
        let (was, is) = (before.status(), self.status());
        match is {
            AddOnStatus::None => None,
            Active | Cancelling => {
                let is_same = self.generation() == before.generation();
                let had_access = matches!(was, Active | Cancelling | PastDue);
                (!is_same || !had_access).then_some(Active)
            }
            PastDue | Suspended | Ended => (was != is).then_some(is),
        }
    }

    /// Why the add-on is suspended or has ended; `None` if it is neither.
    pub fn reason(&self) -> Option<Reason> {
        self.status_and_reason().1
    }

    /// The end of the current generation's last paid period.
    pub fn paid_through(&self) -> Option<Timestamp> {
        self.current().map(|current| current.paid_through())
    }

    /// The current generation; facts about others have no effect now.
    pub fn generation(&self) -> Option<&GenerationId> {
        self.current().map(|current| current.id)
    }

    pub fn collection(&self) -> Option<Collection> {
        self.current().map(|current| current.activation.collection)
    }

    /// Whether Stripe collects the periods with a subscription.
    pub fn is_run_by_stripe(&self) -> bool {
        self.collection() == Some(Collection::Provider)
    }

    /// The time from which the current generation's periods are counted.
    pub fn anchor(&self) -> Option<Timestamp> {
        self.current().map(|current| current.activation.anchor)
    }

    pub fn last_declined(&self) -> Option<Period> {
        self.current()?.generation.last_declined
    }

    pub fn last_paid(&self) -> Option<Period> {
        self.current().map(|current| current.generation.last_paid())
    }

    /// The newest paid purchase.
    fn current(&self) -> Option<Current<'_>> {
        self.generations
            .iter()
            .filter_map(|(id, generation)| {
                let activation = generation.activation?;
                Some(Current { id, generation, activation })
            })
            .max_by_key(|current| (current.activation, current.id))
    }

    fn generation_mut(&mut self, id: GenerationId) -> &mut Generation {
        self.generations.entry(id).or_default()
    }

    fn user_did(&mut self, generation: GenerationId, counter: u64, did: Did) {
        let known = &mut self.generation_mut(generation).user_action;
        *known = (*known).max(Some(UserAction { counter, did }));
    }
}

struct Current<'a> {
    id: &'a GenerationId,
    generation: &'a Generation,
    activation: Activation,
}

impl Current<'_> {
    fn paid_through(&self) -> Timestamp {
        end_of_period(self.activation.anchor, self.generation.last_paid())
    }
}

impl Generation {
    /// The activation itself paid the first period.
    fn last_paid(&self) -> Period {
        self.last_paid.unwrap_or(Period::FIRST).max(Period::FIRST)
    }

    fn paid_period_is_over(&self) -> bool {
        self.last_period_over >= Some(self.last_paid())
    }

    fn resumed_after(&self, moment: Timestamp) -> bool {
        matches!(self.user_action, Some(UserAction { did: Did::Resume { at }, .. }) if at > moment)
    }

    /// The status, ignoring plan changes.
    fn status_and_reason(&self, paid_through: Timestamp) -> (AddOnStatus, Option<Reason>) {
        let last_paid = self.last_paid();
        let disputes = || {
            let of_current = |dispute: &&Dispute| dispute.period == Some(last_paid);
            self.disputes.values().filter(of_current)
        };
        let ended_by_dispute = |dispute: &Dispute| {
            let is_the_end = |end: DisputeEnd| !end.won || end.at >= paid_through;
            dispute.closed.is_some_and(is_the_end)
        };
        if self.refunded.contains(&last_paid) {
            return (AddOnStatus::Ended, Some(Reason::Refunded));
        }
        if disputes().any(ended_by_dispute) {
            return (AddOnStatus::Ended, Some(Reason::Disputed));
        }
        if disputes().any(|dispute| dispute.closed.is_none()) {
            return (AddOnStatus::Suspended, Some(Reason::Disputed));
        }
        if let Some(UserAction { did: Did::Cancel { while_due }, .. }) = self.user_action {
            return if while_due.is_some() || self.paid_period_is_over() {
                (AddOnStatus::Ended, Some(Reason::Cancelled))
            } else {
                (AddOnStatus::Cancelling, None)
            };
        }
        if self.last_grace_over > Some(last_paid) {
            (AddOnStatus::Suspended, Some(Reason::Unpaid))
        } else if self.last_declined > Some(last_paid) {
            (AddOnStatus::PastDue, None)
        } else {
            (AddOnStatus::Active, None)
        }
    }
}

fn raise(known: &mut Option<Period>, period: Period) {
    *known = (*known).max(Some(period));
}

#[cfg(test)]
mod tests;
