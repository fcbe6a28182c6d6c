//! Has time pass, and things happen in it.

pub(crate) mod one_period;

use std::collections::HashMap;

use account::{AccountId, AddOnStatus, Credits, EntryId, add_on};
use aws_sdk_dynamodb::types::AttributeValue;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use fastrand::Rng;
use http::Method;
use jiff::{SignedDuration, Timestamp};
use local::provider::{Card, Delivery, Event, PaymentProvider};
use local::system::{Options, System};
use routing::{Policy, entitled};
use serde_json::{Value, json};
use store::{EntryKind, Posting, Store};
use tokio::task::JoinHandle;

use super::gate::{Confirmed, Weather, Wire};
use super::process::{Answer, Job, Process};
use super::record::{Act, Claim, Entry, Life, Paid, Record, Seen, What};
use super::{Collection, Counts, Plan, Ran};

const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);
const START: &str = "2027-01-28T00:00:00Z";
const PROCESSES: usize = 12;
/// An account that was queued is not queued again for so long.
const CLAIMED: SignedDuration = SignedDuration::from_mins(16);
/// Nobody else does what was taken on for so long.
const LEASE: SignedDuration = SignedDuration::from_mins(3);
/// A message that was not done with is seen again after so long, and so often.
const VISIBILITY: SignedDuration = SignedDuration::from_mins(15);
const MOST_TRIES: u32 = 3;
/// Nothing is disturbed for so long at the end.
const QUIET: SignedDuration = SignedDuration::from_hours(14 * 24);
const SUBSCRIPTION: &str = "/v1/integrations/openrouter/subscription";
const PAYMENT_METHOD: &str = "/v1/integrations/openrouter/subscription/payment-method";
const CREDITS_CHECKOUT: &str = "/v1/credits/checkout";

/// Carries a plan out.
///
/// # Panics
/// If the system does not start, or the engine does not answer.
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
    /// Its lives so far; `None` before the first and after the last.
    life: Option<usize>,
    /// Pages of the provider that the user has open.
    pages: Vec<String>,
}

/// A process that stands still.
struct Zombie {
    process: Process,
    work: JoinHandle<Answer>,
    wakes_at: Timestamp,
    note: Note,
}

/// What a piece of work is to be noted as.
#[derive(Debug, Clone, Copy)]
enum Note {
    Nothing,
    Act { life: usize, act: usize },
}

/// Something that is on its way.
struct Due<T> {
    at: Timestamp,
    what: T,
}

struct Simulation {
    plan: Plan,
    dice: Rng,
    system: System,
    /// The driver's own, undisturbed.
    store: Store,
    confirmed: Confirmed,
    processes: Vec<Process>,
    zombies: Vec<Zombie>,
    subjects: Vec<Subject>,
    lives: Vec<Life>,
    webhooks: Vec<Due<Event>>,
    /// Messages of the queue, and how often they were taken.
    messages: Vec<Due<(Value, u32)>>,
    /// Events of Greta's core system: whose, which, and as what it is noted.
    account_events: Vec<Due<(usize, Value, Note)>>,
    /// Payment objects that take their time.
    slow: Vec<Due<String>>,
    ticks: Vec<Timestamp>,
    last_tick: Timestamp,
    quiet_since: Option<Timestamp>,
    counts: Counts,
}

/// How a piece of work ended.
enum Ended {
    Done(Answer),
    Died,
    Stalled(JoinHandle<Answer>),
}

impl Simulation {
    async fn start(plan: Plan) -> Self {
        let system = System::start(Options::default()).await.unwrap();
        let start: Timestamp = START.parse().unwrap();
        system
            .clock
            .advance(start.duration_since(system.clock.now()));
        let confirmed = Confirmed::default();
        let wire = Wire {
            http: reqwest::Client::new(),
            dynamodb: system.engines.direct(),
            gate: None,
        };
        let client = system
            .engines
            .dynamodb_over(Some(SharedHttpClient::new(wire)));
        let store = Store::new(client, system.tables.clone());
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
        simulation.provider().set_delivery(Delivery::Hold);
        for number in 0..plan.accounts {
            let collection = simulation.any_collection();
            simulation.subjects.push(Subject {
                id: AccountId::new(format!("a{number}")).unwrap(),
                collection,
                version: 0,
                life: None,
                pages: Vec::new(),
            });
        }
        simulation
    }

    fn provider(&self) -> &PaymentProvider {
        self.system.payment_provider.as_ref().unwrap()
    }

