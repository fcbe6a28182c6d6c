//! Histories that the rules themselves produce: a profile buys, is charged, cancelled, disputed and
//! moved between plans at random, and all facts about its add-on are then applied again in any
//! order.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops with a message")]

use std::collections::{BTreeMap, BTreeSet, HashMap};

use account::add_on::{Collection, Fact, GenerationId};
use account::billing::{AddOnPurchase, Session, Subscription};
use account::{AddOn, Period, Plan, Profile, period_at};
use billing::{CHECKOUT_LIFE, Dunning, RemoteStatus, Task};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde::Deserialize;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The add-on as stored.
#[derive(Deserialize)]
struct StoredAddOn {
    generations: BTreeMap<GenerationId, Generation>,
}

#[derive(Clone, Default, Deserialize)]
struct Generation {
    activation: Option<Activation>,
    last_paid: Option<Period>,
    last_declined: Option<Period>,
    last_grace_over: Option<Period>,
    last_period_over: Option<Period>,
    user_action: Option<UserAction>,
    refunded: BTreeSet<Period>,
    disputes: BTreeMap<String, Dispute>,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
struct Activation {
    anchor: Timestamp,
    collection: Collection,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
struct UserAction {
    counter: u64,
    did: Did,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Did {
    Cancel { while_due: Option<Period> },
    Resume { at: Timestamp },
}

#[derive(Clone, Default, Deserialize)]
struct Dispute {
    period: Option<Period>,
    closed: Option<DisputeEnd>,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
struct DisputeEnd {
    at: Timestamp,
    won: bool,
}

fn stored(add_on: &AddOn) -> StoredAddOn {
    serde_json::from_value(serde_json::to_value(add_on).unwrap()).unwrap()
}

/// Maximum number of plan events that are all kept, however late they arrive.
const MOST_PLANS: u64 = 12;

/// The next event; if it cannot happen, nothing does.
#[derive(Debug, Clone, Copy)]
enum Op {
    /// Hours pass, and due work is done, with this luck at Stripe.
    Work {
        hours: u16,
        luck: Luck,
    },
    /// The user buys, and gets a Checkout Session or pays with credits.
    Buy {
        collection: Collection,
    },
    /// The session is paid.
    Pay,
    Cancel,
    Resume,
    /// The plan changed a number of hours ago.
    Plan {
        plan: Plan,
        hours_ago: u8,
    },
    /// A refund made at Stripe.
    Refund {
        payment: usize,
    },
    Dispute {
        payment: usize,
    },
    Decide {
        dispute: usize,
        won: bool,
    },
    /// A payment is reported again.
    ReportAgain {
        payment: usize,
    },
}

/// The outcome of each call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Luck {
    Paid,
    Declined,
    DeclinedForGood,
    Unknown,
    NeverArrived,
    /// Stripe refuses the request, and the PaymentIntent is cancelled.
    Refused,
    /// The card is gone, and the PaymentIntent is cancelled.
    NoCard,
    /// Stripe only replays an earlier failure, and the PaymentIntent is cancelled.
    IdempotencyKeySpent,
}

/// An update about an account's add-on.
#[derive(Debug, Clone)]
enum Seen {
    Fact(Fact),
    Plan(Plan, u64, Timestamp),
}

struct Life {
    profile: Profile,
    now: Timestamp,
    applied: Vec<Seen>,
    /// The purchase of each Stripe object.
    objects: HashMap<String, (GenerationId, Period)>,
    paid: Vec<String>,
    disputes: Vec<(String, GenerationId)>,
    version: u64,
}

fn new_profile() -> Profile {
    Profile::new(Plan::Standard, 1, at("2026-01-01T00:00:00Z"))
}

/// The facts that lead from `before` to `after`, except plan changes.
fn facts_between(before: &AddOn, after: &AddOn) -> Vec<Fact> {
    let mut facts = Vec::new();
    let (before, after) = (stored(before), stored(after));
    for (id, now) in &after.generations {
        let known = before.generations.get(id).cloned().unwrap_or_default();
        let generation = || id.clone();
        if let Some(activation) = now.activation.filter(|it| known.activation != Some(*it)) {
            facts.push(Fact::Activated {
                generation: generation(),
                at: activation.anchor,
                collection: activation.collection,
            });
        }
        let raised = |now: Option<Period>, known| now.filter(|_| now != known);
        facts.extend(
            raised(now.last_paid, known.last_paid)
                .map(|period| Fact::Paid { generation: generation(), period }),
        );
        let declined = raised(now.last_declined, known.last_declined);
        facts.extend(declined.map(|period| Fact::Declined { generation: generation(), period }));
        let grace_over = raised(now.last_grace_over, known.last_grace_over);
        facts.extend(grace_over.map(|period| Fact::GraceOver { generation: generation(), period }));
        let period_over = raised(now.last_period_over, known.last_period_over);
        facts.extend(
            period_over.map(|period| Fact::PeriodOver { generation: generation(), period }),
        );
        let action = now.user_action.filter(|it| known.user_action != Some(*it));
        facts.extend(action.map(|UserAction { counter, did }| match did {
            Did::Cancel { while_due } => {
                Fact::Cancelled { generation: generation(), counter, while_due }
            }
            Did::Resume { at } => Fact::Resumed { generation: generation(), counter, at },
        }));
        let refunded = now.refunded.difference(&known.refunded);
        facts.extend(
            refunded
                .map(|period| Fact::RefundedInFull { generation: generation(), period: *period }),
        );
        for (name, dispute) in &now.disputes {
            let known = known.disputes.get(name).cloned().unwrap_or_default();
            let period = raised(dispute.period, known.period);
            facts.extend(period.map(|period| Fact::Disputed {
                generation: generation(),
                period,
                dispute: name.clone(),
            }));
            let closed = dispute.closed.filter(|it| known.closed != Some(*it));
            facts.extend(closed.map(|DisputeEnd { at, won }| Fact::DisputeClosed {
                generation: generation(),
                dispute: name.clone(),
                won,
                at,
            }));
        }
    }
    facts
}

impl Life {
    fn of(ops: &[Op]) -> Self {
        let mut life = Self {
            profile: new_profile(),
            now: at("2026-01-31T00:00:00Z"),
            applied: Vec::new(),
            objects: HashMap::new(),
            paid: Vec::new(),
            disputes: Vec::new(),
            version: 1,
        };
        for op in ops {
            life.apply_op(*op);
        }
        life
    }

