//! The database: its items, and the effect of each request of the store.
//!
//! The conditions are those of `store`'s requests, one by one.

use account::hold::{End, FIRST_CHECK, HoldState};
use account::{Balance, BalanceError, Credits, Movement};
use jiff::Timestamp;

use crate::{Broken, Call, GRANT, Holds, Posting, REVERSAL, START, State, plus};

/// The account's item: numbers to which each movement is added.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Books {
    pub(crate) balance: Credits,
    pub(crate) held: Credits,
    pub(crate) available: Credits,
    pub(crate) owed: Credits,
    pub(crate) open_holds: i32,
}

/// A hold's item. Its life begins at [`START`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StoredHold {
    pub(crate) amount: Credits,
    pub(crate) state: HoldState,
    pub(crate) by: Actor,
    /// The default AI's id of the call is stored.
    pub(crate) generation: bool,
    pub(crate) next_check_at: Option<Timestamp>,
    /// Number of times that it ended.
    pub(crate) ends: u8,
    /// Another process's request came too late.
    pub(crate) outran: bool,
}

/// The process that brought a hold into its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Actor {
    Call,
    Fence,
    Sweeper,
}

/// A write to one call's hold, with the rest of its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Request {
    Hold { amount: Credits },
    Fence,
    RecordGeneration,
    CheckAt(Timestamp),
    Claim { due: Timestamp, next: Timestamp },
    End { amount: Credits, end: End, by: Actor },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    ConditionFailed,
    /// This hold exists already.
    Met(HoldState, Credits),
    /// The balance refuses; this amount is available.
    Refused(BalanceError, Credits),
}

/// The fate of a request. A dying sweeper is modelled as a lost request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Answered,
    /// It never arrives.
    Lost,
    /// It arrives later; if at once, only the response was lost.
    Late,
    /// It arrives later, and the SDK sends it again before that.
    Repeated,
}

impl Fate {
    /// The fates that a request can still meet.
    pub(crate) fn of_requests(state: &State) -> &'static [Self] {
        const ALL: [Fate; 4] = [Fate::Answered, Fate::Lost, Fate::Late, Fate::Repeated];
        if state.faults_left > 0 { &ALL } else { &ALL[..1] }
    }
}

impl Books {
    pub(crate) fn new(balance: Credits) -> Self {
        Self {
            balance,
            held: Credits::ZERO,
            available: balance,
            owed: Credits::ZERO,
            open_holds: 0,
        }
    }

    /// `None`: not a valid balance.
    fn read(&self) -> Option<Balance> {
        let open_holds = u32::try_from(self.open_holds).ok()?;
        Balance::new(self.balance, self.held, self.owed, open_holds)
    }

    fn add(&mut self, movement: Movement) {
        self.balance = plus(self.balance, movement.balance);
        self.held = plus(self.held, movement.held);
        self.available = plus(self.available, movement.available().unwrap());
        self.owed = plus(self.owed, movement.owed);
        self.open_holds += movement.open_holds;
    }
}

impl StoredHold {
    pub(crate) fn is_open(&self) -> bool {
        self.state == HoldState::Open
    }

    /// Can `request` still change it, or at least be seen to come too late?
    pub(crate) fn is_concerned_by(&self, request: &Request) -> bool {
        match request {
            Request::Hold { .. } => self.by == Actor::Fence && !self.outran,
            Request::Fence => false,
            Request::End { by, .. } => self.is_open() || (self.by != *by && !self.outran),
            Request::RecordGeneration | Request::CheckAt(_) | Request::Claim { .. } => {
                self.is_open()
            }
        }
    }
}

impl Holds {
    /// Sends `request` of one call's process or sweeper. `None`: no response comes.
    pub(crate) fn transmit(
        &self,
        state: &mut State,
        call: usize,
        request: Request,
        fate: Fate,
    ) -> Option<Answer> {
        if fate == Fate::Answered {
            return Some(self.carry_out(state, call, request));
        }
        state.faults_left -= 1;
        if fate != Fate::Lost {
            state.calls[call].late.push(request);
        }
        None
    }

    pub(crate) fn carry_out(&self, state: &mut State, call: usize, request: Request) -> Answer {
        let State { calls, books, .. } = state;
        let call = &mut calls[call];
        match request {
            Request::Hold { amount } => self.take_hold(books, call, amount),
            Request::Fence => self.fence(call),
            Request::RecordGeneration => on_open(call, |hold| hold.generation = true),
            Request::CheckAt(at) => on_open(call, |hold| hold.next_check_at = Some(at)),
            Request::Claim { due, next } => {
                let is_due = |hold: &StoredHold| hold.next_check_at == Some(due);
                if !call.open_hold().is_some_and(is_due) {
                    return Answer::ConditionFailed;
                }
                let next = (!self.breaks(Broken::ClaimForgets)).then_some(next);
                on_open(call, |hold| hold.next_check_at = next)
            }
            Request::End { amount, end, by } => {
                let Some(hold) = &mut call.hold else {
                    return Answer::ConditionFailed;
                };
                match self.end_hold(books, hold, amount, end, by) {
                    Ok(entry) => call.entries.extend(entry),
                    Err(refused) => return refused,
                }
                Answer::Done
            }
        }
    }

