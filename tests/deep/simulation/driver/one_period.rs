//! One period, with a process that dies at each of its steps in turn, each time for another
//! account. Steps are counted as they happen: a first account, for which nothing dies, yields their
//! number.

use http::Method;
use jiff::SignedDuration;
use local::stripe::Card;
use serde_json::json;

use super::users::{SUBSCRIPTION, session_of};
use super::{DAY, Ended, HOUR, Note, Simulation, end};
use crate::simulation::gate::Faults;
use crate::simulation::process::{Answer, Job};
use crate::simulation::record::What;
use crate::simulation::{Collection, Plan, judge};

/// From the first payment until the next period has begun and Stripe has collected for it.
const PERIOD: SignedDuration = SignedDuration::from_hours(31 * 24 + 9);

/// Where a process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// The user asks to buy.
    Buying,
    /// Stripe reports that the Checkout Session was paid.
    SessionPaid,
    /// A session was paid after the account became enterprise.
    NotOwed,
    /// The period ends and the next one is charged.
    Renewal,
    /// The same, and the card declines.
    Decline,
    /// An attempt is due while a Checkout Session for the period is open.
    SessionExpired,
    /// The same, and the session is paid just before.
    SessionPaidBeforeExpiry,
    /// The user cancels.
    Cancellation,
    /// The user cancels while past due.
    CancellationPastDue,
    /// The user cancels and resumes.
    CancellationUndone,
    /// The account became enterprise, and nothing more may be collected.
    Stop,
    /// The same, and Stripe collected meanwhile.
    StopTooLate,
}

/// Payments that Stripe collected, periods that are paid, and whether there is access.
type Expected = (usize, usize, bool);

/// Dies at every `stride`th step of a scenario, the last one included. Returns the number of steps.
pub(crate) async fn die_everywhere(
    scenario: Scenario,
    collection: Collection,
    stride: usize,
) -> usize {
    let steps = Box::pin(die(scenario, collection, &[None])).await;
    let deaths: Vec<_> = (1..=steps).rev().step_by(stride).map(Some).collect();
    let died = Box::pin(die(scenario, collection, &deaths)).await;
    assert_eq!(died, steps, "{scenario:?}: as many steps as were counted");
    steps
}

/// Runs an account for each of `deaths`, the step at which its process dies; `None`: it lives.
/// Returns the steps of the longest run.
async fn die(scenario: Scenario, collection: Collection, deaths: &[Option<usize>]) -> usize {
    let accounts = deaths.len();
    let mut simulation = Simulation::start(Plan {
        seed: 1,
        accounts,
        months: 1,
        by_credits: u32::from(collection == Collection::Credits) * 100,
        by_stripe: u32::from(collection == Collection::Provider) * 100,
    })
    .await;
    simulation.quiet_since = Some(simulation.now());
    let mut longest = 0;
    for subject in 0..accounts {
        simulation.change_plan(subject, false).await;
        simulation.prepare(scenario, subject).await;
    }
    simulation.pass(scenario).await;
    let mut jobs = Vec::new();
    for subject in 0..accounts {
        jobs.push(simulation.fatal_job(scenario, subject).await);
    }
    for (stops_at, (job, note)) in deaths.iter().copied().zip(jobs) {
        let faults = Faults { stops_at, losses: 0 };
        let process = simulation.process().await;
        let work = process.begin(job, simulation.now(), faults);
        let ended = end(&process, work, false).await;
        let has_died = matches!(ended, Ended::Died);
        assert_eq!(has_died, stops_at.is_some(), "{scenario:?}, step {stops_at:?}");
        longest = longest.max(process.gate.steps());
        simulation.ended(process, ended, note);
    }
    for subject in 0..accounts {
        simulation.repeat_request(scenario, subject).await;
    }
    simulation.calm_down().await;
    let record = simulation.record().await;
    simulation.system.stop().await;
    let problems = judge(&record);
    let about = record.about(&problems);
    assert!(problems.is_empty(), "{scenario:?}: {problems:#?}\n{about}");
    for (stops_at, life) in deaths.iter().zip(&record.lives) {
        let made = record.payments.iter();
        let made = match collection {
            // Credit payments are in the ledger, which the judge compares.
            Collection::Credits => life.claims.len(),
            _ => made.filter(|paid| paid.account == life.number).count(),
        };
        let found = (made, life.claims.len(), life.seen.last().unwrap().entitled);
        assert_eq!(
            found,
            expected(scenario),
            "{scenario:?} by {collection:?}, died at step {stops_at:?}"
        );
    }
    longest
}

