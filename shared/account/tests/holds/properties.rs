//! Properties of every state, and states that must be reachable.

use account::Credits;
use account::hold::{HoldState, Resolution};
use jiff::SignedDuration;
use stateright::Model as _;

use crate::database::{Actor, StoredHold};
use crate::processes::Process;
use crate::{CREDITS, Call, Holds, START, State, minus, plus};

type Property = stateright::Property<Holds>;

pub(crate) const AVAILABLE: &str = "available is never negative";
pub(crate) const MAX_HOLDS: &str = "at most the allowed number of holds is open";
pub(crate) const ABOVE: &str = "nothing is posted above its hold";
pub(crate) const ENDS_ONCE: &str = "a hold ends at most once";
pub(crate) const CHARGED_ONCE: &str = "credits are charged at most once for a call";
pub(crate) const LEDGER: &str = "the ledger sums up to the balance";
pub(crate) const HELD: &str = "open holds sum up to held";
pub(crate) const OWED: &str = "the part that a reversal cannot take is owed";
pub(crate) const REPORTED_COST: &str = "no charge without a reported cost";
pub(crate) const HOLD_FIRST: &str = "no call without a hold";
pub(crate) const GIVEN_UP: &str = "a hold that was given up never appears";
pub(crate) const KNOWN_END: &str = "a call is right about its hold's end";
pub(crate) const NOT_LOST: &str = "every hold ends soon after its life";

/// A hold's life, and a check every four hours for each fault and each slow sweeper.
const SOON: SignedDuration = SignedDuration::from_hours(24 + 6 * 4);

fn every_hold(state: &State, is: impl Fn(&Call, &StoredHold) -> bool) -> bool {
    let mut calls = state.calls.iter();
    calls.all(|call| call.hold.as_ref().is_none_or(|hold| is(call, hold)))
}

fn some_hold(state: &State, is: impl Fn(&Call, &StoredHold) -> bool) -> bool {
    !every_hold(state, |call, hold| !is(call, hold))
}

pub(crate) fn always() -> Vec<Property> {
    vec![
        Property::always(AVAILABLE, |_, State { books, .. }| {
            !books.available.is_negative() && books.available == minus(books.balance, books.held)
        }),
        Property::always(MAX_HOLDS, |model, state| {
            i64::from(state.books.open_holds) <= i64::from(model.scope.max_holds)
        }),
        Property::always(ABOVE, |_, state| {
            every_hold(state, |call, hold| {
                call.entries.iter().all(|charged| *charged <= hold.amount)
            })
        }),
        Property::always(ENDS_ONCE, |_, state| {
            every_hold(state, |_, hold| {
                let may_have_ended = !hold.is_open() && hold.by != Actor::Fence;
                hold.ends == u8::from(may_have_ended)
            })
        }),
        Property::always(CHARGED_ONCE, |_, state| {
            state.calls.iter().all(|call| call.entries.len() <= 1)
        }),
        Property::always(LEDGER, |_, state| {
            let charged = state.calls.iter().map(Call::charged);
            let charged = charged.fold(Credits::ZERO, plus);
            state.books.balance == minus(plus(CREDITS, state.posted), charged)
        }),
        Property::always(HELD, |_, state| {
            let open = || state.calls.iter().filter_map(Call::open_hold);
            let held = open().map(|hold| hold.amount).fold(Credits::ZERO, plus);
            held == state.books.held && i32::try_from(open().count()) == Ok(state.books.open_holds)
        }),
        Property::always(OWED, |_, state| {
            let owed = state.books.owed;
            !owed.is_negative() && owed == minus(state.posted, state.asked)
        }),
        Property::always(REPORTED_COST, |_, state| {
            every_hold(state, |call, hold| {
                let reported = call.cost.map(|cost| cost.min(hold.amount));
                call.entries.iter().all(|charged| reported == Some(*charged))
            })
        }),
        Property::always(HOLD_FIRST, |_, state| {
            state.calls.iter().all(|call| {
                let hold = call.hold.as_ref();
                let had_one = hold.is_some_and(|hold| hold.by != Actor::Fence);
                had_one || call.cost.is_none()
            })
        }),
        Property::always(GIVEN_UP, |_, state| {
            every_hold(state, |call, hold| call.process != Process::GivenUp || !hold.is_open())
        }),
        Property::always(KNOWN_END, |_, state| {
            every_hold(state, |call, hold| match call.process {
                Process::Ended { resolution, .. } => resolution.state() == Some(hold.state),
                _ => true,
            })
        }),
        // Stateright's `eventually` misses cycles and some paths into a state. Instead, time must
        // not end in a state with an open hold, nor go on for long with one.
        Property::always(NOT_LOST, |model, state| {
            if state.calls.iter().all(|call| call.open_hold().is_none()) {
                return true;
            }
            let mut next = Vec::new();
            model.actions(state, &mut next);
            !next.is_empty() && state.now <= START + SOON
        }),
    ]
}

/// States that must be reachable, or the properties above would prove little.
pub(crate) fn sometimes() -> Vec<Property> {
    vec![
        Property::sometimes("a call settles its own hold", |_, state| {
            some_hold(state, |call, hold| hold.by == Actor::Call && call.charged() > Credits::ZERO)
        }),
        Property::sometimes("a call releases its hold", |_, state| {
            some_hold(state, |_, hold| hold.by == Actor::Call && hold.state == HoldState::Released)
        }),
        Property::sometimes("the sweeper settles a hold", |_, state| {
            some_hold(state, |call, hold| {
                hold.by == Actor::Sweeper && call.charged() > Credits::ZERO
            })
        }),
        Property::sometimes("a hold expires", |_, state| {
            some_hold(state, |_, hold| {
                hold.by == Actor::Sweeper && hold.state == HoldState::Released
            })
        }),
        Property::sometimes("a cost is cut to its hold", |_, state| {
            some_hold(state, |call, hold| {
                call.cost > Some(hold.amount) && call.charged() == hold.amount
            })
        }),
        Property::sometimes("two ends race and one loses", |_, state| {
            some_hold(state, |_, hold| hold.by != Actor::Fence && hold.outran)
        }),
        Property::sometimes("a lost response is recognised as an end", |_, state| {
            some_hold(state, |call, hold| {
                let recognised =
                    Process::Ended { resolution: Resolution::Done(hold.state), answered: false };
                hold.by == Actor::Call && call.process == recognised
            })
        }),
        Property::sometimes("a fence wins over a late hold", |_, state| {
            some_hold(state, |_, hold| hold.by == Actor::Fence && hold.outran)
        }),
    ]
}
