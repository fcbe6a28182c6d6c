//! From due accounts to charges: the tick queues, the worker charges.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::AttributeValue::S;
use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use local::engines::SecretsFault;
use local::queue::{self, Drained, ReceivedMessage};
use serde_json::{Value, json};

use crate::support::World;
use crate::wire::Fault;

const MONTH: SignedDuration = SignedDuration::from_hours(31 * 24);
/// Longer than a queued account is left alone.
const LATER: SignedDuration = SignedDuration::from_mins(16);

impl World {
    /// A system with this many accounts whose add-on is due within a month.
    pub(crate) async fn with_due(accounts: usize) -> Self {
        let world = Self::start().await;
        let set = (0..accounts).map(|number| {
            let (world, id) = (&world, format!("acme-{number}-"));
            async move { world.set(&id, json!({"add_on": "active"})).await }
        });
        stream::iter(set).buffer_unordered(16).count().await;
        // Deliver the domain events of that now, so that none fails later.
        assert_eq!(world.plan_at(world.system.clock.now()).await, (0, 0));
        world
    }

    /// In a month, when all are due, plus `more`.
    pub(crate) fn due_in(&self, more: SignedDuration) -> Timestamp {
        self.system.clock.now() + MONTH + more
    }

    /// A tick without the worker: how many accounts it queued, and its errors.
    pub(crate) async fn plan_at(&self, time: Timestamp) -> (u64, u64) {
        let report = self.system.monthly_charge(&json!({ "time": time })).await;
        let report = report.unwrap();
        let count = |name: &str| report[name].as_u64().unwrap();
        (count("queued"), count("errors"))
    }

    async fn take(&self) -> Vec<ReceivedMessage> {
        self.system.queue.consumer.receive().await
    }

    /// The messages that the worker leaves in the queue.
    async fn work(&self, event: &Value) -> Vec<String> {
        let answer = self.system.monthly_charge(event).await.unwrap();
        let failures = answer["batchItemFailures"].as_array().unwrap().iter();
        failures.map(|failure| failure["itemIdentifier"].as_str().unwrap().to_owned()).collect()
    }

    /// Everyone was charged once, and the system agrees.
    pub(crate) async fn assert_charged_once(&self, accounts: usize) {
        let payments = self.stripe().payments();
        assert_eq!(payments.len(), accounts);
        let payers: BTreeSet<_> = payments.iter().map(|payment| &payment.customer).collect();
        assert_eq!(payers.len(), accounts);
        assert!(payments.iter().all(|payment| payment.refunded == 0));
        self.stripe().webhooks.until_delivered().await;
        let (queued, errors) = self.plan_at(self.due_in(LATER)).await;
        assert_eq!((queued, errors), (0, 0), "nothing is due any more");
    }

    /// An overdue row of the due index, in the shard of `acme`.
    async fn put_due_row(&self, id: &str, item: &str, profile: bool) {
        let shard = store::shard_of("acme");
        let row = [
            ("account_id", id),
            ("item", item),
            ("due_shard", &format!("billing#{shard}")),
            ("due_at", "2000-01-01T00:00:00.000000Z"),
            ("profile", "unreadable"),
        ];
        let row = row.into_iter().filter(|it| profile || it.0 != "profile");
        let row = row.map(|(name, value)| (name.to_owned(), S(value.to_owned())));
        let put = self.engines().dynamodb().put_item();
        let put = put.table_name(&self.system.tables.accounts);
        put.set_item(Some(row.collect())).send().await.unwrap();
    }
}

/// The accounts that a message names.
fn named(message: &ReceivedMessage) -> Vec<String> {
    let body: Value = serde_json::from_str(message.record["body"].as_str().unwrap()).unwrap();
    serde_json::from_value(body["account_ids"].clone()).unwrap()
}

#[tokio::test]
async fn a_message_names_at_most_25_accounts() {
    let world = World::with_due(60).await;
    assert_eq!(world.plan_at(world.due_in(SignedDuration::ZERO)).await, (60, 0));
    let taken = world.take().await;
    let sizes: Vec<_> = taken.iter().map(|message| named(message).len()).collect();
    assert_eq!(sizes, [25, 25, 10]);
    let everyone: BTreeSet<_> = taken.iter().flat_map(named).collect();
    assert_eq!(everyone.len(), 60);
}

