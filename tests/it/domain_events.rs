//! Domain events: written with the change that they report, and delivered until accepted.

mod credits_low;
mod schema;

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::AttributeValue::{self, S};
use http::Method;
use jiff::{SignedDuration, Timestamp};
use local::openrouter::KeyBehaviour;
use local::stripe::Card;
use serde_json::{Value, json};

use crate::support::{KEY, World};
use crate::wire::Fault;

const ROUTE: &str = "/v1/integrations/openrouter/subscription";
const TRANSACTION: &str = "TransactWriteItems";
const DAY: SignedDuration = SignedDuration::from_hours(24);
const NOW: SignedDuration = SignedDuration::ZERO;

fn minutes(minutes: i64) -> SignedDuration {
    SignedDuration::from_mins(minutes)
}

impl World {
    /// Advances the clock and runs a billing tick.
    async fn tick_later(&self, time: SignedDuration) -> Value {
        self.system.clock.advance(time);
        self.tick_in(NOW).await
    }

    async fn tick_at_next_period(&self) -> Value {
        let card = self.owner("acme").card().await;
        let due = card["add_on"]["paid_through"].as_str().unwrap();
        let due: Timestamp = due.parse().unwrap();
        let wait = due.duration_since(self.system.clock.now());
        self.tick_later(wait + SignedDuration::from_secs(1)).await
    }

    async fn subscription(&self, method: Method) -> Value {
        let owner = self.owner("acme");
        let reply = self.send(owner.request(method, ROUTE)).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    }

    async fn buy(&self, card: Card) {
        let answer = self.subscription(Method::POST).await;
        let url = answer["checkout_url"].as_str().unwrap();
        let stripe = self.stripe();
        stripe.pay(url.rsplit('/').next().unwrap(), card).unwrap();
        stripe.webhooks.until_delivered().await;
    }

    fn set_card(&self, card: Card) {
        let payments = self.stripe().payments();
        let customer = payments[0].customer.clone().unwrap();
        self.stripe().set_card(&customer, card);
    }

    /// The kinds of the events on the bus, in order.
    pub(crate) fn sent(&self) -> Vec<String> {
        let kind = |event: &Value| event["detail-type"].as_str().unwrap().to_owned();
        self.system.domain_events().iter().map(kind).collect()
    }

    /// The details of the events of this kind on the bus.
    pub(crate) fn sent_of(&self, kind: &str) -> Vec<Value> {
        let events = self.system.domain_events().into_iter();
        let of_kind = events.filter(|event| event["detail-type"] == kind);
        of_kind.map(|event| event["detail"].clone()).collect()
    }

    /// The ids of the undelivered events.
    async fn undelivered(&self, account: &str) -> Vec<String> {
        let found = self
            .engines()
            .dynamodb()
            .query()
            .table_name(&self.system.tables.accounts)
            .key_condition_expression("account_id = :id AND begins_with(#item, :event)")
            .expression_attribute_names("#item", "item")
            .expression_attribute_values(":id", S(account.to_owned()))
            .expression_attribute_values(":event", S("event#".to_owned()))
            .send();
        let items = found.await.unwrap().items.unwrap();
        let id = |item: &std::collections::HashMap<String, AttributeValue>| {
            let name = item["item"].as_s().unwrap();
            name.strip_prefix("event#").unwrap().to_owned()
        };
        items.iter().map(id).collect()
    }

    /// Puts a row into the accounts table that the product would not write.
    async fn put_row(&self, row: &[(&str, &str)]) {
        let item = row.iter().map(|(name, value)| ((*name).to_owned(), S((*value).to_owned())));
        let put = self.engines().dynamodb().put_item();
        let put = put.table_name(&self.system.tables.accounts);
        put.set_item(Some(item.collect())).send().await.unwrap();
    }
}

/// A system with an account that has just bought the add-on, and whose event is delivered.
async fn bought() -> World {
    let world = World::start().await;
    world.set("acme", json!({"credits": "7"})).await;
    world.buy(Card::Succeeds).await;
    assert_eq!(world.tick_in(NOW).await["errors"], 0);
    assert_eq!(world.sent(), ["add_on.activated"]);
    world
}

