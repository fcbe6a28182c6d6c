//! What requests cost at AWS, counted: docs/cost.md has its prices for these numbers.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use local::stripe::Delivery;
use serde_json::json;

use crate::add_on::bought;
use crate::support::{KEY, World, hello};
use crate::wire::Units;

/// What was asked of AWS since the last time (`1 GetItem, 2 TransactWriteItems`), and the units of DynamoDB.
fn asked(world: &World) -> (String, Units) {
    let mut counts = BTreeMap::<_, u32>::new();
    for operation in world.wire.take() {
        *counts.entry(operation).or_default() += 1;
    }
    let counts = counts.iter().map(|(name, count)| format!("{count} {name}"));
    (counts.collect::<Vec<_>>().join(", "), world.wire.take_units())
}

fn took(operations: &str, read: f64, write: f64) -> (String, Units) {
    (operations.to_owned(), Units { read, write })
}

#[tokio::test]
async fn each_request_costs_what_the_documents_say() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "50", "add_on": "active"})).await;
    let owner = world.owner("acme");
    owner.say_hello().await;
    asked(&world);

    owner.say_hello().await;
    let call = took("1 GetItem, 2 TransactWriteItems, 1 UpdateItem", 1.0, 15.0);
    assert_eq!(asked(&world), call, "on credits");
    let mut streamed = hello();
    streamed["stream"] = json!(true);
    owner.chat(&streamed).await;
    assert_eq!(asked(&world), call, "streamed");
    owner.save_key(KEY).await;
    let saved = took("1 CreateSecret, 4 GetItem, 2 PutItem, 1 TransactWriteItems", 4.0, 10.0);
    assert_eq!(asked(&world), saved, "a key is saved");
    owner.say_hello().await;
    let first = took("1 GetItem, 1 GetSecretValue", 1.0, 0.0);
    assert_eq!(asked(&world), first, "the first call of a function");
    owner.say_hello().await;
    let each = took("1 GetItem", 1.0, 0.0);
    assert_eq!(asked(&world), each, "each other call");
    owner.chat(&streamed).await;
    assert_eq!(asked(&world), each, "streamed");
    owner.get("/v1/models").await;
    assert_eq!(asked(&world), each, "the models");
    owner.card().await;
    assert_eq!(asked(&world), each, "the card");
    owner.get("/v1/credits").await;
    assert_eq!(asked(&world), each, "the credits");
    owner.ledger().await;
    assert_eq!(asked(&world), took("3 GetItem, 1 Query", 4.0, 0.0), "the ledger");
    owner.switch(json!({"always_use_key": true})).await;
    assert_eq!(asked(&world), took("1 GetItem, 1 UpdateItem", 1.0, 2.0), "a switch");
    owner.test_key().await;
    let tested = took("2 GetItem, 1 GetSecretValue, 1 PutItem, 1 UpdateItem", 2.0, 3.0);
    assert_eq!(asked(&world), tested, "a test of the key");
    let tick = async || {
        world.tick_after(SignedDuration::from_mins(5)).await;
        asked(&world)
    };
    tick().await;
    let idle = took("1 GetQueueAttributes, 144 Query", 72.0, 0.0);
    assert_eq!(tick().await, idle, "an idle tick");
    assert_eq!(owner.disconnect().await.status, 200);
    let disconnected =
        took("1 DeleteItem, 1 DeleteSecret, 1 GetItem, 1 TransactWriteItems", 1.0, 9.0);
    assert_eq!(asked(&world), disconnected, "a disconnect");
}

/// Includes the tick that finds it due.
#[tokio::test]
async fn a_charge_costs_what_the_documents_say() {
    let world = bought().await;
    world.tick_after(SignedDuration::from_mins(5)).await;
    world.wait_until_due().await;
    world.provider().set_delivery(Delivery::Hold);
    asked(&world);
    let report = world.tick_in(SignedDuration::ZERO).await;
    assert_eq!(report["charged"], 1);
    let charge = took(
        "7 GetItem, 1 GetQueueAttributes, 1 GetSecretValue, 144 Query, 1 SendMessageBatch, 2 TransactWriteItems, 2 UpdateItem",
        79.0,
        18.0,
    );
    assert_eq!(asked(&world), charge, "the charge");
    let held = world.provider().take_held();
    assert_eq!(held.len(), 1);
    world.provider().deliver(&held[0]).await.unwrap();
    let webhook = took("2 GetItem, 1 TransactWriteItems, 1 UpdateItem", 2.0, 5.0);
    assert_eq!(asked(&world), webhook, "the webhook of it");
}
