//! The life of a hold: taken before a call, ended once, by whoever comes first.
//!
//! A hold ends by settling (the call's cost is known) or by release (it cost nothing, or nobody can
//! tell). The call itself ends it; where it cannot, the sweeper looks the call up, again and again,
//! and releases the hold when its time is over. Nothing is ever settled by guess.
//!
//! `tests/holds` searches through all that calls, sweepers and lost answers can make of these rules.

use jiff::{SignedDuration, Timestamp};

use crate::Credits;

/// What stays unknown for so long is released.
pub const LIFE: SignedDuration = SignedDuration::from_hours(24);
/// Longer than a function can live: until then the call's own process ends its hold.
pub const FIRST_CHECK: SignedDuration = SignedDuration::from_mins(20);
/// Look-ups of one call are at least this far apart, and at most [`LONGEST_WAIT`].
const SHORTEST_WAIT: SignedDuration = SignedDuration::from_mins(1);
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(4);

/// How a hold stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HoldState {
    Open,
    /// So much of it was taken.
    Settled(Credits),
    Released,
}

/// A way for a hold to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// The call cost this.
    Settle(Credits),
    Release,
}

impl End {
    /// How a hold of `amount` stands after it: never more is taken than was held.
    pub fn of(self, amount: Credits) -> HoldState {
        match self {
            Self::Settle(cost) => HoldState::Settled(cost.min(amount)),
            Self::Release => HoldState::Released,
        }
    }
}

impl HoldState {
    /// What was taken of the hold.
    pub fn charged(self) -> Credits {
        match self {
            Self::Settled(charged) => charged,
            Self::Open | Self::Released => Credits::ZERO,
        }
    }

    /// Ends a hold of `amount`; only an open one can be.
    ///
    /// # Errors
    /// How it ended before.
    pub fn end(self, end: End, amount: Credits) -> Result<Self, Self> {
        match self {
            Self::Open => Ok(end.of(amount)),
            ended => Err(ended),
        }
    }
}

/// What a call holds that found this under its own id when it tried to take its hold, or got no
/// answer: all of an open hold, of whatever amount, as an earlier plan of the same call may have
/// arrived late. An ended one is a fence, or expired: `None`.
pub fn held(stored: HoldState, amount: Credits) -> Option<Credits> {
    (stored == HoldState::Open).then_some(amount)
}

/// What became of the wish to end a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resolution {
    /// Ended now, or by an earlier try of this same end whose answer was lost.
    Done(HoldState),
    /// It had ended otherwise before; nothing was moved. `None`: nothing is known of such a hold.
    Already(Option<HoldState>),
}

impl Resolution {
    /// Of the wish to end a hold as `end` that was refused: the `stored` hold tells.
    pub fn of_refused(end: HoldState, stored: Option<HoldState>) -> Self {
        if stored == Some(end) {
            Self::Done(end)
        } else {
            Self::Already(stored)
        }
    }

    /// Of the wish that was not answered. `None`: it may still be on its way, and the hold is the
    /// sweeper's.
    pub fn of_unanswered(end: HoldState, stored: Option<HoldState>) -> Option<Self> {
        match stored {
            None | Some(HoldState::Open) => None,
            ended => Some(Self::of_refused(end, ended)),
        }
    }

    /// How the hold stands now.
    pub fn state(self) -> Option<HoldState> {
        match self {
            Self::Done(state) => Some(state),
            Self::Already(state) => state,
        }
    }
}

/// What the sweeper does about an open hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    End(End),
    /// Look again when its next check is due.
    Wait,
}

/// Decides by what the provider says the call cost; `None`: it does not say.
pub fn sweep(cost: Option<Credits>, expires_at: Timestamp, now: Timestamp) -> Sweep {
    match cost {
        Some(cost) => Sweep::End(End::Settle(cost)),
        None if now >= expires_at => Sweep::End(End::Release),
        None => Sweep::Wait,
    }
}

/// When to look again at a hold that is looked at now: the older it is, the later, but no later than
/// its end.
pub fn next_check(created_at: Timestamp, expires_at: Timestamp, now: Timestamp) -> Timestamp {
    let age = now.duration_since(created_at);
    let wait = age.clamp(SHORTEST_WAIT, LONGEST_WAIT);
    let next = now.checked_add(wait).unwrap_or(expires_at);
    if now < expires_at {
        next.min(expires_at)
    } else {
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_ends_once_and_within_itself() {
        let credits = Credits::from_micros;
        let ended = HoldState::Open.end(End::Settle(credits(9)), credits(5));
        assert_eq!(ended, Ok(HoldState::Settled(credits(5))));
        for end in [End::Settle(credits(1)), End::Release] {
            for before in [HoldState::Settled(credits(5)), HoldState::Released] {
                assert_eq!(before.end(end, credits(5)), Err(before));
            }
        }
    }

    #[test]
    fn only_an_open_hold_is_held_and_as_it_is_stored() {
        let stored = Credits::from_micros(5);
        assert_eq!(held(HoldState::Open, stored), Some(stored));
        assert_eq!(held(HoldState::Released, stored), None);
        assert_eq!(held(HoldState::Settled(stored), stored), None);
    }

    #[test]
    fn the_stored_hold_tells_how_it_ended() {
        let wish = HoldState::Settled(Credits::from_micros(5));
        let other = HoldState::Settled(Credits::from_micros(4));
        let ended = [
            (wish, Resolution::Done(wish)),
            (other, Resolution::Already(Some(other))),
            (
                HoldState::Released,
                Resolution::Already(Some(HoldState::Released)),
            ),
        ];
        for (stored, told) in ended {
            assert_eq!(Resolution::of_refused(wish, Some(stored)), told);
            assert_eq!(Resolution::of_unanswered(wish, Some(stored)), Some(told));
            assert_eq!(told.state(), Some(stored));
        }
        for unknown in [None, Some(HoldState::Open)] {
            let refused = Resolution::Already(unknown);
            assert_eq!(Resolution::of_refused(wish, unknown), refused);
            assert_eq!(Resolution::of_unanswered(wish, unknown), None);
        }
    }

    #[test]
    fn the_sweeper_never_guesses() {
        let at = |hours| Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hours);
        let cost = Credits::from_micros(7);
        let settled = Sweep::End(End::Settle(cost));
        assert_eq!(sweep(Some(cost), at(24), at(1)), settled);
        assert_eq!(sweep(Some(cost), at(24), at(99)), settled);
        assert_eq!(sweep(None, at(24), at(23)), Sweep::Wait);
        assert_eq!(sweep(None, at(24), at(24)), Sweep::End(End::Release));
    }

    /// A minute apart at first, then ever longer, the last one when the hold expires.
    #[test]
    fn checks_grow_apart() {
        let created = Timestamp::UNIX_EPOCH;
        let expires = created + LIFE;
        let mut now = created;
        let mut waits = Vec::new();
        while now < expires {
            let next = next_check(created, expires, now);
            waits.push(next.duration_since(now));
            now = next;
        }
        assert_eq!(now, expires);
        assert_eq!(waits[0], SHORTEST_WAIT);
        let growing = &waits[..waits.len() - 1];
        assert!(growing.is_sorted(), "{waits:?}");
        assert!(waits.len() < 20, "{waits:?}");
        assert!(next_check(created, expires, expires) > expires);
    }
}