#[tokio::test]
async fn each_change_of_the_add_on_is_sent_once() {
    let world = bought().await;
    world.set_card(Card::DeclinesSoftly);
    world.tick_at_next_period().await;
    for _ in 0..8 {
        world.tick_later(DAY).await;
    }
    world.buy(Card::Succeeds).await;
    world.tick_in(NOW).await;
    // A month is paid, and a past-due one: neither is an event.
    world.tick_at_next_period().await;
    world.set_card(Card::DeclinesHard);
    world.tick_at_next_period().await;
    world.buy(Card::Succeeds).await;
    world.tick_in(NOW).await;
    world.subscription(Method::DELETE).await;
    world.subscription(Method::POST).await;
    world.subscription(Method::DELETE).await;
    world.tick_at_next_period().await;
    assert_eq!(world.tick_later(DAY).await["errors"], 0);
    let expected = [
        "add_on.activated",
        "add_on.past_due",
        "add_on.suspended",
        "add_on.activated",
        "add_on.past_due",
        "add_on.ended",
    ];
    assert_eq!(world.sent(), expected);
    assert_eq!(world.undelivered("acme").await, Vec::<String>::new());

    // The events contain what an email needs.
    let time = |value: &Value| value.as_str().unwrap().parse::<Timestamp>().unwrap();
    let activated = world.sent_of("add_on.activated");
    assert_eq!(activated[0]["next_charge_at"], activated[0]["paid_through"]);
    let past_due = world.sent_of("add_on.past_due");
    let due = time(&past_due[0]["paid_through"]);
    assert_eq!(time(&past_due[0]["next_attempt_at"]), due + DAY);
    assert_eq!(time(&past_due[0]["access_until"]), due + DAY * 8);
    assert!(time(&past_due[0]["at"]) >= due);
    assert_eq!(past_due[1]["next_attempt_at"], Value::Null, "a hard decline");
    assert_eq!(world.sent_of("add_on.suspended")[0]["reason"], "unpaid");
    assert_eq!(world.sent_of("add_on.ended")[0]["reason"], "cancelled");
    let mut ids: Vec<_> = world.system.domain_events();
    ids.sort_by_key(|event| event["detail"]["id"].to_string());
    ids.dedup_by_key(|event| event["detail"]["id"].to_string());
    assert_eq!(ids.len(), expected.len(), "each has its own id");
}

#[tokio::test]
async fn every_way_to_change_the_add_on_sends_events() {
    let world = World::start().await;
    world.set("acme", json!({"add_on": "active"})).await;
    world.set("acme", json!({"add_on": "past_due"})).await;
    world.set("acme", json!({"add_on": "suspended"})).await;
    world.set("acme", json!({"add_on": "ended"})).await;
    world.set("acme", json!({"add_on": "active"})).await;
    let enterprise = json!({"account_id": "acme", "plan": "enterprise", "version": 9});
    world.account_event("account.upserted", enterprise).await;
    world.tick_in(NOW).await;
    let expected = [
        "add_on.activated",
        "add_on.past_due",
        "add_on.suspended",
        "add_on.ended",
        "add_on.activated",
        "add_on.ended",
    ];
    assert_eq!(world.sent(), expected);
    let reasons = world.sent_of("add_on.ended");
    assert_eq!(
        (&reasons[0]["reason"], &reasons[1]["reason"]),
        (&json!("cancelled"), &json!("plan_changed"))
    );
}

#[tokio::test]
async fn a_rejected_key_is_reported_once() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "7").await;
    world.openrouter().set_key(KEY, KeyBehaviour::Rejected);
    for _ in 0..3 {
        owner.say_hello().await;
    }
    world.tick_in(NOW).await;
    world.tick_in(minutes(1)).await;
    assert_eq!(world.sent(), ["key.rejected"]);
    let text = world.system.domain_events()[0].to_string();
    assert!(!text.contains("sk-or"), "{text}");
}

