//! Searches every order of events in which one account's period can be collected.
//!
//! Modelled: the profile with its charge, and each payment's outcome ([`books`]); every write is
//! one step, on the current profile. Workers take tasks, call Stripe and store the results; they
//! stop forever between any two steps, or stall past their lease and continue with their old idea
//! of the time; their calls get lost, lose their response, or arrive after the caller has given up
//! ([`worker`]). The user cancels, resumes, buys and pays at any moment, and becomes enterprise
//! ([`user`]). Stripe's webhook reports successes and declines late, twice or never. Stripe knows
//! idempotency keys, soft and hard declines, requests that it refuses without asking the bank, and
//! attempts whose outcome the bank decides later ([`stripe`]).
//!
//! All decisions are made by `billing`'s functions; the steps between them are those of `charging`.
//! When they change there, change them here too.
//!
//! Not modelled: more than one period, cards and their replacement, collection from credits and by
//! Stripe, downgrades, disputes, deletion; a Stripe that forgets keys, repeats a failure or
//! completes a session whose payment is still processing; the refund itself. A processing attempt
//! is settled before time passes. A request to buy stops when one of its calls gets no response,
//! and does not wait for the work that it starts; there is at most one more checkout than requests.
//! ARCHITECTURE's fifth guard, one charge record per period, is left out on purpose: the profile
//! must work without it.
//!
//! The search is complete within the bounds of each [`Scope`].

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops with a message")]

mod books;
mod properties;
mod stripe;
mod user;
mod worker;

use std::collections::BTreeSet;

use account::{Period, end_of_period};
use billing::Dunning;
use jiff::{SignedDuration, Timestamp};
use stateright::{Checker, Expectation, HasDiscoveries, Model, Property};

use books::{Payment, Stored};
use properties as property;
use stripe::{Stripe, StripeRef, Verdict};
use user::Buyer;
use worker::{At, Fate, Worker};

/// The generation bought before the search begins.
const GENERATION: &str = "cs_0";

/// The start of the period that is collected.
fn due() -> Timestamp {
    end_of_period(Timestamp::UNIX_EPOCH, Period::FIRST)
}

/// The end of the search; the next period begins later.
fn end() -> Timestamp {
    due() + SignedDuration::from_hours(24 * 20)
}

/// The bounds of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Scope {
    /// Maximum number at the same time; others may follow.
    workers: usize,
    /// Requests to buy, at the same time or in sequence.
    purchases: u8,
    /// Cancellations and resumptions.
    acts: u8,
    upgrades: u8,
    /// Workers and requests to buy that stop forever between two steps.
    crashes: u8,
    /// Workers and requests that stall past their lease.
    stalls: u8,
    /// Calls to Stripe without a response in time.
    time_outs: u8,
    /// Attempts on which the bank decides later.
    processings: u8,
    /// Attempts that Stripe refuses without asking the bank.
    refusals: u8,
    /// Deliveries of the webhook.
    deliveries: u8,
}

/// Events that may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Left {
    purchases: u8,
    acts: u8,
    upgrades: u8,
    crashes: u8,
    stalls: u8,
    time_outs: u8,
    processings: u8,
    refusals: u8,
    deliveries: u8,
}

/// A broken rule, to show that the properties detect it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    /// A PaymentIntent is confirmed before it is stored.
    ConfirmedUnstored,
    /// A task is taken while another worker has its lease. By itself that only costs calls.
    LeaseIgnored,
    /// An attempt that never arrived is repeated under the next number.
    NumberRisesWithoutDecline,
    /// An attempt without a response counts as declined.
    SilenceIsADecline,
    /// An attempt that Stripe refused counts as declined.
    RefusalIsADecline,
    /// The PaymentIntent of a refused attempt is abandoned without being cancelled.
    RefusedUncancelled,
    /// A PaymentIntent without a response is abandoned.
    SilenceIsACancellation,
    /// The status after an earlier attempt is taken as the outcome of the current one.
    OldDeclineBelieved,
    /// A PaymentIntent whose cancellation is uncertain is retried, whatever the response.
    CancelPostponed,
    /// A PaymentIntent counts as cancelled, whatever the response.
    CancelNotRead,
    /// A checkout counts as expired, whatever the response.
    CloseNotRead,
    /// A checkout is dropped without being expired.
    DroppedUnexpired,
    /// A checkout begins beside a PaymentIntent.
    CheckoutBesideIntent,
    /// A checkout whose creation took long is dropped, although it was created meanwhile.
    DroppedOnceCreated,
    /// Every event about a payment decides its outcome.
    DecidedTwice,
    /// A payment counts, whatever the profile says.
    CountedUnowed,
    /// A payment's outcome is decided by the add-on's status, not by `billing`.
    OutcomeApart,
}