    fn now(&self) -> Timestamp {
        self.system.clock.now()
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.dice.u32(..100) < percent
    }

    /// As many of each as is planned.
    fn any_collection(&mut self) -> Collection {
        let Plan {
            by_credits,
            by_provider,
            ..
        } = self.plan;
        match self.dice.u32(..100) {
            dice if dice < by_credits => Collection::Credits,
            dice if dice < by_credits + by_provider => Collection::Provider,
            _ => Collection::Card,
        }
    }

    fn is_quiet(&self) -> bool {
        self.quiet_since.is_some()
    }

    /// A time from now, mostly soon and at times days away.
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
        // They come one after the other in the first month.
        let mut unborn = (0..self.subjects.len()).collect::<Vec<_>>();
        while now < start + months {
            now += self.pause();
            self.go_on_until(now);
            let share = now.duration_since(start).as_hours().clamp(0, 720);
            let born = self.subjects.len() * usize::try_from(share).unwrap() / 720;
            let living = self.subjects.len() - unborn.len();
            for subject in unborn
                .drain(..born.saturating_sub(living))
                .collect::<Vec<_>>()
            {
                self.change_plan(subject, false).await;
            }
            self.wake().await;
            self.hear().await;
            self.work_off().await;
            let busy = living.div_ceil(20).max(1);
            for _ in 0..self.dice.usize(..=2 * busy) {
                let subject = self.dice.usize(..self.subjects.len());
                Box::pin(self.act(subject)).await;
            }
            self.tick().await;
            for _ in 0..busy {
                let subject = self.dice.usize(..self.subjects.len());
                self.look(subject).await;
            }
            self.provider().forget_events();
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

    /// Time passes, and the provider's subscriptions go on in it.
    fn go_on_until(&mut self, time: Timestamp) {
        let mut wait = time.duration_since(self.now());
        while wait.is_positive() {
            let some = wait.min(6 * HOUR);
            self.system.clock.advance(some);
            self.collect();
            wait -= some;
        }
    }

    /// What the provider collects by itself.
    fn collect(&mut self) {
        // It asks for a new period after an hour.
        if self.is_quiet() || self.chance(80) {
            self.provider().finalize_drafts();
        }
        if self.chance(30) {
            self.provider().draft_ended();
        } else {
            self.provider().renew_ended();
        }
        // About once a week.
        if self.chance(4) {
            self.provider().retry_due();
        }
    }

    /// What a piece of work has to expect, if it makes about so many steps.
    fn weather(&mut self, steps: usize) -> (Weather, bool) {
        if self.is_quiet() {
            return (Weather::default(), false);
        }
        let is_stopped = self.chance(25);
        let weather = Weather {
            stops_at: is_stopped.then(|| self.dice.usize(1..=steps)),
            losses: if self.chance(20) {
                self.dice.u32(1..=60)
            } else {
                0
            },
        };
        (weather, self.chance(40))
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

    /// Does a piece of work. `None` if there was no answer.
    async fn work(&mut self, job: Job, steps: usize, note: Note) -> Option<Answer> {
        let (weather, stalls) = self.weather(steps);
        let process = self.process().await;
        let work = process.begin(job, self.now(), weather);
        let ended = end(&process, work, stalls).await;
        self.ended(process, ended, note)
    }

    /// Does two pieces of work at once.
    async fn work_twice(&mut self, job: Job, steps: usize) {
        let (one, two) = (self.weather(steps), self.weather(steps));
        let processes = (self.process().await, self.process().await);
        let now = self.now();
        let works = (
            processes.0.begin(job.clone(), now, one.0),
            processes.1.begin(job, now, two.0),
        );
        let ended = tokio::join!(
            end(&processes.0, works.0, one.1),
            end(&processes.1, works.1, two.1)
        );
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
                let wakes_at = self.now() + SignedDuration::from_mins(minutes);
                self.zombies.push(Zombie {
                    process,
                    work,
                    wakes_at,
                    note,
                });
                None
            }
        }
    }

    /// A piece of work is over, with or without an answer.
    fn note(&mut self, note: Note, answer: Option<u16>) {
        let now = self.now();
        if let Note::Act { life, act } = note {
            let act = &mut self.lives[life].acts[act];
            // Nobody waits for a late answer.
            act.answer = answer.filter(|_| act.over.is_none()).or(act.answer);
            act.over = Some(now);
        }
    }

