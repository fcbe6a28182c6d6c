//! The add-on's life (contract, section 5).
//!
//! Facts come from the webhook, the monthly charge and the user, at least once, late, and in any
//! order. [`AddOn`] therefore does not step from state to state: it keeps the *join* of all facts it
//! has heard (highest period paid, highest user action, …), and [`AddOn::status`] is computed from
//! that. A join does not depend on order or repetition, so neither does the status.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::period::{Period, end_of_period};
use crate::plan::{Plan, PlanChanged};

mod change;

pub use change::{AddOnChange, Reason};

/// Where the add-on stands, as the integration card shows it.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddOnStatus {
    /// Never bought.
    None,
    /// Paid, and to be charged again.
    Active,
    /// A charge was declined; access goes on through the grace period.
    PastDue,
    /// Cancelled; access goes on until what was paid for is over.
    Cancelling,
    /// Unpaid after the grace period, or under dispute.
    Suspended,
    /// Over.
    Ended,
}

/// Who collects the monthly price; copied to the generation when it is activated. (The order has
/// no meaning; it only defines the join of two activations of one generation.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Collection {
    /// We charge the kept card.
    Card,
    /// We take credits.
    Credits,
    /// The payment provider runs a subscription.
    Provider,
}

/// One purchase of the add-on and all that follows from it, named by its checkout session (for
/// collection from credits, by its ledger entry).
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

/// Something that happened to the add-on. Each names what it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A generation begins: its first period is paid. `at` is the provider's own time of that
    /// payment, and the anchor of all periods.
    Activated {
        generation: GenerationId,
        at: Timestamp,
        collection: Collection,
    },
    /// A payment that was owed. One that was not (the add-on had ended, the plan had changed) is
    /// refunded by whoever hears of it, and is no fact about the add-on.
    Paid {
        generation: GenerationId,
        period: Period,
    },
    Declined {
        generation: GenerationId,
        period: Period,
    },
    /// The grace period ran out and the period is still unpaid.
    GraceOver {
        generation: GenerationId,
        period: Period,
    },
    /// The user cancelled. `counter` is the account's own count of such actions; `while_due` is the
    /// period that was unpaid at that moment, if the add-on was past due.
    Cancelled {
        generation: GenerationId,
        counter: u64,
        while_due: Option<Period>,
    },
    /// The user took the cancellation back.
    Resumed {
        generation: GenerationId,
        counter: u64,
        at: Timestamp,
    },
    /// What was paid for has run out.
    PeriodOver {
        generation: GenerationId,
        period: Period,
    },
    /// Somebody other than us gave the whole payment of a period back.
    RefundedInFull {
        generation: GenerationId,
        period: Period,
    },
    Disputed {
        generation: GenerationId,
        period: Period,
        dispute: String,
    },
    DisputeClosed {
        generation: GenerationId,
        dispute: String,
        won: bool,
        at: Timestamp,
    },
    /// The account became enterprise by the event of this version.
    Upgraded { version: u64, at: Timestamp },
    /// The account became standard by the event of this version.
    Downgraded { version: u64, at: Timestamp },
}

