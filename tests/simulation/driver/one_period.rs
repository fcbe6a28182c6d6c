//! One period, and a process that dies at each of its steps in turn, each time with an account of its own.
//! The steps are counted as they come: a first account, with which nobody dies, tells how many there are.

use http::Method;
use jiff::SignedDuration;
use local::stripe::Card;
use serde_json::json;

use super::users::{SUBSCRIPTION, page};
use super::{DAY, Ended, HOUR, Note, Simulation, end};
use crate::simulation::gate::Weather;
use crate::simulation::process::{Answer, Job};
use crate::simulation::record::What;
use crate::simulation::{Collection, Plan, judge};

/// From the first payment until the next period has begun, and the provider has collected for it.
const PERIOD: SignedDuration = SignedDuration::from_hours(31 * 24 + 9);

/// Where a process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// The user asks to buy.
    Buying,
    /// The provider tells that the page was paid.
    PagePaid,
    /// A page was paid after the account had become an enterprise's.
    NotOwed,
    /// The period is over, and the next one is charged.
    Renewal,
    /// The same, and the card declines.
    Decline,
    /// An attempt is due while a page is open on which the period can be paid.
    PageClosed,
    /// The same, and somebody pays there just before.
    PageClosedPaid,
    /// The user cancels.
    Cancellation,
    /// The user cancels what is past due.
    CancellationPastDue,
    /// The user cancels, and takes it back.
    CancellationTakenBack,
    /// The account became an enterprise's, and nothing more is to be collected.
    Stop,
    /// The same, and the provider collected meanwhile.
    StopTooLate,
}

/// Payments that the provider took in the end, periods that are paid, and whether there is access.
type Expected = (usize, usize, bool);

/// Dies everywhere in a scenario. Gives the number of steps.
///
/// # Panics
/// If something does not hold in the end.
pub(crate) async fn die_everywhere(scenario: Scenario, collection: Collection) -> usize {
    let steps = Box::pin(die(scenario, collection, None)).await;
    let died = Box::pin(die(scenario, collection, Some(steps))).await;
    assert_eq!(died, steps, "{scenario:?}: as many as were counted");
    steps
}

