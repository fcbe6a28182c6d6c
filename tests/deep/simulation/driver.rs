//! Advances time and makes things happen.

mod books;
mod deliveries;
pub(crate) mod one_period;
mod users;

use account::{AccountId, Credits, add_on};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};
use local::stripe::{Card, Delivery, Event, StripeSimulator};
use local::system::{Options, System};
use serde_json::Value;
use store::Store;
use tokio::task::JoinHandle;

use super::direct::Direct;
use super::gate::{Confirmed, Faults, Wire};
use super::process::{Answer, Job, Process};
use super::record::{Life, Stall};
use super::{Collection, Counts, Plan, Ran};

const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);
const START: &str = "2027-01-28T00:00:00Z";
const PROCESSES: usize = 12;
/// How long the end of a run stays free of faults.
const QUIET: SignedDuration = SignedDuration::from_hours(14 * 24);

/// Carries a plan out.
///
pub(crate) async fn run(plan: Plan) -> Ran {
    let mut simulation = Simulation::start(plan).await;
    simulation.live().await;
    simulation.calm_down().await;
    let record = simulation.record().await;
    let counts = simulation.counts;
    simulation.system.stop().await;
    Ran { record, counts }
}

/// An account of Greta's core system.
struct Subject {
    id: AccountId,
    collection: Collection,
    version: u64,
    /// Index of its current life; `None` before the first and after the last.
    life: Option<usize>,
    /// Checkout Sessions and invoices that the user has open.
    sessions: Vec<String>,
}

/// A paused process.
struct Zombie {
    process: Process,
    work: JoinHandle<Answer>,
    began: Timestamp,
    wakes_at: Timestamp,
    note: Note,
}

/// How a job is recorded.
#[derive(Debug, Clone, Copy)]
enum Note {
    Nothing,
    Act { life: usize, act: usize },
}

/// Something in flight.
struct Due<T> {
    at: Timestamp,
    what: T,
}

struct Simulation {
    plan: Plan,
    dice: Rng,
    system: System,
    /// The driver's own store, without faults.
    store: Store,
    confirmed: Confirmed,
    processes: Vec<Process>,
    zombies: Vec<Zombie>,
    stalls: Vec<Stall>,
    subjects: Vec<Subject>,
    lives: Vec<Life>,
    webhooks: Vec<Due<Event>>,
    /// Queue messages, and how often each was taken.
    messages: Vec<Due<(Value, u32)>>,
    /// Events from Greta's core system: the subject, the event, and how it is recorded.
    account_events: Vec<Due<(usize, Value, Note)>>,
    /// PaymentIntents that are processing.
    slow: Vec<Due<String>>,
    ticks: Vec<Timestamp>,
    last_tick: Timestamp,
    quiet_since: Option<Timestamp>,
    counts: Counts,
}

/// How a job ended.
enum Ended {
    Done(Answer),
    Died,
    Stalled(JoinHandle<Answer>),
}

impl Simulation {
    async fn start(plan: Plan) -> Self {
        let system = System::start(Options::default()).await.unwrap();
        let start: Timestamp = START.parse().unwrap();
        system.clock.advance(start.duration_since(system.clock.now()));
        let confirmed = Confirmed::default();
        let wire = Wire {
            connector: local::engines::connector(),
            dynamodb: Direct::to(&system.engines),
            gate: None,
        };
        let aws = system.aws_config().into_builder();
        let aws = aws.http_client(SharedHttpClient::new(wire)).build();
        let store = Store::new(aws_sdk_dynamodb::Client::new(&aws), system.tables.clone());
        let mut dice = Rng::with_seed(plan.seed);
        let mut processes = Vec::new();
        for _ in 0..PROCESSES {
            processes.push(Process::start(&system, dice.u64(..), confirmed.clone()).await);
        }
        let mut simulation = Self {
            plan,
            dice,
            system,
            store,
            confirmed,
            processes,
            zombies: Vec::new(),
            stalls: Vec::new(),
            subjects: Vec::new(),
            lives: Vec::new(),
            webhooks: Vec::new(),
            messages: Vec::new(),
            account_events: Vec::new(),
            slow: Vec::new(),
            ticks: Vec::new(),
            last_tick: start,
            quiet_since: None,
            counts: Counts::default(),
        };
        simulation.stripe().webhooks.set_delivery(Delivery::Hold);
        for number in 0..plan.accounts {
            let collection = simulation.any_collection();
            simulation.subjects.push(Subject {
                id: AccountId::new(format!("a{number}")).unwrap(),
                collection,
                version: 0,
                life: None,
                sessions: Vec::new(),
            });
        }
        simulation
    }

    fn stripe(&self) -> &StripeSimulator {
        self.system.stripe.as_ref().unwrap()
    }