    async fn finish(&mut self, zombie: Zombie) -> Process {
        zombie.process.gate.release();
        zombie.work.await.unwrap();

        self.note(zombie.note, None);
        zombie.process
    }

    async fn wake(&mut self) {
        let now = self.now();
        while let Some(place) = self.zombies.iter().position(|it| it.wakes_at <= now) {
            let zombie = self.zombies.swap_remove(place);
            let process = self.finish(zombie).await;
            self.processes.push(process);
        }
    }

    /// Delivers what is due: the provider's events and Greta's, and what banks took their time for.
    async fn hear(&mut self) {
        let now = self.now();
        for place in (0..self.slow.len()).rev() {
            if self.slow[place].at <= now {
                let intent = self.slow.swap_remove(place).what;
                let succeeds = self.is_quiet() || self.dice.bool();
                // It may have been cancelled meanwhile, where it only waited for the customer.
                let _ = self.provider().finish(&intent, succeeds);
            }
        }
        self.sort_webhooks();
        let now = self.now();
        let mut due = Vec::new();
        for place in (0..self.webhooks.len()).rev() {
            if self.webhooks[place].at <= now {
                due.push(self.webhooks.swap_remove(place).what);
            }
        }
        self.dice.shuffle(&mut due);
        for event in due {
            self.counts.webhooks += 1;
            let job = Job::Webhook {
                signature: self.provider().signature(&event).unwrap(),
                body: event.body.clone(),
            };
            let answer = self.work(job, 24, Note::Nothing).await;
            if !answer.is_some_and(|answer| answer.is_good()) {
                // The provider sends it again.
                let at = self.now() + HOUR;
                self.webhooks.push(Due { at, what: event });
            }
        }
        for place in (0..self.account_events.len()).rev() {
            if self.account_events[place].at <= now {
                let Due { what, .. } = self.account_events.swap_remove(place);
                self.tell(what).await;
            }
        }
    }

    /// Decides what becomes of the events that the provider has for us.
    fn sort_webhooks(&mut self) {
        let now = self.now();
        for event in self.provider().take_held() {
            if event.kind == "payment_intent.processing" {
                let at = self.sooner_or_later();
                self.slow.push(Due {
                    at,
                    what: event.object.clone(),
                });
            }
            self.counts.declines += usize::from(event.kind == "payment_intent.payment_failed");
            if self.is_quiet() {
                self.webhooks.push(Due {
                    at: now,
                    what: event,
                });
                continue;
            }
            // What nobody asks for later: pages on which credits are bought, or a card is given.
            let is_page = event.kind.starts_with("checkout.session.");
            let page = is_page.then(|| self.provider().object(&event.object));
            let is_only_told = page
                .flatten()
                .is_some_and(|page| page["amount_total"] != 500);
            if !is_only_told && self.chance(12) {
                self.counts.lost_webhooks += 1;
                continue;
            }
            let mut copies = 1;
            while self.chance(20) {
                self.counts.doubled_webhooks += 1;
                copies += 1;
            }
            for _ in 0..copies {
                let at = self.sooner_or_later();
                self.counts.late_webhooks += usize::from(at > now + DAY);
                self.webhooks.push(Due {
                    at,
                    what: event.clone(),
                });
            }
        }
    }

    async fn tick(&mut self) {
        // What was taken on just now, and broke off, is free again; or it is not.
        let rested = self.is_quiet() || self.chance(70);
        if rested {
            self.go_on_until(self.now() + LEASE);
        }
        let times = match self.dice.u8(..100) {
            _ if self.is_quiet() => 1,
            0..12 => {
                self.counts.lost_ticks += 1;
                return;
            }
            12..25 => 2,
            _ => 1,
        };
        // It may have been on its way for a while.
        let late = !self.is_quiet() && self.chance(20);
        let delay = if late { self.dice.i64(0..90) } else { 0 };
        let time = self.now() - SignedDuration::from_mins(delay);
        let limited = !self.is_quiet() && self.chance(8);
        if limited {
            self.counts.rate_limits += 1;
            let next = self.dice.u32(1..20);
            self.provider().limit_rate(next, None);
        }
        self.counts.ticks += times;
        let undisturbed = self.disturbances();
        let is_alone = self.last_tick < time - CLAIMED;
        self.last_tick = self.now();
        let steps = 2 * self.subjects.len().div_ceil(20) + 12;
        if times == 2 {
            self.counts.doubled_ticks += 1;
            if self.dice.bool() {
                self.work_twice(Job::Tick(time), steps).await;
            } else {
                self.work(Job::Tick(time), steps, Note::Nothing).await;
                self.work(Job::Tick(time), steps, Note::Nothing).await;
            }
        } else {
            self.work(Job::Tick(time), steps, Note::Nothing).await;
        }
        self.take_messages().await;
        self.work_off().await;
        self.provider().limit_rate(0, None);
        if rested && is_alone && !(late || limited) && undisturbed == self.disturbances() {
            self.ticks.push(time);
        }
    }