fn expected(scenario: Scenario) -> Expected {
    match scenario {
        // An enterprise account has access without paying.
        Scenario::Buying | Scenario::SessionPaid | Scenario::Stop => (1, 1, true),
        Scenario::Renewal
        | Scenario::Decline
        | Scenario::SessionExpired
        | Scenario::SessionPaidBeforeExpiry
        | Scenario::CancellationUndone => (2, 2, true),
        Scenario::Cancellation | Scenario::CancellationPastDue => (1, 1, false),
        Scenario::NotOwed => (1, 0, true),
        Scenario::StopTooLate => (2, 1, true),
    }
}

impl Simulation {
    /// Runs before time passes.
    async fn prepare(&mut self, scenario: Scenario, subject: usize) {
        if self.subjects[subject].collection == Collection::Credits {
            let credits = match scenario {
                Scenario::Decline | Scenario::CancellationPastDue => 50,
                _ => 100,
            };
            self.grant(subject, credits).await;
        }
        match scenario {
            Scenario::Buying => {}
            Scenario::SessionPaid | Scenario::NotOwed => {
                let answer = self.ask(subject, Method::POST).await;
                self.subjects[subject].sessions.extend(session_of(&answer));
            }
            _ => self.buy(subject, Card::Succeeds).await,
        }
        let past_due = matches!(
            scenario,
            Scenario::Decline
                | Scenario::SessionExpired
                | Scenario::SessionPaidBeforeExpiry
                | Scenario::CancellationPastDue
        );
        if past_due {
            self.set_card(subject, Card::DeclinesSoftly).await;
        }
    }

    /// Advances time as the scenario needs.
    async fn pass(&mut self, scenario: Scenario) {
        match scenario {
            Scenario::Renewal | Scenario::Decline => self.advance_to(self.now() + PERIOD),
            Scenario::StopTooLate => self.advance_to(self.now() + 30 * DAY),
            Scenario::SessionExpired
            | Scenario::SessionPaidBeforeExpiry
            | Scenario::CancellationPastDue => {
                self.advance_to(self.now() + PERIOD);
                self.tick().await;
                // The next attempt is due a day after the period began.
                self.advance_to(self.now() + 6 * HOUR);
            }
            Scenario::Buying
            | Scenario::SessionPaid
            | Scenario::NotOwed
            | Scenario::Cancellation
            | Scenario::CancellationUndone
            | Scenario::Stop => {}
        }
    }

    /// The job in which the process dies.
    async fn fatal_job(&mut self, scenario: Scenario, subject: usize) -> (Job, Note) {
        let life = self.subjects[subject].life.unwrap();
        match scenario {
            Scenario::Buying => {
                let note = self.begin_act(life, What::Subscribe);
                let job = self.route(subject, Method::POST, SUBSCRIPTION, None);
                (job, note)
            }
            Scenario::SessionPaid => (self.paid_session(subject), Note::Nothing),
            Scenario::NotOwed => {
                self.change_plan(subject, true).await;
                (self.paid_session(subject), Note::Nothing)
            }
            Scenario::Renewal | Scenario::Decline => (self.message(subject), Note::Nothing),
            Scenario::SessionExpired | Scenario::SessionPaidBeforeExpiry => {
                let answer = self.ask(subject, Method::POST).await;
                let session = session_of(&answer).unwrap();
                if scenario == Scenario::SessionPaidBeforeExpiry {
                    self.stripe().pay(&session, Card::Succeeds).unwrap();
                    // No event is delivered.
                    self.stripe().webhooks.take_held();
                }
                self.set_card(subject, Card::Succeeds).await;
                // The last account advances time for all, to the attempt.
                if subject + 1 == self.subjects.len() {
                    self.advance_to(self.now() + 9 * HOUR);
                }
                (self.message(subject), Note::Nothing)
            }
            Scenario::Cancellation
            | Scenario::CancellationPastDue
            | Scenario::CancellationUndone => {
                let note = self.begin_act(life, What::Cancel);
                let job = self.route(subject, Method::DELETE, SUBSCRIPTION, None);
                (job, note)
            }
            Scenario::Stop => {
                self.change_plan(subject, true).await;
                (self.message(subject), Note::Nothing)
            }
            Scenario::StopTooLate => {
                self.change_plan(subject, true).await;
                // The last account advances time for all, to the end of the period.
                if subject + 1 == self.subjects.len() {
                    self.advance_to(self.now() + 2 * DAY);
                }
                (self.message(subject), Note::Nothing)
            }
        }
    }