/// Accounts that the workers cannot reach in time wait in the index.
#[tokio::test]
async fn a_full_queue_gets_no_more_messages() {
    let world = World::with_due(30).await;
    // The queue holds all but one message's share of 600 seconds' work.
    let deps = world.monthly_charge(&[("STRIPE_REQUESTS_PER_SECOND", "1")]);
    let url = world.system.queue.url();
    for _ in 0..23 {
        let sent = deps.queue.send_message().queue_url(url).message_body("{}");
        sent.send().await.unwrap();
    }
    let time = world.due_in(SignedDuration::ZERO);
    let planned = async || monthly_charge::tick(&deps, time, |_| false).await.queued;
    let first = planned().await;
    assert!((1..=16).contains(&first), "one of each shard: {first}");
    assert_eq!(planned().await, 0, "the queue is full");
    world.take().await;
    let second = planned().await;
    assert!(second > 0, "planning continues");
    world.wire.disturb("GetQueueAttributes", Fault::NeverArrives, 1);
    assert_eq!(world.plan_at(time).await, (0, 1));
    assert_eq!(world.plan_at(time).await.0, 30 - u64::from(first + second));
}

/// The queue delivers at least once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_delivered_twice_charges_once() {
    let world = World::with_due(10).await;
    world.plan_at(world.due_in(SignedDuration::ZERO)).await;
    let taken = world.take().await;
    let event = queue::event(&taken);
    let thrice = (0..3).map(|_| world.work(&event));
    assert_eq!(join_all(thrice).await, [[""; 0]; 3], "at once");
    assert_eq!(world.work(&event).await, [""; 0], "and once more");
    world.system.queue.consumer.put_back(&taken[0]).await;
    assert_eq!(world.system.drain_queue().await, Drained::default());
    world.assert_charged_once(10).await;
}

#[tokio::test]
async fn accounts_of_a_lost_message_are_queued_again() {
    let world = World::with_due(30).await;
    let time = world.due_in(SignedDuration::ZERO);
    assert_eq!(world.plan_at(time).await, (30, 0));
    let lost = world.take().await;
    assert_eq!(lost.len(), 2);
    let soon = time + SignedDuration::from_mins(14);
    assert_eq!(world.plan_at(soon).await, (0, 0), "the message may just be late");
    assert_eq!(world.plan_at(time + LATER).await, (30, 0));
    let drained = world.system.drain_queue().await;
    assert_eq!(drained.report.charged, 30);
    // The lost messages turn up after all.
    assert_eq!(world.work(&queue::event(&lost)).await, [""; 0]);
    world.assert_charged_once(30).await;
}

/// One account's failure affects no other account.
#[tokio::test]
async fn only_a_failing_accounts_message_stays() {
    let world = World::with_due(60).await;
    world.plan_at(world.due_in(SignedDuration::ZERO)).await;
    let taken = world.take().await;
    let victim = named(&taken[1])[7].clone();
    world.wire.refuse_about(Some(&victim));
    let event = queue::event(&taken);
    assert_eq!(world.work(&event).await, [taken[1].message_id()]);
    assert_eq!(world.stripe().payments().len(), 59);
    assert_eq!(
        world.work(&queue::event([&taken[1]])).await,
        [taken[1].message_id()],
        "while it fails"
    );
    world.wire.refuse_about(None);
    assert_eq!(world.work(&event).await, [""; 0]);
    world.assert_charged_once(60).await;
}

/// Without Stripe's key nothing can be charged: the message fails until its alarm fires.
#[tokio::test]
async fn an_unreadable_stripe_key_fails_the_message() {
    let world = World::with_due(1).await;
    assert_eq!(world.plan_at(world.due_in(SignedDuration::ZERO)).await, (1, 0));
    let taken = world.take().await;
    let event = queue::event(&taken);
    world.engines().fail_secrets(Some("GetSecretValue"), SecretsFault::AccessDenied);
    assert_eq!(world.work(&event).await, [taken[0].message_id()]);
    assert_eq!(world.stripe().payments().len(), 0);
    world.engines().heal_secrets();
    // Once the failed worker's claim on the account has ended.
    world.system.clock.advance(SignedDuration::from_mins(3));
    assert_eq!(world.work(&event).await, [""; 0]);
    world.assert_charged_once(1).await;
}

