//! A one-page model of what the store must do with credits.

use std::collections::BTreeMap;

use account::Credits;
use account::hold::{HoldState, LIFE, next_check};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;
use store::EntryKind;

use crate::wire::Fault;

pub(super) const MAX_HOLDS: u32 = 3;
const MOST_CALLS: usize = 6;
#[derive(Debug, Clone)]
pub(super) enum Step {
    Post {
        kind: EntryKind,
        amount: i64,
        fault: Disturbance,
    },
    /// Repeats the last posting.
    PostAgain,
    Hold {
        amount: i64,
        /// The idempotency key.
        key: Option<u8>,
        fault: Disturbance,
        /// If the hold's own outcome is unknown, so is the fence's.
        fence_lost: bool,
    },
    /// The default AI accepts the call, and its id is stored or lost.
    Accept {
        call: usize,
        cost: i64,
        id_stored: bool,
    },
    End {
        call: usize,
        end: End,
        fault: Disturbance,
    },
    /// Repeats the call's last resolution.
    EndAgain {
        call: usize,
    },
    /// The call's process is gone.
    Crash {
        call: usize,
    },
    Sweep {
        fault: Disturbance,
    },
    /// Clocks jump forward, and sometimes back.
    Pass {
        minutes: i64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Settle(i64),
    Release,
}

/// The fault on the step's transaction.
pub(super) type Disturbance = Option<(Fault, usize)>;

/// The transaction is not carried out, and no response arrives.
fn is_lost(fault: Disturbance) -> bool {
    matches!(fault, Some((Fault::NeverArrives, _)))
}

#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    pub(super) balance: i64,
    pub(super) owed: i64,
    pub(super) now: i64,
    pub(super) calls: Vec<Call>,
    /// The call that an idempotency key belongs to, and the key's expiry.
    keys: BTreeMap<u8, (usize, i64)>,
    pub(super) last_posting: Option<(EntryKind, i64)>,
    /// Number of postings, including refused and lost ones.
    pub(super) postings: usize,
    pub(super) last_number: usize,
    /// The store's expected answer to the last step.
    pub(super) expected: Answer,
}

#[derive(Debug, Clone)]
pub(super) struct Call {
    amount: i64,
    key: Option<u8>,
    created: i64,
    next_check: i64,
    cost: Option<i64>,
    id_stored: bool,
    /// `None`: there is no such hold.
    state: Option<HoldState>,
    /// Its process is alive and knows about the hold.
    owned: bool,
    pub(super) last_end: Option<End>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Answer {
    #[default]
    Nothing,
    Posted {
        balance: i64,
        owed: i64,
    },
    PostedBefore,
    Held,
    Insufficient,
    TooMany,
    Duplicate,
    Ended(HoldState),
    EndedBefore(HoldState),
    Swept {
        ended: u32,
        errors: u32,
    },
    Unknown,
}

impl Call {
    fn is_open(&self) -> bool {
        self.state == Some(HoldState::Open)
    }

    fn can_be_accepted(&self) -> bool {
        self.owned && self.is_open() && self.cost.is_none()
    }

    fn can_end_again(&self) -> bool {
        self.owned && self.last_end.is_some()
    }

    fn ended_by(&self, end: End) -> HoldState {
        match end {
            End::Settle(cost) => HoldState::Settled(Credits::from_micros(cost.min(self.amount))),
            End::Release => HoldState::Released,
        }
    }

    /// How the sweeper would resolve it now.
    fn swept(&self, now: i64) -> Option<End> {
        match self.cost.filter(|_| self.id_stored) {
            Some(cost) => Some(End::Settle(cost)),
            None => (now >= self.created + 24 * 60).then_some(End::Release),
        }
    }
}

impl Model {
    pub(super) fn held(&self) -> i64 {
        let open = self.calls.iter().filter(|call| call.is_open());
        open.map(|call| call.amount).sum()
    }

    pub(super) fn open(&self) -> u32 {
        let open = self.calls.iter().filter(|call| call.is_open());
        u32::try_from(open.count()).unwrap()
    }

    fn available(&self) -> i64 {
        self.balance - self.held()
    }

    fn post(&mut self, kind: EntryKind, amount: i64, fault: Disturbance) -> Answer {
        self.postings += 1;
        let available = self.available();
        let (balance, owed) = match kind {
            EntryKind::Grant => {
                let pays = self.owed.min(available + amount);
                (amount - pays, -pays)
            }
            EntryKind::Reversal => {
                let taken = available.min(-amount);
                (-taken, -amount - taken)
            }
            _ if available + amount < 0 => return Answer::Insufficient,
            _ => (amount, 0),
        };
        if is_lost(fault) {
            return Answer::Unknown;
        }
        self.last_posting = Some((kind, amount));
        self.last_number = self.postings;
        self.balance += balance;
        self.owed += owed;
        Answer::Posted { balance, owed }
    }