/// A violation in a step, which the properties of states cannot see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Wrong {
    CountedUnowed,
    ConfirmedAfterCancelling,
    ConfirmedBeforeStored,
    AttemptUnfounded,
    Stuck,
}

struct Charges {
    scope: Scope,
    broken: &'static [Broken],
    dunning: Dunning,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    now: Timestamp,
    left: Left,
    stored: Stored,
    payments: Vec<Payment>,
    stripe: Stripe,
    /// Sorted, because their order does not matter.
    workers: Vec<Worker>,
    buyers: Vec<Buyer>,
    /// Confirmations still in flight whose caller has given up.
    late: Vec<(u8, u32)>,
    /// Number of checkout orders so far.
    orders: u8,
    /// The account owes nothing any more, and nothing was confirming when that was stored.
    is_revoked: bool,
    /// The user's last action was to cancel.
    is_cancelled: bool,
    wrong: BTreeSet<Wrong>,
}

/// The next event. Workers, requests and sessions are identified by their index in the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// The tick finds the account due.
    Start,
    /// A worker writes, or takes the next task.
    Go {
        worker: usize,
    },
    Call {
        worker: usize,
        fate: Fate,
        verdict: Verdict,
    },
    Crash {
        worker: usize,
    },
    Arrive {
        late: usize,
        verdict: Verdict,
    },
    Deliver(Message),
    /// The bank decides.
    Settle {
        number: u8,
        success: bool,
    },
    Buy,
    ContinueBuying {
        buyer: usize,
    },
    StopBuying {
        buyer: usize,
    },
    Pay {
        order: u8,
    },
    Cancel,
    Resume,
    Upgrade,
    Pass {
        until: Timestamp,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    Paid(StripeRef),
    Declined(StripeRef),
}

impl State {
    fn wrong(&mut self, wrong: Wrong) {
        self.wrong.insert(wrong);
    }

    fn went(&self, wrong: Wrong) -> bool {
        self.wrong.contains(&wrong)
    }

    /// Nothing is in progress, and nothing more falls due.
    fn is_done(&self) -> bool {
        let is_idle = self.workers.is_empty() && self.buyers.is_empty() && self.late.is_empty();
        let due = self.stored.due();
        is_idle && !self.stripe.is_processing() && due.is_none_or(|due| due > end())
    }

    fn slow(&mut self) -> impl Iterator<Item = &mut bool> {
        let workers = self.workers.iter_mut();
        let buyers = self.buyers.iter_mut();
        let all = workers.map(|worker| &mut worker.stalled);
        let all = all.chain(buyers.map(|buyer| &mut buyer.stalled));
        all.filter(|stalled| !**stalled)
    }

    /// Time passes until something is due, and stalls the workers.
    fn pass(&mut self, until: Timestamp) -> Option<()> {
        let overtaken = u8::try_from(self.slow().count()).unwrap();
        self.left.stalls = self.left.stalls.checked_sub(overtaken)?;
        self.slow().for_each(|stalled| *stalled = true);
        self.now = until;
        Some(())
    }

    /// Sorts collections without an order and drops facts that no longer matter, so that equivalent
    /// states are equal.
    fn tidy(&mut self) {
        let (now, due) = (self.now, self.stored.due());
        // A worker that is not late continues like a new one.
        self.workers.retain(|worker| {
            worker.at != At::Free || (worker.now < now && due.is_some_and(|due| due <= worker.now))
        });
        self.workers.sort_unstable();
        self.buyers.sort_unstable();
    }
}

impl Charges {
    fn new(scope: Scope, broken: &'static [Broken]) -> Self {
        Self { scope, broken, dunning: Dunning::new(vec![0, 1], 2).unwrap() }
    }

    fn breaks(&self, rule: Broken) -> bool {
        self.broken.contains(&rule)
    }

    /// A delivery of Stripe's webhook, perhaps late or repeated.
    fn deliver(&self, state: &mut State, message: Message) {
        let now = state.now;
        state.left.deliveries -= 1;
        match message {
            Message::Paid(object) => self.apply_payment(state, object),
            Message::Declined(object) => {
                state.change(|profile| billing::look_up_now(profile, &object.name(), now));
            }
        }
    }
}

