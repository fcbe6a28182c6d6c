//! Searches every order in which the steps of one account's calls and sweepers can happen.
//!
//! Modelled: the account's item, the calls' holds and their ledger entries, written as the store
//! writes them: each request is carried out completely or not at all, under its conditions
//! ([`database`]). A call takes a hold, a smaller one if the balance does not cover it, calls the
//! default AI, stores its id of the call, and settles or releases; the process may stop forever
//! between any two steps. Several sweepers look at holds whose check is due, each with its own idea
//! of the time ([`processes`]). Any request of calls and sweepers may get lost, arrive at any later
//! moment, or be sent again by the SDK while the first one is still in flight; a process without a
//! response does what the real code does. The default AI charges nothing, something, or more than
//! was held, and the sweeper can read its record of the call at once, late or never. Meanwhile,
//! credits are granted and reversed.
//!
//! All decisions are made by this crate's own functions, which the store, the calls and the sweeper
//! use: a step's movement, a hold's end, the conclusion from a stored hold when no response came,
//! the sweeper's decision on a hold, and the time of its next check.
//!
//! Not modelled: idempotency keys, the switch "Always use this key", days and history, deleted
//! accounts, lost responses of postings. DynamoDB's own detection of repeated transactions is left
//! out on purpose: the conditions must work without it.
//!
//! The search is complete within the bounds of each [`Scope`]: its number of calls, sweepers and
//! faults.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops with a message")]

mod database;
mod processes;
mod properties;

use std::collections::BTreeSet;

use account::hold::{FIRST_CHECK, LIFE};
use account::{Balance, Credits};
use jiff::Timestamp;
use stateright::{Checker, Expectation, HasDiscoveries, Model, Property};

use database::{Books, Fate, Request, StoredHold};
use processes::{Process, Response, Sweeper};
use properties as property;

/// The start of all calls.
const START: Timestamp = Timestamp::UNIX_EPOCH;
const CREDITS: Credits = Credits::from_micros(4);
/// The amounts that a call tries to hold.
const WISH: Credits = Credits::from_micros(3);
const REVERSAL: Credits = Credits::from_micros(3);
const GRANT: Credits = Credits::from_micros(2);

/// The bounds of a search.
#[derive(Debug, Clone, Copy)]
struct Scope {
    calls: usize,
    /// Maximum number at the same time; others may follow.
    sweepers: usize,
    /// Requests that get lost, arrive late or are repeated, and reads without a response.
    faults: u8,
    max_holds: u32,
    /// The possible costs of a call, in micro-credits.
    costs: &'static [i64],
    /// A reversal and a grant beside the calls.
    postings: bool,
    /// Processes of calls are still alive when their holds are checked. In reality they are gone by
    /// then ([`FIRST_CHECK`]), but no property depends on it.
    long_lived: bool,
}

/// A broken rule, to show that the properties detect it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    /// A hold is taken whatever is available.
    AvailableUnchecked,
    /// A hold is taken however many are open.
    MaxHoldsUnchecked,
    /// A second hold is taken although one exists.
    HoldTwice,
    /// A fence replaces the stored hold.
    FenceUnchecked,
    /// A hold ends, open or not.
    EndUnchecked,
    /// The whole cost is charged, however much was held.
    CostUncapped,
    /// A settled hold leaves no ledger entry.
    NoEntry,
    /// A posting is made as planned, whatever moved meanwhile.
    PostingUnchecked,
    /// The amount that a reversal cannot take is not stored as owed.
    NothingOwed,
    /// A hold without a response counts as taken.
    SilenceIsAHold,
    /// A hold without a response is looked for, but not fenced.
    NoFence,
    /// Any item in the hold's place counts as the hold.
    FenceIsAHold,
    /// The stored hold counts as having the amount requested last.
    LastPlanIsTheHold,
    /// An end without a response counts as done.
    SilenceIsAnEnd,
    /// A hold that expires is settled in full.
    ExpiryIsCharged,
    /// A sweeper claims a hold by removing it from the index.
    ClaimForgets,
}

struct Holds {
    scope: Scope,
    broken: Option<Broken>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    now: Timestamp,
    faults_left: u8,
    books: Books,
    /// Sorted, because their order does not matter.
    calls: Vec<Call>,
    /// A reversal and a grant, or none.
    postings: Vec<Posting>,
    /// The amounts to post.
    asked: Credits,
    /// The amounts posted.
    posted: Credits,
}

/// Everything about one call.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Call {
    process: Process,
    hold: Option<StoredHold>,
    /// The sum of the call's ledger entries.
    entries: Vec<Credits>,
    /// The call's cost, once the call was made.
    cost: Option<Credits>,
    /// Requests still in flight whose caller has given up. Sorted.
    late: Vec<Request>,
    /// The sweepers that look at the hold. Sorted.
    sweepers: Vec<Sweeper>,
}