    fn hold(
        &mut self,
        amount: i64,
        key: Option<u8>,
        fault: Disturbance,
        fence_lost: bool,
    ) -> Answer {
        let in_use = |key: u8| self.keys.get(&key).is_some_and(|(_, until)| *until > self.now);
        let refused = if key.is_some_and(in_use) {
            Some(Answer::Duplicate)
        } else if self.open() >= MAX_HOLDS {
            Some(Answer::TooMany)
        } else if amount > self.available() {
            Some(Answer::Insufficient)
        } else {
            None
        };
        let answer_lost = matches!(fault, Some((Fault::ResponseLost, _)));
        let placed = refused.is_none() && !is_lost(fault);
        let answer = match refused {
            _ if is_lost(fault) => Answer::Unknown,
            _ if answer_lost && fence_lost => Answer::Unknown,
            Some(_) if answer_lost => Answer::Unknown,
            Some(refused) => refused,
            None => Answer::Held,
        };
        let call = self.calls.len();
        self.calls.push(Call {
            amount,
            key,
            created: self.now,
            next_check: self.now + 20,
            cost: None,
            id_stored: false,
            state: placed.then_some(HoldState::Open),
            owned: answer == Answer::Held,
            last_end: None,
        });
        if let Some(key) = key.filter(|_| placed) {
            self.keys.insert(key, (call, self.now + 24 * 60));
        }
        answer
    }

    fn end(&mut self, call: usize, end: End, fault: Disturbance) -> Answer {
        self.calls[call].last_end = Some(end);
        let state = self.calls[call].ended_by(end);
        match self.calls[call].state.unwrap() {
            HoldState::Open if is_lost(fault) || self.is_outcome_unknown(call, end, fault) => {
                Answer::Unknown
            }
            HoldState::Open => {
                self.ended(call, state);
                Answer::Ended(state)
            }
            before if before == state => Answer::Ended(state),
            before => Answer::EndedBefore(before),
        }
    }

    /// A release that would free another call's idempotency key is refused first, and retried
    /// without the key. If the refusal is lost, the outcome is unknown.
    fn is_outcome_unknown(&self, call: usize, end: End, fault: Disturbance) -> bool {
        let is_not_its_own = |key: &u8| self.keys.get(key).is_none_or(|(of, _)| *of != call);
        matches!(fault, Some((Fault::ResponseLost, _)))
            && end == End::Release
            && self.calls[call].key.as_ref().is_some_and(is_not_its_own)
    }

    fn ended(&mut self, call: usize, state: HoldState) {
        self.calls[call].state = Some(state);
        self.balance -= state.charged().micros();
        if let (HoldState::Released, Some(key)) = (state, self.calls[call].key)
            && self.keys.get(&key).is_some_and(|(of, _)| *of == call)
        {
            self.keys.remove(&key);
        }
    }

    fn which(&self, are: impl Fn(&Call) -> bool) -> Vec<usize> {
        let calls = self.calls.iter().enumerate();
        calls.filter(|(_, call)| are(call)).map(|(number, _)| number).collect()
    }

    fn due(&self) -> Vec<usize> {
        self.which(|call| call.is_open() && call.next_check <= self.now)
    }

    /// Number of holds that a sweep would resolve now.
    fn ends_due(&self) -> usize {
        let ends = |call: &usize| self.calls[*call].swept(self.now).is_some();
        self.due().into_iter().filter(ends).count()
    }