    /// What the user or Stripe repeats, because there was no response.
    async fn repeat_request(&mut self, scenario: Scenario, subject: usize) {
        if subject == 0 {
            self.advance_to(self.now() + SignedDuration::from_mins(3));
        }
        match scenario {
            Scenario::Buying => {
                let answer = self.ask(subject, Method::POST).await;
                if let Some(session) = session_of(&answer) {
                    self.stripe().pay(&session, Card::Succeeds).unwrap();
                }
            }
            Scenario::SessionPaid | Scenario::NotOwed if subject.is_multiple_of(2) => {
                let job = self.paid_session(subject);
                self.work(job, 1, Note::Nothing).await;
            }
            Scenario::Cancellation | Scenario::CancellationPastDue => {
                self.ask(subject, Method::DELETE).await;
            }
            Scenario::CancellationUndone => {
                self.ask(subject, Method::POST).await;
            }
            _ => {}
        }
        // Run a tick before the next period is due.
        let needs_another_period = matches!(
            scenario,
            Scenario::Cancellation
                | Scenario::CancellationPastDue
                | Scenario::CancellationUndone
                | Scenario::Stop
        );
        if needs_another_period && subject + 1 == self.subjects.len() {
            self.tick().await;
            self.advance_to(self.now() + PERIOD);
        }
    }

    /// A request from the user, without faults.
    async fn ask(&mut self, subject: usize, method: Method) -> Answer {
        let life = self.subjects[subject].life.unwrap();
        let what = if method == Method::DELETE { What::Cancel } else { What::Subscribe };
        let note = self.begin_act(life, what);
        let job = self.route(subject, method, SUBSCRIPTION, None);
        self.work(job, 1, note).await.unwrap()
    }

    async fn buy(&mut self, subject: usize, card: Card) {
        let answer = self.ask(subject, Method::POST).await;
        assert!(answer.is_good(), "{answer:?}");
        if let Some(session) = session_of(&answer) {
            self.stripe().pay(&session, card).unwrap();
            self.deliver_due().await;
        }
    }

    async fn set_card(&mut self, subject: usize, card: Card) {
        let id = self.subjects[subject].id.clone();
        let account = self.store.accounts.get(&id).await.unwrap().unwrap();
        if let Some(customer) = &account.profile.billing.customer {
            self.stripe().set_card(customer, card);
        }
    }

    /// The event that reports the paid session. Pays it first, if it is not paid yet.
    fn paid_session(&mut self, subject: usize) -> Job {
        let session = self.subjects[subject].sessions[0].clone();
        // It may be paid already.
        let _ = self.stripe().pay(&session, Card::Succeeds);
        self.stripe().webhooks.take_held();
        let events = self.stripe().webhooks.events();
        let event = events
            .iter()
            .find(|event| event.object == session && event.kind == "checkout.session.completed")
            .unwrap();
        Job::Webhook {
            signature: self.stripe().webhooks.signature(event).unwrap(),
            body: event.body.clone(),
        }
    }

    /// A queue message that names the account.
    fn message(&self, subject: usize) -> Job {
        let now = self.now();
        let accounts = [&self.subjects[subject].id];
        Job::Batch(vec![json!({
            "messageId": "message",
            "body": json!({"time": now, "account_ids": accounts}).to_string(),
            "attributes": {"SentTimestamp": now.as_millisecond().to_string()},
        })])
    }
}