/// The local queue gives up on a message that keeps failing, and the index brings its account back.
#[tokio::test]
async fn a_message_is_not_retried_forever() {
    let world = World::with_due(30).await;
    let time = world.due_in(SignedDuration::ZERO);
    world.wire.refuse_about(Some("acme-3-"));
    // The account cannot even be claimed.
    assert_eq!(world.plan_at(time).await, (29, 1));
    assert_eq!(world.system.drain_queue().await.report.charged, 29);
    world.wire.refuse_about(None);
    assert_eq!(world.plan_at(time).await, (1, 0));
    world.wire.refuse_about(Some("acme-3-"));
    let drained = world.system.drain_queue().await;
    assert_eq!((drained.report.charged, drained.dead_letters), (0, 1));
    world.wire.refuse_about(None);
    assert_eq!(world.plan_at(time + LATER).await, (1, 0));
    assert_eq!(world.system.drain_queue().await.report.charged, 1);
    world.assert_charged_once(30).await;
}

#[tokio::test]
async fn accounts_the_queue_rejects_are_queued_again() {
    let world = World::with_due(60).await;
    let time = world.due_in(SignedDuration::ZERO);
    world.system.queue.reject(2);
    assert_eq!(world.plan_at(time).await, (10, 2), "two messages");
    assert_eq!(world.system.drain_queue().await.report.charged, 10);
    world.wire.disturb("SendMessageBatch", Fault::NeverArrives, 1);
    assert_eq!(world.plan_at(time + LATER).await, (0, 2), "no message");
    // Queued, although the response was lost.
    world.wire.disturb("SendMessageBatch", Fault::ResponseLost, 1);
    assert_eq!(world.plan_at(time + LATER * 2).await, (0, 2));
    assert_eq!(world.plan_at(time + LATER * 2).await, (0, 0));
    assert_eq!(world.plan_at(time + LATER * 3).await, (50, 0));
    // Of two concurrent messages about an account, both can see that it is paid.
    assert!(world.system.drain_queue().await.report.charged >= 50);
    world.assert_charged_once(60).await;
}

/// One unreadable account blocks no other.
#[tokio::test]
async fn unreadable_rows_and_accounts_block_no_others() {
    let world = World::with_due(30).await;
    world.put_due_row("not an account", "account", false).await;
    world.put_due_row("acme", "something else", false).await;
    world.put_due_row("broken", "account", true).await;
    let time = world.due_in(SignedDuration::ZERO);
    assert_eq!(world.plan_at(time).await, (31, 2));
    let drained = world.system.drain_queue().await;
    assert_eq!((drained.report.charged, drained.dead_letters), (30, 1));
}

#[tokio::test]
async fn an_unreadable_message_stays_and_the_others_are_processed() {
    let world = World::with_due(2).await;
    let time = world.due_in(SignedDuration::ZERO);
    let sent = world.system.clock.now().as_millisecond().to_string();
    let record = |id: &str, body: &str| json!({"messageId": id, "body": body, "attributes": {"SentTimestamp": sent}});
    let good = json!({"time": time, "account_ids": ["acme-0-", "acme-1-", "nobody"]});
    let bad = json!({"time": time, "account_ids": ["acme 0"]});
    let event = json!({"Records": [
        record("text", "nonsense"),
        record("good", &good.to_string()),
        record("id", &bad.to_string()),
        record("empty", "{}"),
    ]});
    assert_eq!(world.work(&event).await, ["text", "id", "empty"]);
    assert_eq!(world.stripe().payments().len(), 2);
    // An event that is neither a tick nor a batch is an error as a whole.
    for event in [json!({"Records": [{"body": "{}"}]}), json!({})] {
        assert!(world.system.monthly_charge(&event).await.is_err());
    }
}

/// The worker's time is the tick's, plus the time that the message waited.
#[tokio::test]
async fn a_delayed_message_is_processed_at_its_own_time() {
    let (minutes, seconds) = (SignedDuration::from_mins, SignedDuration::from_secs);
    let table = [
        // How long before it is due the account is queued, how long the message waits, and the
        // charges after that.
        (minutes(1), seconds(59), 0),
        (minutes(10), seconds(599), 0),
        (minutes(10), seconds(600), 1),
        (minutes(0), minutes(-60), 1),
    ];
    for (early, waited, charged) in table {
        let world = World::with_due(1).await;
        let account = world.system.account("acme-0-").await;
        let due = billing::due_at(&account.profile).unwrap();
        let body = json!({"time": due - early, "account_ids": ["acme-0-"]});
        let sent = world.system.clock.now() - waited;
        let attributes = json!({"SentTimestamp": sent.as_millisecond().to_string()});
        let record = json!({"messageId": "1", "body": body.to_string(), "attributes": attributes});
        assert_eq!(world.work(&json!({"Records": [record]})).await, [""; 0]);
        let payments = world.stripe().payments().len();
        assert_eq!(payments, charged, "{early} before, waited {waited}");
    }
}