    /// Counts what goes wrong.
    fn disturbances(&self) -> usize {
        let counts = &self.counts;
        counts.crashes
            + counts.zombies
            + counts.lost_requests
            + counts.failed_work
            + counts.lost_messages
            + counts.late_messages
    }

    /// Decides what becomes of the messages in the queue.
    async fn take_messages(&mut self) {
        let consumer = self.system.queue.consumer.clone();
        loop {
            let taken = consumer.take().await;
            if taken.is_empty() {
                return;
            }
            for message in taken {
                consumer.delete(&message).await;
                self.counts.messages += 1;
                let mut copies = 1;
                if !self.is_quiet() {
                    if self.chance(5) {
                        self.counts.lost_messages += 1;
                        continue;
                    }
                    while self.chance(15) {
                        self.counts.doubled_messages += 1;
                        copies += 1;
                    }
                }
                for _ in 0..copies {
                    let at = if self.is_quiet() || self.chance(70) {
                        self.now()
                    } else {
                        self.counts.late_messages += 1;
                        self.sooner_or_later()
                    };
                    let what = (message.record.clone(), 1);
                    self.messages.push(Due { at, what });
                }
            }
        }
    }

    /// Hands the messages that are due to the worker, in any order.
    async fn work_off(&mut self) {
        let now = self.now();
        let mut due = Vec::new();
        for place in (0..self.messages.len()).rev() {
            if self.messages[place].at <= now {
                due.push(self.messages.swap_remove(place).what);
            }
        }
        self.dice.shuffle(&mut due);
        while !due.is_empty() {
            let many = self.dice.usize(1..=10).min(due.len());
            let batch: Vec<_> = due.drain(..many).collect();
            let records: Vec<_> = batch.iter().map(|(record, _)| record.clone()).collect();
            self.counts.batches += 1;
            let job = Job::Batch(records);
            let steps = 40 * many;
            if !self.is_quiet() && self.chance(15) {
                self.counts.doubled_batches += 1;
                self.work_twice(job, steps).await;
                continue;
            }
            let answer = self.work(job, steps, Note::Nothing).await;
            for (record, times) in batch {
                let is_done = answer.as_ref().is_some_and(|answer| {
                    let kept = answer.body["batchItemFailures"].as_array();
                    let kept = kept.into_iter().flatten();
                    let mut kept = kept.map(|it| &it["itemIdentifier"]);
                    answer.is_good() && !kept.any(|kept| *kept == record["messageId"])
                });
                if !is_done && times < MOST_TRIES {
                    let at = self.now() + VISIBILITY;
                    let what = (record, times + 1);
                    self.messages.push(Due { at, what });
                }
            }
        }
    }

    /// Nothing is disturbed any more, and all that is under way comes to its end.
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
            // Two days long there is news of other cards.
            if now < end - QUIET + 2 * DAY {
                self.calm_cards().await;
            }
            self.hear().await;
            self.hear().await;
            self.tick().await;
            now += SignedDuration::from_hours(7);
            self.go_on_until(now);
        }
        self.hear().await;
        self.tick().await;
        for subject in 0..self.subjects.len() {
            self.look(subject).await;
        }
    }

    /// From now on every card succeeds, and credits suffice.
    async fn calm_cards(&mut self) {
        for subject in 0..self.subjects.len() {
            let id = self.subjects[subject].id.clone();
            let Some(account) = self.store.account(&id).await.unwrap() else {
                continue;
            };
            if let Some(customer) = &account.profile.billing.customer {
                self.provider().set_card(customer, Card::Succeeds);
                self.provider().script(customer, &[]);
            }
            if account.profile.add_on.collection() == Some(add_on::Collection::Credits)
                && account.balance.available() < Credits::from_micros(500_000_000)
            {
                self.grant(subject, 1_000).await;
            }
        }
    }
}

/// Waits for the end of a piece of work, whichever it is.
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
    // It was.
    let _ = work.await;
    process.gate.bury();
    Ended::Died
}

