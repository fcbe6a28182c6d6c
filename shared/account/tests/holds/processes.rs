//! The processes that work on holds: the call's own and the sweepers. From a response, or from
//! none, they draw the same conclusions as `store` and its callers.

use account::hold::{self, End, HoldState, LIFE, Resolution, next_check};
use account::{BalanceError, Credits};
use jiff::Timestamp;

use crate::database::{Actor, Answer, Fate, Request, StoredHold};
use crate::{Action, Broken, Call, Holds, START, State, WISH};

/// The next step of a call's own process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Process {
    Taking {
        amount: Credits,
        planned_again: bool,
    },
    /// No response came.
    Fencing {
        amount: Credits,
    },
    /// The fence met an item, which is then read.
    Meeting {
        amount: Credits,
    },
    /// About to call the default AI.
    Holding {
        amount: Credits,
    },
    /// The call was made; `usage` is the cost that its response reports.
    Recording {
        amount: Credits,
        usage: Option<Credits>,
    },
    Ending {
        amount: Credits,
        end: End,
    },
    /// Reads the hold, because its end was refused or got no response.
    Asking {
        end: HoldState,
        answered: bool,
    },
    /// Leaves the hold to the sweeper.
    Leaving,
    /// Has no hold, and knows that it never will.
    GivenUp,
    Ended {
        resolution: Resolution,
        answered: bool,
    },
    /// Stopped, or was refused a hold, or left everything to the sweeper.
    Gone,
}

/// The default AI's response, as a call's process receives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Response {
    Refused,
    Usage {
        cost: Credits,
    },
    /// It broke off, or did not report the cost.
    Nothing {
        cost: Credits,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Sweeper {
    /// Found the hold due and read it; `now` is the time of its tick.
    Looking {
        due: Timestamp,
        generation: bool,
        now: Timestamp,
    },
    Ending {
        end: End,
    },
}

impl Process {
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::GivenUp | Self::Ended { .. } | Self::Gone)
    }

    fn request(self, now: Timestamp) -> Option<Request> {
        match self {
            Self::Taking { amount, .. } => Some(Request::Hold { amount }),
            Self::Fencing { .. } => Some(Request::Fence),
            Self::Recording { .. } => Some(Request::RecordGeneration),
            Self::Ending { amount, end } => {
                let by = Actor::Call;
                Some(Request::End { amount, end, by })
            }
            Self::Leaving => Some(Request::CheckAt(now)),
            Self::Meeting { .. }
            | Self::Holding { .. }
            | Self::Asking { .. }
            | Self::GivenUp
            | Self::Ended { .. }
            | Self::Gone => None,
        }
    }

    /// The call ends its hold if it can, whether or not the default AI's id was stored.
    fn after_recording(amount: Credits, usage: Option<Credits>) -> Self {
        usage.map(End::Settle).map_or(Self::Leaving, |end| Self::Ending { amount, end })
    }
}

impl Call {
    /// `None`: it is not time to make the call.
    pub(crate) fn apply_response(&mut self, response: Response) -> Option<()> {
        let Process::Holding { amount } = self.process else {
            return None;
        };
        let (cost, usage) = match response {
            Response::Refused => {
                let end = End::Release;
                self.process = Process::Ending { amount, end };
                return Some(());
            }
            Response::Usage { cost } => (cost, Some(cost)),
            Response::Nothing { cost } => (cost, None),
        };
        self.cost = Some(cost);
        self.process = Process::Recording { amount, usage };
        Some(())
    }
}

impl Holds {
    pub(crate) fn steps_of_call(&self, state: &State, call: usize, steps: &mut Vec<Action>) {
        let process = state.calls[call].process;
        if process.request(state.now).is_some() {
            let fates = Fate::of_requests(state).iter();
            steps.extend(fates.map(|&fate| Action::Send { call, fate }));
        }
        match process {
            Process::Meeting { .. } | Process::Asking { .. } => {
                steps.push(Action::Read { call, answered: true });
                if state.faults_left > 0 {
                    steps.push(Action::Read { call, answered: false });
                }
            }
            Process::Holding { .. } => {
                let costs = self.scope.costs.iter().copied().map(Credits::from_micros);
                let response =
                    costs.flat_map(|cost| [Response::Usage { cost }, Response::Nothing { cost }]);
                let response = response.chain([Response::Refused]);
                steps.extend(response.map(|response| Action::CallDefaultAi { call, response }));
            }
            _ => {}
        }
        if !process.is_over() {
            steps.push(Action::Stop { call });
        }
    }

    pub(crate) fn send(&self, state: &mut State, call: usize, fate: Fate) -> Option<()> {
        let process = state.calls[call].process;
        let request = process.request(state.now)?;
        let answer = self.transmit(state, call, request, fate);
        state.calls[call].process = match (answer, fate) {
            (Some(answer), _) => self.answered(process, answer),
            (None, Fate::Repeated) => process,
            (None, _) => self.unanswered(process),
        };
        Some(())
    }