/// All that is known of one account's add-on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AddOn {
    generations: BTreeMap<GenerationId, Generation>,
    plan_change: Option<PlanChange>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Generation {
    /// `None` while only facts that overtook the activation are known.
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct PlanChange {
    version: u64,
    upgraded: bool,
    at: Timestamp,
}

impl AddOn {
    /// Takes a fact in. Facts already known, and facts that later ones overtook, change nothing.
    pub fn apply(&mut self, fact: Fact) {
        match fact {
            Fact::Activated {
                generation,
                at,
                collection,
            } => {
                let activation = Activation {
                    anchor: at,
                    collection,
                };
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
                raise(
                    &mut self.generation_mut(generation).last_period_over,
                    period,
                );
            }
            Fact::Cancelled {
                generation,
                counter,
                while_due,
            } => {
                let did = Did::Cancel { while_due };
                self.user_did(generation, UserAction { counter, did });
            }
            Fact::Resumed {
                generation,
                counter,
                at,
            } => {
                let did = Did::Resume { at };
                self.user_did(generation, UserAction { counter, did });
            }
            Fact::RefundedInFull { generation, period } => {
                self.generation_mut(generation).refunded.insert(period);
            }
            Fact::Disputed {
                generation,
                period,
                dispute,
            } => {
                let disputes = &mut self.generation_mut(generation).disputes;
                raise(&mut disputes.entry(dispute).or_default().period, period);
            }
            Fact::DisputeClosed {
                generation,
                dispute,
                won,
                at,
            } => {
                let disputes = &mut self.generation_mut(generation).disputes;
                let known = &mut disputes.entry(dispute).or_default().closed;
                *known = (*known).max(Some(DisputeEnd { at, won }));
            }
            Fact::Upgraded { version, at } => self.plan_changed(PlanChange {
                version,
                upgraded: true,
                at,
            }),
            Fact::Downgraded { version, at } => self.plan_changed(PlanChange {
                version,
                upgraded: false,
                at,
            }),
        }
    }

    /// Where the add-on stands by all facts heard so far.
    pub fn status(&self) -> AddOnStatus {
        self.standing().0
    }

    /// The status, and the reason where there is no access.
    fn standing(&self) -> (AddOnStatus, Option<Reason>) {
        let Some(current) = self.current() else {
            return (AddOnStatus::None, None);
        };
        let by_its_own_facts = current.generation.standing(current.paid_through());
        let Some(change) = self.plan_change else {
            return by_its_own_facts;
        };
        if change.at < current.activation.anchor || current.generation.resumed_after(change.at) {
            return by_its_own_facts;
        }
        let over = current.generation.paid_period_is_over();
        // What is disputed stays suspended until that is decided.
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

    /// Until when the current generation is paid.
    pub fn paid_through(&self) -> Option<Timestamp> {
        self.current().map(|current| current.paid_through())
    }

    /// The generation that facts must name to have an effect now.
    pub fn generation(&self) -> Option<&GenerationId> {
        self.current().map(|current| current.id)
    }

    /// Who collects from the account.
    pub fn collection(&self) -> Option<Collection> {
        self.current().map(|current| current.activation.collection)
    }

    /// Where the current generation's periods are counted from.
    pub fn anchor(&self) -> Option<Timestamp> {
        self.current().map(|current| current.activation.anchor)
    }

    /// The last period of which a charge was declined.
    pub fn last_declined(&self) -> Option<Period> {
        self.current()?.generation.last_declined
    }

    /// The last period that is paid.
    pub fn last_paid(&self) -> Option<Period> {
        self.current().map(|current| current.generation.last_paid())
    }

    /// The newest purchase that took place.
    fn current(&self) -> Option<Current<'_>> {
        self.generations
            .iter()
            .filter_map(|(id, generation)| {
                let activation = generation.activation?;
                Some(Current {
                    id,
                    generation,
                    activation,
                })
            })
            .max_by_key(|current| (current.activation, current.id))
    }

    fn generation_mut(&mut self, id: GenerationId) -> &mut Generation {
        self.generations.entry(id).or_default()
    }

    fn user_did(&mut self, generation: GenerationId, action: UserAction) {
        let known = &mut self.generation_mut(generation).user_action;
        *known = (*known).max(Some(action));
    }

    fn plan_changed(&mut self, change: PlanChange) {
        self.plan_change = self.plan_change.max(Some(change));
    }

    /// The latest change of plan, in place of the one known: a late event can show that what was
    /// taken for the change was none.
    pub(crate) fn plan_changed_last(&mut self, change: Option<PlanChanged>) {
        self.plan_change = change.map(|change| PlanChange {
            version: change.version,
            upgraded: change.to == Plan::Enterprise,
            at: change.at,
        });
    }
}

/// The current generation with its activation at hand.
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

    /// Where it stands without regard to changes of plan.
    fn standing(&self, paid_through: Timestamp) -> (AddOnStatus, Option<Reason>) {
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
        if let Some(UserAction {
            did: Did::Cancel { while_due },
            ..
        }) = self.user_action
        {
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