    /// Changes the profile, and records the facts that this applied to the add-on.
    fn change<R>(&mut self, change: impl FnOnce(&mut Profile) -> R) -> R {
        let before = self.profile.add_on.clone();
        let result = change(&mut self.profile);
        let facts = facts_between(&before, &self.profile.add_on);
        self.applied.extend(facts.into_iter().map(Seen::Fact));
        result
    }

    fn new_name(&self, kind: &str) -> String {
        format!("{kind}_{}", self.applied.len() + self.objects.len())
    }

    fn apply_op(&mut self, op: Op) {
        let hours = |hours| SignedDuration::from_hours(i64::from(hours));
        let pick = |place: usize, many: usize| (many > 0).then(|| place % many);
        match op {
            Op::Work { hours: wait, luck } => {
                self.now += hours(wait);
                for _ in 0..6 {
                    let (now, dunning) = (self.now, Dunning::default());
                    let Some(task) =
                        self.change(|profile| billing::take_task(profile, now, &dunning))
                    else {
                        break;
                    };
                    self.carry_out(task, luck);
                }
            }
            Op::Buy { collection } => self.buy(collection),
            Op::Pay => self.pay(),
            Op::Cancel => drop(self.change(billing::cancel)),
            Op::Resume => {
                let now = self.now;
                self.change(|profile| billing::resume(profile, now));
            }
            Op::Plan { plan, hours_ago } => {
                if self.version < MOST_PLANS {
                    self.version += 1;
                    let at = self.now - hours(u16::from(hours_ago));
                    self.profile.apply_plan(plan, self.version, at);
                    self.applied.push(Seen::Plan(plan, self.version, at));
                }
            }
            Op::Refund { payment } => {
                if let Some(place) = pick(payment, self.paid.len()) {
                    let (generation, period) = self.objects[&self.paid[place]].clone();
                    let fact = Fact::RefundedInFull { generation, period };
                    self.change(|profile| profile.add_on.apply(fact));
                }
            }
            Op::Dispute { payment } => {
                if let Some(place) = pick(payment, self.paid.len()) {
                    let (generation, period) = self.objects[&self.paid[place]].clone();
                    let dispute = self.new_name("du");
                    self.disputes.push((dispute.clone(), generation.clone()));
                    let fact = Fact::Disputed { generation, period, dispute };
                    self.change(|profile| profile.add_on.apply(fact));
                }
            }
            Op::Decide { dispute, won } => {
                if let Some(place) = pick(dispute, self.disputes.len()) {
                    let (dispute, generation) = self.disputes[place].clone();
                    let fact = Fact::DisputeClosed { generation, dispute, won, at: self.now };
                    self.change(|profile| profile.add_on.apply(fact));
                }
            }
            Op::ReportAgain { payment } => {
                if let Some(place) = pick(payment, self.paid.len()) {
                    self.apply_paid(&self.paid[place].clone());
                }
            }
        }
    }