    fn answered(&self, process: Process, answer: Answer) -> Process {
        match (process, answer) {
            (Process::Taking { amount, .. }, Answer::Done) => Process::Holding { amount },
            (Process::Taking { amount, .. }, Answer::Met(state, stored)) => self
                .held(amount, state, stored)
                .map_or(Process::Gone, |amount| Process::Holding { amount }),
            (
                Process::Taking { planned_again: false, .. },
                Answer::Refused(BalanceError::Insufficient, available),
            ) if available > Credits::ZERO => {
                Process::Taking { amount: WISH.min(available), planned_again: true }
            }
            (Process::Fencing { .. }, Answer::Done) => Process::GivenUp,
            (Process::Fencing { amount }, _) => Process::Meeting { amount },
            (Process::Recording { amount, usage }, _) => Process::after_recording(amount, usage),
            (Process::Ending { amount, end }, Answer::Done) => {
                Process::Ended { resolution: Resolution::Done(end.of(amount)), answered: true }
            }
            (Process::Ending { amount, end }, _) => {
                Process::Asking { end: end.of(amount), answered: true }
            }
            _ => Process::Gone,
        }
    }

    fn unanswered(&self, process: Process) -> Process {
        match process {
            Process::Taking { amount, .. } if self.breaks(Broken::SilenceIsAHold) => {
                Process::Holding { amount }
            }
            Process::Taking { amount, .. } if self.breaks(Broken::NoFence) => {
                Process::Meeting { amount }
            }
            Process::Taking { amount, .. } => Process::Fencing { amount },
            Process::Recording { amount, usage } => Process::after_recording(amount, usage),
            Process::Ending { amount, end } if self.breaks(Broken::SilenceIsAnEnd) => {
                Process::Ended { resolution: Resolution::Done(end.of(amount)), answered: false }
            }
            Process::Ending { amount, end } => {
                Process::Asking { end: end.of(amount), answered: false }
            }
            _ => Process::Gone,
        }
    }

    /// The conclusion from the `stored` hold.
    pub(crate) fn read(
        &self,
        process: Process,
        is_read: bool,
        stored: Option<&StoredHold>,
    ) -> Process {
        match process {
            Process::Meeting { .. } if !is_read => Process::Gone,
            Process::Meeting { amount } => stored
                .and_then(|stored| self.held(amount, stored.state, stored.amount))
                .map_or(Process::GivenUp, |amount| Process::Holding { amount }),
            Process::Asking { end, answered } => {
                let state = stored.filter(|_| is_read).map(|stored| stored.state);
                let resolution = match answered {
                    true if !is_read => None,
                    true => Some(Resolution::of_refused(end, state)),
                    false => Resolution::of_unanswered(end, state),
                };
                resolution
                    .map_or(Process::Leaving, |resolution| Process::Ended { resolution, answered })
            }
            process => process,
        }
    }

    fn held(&self, asked: Credits, state: HoldState, stored: Credits) -> Option<Credits> {
        if self.breaks(Broken::FenceIsAHold) {
            return Some(stored);
        }
        let held = hold::held(state, stored)?;
        Some(if self.breaks(Broken::LastPlanIsTheHold) { asked } else { held })
    }
}

impl Sweeper {
    pub(crate) fn finding(hold: &StoredHold, now: Timestamp) -> Option<Self> {
        Some(Self::Looking { due: hold.next_check_at?, generation: hold.generation, now })
    }

    pub(crate) fn request(self, hold: &StoredHold) -> Request {
        match self {
            Self::Looking { due, now, .. } => {
                let next = next_check(START, START + LIFE, now);
                Request::Claim { due, next }
            }
            Self::Ending { end } => Request::End { amount: hold.amount, end, by: Actor::Sweeper },
        }
    }
}

impl Holds {
    pub(crate) fn steps_of_sweepers(&self, state: &State, index: usize, steps: &mut Vec<Action>) {
        let call = &state.calls[index];
        for (sweeper, kind) in call.sweepers.iter().enumerate() {
            let step = |fate, reported| Action::Sweep { call: index, sweeper, fate, reported };
            let fates = Fate::of_requests(state).iter();
            steps.extend(fates.map(|&fate| step(fate, false)));
            let can_ask = matches!(kind, Sweeper::Looking { generation: true, .. });
            if can_ask && call.cost.is_some() {
                steps.push(step(Fate::Answered, true));
            }
        }
        let sweepers = state.calls.iter().map(|call| call.sweepers.len());
        let due = call.open_hold().and_then(|hold| hold.next_check_at);
        let is_due = due.is_some_and(|due| due <= state.now);
        if is_due && sweepers.sum::<usize>() < self.scope.sweepers {
            steps.push(Action::FindDue { call: index });
        }
    }

    pub(crate) fn sweep(
        &self,
        state: &mut State,
        index: usize,
        sweeper: usize,
        fate: Fate,
        reported: bool,
    ) -> Option<()> {
        let call = &mut state.calls[index];
        let (held, cost) = (call.hold.clone()?, call.cost.filter(|_| reported));
        let sweeper = call.sweepers.remove(sweeper);
        let answer = self.transmit(state, index, sweeper.request(&held), fate);
        let next = match (sweeper, answer, fate) {
            (Sweeper::Looking { now, .. }, Some(Answer::Done), _) => {
                self.after_claim(now, cost, held.amount)
            }
            (_, None, Fate::Repeated) => Some(sweeper),
            // In any case, the next tick looks at open holds again.
            _ => None,
        };
        state.calls[index].sweepers.extend(next);
        Some(())
    }

    fn after_claim(&self, now: Timestamp, cost: Option<Credits>, held: Credits) -> Option<Sweeper> {
        let end = match hold::sweep(cost, START + LIFE, now) {
            hold::Sweep::Wait => return None,
            hold::Sweep::End(End::Release) if self.breaks(Broken::ExpiryIsCharged) => {
                End::Settle(held)
            }
            hold::Sweep::End(end) => end,
        };
        Some(Sweeper::Ending { end })
    }
}
