//! The charge worker, in the steps of `charging::run_due`: it takes a task, calls Stripe and stores
//! the result. Between any two steps it may stall, or stop forever.

use billing::Task;
use jiff::{SignedDuration, Timestamp};

use crate::books::{AddOnPurchase, due_period, generation};
use crate::stripe::{Status, StripeRef, Verdict};
use crate::{Action, Broken, Charges, Left, State, Wrong};

/// The delay before a failed request is sent again.
const RETRY_DELAY: SignedDuration = SignedDuration::from_mins(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Worker {
    /// Its idea of the time, from start to end.
    pub(crate) now: Timestamp,
    /// It is slower than its lease.
    pub(crate) stalled: bool,
    pub(crate) at: At,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum At {
    /// Takes the next task.
    Free,
    Ask(Ask),
    Write(Write),
}

/// About to call Stripe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Ask {
    Create {
        number: u8,
    },
    Confirm {
        number: u8,
        attempt: u32,
    },
    LookUp {
        number: u8,
        attempt: u32,
    },
    Cancel {
        number: u8,
    },
    /// Cancels the PaymentIntent of a refused attempt.
    CancelRefused {
        number: u8,
        attempt: u32,
    },
    /// Cancels a PaymentIntent that is not stored, whatever the response.
    CancelUnstored {
        number: u8,
    },
    Close {
        order: u8,
    },
}

/// A write once Stripe has responded, or is known not to respond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Write {
    Created {
        number: u8,
    },
    Paid {
        object: StripeRef,
    },
    Declined {
        number: u8,
        attempt: u32,
        no_more: bool,
    },
    /// No number: no PaymentIntent was created.
    Refused {
        number: Option<u8>,
    },
    NeverConfirmed {
        number: u8,
    },
    Unknown {
        number: u8,
    },
    Gone {
        number: u8,
    },
    Closed {
        order: u8,
    },
    Postpone,
    Nothing,
}

/// The fate of a call to Stripe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Answered,
    /// It never arrives.
    Lost,
    /// It arrives, and its response gets lost.
    Unanswered,
    /// It arrives after the caller has given up.
    Late,
    /// It arrives, and Stripe refuses it.
    Refused,
}

impl Fate {
    fn of_call(ask: Ask, left: Left) -> Vec<Self> {
        let mut fates = vec![Self::Answered];
        if left.time_outs > 0 {
            fates.push(Self::Lost);
            if !matches!(ask, Ask::LookUp { .. }) {
                fates.push(Self::Unanswered);
            }
            if let Ask::Confirm { .. } = ask {
                fates.push(Self::Late);
            }
        }
        if left.refusals > 0 && matches!(ask, Ask::Create { .. } | Ask::Confirm { .. }) {
            fates.push(Self::Refused);
        }
        fates
    }

    fn arrives(self) -> bool {
        matches!(self, Self::Answered | Self::Unanswered)
    }
}

impl Worker {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { now, stalled: false, at: At::Free }
    }
}

impl State {
    pub(crate) fn steps_of_worker(&self, worker: usize, steps: &mut Vec<Action>) {
        let Worker { at, .. } = self.workers[worker];
        match at {
            At::Free | At::Write(_) => steps.push(Action::Go { worker }),
            At::Ask(ask) => {
                for fate in Fate::of_call(ask, self.left) {
                    let verdicts = match ask {
                        Ask::Confirm { number, attempt } if fate.arrives() => {
                            self.verdicts(number, attempt)
                        }
                        _ => NO_VERDICT,
                    };
                    steps.extend(verdicts.iter().map(|&verdict| Action::Call {
                        worker,
                        fate,
                        verdict,
                    }));
                }
            }
        }
        if self.left.crashes > 0 && at != At::Free {
            steps.push(Action::Crash { worker });
        }
    }

    pub(crate) fn verdicts(&self, number: u8, attempt: u32) -> &'static [Verdict] {
        const ALL: [Verdict; 4] =
            [Verdict::Success, Verdict::SoftDecline, Verdict::HardDecline, Verdict::Processing];
        if !self.stripe.would_attempt(number, attempt) {
            NO_VERDICT
        } else if self.left.processings > 0 {
            &ALL
        } else {
            &ALL[..3]
        }
    }

    /// A confirmation arrives.
    pub(crate) fn confirm(&mut self, number: u8, attempt: u32, verdict: Verdict) -> Status {
        let confirmed = self.stripe.confirm(number, attempt, verdict);
        let object = StripeRef::Intent(number);
        if confirmed.is_new {
            if self.payment(object).is_none() {
                self.wrong(Wrong::ConfirmedBeforeStored);
            }
            if self.is_revoked {
                self.wrong(Wrong::ConfirmedAfterCancelling);
            }
            if attempt > 1 && !self.stripe.declined(attempt - 1) {
                self.wrong(Wrong::AttemptUnfounded);
            }
        }
        let is_processing = confirmed.answer == Status::Processing;
        self.left.processings -= u8::from(confirmed.is_new && is_processing);
        confirmed.answer
    }
}