/// What users and Greta's core system do.
impl Simulation {
    async fn act(&mut self, subject: usize) {
        let Some(life) = self.subjects[subject].life else {
            if self.subjects[subject].version > 0 && self.chance(60) {
                self.change_plan(subject, false).await;
            }
            return;
        };
        self.use_page(subject);
        let id = self.subjects[subject].id.clone();
        let Some(account) = self.store.account(&id).await.unwrap() else {
            return;
        };
        let status = account.profile.add_on.status();
        let is_enterprise = account.profile.plan() == account::Plan::Enterprise;
        let customer = account.profile.billing.customer.clone();
        match (self.dice.u8(..100), status) {
            (0..1, _) => self.delete(subject).await,
            (1..6, _) => self.change_plan(subject, !is_enterprise).await,
            (6..60, _) if is_enterprise => self.change_plan(subject, false).await,
            (6..80, AddOnStatus::None | AddOnStatus::Suspended | AddOnStatus::Ended)
            | (12..55, AddOnStatus::PastDue | AddOnStatus::Cancelling)
            | (12..15, AddOnStatus::Active) => self.subscribe(subject, life).await,
            (55..70, AddOnStatus::PastDue) | (15..25, AddOnStatus::Active) => {
                self.new_card(subject).await;
            }
            (70..80, AddOnStatus::PastDue | AddOnStatus::Cancelling)
            | (28..34, AddOnStatus::Active)
            | (80..83, _) => self.cancel(subject, life).await,
            (83..90, _) if self.subjects[subject].collection == Collection::Credits => {
                self.buy_credits(subject).await;
            }
            // What the deployment says of those who buy from now on.
            (90..91, _) => {
                self.counts.other_settings += 1;
                self.subjects[subject].collection = self.any_collection();
            }
            _ => self.other_mood(customer.as_deref()),
        }
        if self.chance(85) {
            self.use_page(subject);
        }
    }

    /// From now on the customer's cards behave in another way.
    fn other_mood(&mut self, customer: Option<&str>) {
        let Some(customer) = customer else { return };
        let card = match self.dice.u8(..100) {
            0..70 => Card::Succeeds,
            70..84 => Card::DeclinesSoftly,
            84..90 => Card::DeclinesHard,
            90..94 => Card::NeedsAuthentication,
            _ => Card::DeclinesLater,
        };
        self.provider().set_card(customer, card);
        let mut script = Vec::new();
        while self.chance(45) {
            script.push(match self.dice.u8(..6) {
                0..2 => Card::TimesOutAfterCharging,
                2 => Card::TimesOutBeforeCharging,
                3 => Card::TimesOutAfterDeclining,
                4 => Card::DeclinesSoftly,
                _ => Card::Processing,
            });
        }
        let slow = script.iter().filter(|card| **card == Card::Processing);
        self.counts.slow_cards += slow.count();
        let silent = [
            Card::TimesOutAfterCharging,
            Card::TimesOutBeforeCharging,
            Card::TimesOutAfterDeclining,
        ];
        let silent = script.iter().filter(|card| silent.contains(card));
        self.counts.silent_cards += silent.count();
        self.provider().script(customer, &script);
    }

    fn route(
        &self,
        subject: usize,
        method: Method,
        path: &'static str,
        body: Option<Value>,
    ) -> Job {
        let subject = &self.subjects[subject];
        Job::Route {
            collection: subject.collection,
            method,
            path,
            token: self.system.token(subject.id.as_str(), "owner"),
            body,
        }
    }

    fn begin_act(&mut self, life: usize, what: What) -> Note {
        let acts = &mut self.lives[life].acts;
        acts.push(Act {
            what,
            began: self.system.clock.now(),
            over: None,
            answer: None,
        });
        Note::Act {
            life,
            act: acts.len() - 1,
        }
    }

    async fn subscribe(&mut self, subject: usize, life: usize) {
        if self.subjects[subject].collection == Collection::Credits && self.chance(70) {
            self.grant(subject, 60).await;
        }
        let clicks = if self.chance(10) { 2 } else { 1 };
        for _ in 0..clicks {
            let note = self.begin_act(life, What::Subscribe);
            let job = self.route(subject, Method::POST, SUBSCRIPTION, None);
            let Some(answer) = self.work(job, 40, note).await else {
                continue;
            };
            if !answer.is_good() {
                continue;
            }
            match page(&answer) {
                Some(page) => {
                    self.counts.checkouts += 1;
                    self.subjects[subject].pages.push(page);
                }
                None => {
                    self.counts.resumptions += 1;
                    if let Note::Act { life, act } = note {
                        self.lives[life].acts[act].what = What::Resume;
                    }
                }
            }
        }
    }