    fn now(&self) -> Timestamp {
        self.system.clock.now()
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.dice.u32(..100) < percent
    }

    /// Follows the plan's shares.
    fn any_collection(&mut self) -> Collection {
        let Plan { by_credits, by_stripe, .. } = self.plan;
        match self.dice.u32(..100) {
            dice if dice < by_credits => Collection::Credits,
            dice if dice < by_credits + by_stripe => Collection::Provider,
            _ => Collection::Card,
        }
    }

    fn is_quiet(&self) -> bool {
        self.quiet_since.is_some()
    }

    /// A time from now: mostly soon, sometimes days away.
    fn sooner_or_later(&mut self) -> Timestamp {
        let minutes = match self.dice.u8(..10) {
            0..5 => self.dice.i64(0..5),
            5..8 => self.dice.i64(5..300),
            _ => self.dice.i64(300..6 * 24 * 60),
        };
        self.now() + SignedDuration::from_mins(minutes)
    }

    async fn live(&mut self) {
        let start: Timestamp = START.parse().unwrap();
        let months = SignedDuration::from_hours(i64::from(self.plan.months) * 730);
        let mut now = start;
        // They are created one after the other in the first month.
        let mut unborn = (0..self.subjects.len()).collect::<Vec<_>>();
        while now < start + months {
            now += self.pause();
            self.advance_to(now);
            let share = now.duration_since(start).as_hours().clamp(0, 720);
            let born = self.subjects.len() * usize::try_from(share).unwrap() / 720;
            let living = self.subjects.len() - unborn.len();
            for subject in unborn.drain(..born.saturating_sub(living)).collect::<Vec<_>>() {
                self.change_plan(subject, false).await;
            }
            self.wake_zombies().await;
            self.deliver_due().await;
            self.run_batches().await;
            let busy = living.div_ceil(20).max(1);
            for _ in 0..self.dice.usize(..=2 * busy) {
                let subject = self.dice.usize(..self.subjects.len());
                Box::pin(self.act(subject)).await;
            }
            self.tick().await;
            for _ in 0..busy {
                let subject = self.dice.usize(..self.subjects.len());
                self.observe_access(subject).await;
            }
            self.stripe().webhooks.forget_events();
        }
        self.counts.account_months =
            self.plan.accounts * usize::try_from(self.plan.months).unwrap();
    }

    /// How long nothing happens.
    fn pause(&mut self) -> SignedDuration {
        SignedDuration::from_mins(match self.dice.u8(..100) {
            0..25 => self.dice.i64(1..120),
            25..95 => self.dice.i64(120..48 * 60),
            // The scheduler is down.
            _ => self.dice.i64(48 * 60..5 * 24 * 60),
        })
    }

    /// Advances time, and Stripe's subscriptions with it.
    fn advance_to(&mut self, time: Timestamp) {
        let mut wait = time.duration_since(self.now());
        while wait.is_positive() {
            let some = wait.min(6 * HOUR);
            self.system.clock.advance(some);
            self.collect();
            wait -= some;
        }
    }

    /// Stripe's own collection.
    fn collect(&mut self) {
        // An hour after a period begins, Stripe collects for it.
        if self.is_quiet() || self.chance(80) {
            self.stripe().finalize_drafts();
        }
        if self.chance(30) {
            self.stripe().draft_ended();
        } else {
            self.stripe().renew_ended();
        }
        // About once a week.
        if self.chance(4) {
            self.stripe().retry_due();
        }
    }

    /// The faults of a job with about `steps` steps, and whether it stalls instead of dying.
    fn faults(&mut self, steps: usize) -> (Faults, bool) {
        if self.is_quiet() {
            return (Faults::default(), false);
        }
        let is_stopped = self.chance(25);
        let faults = Faults {
            stops_at: is_stopped.then(|| self.dice.usize(1..=steps)),
            losses: if self.chance(20) { self.dice.u32(1..=60) } else { 0 },
        };
        (faults, self.chance(40))
    }

    async fn process(&mut self) -> Process {
        match self.processes.pop() {
            Some(process) => process,
            None => {
                let zombie = self.zombies.swap_remove(0);
                self.finish(zombie).await
            }
        }
    }

    /// Does a job. `None` if there was no response.
    async fn work(&mut self, job: Job, steps: usize, note: Note) -> Option<Answer> {
        let (faults, stalls) = self.faults(steps);
        let process = self.process().await;
        let work = process.begin(job, self.now(), faults);
        let ended = end(&process, work, stalls).await;
        self.ended(process, ended, note)
    }

    /// Does a job twice at once.
    async fn work_twice(&mut self, job: Job, steps: usize) {
        let (one, two) = (self.faults(steps), self.faults(steps));
        let processes = (self.process().await, self.process().await);
        let now = self.now();
        let works =
            (processes.0.begin(job.clone(), now, one.0), processes.1.begin(job, now, two.0));
        let ended =
            tokio::join!(end(&processes.0, works.0, one.1), end(&processes.1, works.1, two.1));
        self.ended(processes.0, ended.0, Note::Nothing);
        self.ended(processes.1, ended.1, Note::Nothing);
    }