    fn buy(&mut self, collection: Collection) {
        let (now, order) = (self.now, self.new_name("ord"));
        let is_free = self.profile.billing.open_payments().is_empty();
        let Some(purchase) = billing::next_purchase(&self.profile).filter(|_| is_free) else {
            return;
        };
        if collection == Collection::Credits && purchase == AddOnPurchase::Generation {
            let generation = GenerationId::new(&order);
            let first = (generation.clone(), Period::FIRST);
            self.objects.insert(order, first);
            let _ = self
                .change(|profile| billing::activate(profile, generation, now, Collection::Credits));
            return;
        }
        let session = Session {
            id: order.replace("ord", "cs"),
            url: String::new(),
            expires_at: now + CHECKOUT_LIFE,
        };
        billing::begin_checkout(&mut self.profile, order.clone(), purchase, collection, now);
        assert!(billing::checkout_created(&mut self.profile, &order, session));
    }

    /// The open session is paid, whether or not that is still wanted.
    fn pay(&mut self) {
        let checkout = self.profile.billing.checkout.clone();
        let Some((purchase, session, collection)) =
            checkout.and_then(|it| Some((it.purchase, it.session?, it.collection)))
        else {
            return;
        };
        let now = self.now;
        match purchase {
            AddOnPurchase::Generation => {
                let generation = GenerationId::new(&session.id);
                let first = (generation.clone(), Period::FIRST);
                self.objects.insert(session.id.clone(), first);
                let subscription =
                    Subscription::new(format!("sub_{}", session.id), generation.clone());
                self.paid.push(session.id);
                let activated =
                    self.change(|profile| billing::activate(profile, generation, now, collection));
                if activated && collection == Collection::Provider {
                    self.profile.billing.subscription = Some(subscription);
                }
            }
            AddOnPurchase::Period { generation, period } => {
                self.objects.insert(session.id.clone(), (generation, period));
                self.apply_paid(&session.id);
            }
        }
    }

    fn apply_paid(&mut self, object: &str) {
        let (generation, period) = self.objects[object].clone();
        self.paid.push(object.to_owned());
        let _ = self.change(|profile| billing::period_paid(profile, &generation, period, object));
    }

    /// Only the current period is charged.
    fn assert_current(&self, task: &Task) {
        if let Task::Create { period, .. }
        | Task::Confirm { period, .. }
        | Task::TakeCredits { period, .. } = task
        {
            let anchor = self.profile.add_on.anchor().unwrap();
            assert_eq!(*period, period_at(anchor, self.now), "{task:?}");
        }
    }