/// Credits that move without a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Posting {
    Due,
    /// Planned from the balance as read.
    Planned(Balance),
    Posted,
}

/// The next event. Calls, sweepers and late requests are identified by their index in the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Send {
        call: usize,
        fate: Fate,
    },
    Read {
        call: usize,
        answered: bool,
    },
    CallDefaultAi {
        call: usize,
        response: Response,
    },
    Stop {
        call: usize,
    },
    Arrive {
        call: usize,
        late: usize,
    },
    FindDue {
        call: usize,
    },
    /// The sweeper's next request. With `reported`, the default AI then reports the call's cost.
    Sweep {
        call: usize,
        sweeper: usize,
        fate: Fate,
        reported: bool,
    },
    Post {
        posting: usize,
    },
    Pass {
        until: Timestamp,
    },
}

fn plus(a: Credits, b: Credits) -> Credits {
    a.checked_add(b).unwrap()
}

fn minus(a: Credits, b: Credits) -> Credits {
    a.checked_sub(b).unwrap()
}

impl Call {
    fn new() -> Self {
        Self {
            process: Process::Taking { amount: WISH, planned_again: false },
            hold: None,
            entries: Vec::new(),
            cost: None,
            late: Vec::new(),
            sweepers: Vec::new(),
        }
    }

    fn open_hold(&self) -> Option<&StoredHold> {
        self.hold.as_ref().filter(|hold| hold.is_open())
    }

    fn charged(&self) -> Credits {
        self.entries.iter().copied().fold(Credits::ZERO, plus)
    }

    /// Sorts collections without an order and drops facts that no longer matter, so that equivalent
    /// states are equal.
    fn tidy(&mut self) {
        if let Some(hold) = &self.hold {
            self.late.retain(|request| hold.is_concerned_by(request));
            self.sweepers.retain(|sweeper| hold.is_concerned_by(&sweeper.request(hold)));
        }
        self.late.sort_unstable();
        self.sweepers.sort_unstable();
    }
}

impl Holds {
    fn breaks(&self, rule: Broken) -> bool {
        self.broken == Some(rule)
    }

    /// Time passes only when something waits for it, and in leaps: to the first check, to the end
    /// of a hold's life, then from check to check.
    fn next_moment(&self, state: &State) -> Option<Timestamp> {
        let calls = &state.calls;
        let somebody_waits = |call: &Call| call.open_hold().is_some() || !call.late.is_empty();
        let lives_on = calls.iter().any(|call| !call.process.is_over());
        if !calls.iter().any(somebody_waits) || (lives_on && !self.scope.long_lived) {
            return None;
        }
        let moments = [START + FIRST_CHECK, START + LIFE];
        let ahead = moments.into_iter().find(|moment| *moment > state.now);
        let checks = calls.iter().filter_map(|call| call.open_hold()?.next_check_at);
        ahead.or_else(|| checks.filter(|check| *check > state.now).min())
    }
}

