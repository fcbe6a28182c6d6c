//! Acts of users and of Greta's core system.

use account::{AddOnStatus, Credits, EntryId};
use http::Method;
use jiff::SignedDuration;
use local::stripe::Card;
use routing::{Policy, entitled};
use serde_json::{Value, json};
use store::{EntryKind, Posting};

use super::{Due, Note, Simulation};
use crate::simulation::Collection;
use crate::simulation::process::{Answer, Job};
use crate::simulation::record::{Act, Life, Seen, What};

pub(super) const SUBSCRIPTION: &str = "/v1/integrations/openrouter/subscription";
const PAYMENT_METHOD: &str = "/v1/integrations/openrouter/subscription/payment-method";
const CREDITS_CHECKOUT: &str = "/v1/credits/checkout";

impl Simulation {
    pub(super) async fn act(&mut self, subject: usize) {
        let Some(life) = self.subjects[subject].life else {
            if self.subjects[subject].version > 0 && self.chance(60) {
                self.change_plan(subject, false).await;
            }
            return;
        };
        self.use_session(subject);
        let id = self.subjects[subject].id.clone();
        let Some(account) = self.store.accounts.get(&id).await.unwrap() else {
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
            // The deployment's setting changes for later purchases.
            (90..91, _) => {
                self.counts.other_settings += 1;
                self.subjects[subject].collection = self.any_collection();
            }
            _ => self.change_card_behaviour(customer.as_deref()),
        }
        if self.chance(85) {
            self.use_session(subject);
        }
    }

    /// Changes how the customer's cards behave.
    fn change_card_behaviour(&mut self, customer: Option<&str>) {
        let Some(customer) = customer else { return };
        let card = match self.dice.u8(..100) {
            0..70 => Card::Succeeds,
            70..84 => Card::DeclinesSoftly,
            84..90 => Card::DeclinesHard,
            90..94 => Card::NeedsAuthentication,
            _ => Card::DeclinesLater,
        };
        self.stripe().set_card(customer, card);
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
        self.stripe().script(customer, &script);
    }

    pub(super) fn route(
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

    pub(super) fn begin_act(&mut self, life: usize, what: What) -> Note {
        let acts = &mut self.lives[life].acts;
        acts.push(Act { what, began: self.system.clock.now(), over: None, answer: None });
        Note::Act { life, act: acts.len() - 1 }
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
            match session_of(&answer) {
                Some(session) => {
                    self.counts.checkouts += 1;
                    self.subjects[subject].sessions.push(session);
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
        if let Some(session) = self.session_from(job).await {
            self.counts.new_cards += 1;
            self.subjects[subject].sessions.push(session);
        }
    }

    async fn buy_credits(&mut self, subject: usize) {
        let usd = self.dice.u32(6..40).to_string();
        let body = json!({ "usd": usd });
        let job = self.route(subject, Method::POST, CREDITS_CHECKOUT, Some(body));
        if let Some(session) = self.session_from(job).await {
            self.counts.purchases += 1;
            self.subjects[subject].sessions.push(session);
        }
    }

    async fn session_from(&mut self, job: Job) -> Option<String> {
        let answer = self.work(job, 20, Note::Nothing).await?;
        session_of(&answer).filter(|_| answer.is_good())
    }

    /// The user pays in one of the open sessions, or closes it.
    fn use_session(&mut self, subject: usize) {
        let sessions = &mut self.subjects[subject].sessions;
        if sessions.is_empty() {
            return;
        }
        let place = self.dice.usize(..sessions.len());
        let session = sessions[place].clone();
        let card = match self.dice.u8(..100) {
            0..60 => Card::Succeeds,
            60..66 => Card::DeclinesLater,
            66..72 => Card::NeedsAuthentication,
            72..80 => Card::DeclinesSoftly,
            80..84 => Card::TimesOutAfterCharging,
            84..88 => Card::Processing,
            _ => {
                sessions.swap_remove(place);
                return;
            }
        };
        let pay = |card| {
            let stripe = self.stripe();
            if session.starts_with("in_") {
                stripe.pay_open_invoice(&session, card)
            } else {
                stripe.pay(&session, card).map(drop)
            }
        };
        let paid = pay(card);
        if paid.is_ok() {
            assert!(pay(Card::Succeeds).is_err(), "a session is paid once");
        }
        if paid.is_ok() {
            self.subjects[subject].sessions.retain(|known| *known != session);
        }
    }

    /// An operator grants credits.
    pub(super) async fn grant(&mut self, subject: usize, credits: i64) {
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
        if self.store.ledger.post(id, &posting).await.is_ok() {
            self.lives[life].granted += amount;
        }
    }

    /// Greta's core system reports the account's plan, or creates the account.
    pub(super) async fn change_plan(&mut self, subject: usize, enterprise: bool) {
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
            // Jobs that stalled while it was deleted do not matter: the new account is another one.
            self.deliver_account_event_now((subject, event, note)).await;
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
            self.deliver_account_event((subject, event, note)).await;
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
        self.deliver_account_event_now((subject, event, note)).await;
        self.subjects[subject].life = None;
        self.subjects[subject].sessions.clear();
    }

    /// Observes whether the account has access.
    pub(super) async fn observe_access(&mut self, subject: usize) {
        let id = &self.subjects[subject].id;
        let Some(life) = self.subjects[subject].life else {
            return;
        };
        let at = self.now();
        let account = self.store.accounts.get(id).await.unwrap();
        let policy =
            Policy { minimum_balance: Credits::ZERO, grace: SignedDuration::from_hours(8 * 24) };
        let is_entitled = |account: &account::Account| {
            let profile = &account.profile;
            entitled(profile.plan(), &profile.add_on, at, &policy)
        };
        self.counts.observations += 1;
        let status = account.as_ref().map(|it| it.profile.add_on.status());
        self.counts.suspended += usize::from(status == Some(AddOnStatus::Suspended));
        self.lives[life]
            .seen
            .push(Seen { at, entitled: account.as_ref().is_some_and(is_entitled) });
    }
}

/// The Checkout Session or invoice that a response links to.
pub(super) fn session_of(answer: &Answer) -> Option<String> {
    let url = answer.body["checkout_url"].as_str()?;
    Some(url.rsplit('/').next().unwrap_or_default().to_owned())
}