/// With `deaths`, so many accounts whose process dies, at the first step, the second, …; else one whose
/// process lives. Gives the steps of the longest life.
async fn die(scenario: Scenario, collection: Collection, deaths: Option<usize>) -> usize {
    let accounts = deaths.unwrap_or(1);
    let mut simulation = Simulation::start(Plan {
        seed: 1,
        accounts,
        months: 1,
        by_credits: u32::from(collection == Collection::Credits) * 100,
        by_provider: u32::from(collection == Collection::Provider) * 100,
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
        jobs.push(simulation.last_steps_before(scenario, subject).await);
    }
    for (place, (job, note)) in jobs.into_iter().enumerate() {
        let weather = Weather { stops_at: deaths.map(|_| place + 1), losses: 0 };
        let process = simulation.process().await;
        let work = process.begin(job, simulation.now(), weather);
        let ended = end(&process, work, false).await;
        let has_died = matches!(ended, Ended::Died);
        assert_eq!(has_died, deaths.is_some(), "{scenario:?}, step {place}");
        longest = longest.max(process.gate.steps());
        simulation.ended(process, ended, note);
    }
    for subject in 0..accounts {
        simulation.do_again(scenario, subject).await;
    }
    simulation.calm_down().await;
    let record = simulation.record().await;
    simulation.system.stop().await;
    let problems = judge(&record);
    let about = record.about(&problems);
    assert!(problems.is_empty(), "{scenario:?}: {problems:#?}\n{about}");
    for (place, life) in record.lives.iter().enumerate() {
        let made = record.payments.iter();
        let made = match collection {
            // What was taken is in the ledger, which the judge compares.
            Collection::Credits => life.claims.len(),
            _ => made.filter(|paid| paid.account == life.number).count(),
        };
        let found = (made, life.claims.len(), life.seen.last().unwrap().entitled);
        assert_eq!(
            found,
            expected(scenario),
            "{scenario:?} by {collection:?}, died at step {}",
            place + 1
        );
    }
    longest
}

fn expected(scenario: Scenario) -> Expected {
    match scenario {
        // An enterprise's access is not paid for.
        Scenario::Buying | Scenario::PagePaid | Scenario::Stop => (1, 1, true),
        Scenario::Renewal
        | Scenario::Decline
        | Scenario::PageClosed
        | Scenario::PageClosedPaid
        | Scenario::CancellationTakenBack => (2, 2, true),
        Scenario::Cancellation | Scenario::CancellationPastDue => (1, 1, false),
        Scenario::NotOwed => (1, 0, true),
        Scenario::StopTooLate => (2, 1, true),
    }
}

impl Simulation {
    /// What comes before time passes.
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
            Scenario::PagePaid | Scenario::NotOwed => {
                let answer = self.ask(subject, Method::POST).await;
                self.subjects[subject].pages.extend(page(&answer));
            }
            _ => self.buy(subject, Card::Succeeds).await,
        }
        let past_due = matches!(
            scenario,
            Scenario::Decline
                | Scenario::PageClosed
                | Scenario::PageClosedPaid
                | Scenario::CancellationPastDue
        );
        if past_due {
            self.set_card(subject, Card::DeclinesSoftly).await;
        }
    }

    /// How much time passes, and what happens then.
    async fn pass(&mut self, scenario: Scenario) {
        match scenario {
            Scenario::Renewal | Scenario::Decline => self.go_on_until(self.now() + PERIOD),
            Scenario::StopTooLate => self.go_on_until(self.now() + 30 * DAY),
            Scenario::PageClosed | Scenario::PageClosedPaid | Scenario::CancellationPastDue => {
                self.go_on_until(self.now() + PERIOD);
                self.tick().await;
                // The next attempt will come a day after the period began.
                self.go_on_until(self.now() + 6 * HOUR);
            }
            Scenario::Buying
            | Scenario::PagePaid
            | Scenario::NotOwed
            | Scenario::Cancellation
            | Scenario::CancellationTakenBack
            | Scenario::Stop => {}
        }
    }

    /// The work in which the process dies.
    async fn last_steps_before(&mut self, scenario: Scenario, subject: usize) -> (Job, Note) {
        let life = self.subjects[subject].life.unwrap();
        match scenario {
            Scenario::Buying => {
                let note = self.begin_act(life, What::Subscribe);
                let job = self.route(subject, Method::POST, SUBSCRIPTION, None);
                (job, note)
            }
            Scenario::PagePaid => (self.paid_page(subject), Note::Nothing),
            Scenario::NotOwed => {
                self.change_plan(subject, true).await;
                (self.paid_page(subject), Note::Nothing)
            }
            Scenario::Renewal | Scenario::Decline => (self.message(subject), Note::Nothing),
            Scenario::PageClosed | Scenario::PageClosedPaid => {
                let answer = self.ask(subject, Method::POST).await;
                let page = page(&answer).unwrap();
                if scenario == Scenario::PageClosedPaid {
                    self.provider().pay(&page, Card::Succeeds).unwrap();
                    // Nobody tells.
                    self.provider().take_held();
                }
                self.set_card(subject, Card::Succeeds).await;
                // The last one to do so moves all to the time of the attempt.
                if subject + 1 == self.subjects.len() {
                    self.go_on_until(self.now() + 9 * HOUR);
                }
                (self.message(subject), Note::Nothing)
            }
            Scenario::Cancellation
            | Scenario::CancellationPastDue
            | Scenario::CancellationTakenBack => {
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
                // The last one to become so moves all to their period's end.
                if subject + 1 == self.subjects.len() {
                    self.go_on_until(self.now() + 2 * DAY);
                }
                (self.message(subject), Note::Nothing)
            }
        }
    }

    /// What the user, or the provider, does once more, because there was no answer.
    async fn do_again(&mut self, scenario: Scenario, subject: usize) {
        if subject == 0 {
            self.go_on_until(self.now() + SignedDuration::from_mins(3));
        }
        match scenario {
            Scenario::Buying => {
                let answer = self.ask(subject, Method::POST).await;
                if let Some(page) = page(&answer) {
                    self.provider().pay(&page, Card::Succeeds).unwrap();
                }
            }
            Scenario::PagePaid | Scenario::NotOwed if subject.is_multiple_of(2) => {
                let job = self.paid_page(subject);
                self.work(job, 1, Note::Nothing).await;
            }
            Scenario::Cancellation | Scenario::CancellationPastDue => {
                self.ask(subject, Method::DELETE).await;
            }
            Scenario::CancellationTakenBack => {
                self.ask(subject, Method::POST).await;
            }
            _ => {}
        }
        // What is told of in the end is not too late for the next period.
        let is_followed_by_more = matches!(
            scenario,
            Scenario::Cancellation
                | Scenario::CancellationPastDue
                | Scenario::CancellationTakenBack
                | Scenario::Stop
        );
        if is_followed_by_more && subject + 1 == self.subjects.len() {
            self.tick().await;
            self.go_on_until(self.now() + PERIOD);
        }
    }

    /// A request of the user's that nothing disturbs.
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
        if let Some(page) = page(&answer) {
            self.provider().pay(&page, card).unwrap();
            self.hear().await;
        }
    }

    async fn set_card(&mut self, subject: usize, card: Card) {
        let id = self.subjects[subject].id.clone();
        let account = self.store.accounts.get(&id).await.unwrap().unwrap();
        if let Some(customer) = &account.profile.billing.customer {
            self.provider().set_card(customer, card);
        }
    }

    /// The event that tells of the paid page, which is paid now if it is not yet.
    fn paid_page(&mut self, subject: usize) -> Job {
        let page = self.subjects[subject].pages[0].clone();
        // Paid once is enough.
        let _ = self.provider().pay(&page, Card::Succeeds);
        self.provider().take_held();
        let events = self.provider().events();
        let told = events
            .iter()
            .find(|event| event.object == page && event.kind == "checkout.session.completed")
            .unwrap();
        Job::Webhook {
            signature: self.provider().signature(told).unwrap(),
            body: told.body.clone(),
        }
    }

    /// A message of the queue that names the account.
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