    async fn cancel(&mut self, subject: usize, life: usize) {
        let note = self.begin_act(life, What::Cancel);
        let job = self.route(subject, Method::DELETE, SUBSCRIPTION, None);
        let answer = self.work(job, 25, note).await;
        self.counts.cancellations += usize::from(answer.is_some_and(|it| it.is_good()));
    }

    async fn new_card(&mut self, subject: usize) {
        let job = self.route(subject, Method::POST, PAYMENT_METHOD, None);
        if let Some(page) = self.page_of(job).await {
            self.counts.new_cards += 1;
            self.subjects[subject].pages.push(page);
        }
    }

    async fn buy_credits(&mut self, subject: usize) {
        let usd = self.dice.u32(6..40).to_string();
        let body = json!({ "usd": usd });
        let job = self.route(subject, Method::POST, CREDITS_CHECKOUT, Some(body));
        if let Some(page) = self.page_of(job).await {
            self.counts.purchases += 1;
            self.subjects[subject].pages.push(page);
        }
    }

    async fn page_of(&mut self, job: Job) -> Option<String> {
        let answer = self.work(job, 20, Note::Nothing).await?;
        page(&answer).filter(|_| answer.is_good())
    }

    /// The user pays on one of the open pages, or closes it.
    fn use_page(&mut self, subject: usize) {
        let pages = &mut self.subjects[subject].pages;
        if pages.is_empty() {
            return;
        }
        let place = self.dice.usize(..pages.len());
        let page = pages[place].clone();
        let card = match self.dice.u8(..100) {
            0..60 => Card::Succeeds,
            60..66 => Card::DeclinesLater,
            66..72 => Card::NeedsAuthentication,
            72..80 => Card::DeclinesSoftly,
            80..84 => Card::TimesOutAfterCharging,
            84..88 => Card::Processing,
            _ => {
                pages.swap_remove(place);
                return;
            }
        };
        let pay = |card| {
            let provider = self.provider();
            if page.starts_with("in_") {
                provider.pay_open_invoice(&page, card)
            } else {
                provider.pay(&page, card).map(drop)
            }
        };
        let paid = pay(card);
        if paid.is_ok() {
            assert!(pay(Card::Succeeds).is_err(), "a page is paid once");
        }
        if paid.is_ok() {
            self.subjects[subject].pages.retain(|known| *known != page);
        }
    }

    /// Support gives credits.
    async fn grant(&mut self, subject: usize, credits: i64) {
        let Some(life) = self.subjects[subject].life else {
            return;
        };
        let amount = credits * 1_000_000;
        let posting = Posting {
            id: &EntryId::new(edge::new_id("grant")).unwrap(),
            kind: EntryKind::Grant,
            amount: Credits::from_micros(amount),
            at: self.now(),
            note: "given",
            actor: "simulation",
        };
        let id = &self.subjects[subject].id;
        if self.store.post(id, &posting).await.unwrap().is_ok() {
            self.lives[life].granted += amount;
        }
    }

    /// Greta's core system says that the account has this plan, or that it is there at all.
    async fn change_plan(&mut self, subject: usize, enterprise: bool) {
        let now = self.now();
        let known = &mut self.subjects[subject];
        known.version += 1;
        let (id, version) = (known.id.as_str(), known.version);
        let (plan, what) = if enterprise {
            ("enterprise", What::Enterprise(version))
        } else {
            ("standard", What::Standard(version))
        };
        let event = json!({
            "source": "greta.accounts",
            "detail-type": "account.upserted",
            "time": now,
            "detail": {"account_id": id, "plan": plan, "version": version},
        });
        let id = id.to_owned();
        let Some(life) = known.life else {
            self.lives.push(Life {
                id,
                number: String::new(),
                acts: Vec::new(),
                seen: Vec::new(),
                claims: Vec::new(),
                ledger: Vec::new(),
                balance: 0,
                granted: 0,
                problems: Vec::new(),
            });
            let life = self.lives.len() - 1;
            self.subjects[subject].life = Some(life);
            let note = self.begin_act(life, what);
            // Whatever stood still while it was deleted is over: the new account is another one.
            self.tell_at_once((subject, event, note)).await;
            return;
        };
        if enterprise {
            self.counts.upgrades += 1;
        } else {
            self.counts.downgrades += 1;
        }
        let note = self.begin_act(life, what);
        if !self.is_quiet() && self.chance(20) {
            let at = self.sooner_or_later();
            let what = (subject, event, note);
            self.account_events.push(Due { at, what });
        } else {
            self.tell((subject, event, note)).await;
        }
    }

