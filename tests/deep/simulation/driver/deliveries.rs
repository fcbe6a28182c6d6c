//! Deliveries: events from Stripe and from Greta, ticks and queue messages. They are lost,
//! duplicated and late.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{DAY, Due, HOUR, Note, Simulation};
use crate::simulation::process::Job;

/// How long a queued account is not queued again.
const CLAIMED: SignedDuration = SignedDuration::from_mins(16);
/// How long a worker's claim lasts.
const LEASE: SignedDuration = SignedDuration::from_mins(3);
/// An unfinished message becomes visible again after this time, at most `MOST_TRIES` times.
const VISIBILITY: SignedDuration = SignedDuration::from_mins(15);
const MOST_TRIES: u32 = 3;

impl Simulation {
    /// Delivers due events from Stripe and from Greta, and finishes processing payments.
    pub(super) async fn deliver_due(&mut self) {
        let now = self.now();
        for place in (0..self.slow.len()).rev() {
            if self.slow[place].at <= now {
                let intent = self.slow.swap_remove(place).what;
                let succeeds = self.is_quiet() || self.dice.bool();
                // It may have been cancelled meanwhile, if it only waited for the customer.
                let _ = self.stripe().finish(&intent, succeeds);
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
                signature: self.stripe().webhooks.signature(&event).unwrap(),
                body: event.body.clone(),
            };
            let answer = self.work(job, 24, Note::Nothing).await;
            if !answer.is_some_and(|answer| answer.is_good()) {
                // Stripe sends it again.
                let at = self.now() + HOUR;
                self.webhooks.push(Due { at, what: event });
            }
        }
        for place in (0..self.account_events.len()).rev() {
            if self.account_events[place].at <= now {
                let Due { what, .. } = self.account_events.swap_remove(place);
                self.deliver_account_event(what).await;
            }
        }
    }

    /// Decides the fate of the events that Stripe has for us.
    fn sort_webhooks(&mut self) {
        let now = self.now();
        for event in self.stripe().webhooks.take_held() {
            if event.kind == "payment_intent.processing" {
                let at = self.sooner_or_later();
                self.slow.push(Due { at, what: event.object.clone() });
            }
            self.counts.declines += usize::from(event.kind == "payment_intent.payment_failed");
            if self.is_quiet() {
                self.webhooks.push(Due { at: now, what: event });
                continue;
            }
            // Some sessions buy credits or store a card, and are not looked up later.
            let is_session = event.kind.starts_with("checkout.session.");
            let session = is_session.then(|| self.stripe().object(&event.object));
            let is_never_looked_up =
                session.flatten().is_some_and(|session| session["amount_total"] != 500);
            if !is_never_looked_up && self.chance(12) {
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
                self.webhooks.push(Due { at, what: event.clone() });
            }
        }
    }

    pub(super) async fn tick(&mut self) {
        // A claim of an interrupted worker may or may not have expired.
        let rested = self.is_quiet() || self.chance(70);
        if rested {
            self.advance_to(self.now() + LEASE);
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
        // It may have been delayed.
        let late = !self.is_quiet() && self.chance(20);
        let delay = if late { self.dice.i64(0..90) } else { 0 };
        let time = self.now() - SignedDuration::from_mins(delay);
        let limited = !self.is_quiet() && self.chance(8);
        if limited {
            self.counts.rate_limits += 1;
            let next = self.dice.u32(1..20);
            self.stripe().limit_rate(next, None);
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
        self.run_batches().await;
        self.stripe().limit_rate(0, None);
        if rested && is_alone && !(late || limited) && undisturbed == self.disturbances() {
            self.ticks.push(time);
        }
    }

    /// Counts the faults.
    fn disturbances(&self) -> usize {
        let counts = &self.counts;
        counts.crashes
            + counts.zombies
            + counts.lost_requests
            + counts.failed_work
            + counts.lost_messages
            + counts.late_messages
    }

    /// Decides the fate of the messages in the queue.
    async fn take_messages(&mut self) {
        let consumer = self.system.queue.consumer.clone();
        loop {
            let taken = consumer.receive().await;
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

    /// Hands due messages to the worker, in any order.
    pub(super) async fn run_batches(&mut self) {
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

    /// Delivers the event until it is applied.
    pub(super) async fn deliver_account_event_now(&mut self, event: (usize, Value, Note)) {
        let (subject, _, note) = event;
        self.deliver_account_event(event).await;
        let Note::Act { life, act } = note else {
            return;
        };
        loop {
            let waiting = |due: &Due<(usize, Value, Note)>| matches!(due.what.2, Note::Act { life: of, act: which } if (of, which) == (life, act));
            let Some(place) = self.account_events.iter().position(waiting) else {
                break;
            };
            let what = self.account_events.swap_remove(place).what;
            self.deliver_account_event(what).await;
        }
        let id = &self.subjects[subject].id;
        if let Some(account) = self.store.accounts.get(id).await.unwrap() {
            self.lives[life].number = account.number.to_string();
        }
    }

    /// Delivers an event from Greta's core system; the bus keeps it if it fails, and delivers some
    /// twice.
    pub(super) async fn deliver_account_event(
        &mut self,
        (subject, event, note): (usize, Value, Note),
    ) {
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
}
