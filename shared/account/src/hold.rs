//! The lifecycle of a hold: taken before a call, and ended exactly once.
//!
//! A hold ends by settling (the call's cost is known) or by release (it cost nothing, or the cost
//! cannot be determined). The call itself ends it. If it cannot, the sweeper looks up the call
//! repeatedly, and releases the hold when it expires. A cost is never guessed.
//!
//! `tests/holds` searches through all interleavings of calls, sweepers and lost responses.

use jiff::{SignedDuration, Timestamp};

use crate::money::Credits;

/// Time after which a hold of unknown cost is released.
pub const LIFE: SignedDuration = SignedDuration::from_hours(24);
/// Time without a record at the default AI after which a hold is released.
pub const NO_RECORD_LIFE: SignedDuration = SignedDuration::from_hours(1);
/// Time before the first check: longer than the call's own process, which ends its hold, can run.
pub const FIRST_CHECK: SignedDuration = SignedDuration::from_mins(20);
/// Minimum time between two look-ups of a call.
const SHORTEST_WAIT: SignedDuration = SignedDuration::from_mins(1);
/// Maximum time between two look-ups of a call.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(4);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HoldState {
    Open,
    Settled(Credits),
    Released,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    Settle(Credits),
    Release,
}

impl End {
    /// The state of a hold of `amount` afterwards: never more is charged than was held.
    pub fn of(self, amount: Credits) -> HoldState {
        match self {
            Self::Settle(cost) => HoldState::Settled(cost.min(amount)),
            Self::Release => HoldState::Released,
        }
    }
}

impl HoldState {
    pub fn charged(self) -> Credits {
        match self {
            Self::Settled(charged) => charged,
            Self::Open | Self::Released => Credits::ZERO,
        }
    }

    /// Ends an open hold of `amount`. The error is the state of a hold that had ended before.
    pub fn end(self, end: End, amount: Credits) -> Result<Self, Self> {
        match self {
            Self::Open => Ok(end.of(amount)),
            ended => Err(ended),
        }
    }
}

/// The amount that a call holds if it found this hold under its own id when it took its hold, or
/// got no response: all of an open hold, of any amount, because an earlier attempt of the same call
/// may have arrived late. `None` for a hold that has ended: it is a fence, or has expired.
pub fn held(stored: HoldState, amount: Credits) -> Option<Credits> {
    (stored == HoldState::Open).then_some(amount)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resolution {
    /// The hold ended now, or by an earlier try of the same end whose response was lost.
    Done(HoldState),
    /// The hold had ended in another way; nothing moved. `None`: there is no such hold.
    Already(Option<HoldState>),
}

impl Resolution {
    /// The result of a write that was refused, by the `stored` hold.
    pub fn of_refused(end: HoldState, stored: Option<HoldState>) -> Self {
        if stored == Some(end) { Self::Done(end) } else { Self::Already(stored) }
    }

    /// The result of a write without a response. `None`: it may still be on its way.
    pub fn of_unanswered(end: HoldState, stored: Option<HoldState>) -> Option<Self> {
        match stored {
            None | Some(HoldState::Open) => None,
            ended => Some(Self::of_refused(end, ended)),
        }
    }

    pub fn state(self) -> Option<HoldState> {
        match self {
            Self::Done(state) => Some(state),
            Self::Already(state) => state,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    End(End),
    /// Look again when the hold's next check is due.
    Wait,
}

/// Decides what to do with a hold. `cost`: the call's cost, if the default AI has reported it.
pub fn sweep(cost: Option<Credits>, release_at: Timestamp, now: Timestamp) -> Sweep {
    match cost {
        Some(cost) => Sweep::End(End::Settle(cost)),
        None if now >= release_at => Sweep::End(End::Release),
        None => Sweep::Wait,
    }
}

/// The time of a hold's next check: the older the hold, the later, but no later than it expires.
pub fn next_check(created_at: Timestamp, expires_at: Timestamp, now: Timestamp) -> Timestamp {
    let age = now.duration_since(created_at);
    let wait = age.clamp(SHORTEST_WAIT, LONGEST_WAIT);
    let next = now.checked_add(wait).unwrap_or(expires_at);
    if now < expires_at { next.min(expires_at) } else { next }
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
    fn only_an_open_hold_holds_its_stored_amount() {
        let stored = Credits::from_micros(5);
        assert_eq!(held(HoldState::Open, stored), Some(stored));
        assert_eq!(held(HoldState::Released, stored), None);
        assert_eq!(held(HoldState::Settled(stored), stored), None);
    }

    #[test]
    fn the_stored_hold_shows_how_it_ended() {
        let wish = HoldState::Settled(Credits::from_micros(5));
        let other = HoldState::Settled(Credits::from_micros(4));
        let ended = [
            (wish, Resolution::Done(wish)),
            (other, Resolution::Already(Some(other))),
            (HoldState::Released, Resolution::Already(Some(HoldState::Released))),
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

    /// First a minute apart, then longer and longer; the last one when the hold expires.
    #[test]
    fn checks_come_at_growing_intervals() {
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