    fn carry_out(&mut self, task: Task, luck: Luck) {
        let now = self.now;
        let is_collected = match task {
            Task::Create { .. } | Task::Confirm { .. } => Some(Collection::Card),
            Task::TakeCredits { .. } => Some(Collection::Credits),
            Task::CheckSubscription { .. } | Task::UpdateSubscription { .. } => {
                Some(Collection::Provider)
            }
            Task::LookUp { .. }
            | Task::Cancel { .. }
            | Task::ExpireCheckout { .. }
            | Task::CancelSubscription { .. } => None,
        };
        if is_collected.is_some() {
            // An account has only one collection method.
            assert_eq!(self.profile.add_on.collection(), is_collected, "{task:?}");
        }
        self.assert_current(&task);
        match task {
            Task::Create { generation, period, .. } => {
                let id = self.new_name("pi");
                let of = (generation.clone(), period);
                self.objects.insert(id.clone(), of);
                let made = |profile: &mut Profile| {
                    billing::intent_created(profile, &generation, period, &id, now)
                };
                match luck {
                    // No PaymentIntent is created.
                    Luck::Refused | Luck::NoCard | Luck::IdempotencyKeySpent => {
                        self.failed(None, luck);
                    }
                    _ => {
                        if let Some(attempt) = self.change(made) {
                            self.attempted(&id, attempt, luck);
                        }
                    }
                }
            }
            Task::Confirm { id, attempt, .. } => self.attempted(&id, attempt, luck),
            Task::LookUp { id, .. } => {
                let charge = self.profile.billing.charge.as_ref();
                let attempt = charge.map_or(1, |charge| charge.declines + 1);
                self.attempted(&id, attempt, luck);
            }
            Task::Cancel { id } if luck == Luck::Paid => self.apply_paid(&id),
            Task::Cancel { id } => self.change(|profile| billing::intent_cancelled(profile, &id)),
            Task::ExpireCheckout { .. } if luck == Luck::Paid => self.pay(),
            Task::ExpireCheckout { session } => {
                self.change(|profile| billing::checkout_closed(profile, &session));
            }
            Task::CheckSubscription { subscription } => {
                let generation = self.profile.add_on.generation().unwrap().clone();
                let period = self.profile.add_on.last_paid().unwrap().next();
                let before = self.profile.billing.clone();
                assert!(before.has_subscription(&subscription));
                let over = luck == Luck::DeclinedForGood;
                let remote_status = if over {
                    RemoteStatus::Over
                } else {
                    RemoteStatus::Runs { ends: luck == Luck::NeverArrived }
                };
                match luck {
                    Luck::Paid => {
                        let id = self.new_name("in");
                        self.objects.insert(id.clone(), (generation, period));
                        self.apply_paid(&id);
                    }
                    Luck::Declined => {
                        self.change(|profile| {
                            billing::collection_failed(profile, &generation, period);
                        });
                    }
                    _ => {}
                }
                self.change(|profile| {
                    billing::apply_remote_status(profile, &before, remote_status, now);
                });
            }
            Task::UpdateSubscription { subscription, ends } => match luck {
                Luck::Unknown => self.change(|profile| billing::postpone(profile, now)),
                Luck::DeclinedForGood => {
                    self.change(|profile| billing::subscription_ended(profile, &subscription));
                }
                _ => self
                    .change(|profile| billing::subscription_updated(profile, &subscription, ends)),
            },
            Task::CancelSubscription { subscription } => {
                self.change(|profile| billing::subscription_ended(profile, &subscription));
            }
            Task::TakeCredits { generation, period, attempt } => {
                let id = format!("{}-{}", generation.as_str(), period.number());
                self.objects.insert(id.clone(), (generation, period));
                if luck == Luck::Paid {
                    self.apply_paid(&id);
                } else {
                    let dunning = Dunning::default();
                    self.change(|profile| {
                        billing::declined(profile, None, attempt, false, now, &dunning);
                    });
                }
            }
        }
    }

    fn failed(&mut self, id: Option<&str>, luck: Luck) {
        let (now, dunning) = (self.now, Dunning::default());
        self.change(|profile| match luck {
            Luck::Refused => billing::attempt_refused(profile, id, now, &dunning),
            Luck::NoCard => {
                let card = profile.billing.payment_method();
                billing::card_missing(profile, id, card.as_deref(), now);
            }
            _ => billing::retry_with_new_intent(profile, id, now + SignedDuration::from_mins(5)),
        });
    }