    async fn delete(&mut self, subject: usize) {
        let Some(life) = self.subjects[subject].life else {
            return;
        };
        self.counts.deletions += 1;
        let known = &mut self.subjects[subject];
        known.version += 1;
        let event = json!({
            "source": "greta.accounts",
            "detail-type": "account.deleted",
            "time": self.system.clock.now(),
            "detail": {"account_id": known.id, "version": known.version},
        });
        let what = What::Delete(known.version);
        let note = self.begin_act(life, what);
        self.tell_at_once((subject, event, note)).await;
        self.subjects[subject].life = None;
        self.subjects[subject].pages.clear();
    }

    /// Has the event carried out, however often that takes.
    async fn tell_at_once(&mut self, event: (usize, Value, Note)) {
        let (subject, _, note) = event;
        self.tell(event).await;
        let Note::Act { life, act } = note else {
            return;
        };
        loop {
            let waiting = |due: &Due<(usize, Value, Note)>| matches!(due.what.2, Note::Act { life: of, act: which } if (of, which) == (life, act));
            let Some(place) = self.account_events.iter().position(waiting) else {
                break;
            };
            let what = self.account_events.swap_remove(place).what;
            self.tell(what).await;
        }
        let id = &self.subjects[subject].id;
        if let Some(account) = self.store.account(id).await.unwrap() {
            self.lives[life].number = account.number.to_string();
        }
    }

    /// Gives an event of Greta's core system to us; the bus keeps what was not carried out, and gives some
    /// twice.
    async fn tell(&mut self, (subject, event, note): (usize, Value, Note)) {
        let job = Job::AccountEvent(event.clone());
        let answer = self.work(job, 20, Note::Nothing).await;
        if answer.is_some_and(|answer| answer.is_good()) {
            self.note(note, Some(200));
            if !self.is_quiet() && self.chance(15) {
                let at = self.sooner_or_later();
                let what = (subject, event, Note::Nothing);
                self.account_events.push(Due { at, what });
            }
        } else {
            let at = self.now() + SignedDuration::from_mins(5);
            let what = (subject, event, note);
            self.account_events.push(Due { at, what });
        }
    }

    /// Looks whether the account has access.
    async fn look(&mut self, subject: usize) {
        let id = &self.subjects[subject].id;
        let Some(life) = self.subjects[subject].life else {
            return;
        };
        let at = self.now();
        let account = self.store.account(id).await.unwrap();
        let policy = Policy {
            minimum_balance: Credits::ZERO,
            grace: SignedDuration::from_hours(8 * 24),
        };
        let is_entitled = |account: &account::Account| {
            let profile = &account.profile;
            entitled(profile.plan(), &profile.add_on, at, &policy)
        };
        self.counts.observations += 1;
        let status = account.as_ref().map(|it| it.profile.add_on.status());
        self.counts.suspended += usize::from(status == Some(AddOnStatus::Suspended));
        self.lives[life].seen.push(Seen {
            at,
            entitled: account.as_ref().is_some_and(is_entitled),
        });
    }
}

/// The session of the page that an answer leads to.
fn page(answer: &Answer) -> Option<String> {
    let url = answer.body["checkout_url"].as_str()?;
    Some(url.rsplit('/').next().unwrap_or_default().to_owned())
}

/// What is known in the end.
impl Simulation {
    async fn record(&mut self) -> Record {
        let ended_at = self.now();
        let mut lives = std::mem::take(&mut self.lives);
        for life in &mut lives {
            if let Some(seen) = life.seen.last_mut().filter(|_| true) {
                // The last look of all, where the account still lives.
                if ended_at.duration_since(seen.at) < HOUR {
                    seen.at = ended_at;
                }
            }
            self.books(life, ended_at).await;
        }
        let payments = self.payments();
        self.counts.payments = payments.len();
        let refunded = payments.iter().filter(|paid| paid.refunded > 0);
        self.counts.refunds = refunded.count();
        let entries = lives.iter().flat_map(|life| &life.ledger);
        let by_credits = entries.filter(|entry| entry.kind == "add_on");
        self.counts.credit_payments = by_credits.count();
        let by_provider = payments.iter().filter(|it| it.object.starts_with("in_"));
        self.counts.provider_payments = by_provider.count();
        Record {
            lives,
            payments,
            ticks: self.ticks.clone(),
            quiet_since: self.quiet_since.unwrap(),
            ended_at,
            left_over: self.left_over(ended_at).await,
        }
    }

