//! The account's plan, from events that may arrive twice, late and in any order.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Plan {
    /// BYOK is included.
    Enterprise,
    /// BYOK needs the add-on and a minimum balance.
    Standard,
}

/// Number of newest events that are always kept: no event arrives behind this many newer ones.
const ALL_KEPT: usize = 16;

/// The known events about the plan; the highest version counts. Of an older run of events with the
/// same plan, only the first and the last are kept, between which a late event can still fall.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plans {
    newest: Seen,
    /// In ascending order of version.
    earlier: Vec<Seen>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    version: u64,
    plan: Plan,
    at: Timestamp,
}

/// A change from one plan to the other, to enterprise if `upgraded`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PlanChange {
    pub version: u64,
    pub upgraded: bool,
    pub at: Timestamp,
}

impl Plans {
    pub fn new(plan: Plan, version: u64, at: Timestamp) -> Self {
        Self { newest: Seen { version, plan, at }, earlier: Vec::new() }
    }

    pub fn plan(&self) -> Plan {
        self.newest.plan
    }

    /// The version of the event that set the plan.
    pub fn version(&self) -> u64 {
        self.newest.version
    }

    /// Sets the plan as of `version`. If a version is reported twice, the last report counts.
    pub fn apply(&mut self, plan: Plan, version: u64, at: Timestamp) {
        let seen = Seen { version, plan, at };
        let mut all = self.all();
        let place = all.partition_point(|known| known.version < version);
        match all.get_mut(place) {
            Some(known) if known.version == version && known.plan == plan => return,
            Some(known) if known.version == version => *known = seen,
            _ => all.insert(place, seen),
        }
        let plan_at = |at: Option<usize>| all.get(at?).map(|seen| seen.plan);
        let is_inside_a_run = |at: usize, plan| {
            plan_at(at.checked_sub(1)) == Some(plan) && plan_at(at.checked_add(1)) == Some(plan)
        };
        let old = all.len().saturating_sub(ALL_KEPT);
        let numbered = all.iter().enumerate();
        let kept = numbered.filter(|(at, seen)| *at >= old || !is_inside_a_run(*at, seen.plan));
        self.earlier = kept.map(|(_, seen)| *seen).collect();
        self.newest = self.earlier.pop().unwrap_or(seen);
    }

    fn all(&self) -> Vec<Seen> {
        let newest = std::iter::once(&self.newest);
        self.earlier.iter().chain(newest).copied().collect()
    }

    /// The latest change from one plan to the other; `None` if there was none. A late event can
    /// disprove an apparent change.
    pub fn last_change(&self) -> Option<PlanChange> {
        let all = self.all();
        let pairs = all.iter().zip(all.iter().skip(1));
        let mut changes = pairs.filter(|(before, after)| before.plan != after.plan);
        changes.next_back().map(|(_, after)| PlanChange {
            version: after.version,
            upgraded: after.plan == Plan::Enterprise,
            at: after.at,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(version: u64) -> Timestamp {
        Timestamp::from_second(i64::try_from(version).unwrap()).unwrap()
    }

    /// The highest version counts; repeated and late events change nothing else.
    #[test]
    fn the_highest_version_counts() {
        let mut plans = Plans::new(Plan::Standard, 3, at(3));
        plans.apply(Plan::Enterprise, 2, at(2));
        assert_eq!((plans.plan(), plans.version()), (Plan::Standard, 3));
        let change = plans.last_change().unwrap();
        assert_eq!((change.version, change.upgraded), (3, false));
        plans.apply(Plan::Standard, 9, at(9));
        assert_eq!(plans.last_change(), Some(change), "the plan is the same");
        plans.apply(Plan::Enterprise, 10, at(10));
        assert_eq!((plans.plan(), plans.version()), (Plan::Enterprise, 10));
    }

    /// The last change is never forgotten, however long ago it was.
    #[test]
    fn a_change_is_remembered() {
        let mut plans = Plans::new(Plan::Enterprise, 1, at(1));
        for version in 2..100 {
            plans.apply(Plan::Standard, version, at(version));
        }
        assert_eq!(plans.last_change().unwrap().version, 2);
        assert!(plans.earlier.len() <= ALL_KEPT + 2);
    }

    #[test]
    fn the_last_report_of_a_version_counts() {
        let mut plans = Plans::new(Plan::Standard, 3, at(3));
        plans.apply(Plan::Enterprise, 3, at(4));
        assert_eq!((plans.plan(), plans.last_change()), (Plan::Enterprise, None));
    }

    proptest! {
        /// Any order, any repetition: the same plan and the same last change.
        #[test]
        fn order_and_repetition_do_not_matter(
            history in prop::collection::vec(any::<bool>(), 1..12),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let plan = |enterprise| if enterprise { Plan::Enterprise } else { Plan::Standard };
            let events: Vec<(u64, Plan)> = (1..).zip(history.into_iter().map(plan)).collect();
            let hear_all = |events: &[(u64, Plan)]| {
                let (version, plan) = events[0];
                let mut plans = Plans::new(plan, version, at(version));
                for (version, plan) in events {
                    plans.apply(*plan, *version, at(*version));
                }
                plans
            };
            let in_order = hear_all(&events);
            let mut shuffled = events.clone();
            for index in order {
                let event = shuffled[index.index(shuffled.len())];
                shuffled.insert(index.index(shuffled.len()), event);
                shuffled.rotate_left(1);
            }
            let any_order = hear_all(&shuffled);
            prop_assert_eq!(any_order.plan(), in_order.plan());
            prop_assert_eq!(any_order.version(), in_order.version());
            prop_assert_eq!(any_order.last_change(), in_order.last_change());
        }
    }
}