    fn attempted(&mut self, id: &str, attempt: u32, luck: Luck) {
        let (now, dunning) = (self.now, Dunning::default());
        match luck {
            Luck::Paid => self.apply_paid(id),
            Luck::Declined | Luck::DeclinedForGood => {
                let no_more = luck == Luck::DeclinedForGood;
                self.change(|profile| {
                    billing::declined(profile, Some(id), attempt, no_more, now, &dunning);
                });
            }
            Luck::Refused | Luck::NoCard | Luck::IdempotencyKeySpent => self.failed(Some(id), luck),
            Luck::Unknown => self.change(|profile| billing::still_unknown(profile, id, now)),
            Luck::NeverArrived => {
                let _ = self.change(|profile| billing::never_confirmed(profile, id, now));
            }
        }
    }
}

fn luck() -> impl Strategy<Value = Luck> {
    prop_oneof![
        4 => Just(Luck::Paid),
        3 => Just(Luck::Declined),
        1 => Just(Luck::DeclinedForGood),
        1 => Just(Luck::Unknown),
        1 => Just(Luck::NeverArrived),
        1 => Just(Luck::Refused),
        1 => Just(Luck::NoCard),
        1 => Just(Luck::IdempotencyKeySpent),
    ]
}

fn collection() -> impl Strategy<Value = Collection> {
    prop_oneof![
        2 => Just(Collection::Card),
        1 => Just(Collection::Credits),
        1 => Just(Collection::Provider),
    ]
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let plan = prop_oneof![Just(Plan::Standard), Just(Plan::Enterprise)];
    let op = prop_oneof![
        8 => (0..900_u16, luck()).prop_map(|(hours, luck)| Op::Work { hours, luck }),
        3 => collection().prop_map(|collection| Op::Buy { collection }),
        4 => Just(Op::Pay),
        2 => Just(Op::Cancel),
        1 => Just(Op::Resume),
        1 => (plan, 0..100_u8).prop_map(|(plan, hours_ago)| Op::Plan { plan, hours_ago }),
        1 => any::<usize>().prop_map(|payment| Op::Refund { payment }),
        1 => any::<usize>().prop_map(|payment| Op::Dispute { payment }),
        1 => any::<(usize, bool)>().prop_map(|(dispute, won)| Op::Decide { dispute, won }),
        1 => any::<usize>().prop_map(|payment| Op::ReportAgain { payment }),
    ];
    prop::collection::vec(op, 0..40)
}

fn apply_to_new_account(applied: &[Seen]) -> AddOn {
    let mut profile = new_profile();
    for applied in applied {
        match applied.clone() {
            Seen::Fact(fact) => profile.add_on.apply(fact),
            Seen::Plan(plan, version, at) => profile.apply_plan(plan, version, at),
        }
    }
    profile.add_on
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn facts_can_be_applied_in_any_order_and_twice(
        (add_on, shuffled) in ops().prop_flat_map(|ops| {
            let life = Life::of(&ops);
            let twice = [life.applied.clone(), life.applied].concat();
            (Just(life.profile.add_on), Just(twice).prop_shuffle())
        }),
    ) {
        let again = apply_to_new_account(&shuffled);
        prop_assert_eq!(again.status(), add_on.status());
        prop_assert_eq!(again, add_on);
    }
}

/// The test above covers every state and every fact.
#[test]
fn the_histories_reach_every_state_through_every_fact() {
    let mut runner = TestRunner::deterministic();
    let (mut states, mut facts) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..1_000 {
        let ops = ops().new_tree(&mut runner).unwrap().current();
        let life = Life::of(&ops);
        states.insert(format!("{:?}", life.profile.add_on.status()));
        facts.extend(life.applied.iter().map(|applied| match applied {
            Seen::Fact(fact) => {
                let shown = format!("{fact:?}");
                shown.split(' ').next().unwrap().to_owned()
            }
            Seen::Plan(plan, ..) => format!("{plan:?}"),
        }));
    }
    assert_eq!(states.len(), 6, "{states:?}");
    // Ten facts, and two plans.
    assert_eq!(facts.len(), 12, "{facts:?}");
}