/// The write that stores the event is lost before or after it takes effect, or is sent twice.
#[tokio::test]
async fn a_failed_write_makes_no_second_event() {
    use Fault::{Conflict, NeverArrives, Repeated, ResponseLost, Throttled};
    for fault in [ResponseLost, Repeated, NeverArrives, Throttled, Conflict] {
        let world = bought().await;
        world.set_card(Card::DeclinesHard);
        world.wire.disturb("UpdateItem", fault, 1);
        world.wire.disturb(TRANSACTION, fault, 1);
        world.tick_at_next_period().await;
        for operation in ["UpdateItem", TRANSACTION] {
            world.wire.disturb(operation, fault, 0);
        }
        for _ in 0..3 {
            world.tick_later(minutes(10)).await;
        }
        assert_eq!(world.sent(), ["add_on.activated", "add_on.past_due"], "{fault:?}");
        // The same for a payment that Stripe reports.
        world.tick_later(DAY * 9).await;
        let answer = world.subscription(Method::POST).await;
        let url = answer["checkout_url"].as_str().unwrap();
        let session = url.rsplit('/').next().unwrap();
        world.wire.disturb(TRANSACTION, fault, 2);
        world.stripe().pay(session, Card::Succeeds).unwrap();
        world.stripe().webhooks.until_delivered().await;
        world.wire.disturb(TRANSACTION, fault, 0);
        for event in world.stripe().webhooks.events() {
            world.stripe().webhooks.deliver(&event).await.unwrap();
        }
        world.tick_later(minutes(10)).await;
        let expected =
            ["add_on.activated", "add_on.past_due", "add_on.suspended", "add_on.activated"];
        assert_eq!(world.sent(), expected, "{fault:?}");
    }
}

/// Events of one account stay in order.
#[tokio::test]
async fn an_accounts_events_stay_in_order() {
    let world = World::start().await;
    world.system.bus.throttle(Some("add_on.activated"));
    world.set("acme", json!({"add_on": "active"})).await;
    assert_eq!(world.tick_in(NOW).await["errors"], 1);
    world.set("acme", json!({"add_on": "past_due"})).await;
    world.set("acme", json!({"add_on": "ended"})).await;
    world.set("other", json!({"add_on": "past_due"})).await;
    assert_eq!(world.tick_in(NOW).await["errors"], 0);
    assert_eq!(world.sent().len(), 1, "the other account does not wait");
    world.system.bus.heal();
    world.tick_in(minutes(2)).await;
    let acme = world.system.domain_events().into_iter();
    let acme = acme.filter(|event| event["detail"]["account_id"] == "acme");
    let kinds: Vec<_> = acme.map(|event| event["detail-type"].clone()).collect();
    assert_eq!(kinds, ["add_on.activated", "add_on.past_due", "add_on.ended"]);
}

/// The bus accepted it but the response was lost: it is sent again as the same event.
#[tokio::test]
async fn duplicates_are_the_same_event() {
    use Fault::{NeverArrives, Repeated, ResponseLost};
    let table = [
        ("PutEvents", ResponseLost, 2),
        ("PutEvents", Repeated, 2),
        ("PutEvents", NeverArrives, 1),
        // Accepted by the bus, but still in the outbox.
        ("DeleteItem", NeverArrives, 2),
        ("DeleteItem", ResponseLost, 1),
        // The claim may or may not have been stored.
        ("UpdateItem", ResponseLost, 1),
        ("UpdateItem", NeverArrives, 1),
        ("Query", NeverArrives, 1),
    ];
    for (operation, fault, times) in table {
        let world = World::start().await;
        world.set("acme", json!({"add_on": "active"})).await;
        world.wire.disturb(operation, fault, 1);
        world.tick_in(NOW).await;
        world.wire.disturb(operation, fault, 0);
        assert_eq!(world.tick_in(minutes(10)).await["errors"], 0);
        assert_eq!(world.undelivered("acme").await, Vec::<String>::new());
        let sent = world.sent_of("add_on.activated");
        assert_eq!(sent.len(), times, "{operation} {fault:?}");
        assert!(sent.iter().all(|detail| *detail == sent[0]), "{sent:?}");
    }
}