    fn ended(&mut self, process: Process, ended: Ended, note: Note) -> Option<Answer> {
        self.counts.lost_requests += process.gate.lost();
        match ended {
            Ended::Done(answer) => {
                let failed = answer.status >= 500 || answer.body["errors"].as_u64() > Some(0);
                self.counts.failed_work += usize::from(failed);
                self.note(note, Some(answer.status));
                self.processes.push(process);
                Some(answer)
            }
            Ended::Died => {
                self.counts.crashes += 1;
                self.note(note, None);
                self.processes.push(process);
                None
            }
            Ended::Stalled(work) => {
                self.counts.zombies += 1;
                let minutes = if self.dice.bool() {
                    self.dice.i64(3..120)
                } else {
                    self.dice.i64(120..12 * 24 * 60)
                };
                let began = self.now();
                self.zombies.push(Zombie {
                    process,
                    work,
                    began,
                    wakes_at: began + SignedDuration::from_mins(minutes),
                    note,
                });
                None
            }
        }
    }

    /// Records the end of a job, with or without a response.
    fn note(&mut self, note: Note, answer: Option<u16>) {
        let now = self.now();
        if let Note::Act { life, act } = note {
            let act = &mut self.lives[life].acts[act];
            // Nobody waits for a late response.
            act.answer = answer.filter(|_| act.over.is_none()).or(act.answer);
            act.over = Some(now);
        }
    }

    async fn finish(&mut self, zombie: Zombie) -> Process {
        zombie.process.gate.release();
        zombie.work.await.unwrap();
        let (began, woke) = (zombie.began, self.now());
        self.stalls.push(Stall { began, woke });
        self.note(zombie.note, None);
        zombie.process
    }

    async fn wake_zombies(&mut self) {
        let now = self.now();
        while let Some(place) = self.zombies.iter().position(|it| it.wakes_at <= now) {
            let zombie = self.zombies.swap_remove(place);
            let process = self.finish(zombie).await;
            self.processes.push(process);
        }
    }

    /// No more faults; everything in flight comes to its end.
    async fn calm_down(&mut self) {
        self.quiet_since = Some(self.now());
        for zombie in std::mem::take(&mut self.zombies) {
            let process = self.finish(zombie).await;
            self.processes.push(process);
        }
        let soon = self.now();
        for due in &mut self.webhooks {
            due.at = soon;
        }
        for due in &mut self.slow {
            due.at = soon;
        }
        for due in &mut self.messages {
            due.at = soon;
        }
        for due in &mut self.account_events {
            due.at = soon;
        }
        let mut now = self.now();
        let end = now + QUIET;
        while now < end {
            // For two days, late updates may change the cards.
            if now < end - QUIET + 2 * DAY {
                self.calm_cards().await;
            }
            self.deliver_due().await;
            self.deliver_due().await;
            self.tick().await;
            now += SignedDuration::from_hours(7);
            self.advance_to(now);
        }
        // Deliver the events of what Stripe just collected, then whatever was processing.
        self.tick().await;
        self.deliver_due().await;
        self.deliver_due().await;
        let on_their_way = (self.webhooks.len(), self.slow.len(), self.messages.len());
        assert_eq!(on_their_way, (0, 0, 0), "webhooks, payments, messages");
        for subject in 0..self.subjects.len() {
            self.observe_access(subject).await;
        }
    }

    /// From now on every card succeeds and credits suffice.
    async fn calm_cards(&mut self) {
        for subject in 0..self.subjects.len() {
            let id = self.subjects[subject].id.clone();
            let Some(account) = self.store.accounts.get(&id).await.unwrap() else {
                continue;
            };
            if let Some(customer) = &account.profile.billing.customer {
                self.stripe().set_card(customer, Card::Succeeds);
                self.stripe().script(customer, &[]);
            }
            if account.profile.add_on.collection() == Some(add_on::Collection::Credits)
                && account.balance.available() < Credits::from_micros(500_000_000)
            {
                self.grant(subject, 1_000).await;
            }
        }
    }
}

/// Waits until a job ends, dies or stalls.
async fn end(process: &Process, mut work: JoinHandle<Answer>, stalls: bool) -> Ended {
    tokio::select! {
        biased;
        answer = &mut work => return Ended::Done(answer.unwrap()),
        () = process.gate.until_stopped() => {}
    }
    if stalls {
        return Ended::Stalled(work);
    }
    work.abort();
    // It was aborted.
    let _ = work.await;
    process.gate.discard();
    Ended::Died
}