    fn take_hold(&self, books: &mut Books, call: &mut Call, amount: Credits) -> Answer {
        if let Some(hold) = &mut call.hold
            && !self.breaks(Broken::HoldTwice)
        {
            hold.outran |= hold.by == Actor::Fence;
            return Answer::Met(hold.state, hold.amount);
        }
        let max_holds =
            if self.breaks(Broken::MaxHoldsUnchecked) { u32::MAX } else { self.scope.max_holds };
        let before = books.read().ok_or(BalanceError::OutOfRange);
        let after = before.and_then(|balance| balance.hold(amount, max_holds));
        if let Err(refused) = after
            && !self.breaks(Broken::AvailableUnchecked)
        {
            return Answer::Refused(refused, books.available);
        }
        books.add(Movement::hold(amount));
        call.hold = Some(StoredHold {
            amount,
            state: HoldState::Open,
            by: Actor::Call,
            generation: false,
            next_check_at: Some(START + FIRST_CHECK),
            ends: 0,
            outran: false,
        });
        Answer::Done
    }

    fn fence(&self, call: &mut Call) -> Answer {
        if call.hold.is_some() && !self.breaks(Broken::FenceUnchecked) {
            return Answer::ConditionFailed;
        }
        call.hold = Some(StoredHold {
            amount: Credits::ZERO,
            state: HoldState::Released,
            by: Actor::Fence,
            generation: false,
            next_check_at: None,
            ends: 0,
            outran: false,
        });
        Answer::Done
    }

    /// Returns its ledger entry, if any.
    fn end_hold(
        &self,
        books: &mut Books,
        hold: &mut StoredHold,
        amount: Credits,
        end: End,
        by: Actor,
    ) -> Result<Option<Credits>, Answer> {
        let before = if self.breaks(Broken::EndUnchecked) { HoldState::Open } else { hold.state };
        let Ok(mut after) = before.end(end, amount) else {
            hold.outran |= hold.by != by;
            return Err(Answer::ConditionFailed);
        };
        let mut movement = Movement::end_hold(amount, after.charged()).unwrap();
        if let (true, End::Settle(cost)) = (self.breaks(Broken::CostUncapped), end) {
            after = HoldState::Settled(cost);
            movement.balance = cost.checked_neg().unwrap();
        }
        books.add(movement);
        hold.state = after;
        hold.by = by;
        hold.ends += 1;
        // Nothing reads these any more.
        hold.generation = false;
        hold.next_check_at = None;
        let is_entered = after != HoldState::Released && !self.breaks(Broken::NoEntry);
        Ok(is_entered.then(|| after.charged()))
    }

    /// Reads the balance, or makes the posting planned from it.
    pub(crate) fn post(&self, state: &mut State, posting: usize) -> Option<()> {
        let State { books, postings, .. } = state;
        let Posting::Planned(before) = postings[posting] else {
            postings[posting] = Posting::Planned(books.read()?);
            return Some(());
        };
        let (mut movement, asked) = match posting {
            0 => (before.reverse(REVERSAL).ok()?, REVERSAL.checked_neg()?),
            _ => (before.credit(GRANT).ok()?, GRANT),
        };
        if posting == 0 && self.breaks(Broken::NothingOwed) {
            movement.owed = Credits::ZERO;
        }
        let least = movement.balance.min(Credits::ZERO).checked_neg()?;
        let is_as_planned = books.available >= least && books.owed == before.owed();
        if is_as_planned || self.breaks(Broken::PostingUnchecked) {
            books.add(movement);
            postings[posting] = Posting::Posted;
            state.posted = plus(state.posted, movement.balance);
            state.asked = plus(state.asked, asked);
        } else {
            postings[posting] = Posting::Due;
        }
        Some(())
    }
}

/// Changes the hold, on the condition that it is open.
fn on_open(call: &mut Call, change: impl FnOnce(&mut StoredHold)) -> Answer {
    match call.hold.as_mut().filter(|hold| hold.is_open()) {
        Some(hold) => {
            change(hold);
            Answer::Done
        }
        None => Answer::ConditionFailed,
    }
}