impl Model for Charges {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let Scope {
            purchases,
            acts,
            upgrades,
            crashes,
            stalls,
            time_outs,
            processings,
            refusals,
            deliveries,
            ..
        } = self.scope;
        vec![State {
            now: due(),
            left: Left {
                purchases,
                acts,
                upgrades,
                crashes,
                stalls,
                time_outs,
                processings,
                refusals,
                deliveries,
            },
            stored: Stored::new(books::bought()),
            payments: Vec::new(),
            stripe: Stripe::default(),
            workers: Vec::new(),
            buyers: Vec::new(),
            late: Vec::new(),
            orders: 0,
            is_revoked: false,
            is_cancelled: false,
            wrong: BTreeSet::new(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for worker in 0..state.workers.len() {
            state.steps_of_worker(worker, actions);
        }
        state.steps_of_user(actions);
        for (late, (number, attempt)) in state.late.iter().enumerate() {
            let verdicts = state.verdicts(*number, *attempt).iter();
            actions.extend(verdicts.map(|&verdict| Action::Arrive { late, verdict }));
        }
        if state.left.deliveries > 0 {
            let paid = state.stripe.succeeded().map(Message::Paid);
            let declined = state.stripe.declined_ones().map(Message::Declined);
            actions.extend(paid.chain(declined).map(Action::Deliver));
        }
        for (number, intent) in (1..).zip(&state.stripe.intents) {
            if intent.status == stripe::Status::Processing {
                let settled = [true, false];
                actions.extend(settled.map(|success| Action::Settle { number, success }));
            }
        }
        let due = state.stored.due();
        let is_due = due.is_some_and(|due| due <= state.now)
            || (self.breaks(Broken::LeaseIgnored) && due.is_some());
        if is_due && state.workers.len() < self.scope.workers {
            actions.push(Action::Start);
        }
        let is_decided = !state.stripe.is_processing();
        let until = due.filter(|due| is_decided && *due > state.now && *due <= end());
        actions.extend(until.map(|until| Action::Pass { until }));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Start => {
                state.workers.push(Worker::new(state.now));
                let worker = state.workers.len() - 1;
                self.go(&mut state, worker);
            }
            Action::Go { worker } => self.go(&mut state, worker),
            Action::Call { worker, fate, verdict } => {
                self.call(&mut state, worker, fate, verdict)?;
            }
            Action::Crash { worker } => {
                state.left.crashes -= 1;
                state.workers.remove(worker);
            }
            Action::Arrive { late, verdict } => {
                let (number, attempt) = state.late.remove(late);
                state.confirm(number, attempt, verdict);
            }
            Action::Deliver(message) => self.deliver(&mut state, message),
            Action::Settle { number, success } => {
                state.stripe.settle(number, success);
            }
            Action::Buy => {
                state.left.purchases -= 1;
                state.buyers.push(Buyer::new(state.now));
            }
            Action::ContinueBuying { buyer } => self.continue_buying(&mut state, buyer),
            Action::StopBuying { buyer } => {
                state.left.crashes -= 1;
                state.buyers.remove(buyer);
            }
            Action::Pay { order } => state.pay(order),
            Action::Cancel => {
                state.left.acts -= 1;
                state.cancel();
            }
            Action::Resume => {
                state.left.acts -= 1;
                state.resume();
            }
            Action::Upgrade => {
                state.left.upgrades -= 1;
                state.upgrade();
            }
            Action::Pass { until } => state.pass(until)?,
        }
        state.tidy();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = property::always();
        properties.extend(property::sometimes(self.scope));
        properties
    }
}

const CHARGING: Scope = Scope {
    workers: 2,
    purchases: 0,
    acts: 1,
    upgrades: 0,
    crashes: 1,
    stalls: 1,
    time_outs: 1,
    processings: 0,
    refusals: 0,
    deliveries: 2,
};

const ACTING: Scope = Scope { acts: 2, upgrades: 1, stalls: 0, deliveries: 1, ..CHARGING };

const ACTING_SLOWLY: Scope = Scope { crashes: 0, stalls: 1, time_outs: 0, ..ACTING };

const IN_PROCESS: Scope = Scope { crashes: 0, stalls: 0, processings: 1, ..CHARGING };

const REFUSED: Scope = Scope { stalls: 0, refusals: 2, deliveries: 1, ..CHARGING };

const BUYING: Scope = Scope { purchases: 1, acts: 0, crashes: 0, time_outs: 0, ..CHARGING };

const BUYING_TWICE: Scope = Scope { purchases: 2, stalls: 0, deliveries: 1, ..BUYING };

const BUYING_AND_ACTING: Scope = Scope { acts: 1, upgrades: 1, stalls: 0, deliveries: 1, ..BUYING };

/// The short form's number of states. `tests/deep/run` searches all.
const SHORT: usize = 20_000;

/// Checks all properties, and that the search saw at least `states` states, so that no search
/// shrinks unnoticed.
#[expect(clippy::disallowed_methods, reason = "pure crates have no settings")]
fn assert_all(scope: Scope, states: usize) {
    let model = Charges::new(scope, &[]).checker();
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
fn a_period_is_charged_despite_failing_workers() {
    assert_all(CHARGING, 450_000);
}

#[test]
fn user_actions_beside_workers_that_fail() {
    assert_all(ACTING, 120_000);
}

#[test]
fn user_actions_beside_workers_that_stall() {
    assert_all(ACTING_SLOWLY, 33_000);
}

#[test]
fn an_attempt_that_the_bank_decides_later() {
    assert_all(IN_PROCESS, 25_000);
}

#[test]
fn attempts_that_stripe_refuses() {
    assert_all(REFUSED, 20_000);
}

#[test]
fn a_checkout_beside_workers_that_stall() {
    assert_all(BUYING, 220_000);
}

#[test]
fn a_checkout_beside_workers_that_stop() {
    let (stalls, crashes) = (0, 1);
    let scope = Scope { crashes, stalls, ..BUYING };
    assert_all(scope, 80_000);
}

#[test]
fn a_checkout_beside_calls_without_a_response() {
    let (stalls, time_outs) = (0, 1);
    let scope = Scope { stalls, time_outs, ..BUYING };
    assert_all(scope, 160_000);
}

#[test]
fn two_checkouts() {
    assert_all(BUYING_TWICE, 310_000);
}

#[test]
fn a_checkout_beside_other_user_actions() {
    assert_all(BUYING_AND_ACTING, 110_000);
}

/// A property that cannot fail proves nothing: here each one is violated by breaking a rule.
#[test]
fn every_rule_is_needed_and_every_property_can_fail() {
    let two_buy = Scope { stalls: 1, deliveries: 0, ..BUYING_TWICE };
    let no_faults = Scope { crashes: 0, stalls: 0, time_outs: 0, deliveries: 0, ..CHARGING };
    let upgrade = Scope { upgrades: 1, ..CHARGING };
    let table: [(&[Broken], Scope, &[&'static str]); 18] = [
        (&[Broken::ConfirmedUnstored], CHARGING, &[property::STORED_FIRST, property::CANCELLED]),
        (
            // Without a fault, only a second worker can find an attempt that has not arrived.
            &[Broken::NumberRisesWithoutDecline, Broken::LeaseIgnored],
            no_faults,
            &[property::DECLINES],
        ),
        (&[Broken::NumberRisesWithoutDecline], CHARGING, &[property::DECLINES]),
        (&[Broken::SilenceIsADecline], CHARGING, &[property::DECLINES]),
        (&[Broken::RefusalIsADecline], REFUSED, &[property::DECLINES]),
        (&[Broken::RefusedUncancelled], REFUSED, &[property::ONE_PAYABLE]),
        (&[Broken::SilenceIsACancellation], CHARGING, &[property::APPLIED, property::ONE_PAYABLE]),
        (&[Broken::OldDeclineBelieved], CHARGING, &[property::DECLINES]),
        (&[Broken::CancelPostponed], no_faults, &[property::COMES_TO_AN_END]),
        (&[Broken::CancelNotRead], CHARGING, &[property::APPLIED]),
        (&[Broken::CloseNotRead], BUYING, &[property::APPLIED]),
        (&[Broken::DroppedUnexpired], BUYING, &[property::ONE_PAYABLE]),
        (&[Broken::CheckoutBesideIntent], BUYING, &[property::ONE_PAYABLE]),
        (&[Broken::CheckoutBesideIntent, Broken::CountedUnowed], BUYING, &[property::ONE_KEPT]),
        (&[Broken::DroppedOnceCreated], two_buy, &[property::ONE_PAYABLE]),
        (&[Broken::DecidedTwice], CHARGING, &[property::ONE_OUTCOME]),
        (&[Broken::CountedUnowed], upgrade, &[property::OWED]),
        (&[Broken::OutcomeApart], CHARGING, &[property::STATUS]),
    ];
    let mut can_fail = BTreeSet::<&str>::new();
    for (broken, scope, names) in table {
        let enough = HasDiscoveries::AllOf(names.iter().copied().collect());
        let model = Charges::new(scope, broken).checker();
        let checker = model.finish_when(enough).spawn_bfs().join();
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
