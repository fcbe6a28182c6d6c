//! Counts the AWS requests that docs/cost.md prices.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use local::stripe::Delivery;
use serde_json::json;

use crate::add_on::bought;
use crate::support::{KEY, World, hello};
use crate::wire::Units;

/// The AWS requests since the last call (`1 GetItem, 2 TransactWriteItems`), and their DynamoDB
/// units.
fn requests(world: &World) -> (String, Units) {
    let mut counts = BTreeMap::<_, u32>::new();
    for operation in world.wire.take() {
        *counts.entry(operation).or_default() += 1;
    }
    let counts = counts.iter().map(|(name, count)| format!("{count} {name}"));
    (counts.collect::<Vec<_>>().join(", "), world.wire.take_units())
}

fn counted(operations: &str, read: f64, write: f64) -> (String, Units) {
    (operations.to_owned(), Units { read, write })
}

#[tokio::test]
async fn each_request_costs_what_the_docs_say() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "50", "add_on": "active"})).await;
    let owner = world.owner("acme");
    owner.say_hello().await;
    requests(&world);

    owner.say_hello().await;
    let call = counted("1 GetItem, 2 TransactWriteItems, 1 UpdateItem", 1.0, 15.0);
    assert_eq!(requests(&world), call, "on credits");
    let mut streamed = hello();
    streamed["stream"] = json!(true);
    owner.chat(&streamed).await;
    assert_eq!(requests(&world), call, "streamed");
    owner.save_key(KEY).await;
    let saved = counted("1 CreateSecret, 4 GetItem, 2 PutItem, 1 TransactWriteItems", 4.0, 10.0);
    assert_eq!(requests(&world), saved, "a key is saved");
    owner.say_hello().await;
    let first = counted("1 GetItem, 1 GetSecretValue", 1.0, 0.0);
    assert_eq!(requests(&world), first, "the first call of a function");
    owner.say_hello().await;
    let each = counted("1 GetItem", 1.0, 0.0);
    assert_eq!(requests(&world), each, "each other call");
    owner.chat(&streamed).await;
    assert_eq!(requests(&world), each, "streamed");
    owner.get("/v1/models").await;
    assert_eq!(requests(&world), each, "the model list");
    owner.card().await;
    assert_eq!(requests(&world), each, "the card");
    owner.get("/v1/credits").await;
    assert_eq!(requests(&world), each, "the credits");
    owner.ledger().await;
    assert_eq!(requests(&world), counted("3 GetItem, 1 Query", 4.0, 0.0), "the ledger");
    owner.switch(json!({"always_use_key": true})).await;
    assert_eq!(requests(&world), counted("1 GetItem, 1 UpdateItem", 1.0, 2.0), "a switch");
    owner.test_key().await;
    let tested = counted("2 GetItem, 1 GetSecretValue, 1 PutItem, 1 UpdateItem", 2.0, 3.0);
    assert_eq!(requests(&world), tested, "a test of the key");
    let tick = async || {
        world.tick_after(SignedDuration::from_mins(5)).await;
        requests(&world)
    };
    tick().await;
    let idle = counted("1 GetQueueAttributes, 144 Query", 72.0, 0.0);
    assert_eq!(tick().await, idle, "an idle tick");
    assert_eq!(owner.disconnect().await.status, 200);
    let disconnected =
        counted("1 DeleteItem, 1 DeleteSecret, 1 GetItem, 1 TransactWriteItems", 1.0, 9.0);
    assert_eq!(requests(&world), disconnected, "a disconnect");
}

/// Includes the tick that finds it due.
#[tokio::test]
async fn a_charge_costs_what_the_docs_say() {
    let world = bought().await;
    world.tick_after(SignedDuration::from_mins(5)).await;
    world.wait_until_due().await;
    world.stripe().webhooks.set_delivery(Delivery::Hold);
    requests(&world);
    let report = world.tick_in(SignedDuration::ZERO).await;
    assert_eq!(report["charged"], 1);
    let charge = counted(
        "7 GetItem, 1 GetQueueAttributes, 1 GetSecretValue, 144 Query, 1 SendMessageBatch, 2 TransactWriteItems, 2 UpdateItem",
        79.0,
        18.0,
    );
    assert_eq!(requests(&world), charge, "the charge");
    let held = world.stripe().webhooks.take_held();
    assert_eq!(held.len(), 1);
    world.stripe().webhooks.deliver(&held[0]).await.unwrap();
    let webhook = counted("2 GetItem, 1 TransactWriteItems, 1 UpdateItem", 2.0, 5.0);
    assert_eq!(requests(&world), webhook, "the charge's webhook");
}