impl Charges {
    /// Takes the next task, or stores the response.
    pub(crate) fn go(&self, state: &mut State, worker: usize) {
        let Worker { now, stalled, at } = state.workers.remove(worker);
        let at = match at {
            At::Free => self.take_task(state, now),
            At::Write(write) => self.write(state, now, write),
            At::Ask(_) => Some(at),
        };
        state.workers.extend(at.map(|at| Worker { now, stalled, at }));
    }

    fn take_task(&self, state: &mut State, now: Timestamp) -> Option<At> {
        let until = if self.breaks(Broken::LeaseIgnored) { now + RETRY_DELAY } else { now };
        let task = state.change(|profile| billing::take_task(profile, until, &self.dunning));
        let attempt = state.stored.declines() + 1;
        let number = |id: &str| match StripeRef::of(id) {
            StripeRef::Intent(number) | StripeRef::Session(number) => number,
        };
        let Some(task) = task else {
            if state.stored.due().is_some_and(|due| due <= now) {
                state.wrong(Wrong::Stuck);
            }
            return None;
        };
        let ask = match task {
            Task::Create { generation: of, period, intent: object, .. } => {
                assert_eq!((of, period), (generation(), due_period()));
                let number = u8::try_from(object).unwrap();
                Ask::Create { number }
            }
            Task::Confirm { id, attempt, .. } => Ask::Confirm { number: number(&id), attempt },
            Task::LookUp { id, .. } => Ask::LookUp { number: number(&id), attempt },
            Task::Cancel { id } => Ask::Cancel { number: number(&id) },
            Task::ExpireCheckout { session } => Ask::Close { order: number(&session) },
            Task::TakeCredits { .. } => unreachable!("no account pays with credits"),
            Task::CheckSubscription { .. }
            | Task::UpdateSubscription { .. }
            | Task::CancelSubscription { .. } => {
                unreachable!("no account has a Stripe subscription")
            }
        };
        Some(At::Ask(ask))
    }

    /// Calls Stripe. `None` if the case cannot occur.
    pub(crate) fn call(
        &self,
        state: &mut State,
        worker: usize,
        fate: Fate,
        verdict: Verdict,
    ) -> Option<()> {
        let At::Ask(ask) = state.workers[worker].at else {
            return None;
        };
        if fate == Fate::Refused {
            state.left.refusals -= 1;
            state.workers[worker].at = self.after_refusal(ask);
            return Some(());
        }
        state.left.time_outs -= u8::from(fate != Fate::Answered);
        let answer = match ask {
            Ask::Create { number } => {
                if fate.arrives() {
                    state.stripe.create(number);
                }
                Write::Created { number }
            }
            Ask::Confirm { number, attempt } => {
                if fate == Fate::Late {
                    state.late.push((number, attempt));
                    state.late.sort_unstable();
                }
                let write = fate.arrives().then(|| {
                    let status = state.confirm(number, attempt, verdict);
                    Self::outcome(number, attempt, status)
                });
                match write {
                    // The attempt was just sent: look it up before sending it again.
                    Some(Write::NeverConfirmed { .. }) | None => Write::Unknown { number },
                    Some(write) => write,
                }
            }
            Ask::LookUp { number, attempt } => {
                let status = state.stripe.intent(number).status;
                // An earlier attempt may have been declined.
                if attempt > 1 && status.is_declined() && !self.breaks(Broken::OldDeclineBelieved) {
                    Write::NeverConfirmed { number }
                } else {
                    Self::outcome(number, attempt, status)
                }
            }
            Ask::Cancel { number } => {
                let status =
                    if fate.arrives() { state.stripe.cancel(number) } else { Status::Processing };
                match status {
                    _ if self.breaks(Broken::CancelPostponed) => Write::Postpone,
                    _ if self.breaks(Broken::CancelNotRead) => Write::Gone { number },
                    Status::Succeeded | Status::Canceled => Self::outcome(number, 0, status),
                    _ => Write::Postpone,
                }
            }
            Ask::CancelRefused { number, attempt } => {
                let status =
                    if fate.arrives() { state.stripe.cancel(number) } else { Status::Processing };
                match status {
                    Status::Succeeded => Self::outcome(number, attempt, status),
                    Status::Canceled => Write::Refused { number: Some(number) },
                    _ => Write::Unknown { number },
                }
            }
            Ask::CancelUnstored { number } => {
                if fate.arrives() {
                    state.stripe.cancel(number);
                }
                Write::Nothing
            }
            Ask::Close { order } if self.breaks(Broken::DroppedUnexpired) => {
                Write::Closed { order }
            }
            Ask::Close { order } => {
                let paid = fate.arrives() && state.stripe.expire(order).paid_at.is_some();
                if paid && !self.breaks(Broken::CloseNotRead) {
                    let object = StripeRef::Session(order);
                    Write::Paid { object }
                } else {
                    Write::Closed { order }
                }
            }
        };
        let at = match (fate, ask, answer) {
            (Fate::Answered, ..) | (_, Ask::CancelUnstored { .. }, _) => answer,
            (_, Ask::Confirm { number, attempt }, _) if self.breaks(Broken::SilenceIsADecline) => {
                Write::Declined { number, attempt, no_more: false }
            }
            (_, Ask::Confirm { number, .. }, _) if self.breaks(Broken::SilenceIsACancellation) => {
                Write::Gone { number }
            }
            (_, Ask::Confirm { number, .. } | Ask::LookUp { number, .. }, _) => {
                Write::Unknown { number }
            }
            _ => Write::Postpone,
        };
        state.workers[worker].at = self.after_call(at);
        Some(())
    }