    /// What the books say of an account.
    async fn books(&self, life: &mut Life, now: Timestamp) {
        let id = AccountId::new(life.id.clone()).unwrap();
        for row in self.rows(&self.system.tables.charges, &life.number).await {
            let text = |name: &str| row.get(name).and_then(|value| value.as_s().ok());
            let (Some(charge), Some(paid_by)) = (text("charge"), text("paid_by")) else {
                continue;
            };
            let (generation, period) = charge.rsplit_once('#').unwrap();
            life.claims.push(Claim {
                generation: generation.to_owned(),
                period: period.parse().unwrap(),
                paid_by: paid_by.clone(),
            });
        }
        for row in self.rows(&self.system.tables.ledger, &life.number).await {
            let text = |name: &str| row.get(name).and_then(|value| value.as_s().ok());
            if !text("entry").is_some_and(|entry| entry.starts_with("e#")) {
                continue;
            }
            let amount = row["amount"].as_n().unwrap();
            life.ledger.push(Entry {
                id: text("id").unwrap().clone(),
                kind: text("kind").unwrap().clone(),
                at: text("at").unwrap().parse().unwrap(),
                amount: amount.parse().unwrap(),
            });
        }
        let account = self.store.account(&id).await.unwrap();
        let Some(account) = account.filter(|account| account.number.as_str() == life.number) else {
            return;
        };
        life.balance = account.balance.balance().micros();
        let books = self.store.reconcile(&id, &account.number, now);
        life.problems.extend(books.await.unwrap().problems);
        if let Some(due) = account.profile.billing_due()
            && due < now - HOUR
        {
            life.problems.push(format!("it is due since {due}"));
        }
    }

    /// All rows of a table whose account it is.
    async fn rows(&self, table: &str, number: &str) -> Vec<HashMap<String, AttributeValue>> {
        let pages = self
            .system
            .engines
            .dynamodb()
            .query()
            .table_name(table)
            .key_condition_expression("account_number = :number")
            .expression_attribute_values(":number", AttributeValue::S(number.to_owned()))
            .into_paginator()
            .items()
            .send();
        pages.collect::<Result<Vec<_>, _>>().await.unwrap()
    }

    /// The provider's own record.
    fn payments(&self) -> Vec<Paid> {
        let confirmed = self.confirmed.lock().unwrap();
        let provider = self.provider();
        let paid = provider.payments().into_iter().map(|payment| {
            let customer = payment.customer.as_deref().unwrap_or_default();
            let customer = provider.object(customer).unwrap_or_default();
            let told = |name: &str| payment.metadata.get(name).cloned();
            let period = told("period").and_then(|period| period.parse().ok());
            Paid {
                account: customer["metadata"]["account"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
                object: payment
                    .session
                    .or(payment.invoice)
                    .unwrap_or_else(|| payment.intent.clone()),
                cents: payment.amount,
                refunded: payment.refunded,
                at: payment.at,
                decided_at: confirmed
                    .get(&payment.intent)
                    .copied()
                    .unwrap_or(payment.at),
                asked_for: told("generation").zip(period),
            }
        });
        paid.collect()
    }

    /// Work that is still due.
    async fn left_over(&self, now: Timestamp) -> Vec<String> {
        let (store, before) = (&self.system.store, now - HOUR);
        let mut left = Vec::new();
        for shard in store::shards() {
            let accounts = store.due_accounts(shard, before, 100).await.unwrap();
            left.extend(accounts.iter().map(|it| format!("{it:?}")));
            let refunds = store.due_refunds(shard, before, 100).await.unwrap();
            left.extend(refunds.iter().map(|it| format!("{it:?}")));
            let wind_ups = store.due_wind_ups(shard, before, 100).await.unwrap();
            left.extend(wind_ups.iter().map(|it| format!("{it:?}")));
            let events = store.due_events(shard, before, 100).await.unwrap();
            left.extend(events.iter().map(|it| format!("{it:?}")));
        }
        left
    }
}