impl Model for Holds {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let postings = if self.scope.postings { 2 } else { 0 };
        vec![State {
            now: START,
            faults_left: self.scope.faults,
            books: Books::new(CREDITS),
            calls: vec![Call::new(); self.scope.calls],
            postings: vec![Posting::Due; postings],
            asked: Credits::ZERO,
            posted: Credits::ZERO,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for call in 0..state.calls.len() {
            self.steps_of_call(state, call, actions);
            self.steps_of_sweepers(state, call, actions);
            let late = 0..state.calls[call].late.len();
            actions.extend(late.map(|late| Action::Arrive { call, late }));
        }
        for (posting, stands) in state.postings.iter().enumerate() {
            if *stands != Posting::Posted {
                actions.push(Action::Post { posting });
            }
        }
        if let Some(until) = self.next_moment(state) {
            actions.push(Action::Pass { until });
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Send { call, fate } => self.send(&mut state, call, fate)?,
            Action::Read { call, answered } => {
                let call = &mut state.calls[call];
                call.process = self.read(call.process, answered, call.hold.as_ref());
                state.faults_left -= u8::from(!answered);
            }
            Action::CallDefaultAi { call, response } => {
                state.calls[call].apply_response(response)?;
            }
            Action::Stop { call } => state.calls[call].process = Process::Gone,
            Action::Arrive { call, late } => {
                let request = state.calls[call].late.remove(late);
                self.carry_out(&mut state, call, request);
            }
            Action::FindDue { call } => {
                let found = Sweeper::finding(state.calls[call].open_hold()?, state.now)?;
                state.calls[call].sweepers.push(found);
            }
            Action::Sweep { call, sweeper, fate, reported } => {
                self.sweep(&mut state, call, sweeper, fate, reported)?;
            }
            Action::Post { posting } => self.post(&mut state, posting)?,
            Action::Pass { until } => state.now = until,
        }
        for call in &mut state.calls {
            call.tidy();
        }
        state.calls.sort_unstable();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = property::always();
        properties.extend(property::sometimes());
        properties
    }
}

const ONE_CALL: Scope = Scope {
    calls: 1,
    sweepers: 2,
    faults: 3,
    max_holds: 1,
    costs: &[0, 1, 5],
    postings: false,
    long_lived: true,
};

const TWO_CALLS: Scope = Scope {
    calls: 2,
    sweepers: 2,
    faults: 2,
    max_holds: 2,
    // Less than the larger hold, more than the smaller one.
    costs: &[2],
    postings: false,
    long_lived: false,
};

const ROOM_FOR_ONE: Scope = Scope { sweepers: 1, max_holds: 1, costs: &[1, 5], ..TWO_CALLS };

const POSTINGS: Scope = Scope { sweepers: 1, faults: 1, postings: true, ..TWO_CALLS };

/// The short form's number of states. `tests/deep/run` searches all.
const SHORT: usize = 20_000;

/// Checks all properties, and that the search saw at least `states` states, so that no search
/// shrinks unnoticed.
#[expect(clippy::disallowed_methods, reason = "pure crates have no settings")]
fn assert_all(scope: Scope, states: usize) {
    let model = Holds { scope, broken: None }.checker();
    let model = model.finish_when(HasDiscoveries::AnyFailures);
    if std::env::var_os("DEEP").is_some() {
        let checker = model.spawn_bfs().join();
        checker.assert_properties();
        let seen = checker.unique_state_count();
        assert!(seen >= states, "{scope:?}: only {seen} states");
    } else {
        let checker = model.target_state_count(SHORT).spawn_bfs().join();
        for property in property::always() {
            checker.assert_no_discovery(property.name);
        }
        assert!(checker.state_count() >= SHORT, "{scope:?}");
    }
}

#[test]
fn one_call_with_faults() {
    assert_all(ONE_CALL, 1_200_000);
}

#[test]
fn two_concurrent_calls() {
    assert_all(TWO_CALLS, 2_000_000);
}

#[test]
fn two_calls_with_room_for_one_hold() {
    assert_all(ROOM_FOR_ONE, 60_000);
}

#[test]
fn two_calls_beside_concurrent_postings() {
    assert_all(POSTINGS, 1_000_000);
}

/// A property that cannot fail proves nothing: here each one is violated by leaving out a rule.
#[test]
fn every_rule_is_needed_and_every_property_can_fail() {
    let two = Scope { faults: 1, sweepers: 1, ..TWO_CALLS };
    let one = Scope { calls: 1, faults: 2, ..two };
    let room_for_one = Scope { max_holds: 1, ..two };
    let postings = Scope { postings: true, ..one };
    let dear = Scope { costs: &[5], ..one };
    let table: [(Broken, Scope, &[&'static str]); 16] = [
        (Broken::AvailableUnchecked, two, &[property::AVAILABLE]),
        (Broken::MaxHoldsUnchecked, room_for_one, &[property::MAX_HOLDS]),
        (Broken::HoldTwice, one, &[property::HELD]),
        (Broken::FenceUnchecked, one, &[property::HELD]),
        (Broken::EndUnchecked, one, &[property::ENDS_ONCE, property::CHARGED_ONCE]),
        (Broken::CostUncapped, dear, &[property::ABOVE]),
        (Broken::NoEntry, one, &[property::LEDGER]),
        (Broken::PostingUnchecked, postings, &[property::AVAILABLE]),
        (Broken::NothingOwed, postings, &[property::OWED]),
        (Broken::SilenceIsAHold, one, &[property::HOLD_FIRST]),
        (Broken::NoFence, one, &[property::GIVEN_UP]),
        (Broken::FenceIsAHold, one, &[property::HOLD_FIRST]),
        (Broken::LastPlanIsTheHold, two, &[property::HELD]),
        (Broken::SilenceIsAnEnd, one, &[property::KNOWN_END]),
        (Broken::ExpiryIsCharged, one, &[property::REPORTED_COST]),
        (Broken::ClaimForgets, one, &[property::NOT_LOST]),
    ];
    let mut can_fail = BTreeSet::<&str>::new();
    for (broken, scope, names) in table {
        let model = Holds { scope, broken: Some(broken) };
        let enough = HasDiscoveries::AllOf(names.iter().copied().collect());
        let checker = model.checker().finish_when(enough).spawn_bfs().join();
        for name in names {
            let found = checker.discovery(name);
            assert!(found.is_some(), "{broken:?} does not show as: {name}");
        }
        can_fail.extend(names);
    }
    for property in property::always() {
        assert_eq!(property.expectation, Expectation::Always);
        assert!(can_fail.contains(property.name), "{}", property.name);
    }
}