#[tokio::test]
async fn many_events_are_delivered_once() {
    let world = World::start().await;
    for number in 0..23 {
        let account = format!("acme-{number}");
        world.set(&account, json!({"add_on": "active"})).await;
        world.set(&account, json!({"add_on": "ended"})).await;
    }
    world.wire.take();
    // Two concurrent ticks.
    let reports = tokio::join!(world.tick_in(NOW), world.tick_in(NOW));
    assert_eq!((&reports.0["errors"], &reports.1["errors"]), (&json!(0), &json!(0)));
    world.tick_in(minutes(10)).await;
    let mut sent = BTreeMap::<String, Vec<String>>::new();
    for event in world.system.domain_events() {
        let account = event["detail"]["account_id"].as_str().unwrap().to_owned();
        let kind = event["detail-type"].as_str().unwrap().to_owned();
        sent.entry(account).or_default().push(kind);
    }
    assert_eq!(sent.len(), 23);
    for (account, kinds) in sent {
        assert_eq!(kinds, ["add_on.activated", "add_on.ended"], "{account}");
    }
}

/// Unreadable rows are reported and block no others.
#[tokio::test]
async fn unreadable_rows_block_no_other_events() {
    let world = World::start().await;
    world.set("acme", json!({"add_on": "active"})).await;
    // They fill the front of the account's shard under one name; another one is in the account's
    // own outbox.
    let shard = format!("event#{}", store::shard_of("acme"));
    for number in 0..260 {
        let id = format!("not an account {number}");
        let row = [
            ("account_id", id.as_str()),
            ("item", "event#x"),
            ("due_shard", &shard),
            ("due_at", "2000-01-01T00:00:00.000000Z"),
        ];
        world.put_row(&row).await;
    }
    let row = [
        ("account_id", "acme"),
        ("item", "event#x"),
        ("due_shard", &shard),
        ("due_at", "2000-01-01T00:00:00.000000Z"),
    ];
    world.put_row(&row).await;
    assert_eq!(world.tick_in(NOW).await["errors"], 261);
    assert_eq!(world.sent(), ["add_on.activated"]);
    // Rows that can be postponed are.
    assert_eq!(world.tick_in(minutes(1)).await["errors"], 260);
    assert_eq!(world.tick_in(minutes(61)).await["errors"], 261);
    // A row deleted before it is postponed does not reappear.
    let key = [("account_id", "acme"), ("item", "event#x")];
    let key = key.map(|(name, value)| (name.to_owned(), S(value.to_owned())));
    let remove = world.engines().dynamodb().delete_item();
    let remove = remove.table_name(&world.system.tables.accounts).set_key(Some(key.into()));
    world.wire.meanwhile("UpdateItem", async move {
        remove.send().await.unwrap();
    });
    world.tick_in(minutes(122)).await;
    assert_eq!(world.undelivered("acme").await, Vec::<String>::new());
}

/// Two ticks find the same event: one of them sends it.
#[tokio::test]
async fn only_one_tick_claims_an_event() {
    let world = World::start().await;
    world.set("acme", json!({"add_on": "active"})).await;
    let (store, now) = (&world.system.store, world.system.clock.now());
    let acme = account::AccountId::new("acme").unwrap();
    let (events, _) = store.outbox.events_of(&acme, now, now).await.unwrap();
    let until = now + minutes(5);
    let claims = [(); 2].map(|()| store.outbox.claim(&events[0], until));
    let claimed = futures_util::future::join_all(claims).await;
    let claimed = claimed.into_iter().filter_map(Result::unwrap);
    assert_eq!(claimed.count(), 1);
}

/// Undelivered events are deleted with the account.
#[tokio::test]
async fn a_deleted_account_leaves_no_event() {
    let world = World::start().await;
    world.system.bus.throttle(None);
    world.set("acme", json!({"add_on": "active"})).await;
    world.set("other", json!({"add_on": "active"})).await;
    assert_eq!(world.tick_in(NOW).await["errors"], 2);
    assert_eq!(world.undelivered("acme").await.len(), 1);
    crate::add_on::deleted(&world).await;
    world.tick_in(NOW).await;
    assert_eq!(world.undelivered("acme").await, Vec::<String>::new());
    world.system.bus.heal();
    assert_eq!(world.tick_in(minutes(60)).await["errors"], 0);
    let sent = world.sent_of("add_on.activated");
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0]["account_id"], "other");
}