    pub(super) fn sweep(&mut self, fault: Disturbance) -> Answer {
        let due = self.due();
        let (mut ended, mut errors) = (0, 0);
        for call in due {
            let base = Timestamp::UNIX_EPOCH;
            let at = |minutes| base + SignedDuration::from_mins(minutes);
            let Call { created, .. } = self.calls[call];
            let next = next_check(at(created), at(created) + LIFE, at(self.now));
            self.calls[call].next_check = next.duration_since(base).as_mins();
            let Some(end) = self.calls[call].swept(self.now) else {
                continue;
            };
            if is_lost(fault) || self.is_outcome_unknown(call, end, fault) {
                errors += 1;
            } else {
                ended += 1;
                let state = self.calls[call].ended_by(end);
                self.ended(call, state);
            }
        }
        Answer::Swept { ended, errors }
    }
}

fn fault() -> impl Strategy<Value = Disturbance> {
    prop_oneof![
        6 => Just(None),
        1 => (1..3_usize).prop_map(|times| Some((Fault::Throttled, times))),
        1 => (1..3_usize).prop_map(|times| Some((Fault::Conflict, times))),
        1 => Just(Some((Fault::NeverArrives, 1))),
        1 => Just(Some((Fault::ResponseLost, 1))),
        1 => Just(Some((Fault::Repeated, 1))),
    ]
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(state: &Self) -> BoxedStrategy<Step> {
        let kinds = prop_oneof![
            3 => (Just(EntryKind::Grant), 0..1_000_i64),
            1 => (Just(EntryKind::Reversal), -1_500..0_i64),
            1 => (Just(EntryKind::Adjustment), -300..300_i64),
            1 => (Just(EntryKind::Refund), 0..100_i64),
        ];
        let post = (kinds, fault());
        let post = post.prop_map(|((kind, amount), fault)| Step::Post { kind, amount, fault });
        let pass = prop_oneof![
            4 => 1..40_i64,
            2 => 300..2_000_i64,
            1 => -60..0_i64,
        ];
        let pass = pass.prop_map(|minutes| Step::Pass { minutes });
        // With several resolutions at once, it is unclear which one hits the fault.
        let sweep_fault = if state.ends_due() == 1 { fault().boxed() } else { Just(None).boxed() };
        let sweep = sweep_fault.prop_map(|fault| Step::Sweep { fault });
        let mut steps = vec![(3, post.boxed()), (3, pass.boxed()), (3, sweep.boxed())];
        if state.last_posting.is_some() {
            steps.push((1, Just(Step::PostAgain).boxed()));
        }
        if state.calls.len() < MOST_CALLS {
            let key = prop::option::weighted(0.4, 0..2_u8);
            let hold = (0..600_i64, key, fault(), any::<bool>());
            let hold = hold.prop_map(|(amount, key, fault, fence_lost)| Step::Hold {
                amount,
                key,
                fault,
                fence_lost,
            });
            steps.push((6, hold.boxed()));
        }
        let mut of = |weight, calls: Vec<usize>, step: fn(usize, i64, Disturbance) -> Step| {
            if !calls.is_empty() {
                let some = (prop::sample::select(calls), -200..700_i64, fault());
                let some = some.prop_map(move |(call, number, fault)| step(call, number, fault));
                steps.push((weight, some.boxed()));
            }
        };
        of(5, state.which(|call| call.owned), |call, cost, fault| {
            let end = if cost < 0 { End::Release } else { End::Settle(cost) };
            Step::End { call, end, fault }
        });
        of(1, state.which(|call| call.owned), |call, _, _| Step::Crash { call });
        of(1, state.which(Call::can_end_again), |call, _, _| Step::EndAgain { call });
        of(4, state.which(Call::can_be_accepted), |call, cost, _| Step::Accept {
            call,
            cost: cost.abs(),
            id_stored: cost >= 0,
        });
        proptest::strategy::Union::new_weighted(steps).boxed()
    }

    fn preconditions(state: &Self, step: &Step) -> bool {
        let call = |call: &usize| state.calls.get(*call);
        match step {
            Step::Post { .. } | Step::Pass { .. } => true,
            Step::PostAgain => state.last_posting.is_some(),
            Step::Hold { .. } => state.calls.len() < MOST_CALLS,
            Step::Sweep { fault } => fault.is_none() || state.ends_due() == 1,
            Step::Accept { call: of, .. } => call(of).is_some_and(Call::can_be_accepted),
            Step::End { call: of, .. } | Step::Crash { call: of } => {
                call(of).is_some_and(|call| call.owned)
            }
            Step::EndAgain { call: of } => call(of).is_some_and(Call::can_end_again),
        }
    }

    fn apply(mut state: Self, step: &Step) -> Self {
        state.expected = match *step {
            Step::Post { kind, amount, fault } => state.post(kind, amount, fault),
            Step::PostAgain => Answer::PostedBefore,
            Step::Hold { amount, key, fault, fence_lost } => {
                state.hold(amount, key, fault, fence_lost)
            }
            Step::Accept { call, cost, id_stored } => {
                let call = &mut state.calls[call];
                (call.cost, call.id_stored) = (Some(cost), id_stored);
                Answer::Nothing
            }
            Step::End { call, end, fault } => state.end(call, end, fault),
            Step::EndAgain { call } => {
                let end = state.calls[call].last_end.unwrap();
                state.end(call, end, None)
            }
            Step::Crash { call } => {
                state.calls[call].owned = false;
                Answer::Nothing
            }
            Step::Sweep { fault } => state.sweep(fault),
            Step::Pass { minutes } => {
                state.now += minutes;
                Answer::Nothing
            }
        };
        state
    }
}