    fn after_refusal(&self, ask: Ask) -> At {
        match ask {
            Ask::Confirm { number, attempt } if self.breaks(Broken::RefusalIsADecline) => {
                At::Write(Write::Declined { number, attempt, no_more: true })
            }
            Ask::Confirm { number, .. } if self.breaks(Broken::RefusedUncancelled) => {
                At::Write(Write::Refused { number: Some(number) })
            }
            Ask::Confirm { number, attempt } => At::Ask(Ask::CancelRefused { number, attempt }),
            _ => At::Write(Write::Refused { number: None }),
        }
    }

    fn after_call(&self, write: Write) -> At {
        match write {
            Write::Created { number } if self.breaks(Broken::ConfirmedUnstored) => {
                At::Ask(Ask::Confirm { number, attempt: 1 })
            }
            write => At::Write(write),
        }
    }

    /// The attempt's outcome, by the PaymentIntent's status.
    fn outcome(number: u8, attempt: u32, status: Status) -> Write {
        match status {
            Status::Succeeded => Write::Paid { object: StripeRef::Intent(number) },
            Status::RequiresPaymentMethod { hard } => {
                Write::Declined { number, attempt, no_more: hard }
            }
            Status::RequiresConfirmation => Write::NeverConfirmed { number },
            Status::Canceled => Write::Gone { number },
            Status::Processing => Write::Unknown { number },
        }
    }

    fn write(&self, state: &mut State, now: Timestamp, write: Write) -> Option<At> {
        let confirm = |number, attempt: Option<u32>| {
            attempt.map(|attempt| At::Ask(Ask::Confirm { number, attempt }))
        };
        match write {
            Write::Created { number } => {
                let object = StripeRef::Intent(number);
                let mut attempt = None;
                let written = state.change_and_order(object, AddOnPurchase::Period, |profile| {
                    let name = object.name();
                    attempt =
                        billing::intent_created(profile, &generation(), due_period(), &name, now);
                    true
                });
                if !written {
                    return None;
                }
                if let next @ Some(_) = confirm(number, attempt) {
                    return next;
                }
                if state.stored.object().is_none_or(|(known, _)| known != object) {
                    return Some(At::Ask(Ask::CancelUnstored { number }));
                }
            }
            Write::Paid { object } => self.apply_payment(state, object),
            Write::Declined { number, attempt, no_more } => {
                let name = StripeRef::Intent(number).name();
                state.change(|profile| {
                    billing::declined(profile, Some(&name), attempt, no_more, now, &self.dunning);
                });
            }
            Write::Refused { number } => {
                let name = number.map(|number| StripeRef::Intent(number).name());
                state.change(|profile| {
                    billing::attempt_refused(profile, name.as_deref(), now, &self.dunning);
                });
            }
            Write::NeverConfirmed { number } => {
                let name = StripeRef::Intent(number).name();
                let attempt = state.change(|profile| billing::never_confirmed(profile, &name, now));
                let bump = u32::from(self.breaks(Broken::NumberRisesWithoutDecline));
                if let next @ Some(_) = confirm(number, attempt.map(|attempt| attempt + bump)) {
                    return next;
                }
            }
            Write::Unknown { number } => {
                let name = StripeRef::Intent(number).name();
                state.change(|profile| billing::still_unknown(profile, &name, now));
            }
            Write::Gone { number } => {
                let name = StripeRef::Intent(number).name();
                state.change(|profile| billing::intent_cancelled(profile, &name));
            }
            Write::Closed { order } => {
                let name = StripeRef::Session(order).name();
                state.change(|profile| billing::checkout_closed(profile, &name));
            }
            Write::Postpone => {
                state.change(|profile| billing::postpone(profile, now + RETRY_DELAY));
            }
            Write::Nothing => {}
        }
        Some(At::Free)
    }
}

/// For calls on which no bank decides.
const NO_VERDICT: &[Verdict] = &[Verdict::Success];
