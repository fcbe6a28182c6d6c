//! What requests cost at AWS, counted: docs/cost.md has its prices for these numbers.

use jiff::SignedDuration;
use serde_json::json;

use crate::support::{KEY, World};
use crate::wire::Units;

/// What was asked of Secrets Manager, and the units of DynamoDB, since the last time.
fn asked(world: &World) -> (Vec<String>, Units) {
    let operations = world.wire.take().into_iter();
    let secrets = operations.filter(|operation| operation.contains("Secret"));
    (secrets.collect(), world.wire.take_units())
}

fn units(read: f64, write: f64) -> Units {
    Units { read, write }
}

#[tokio::test]
async fn each_request_costs_what_the_documents_say() {
    let world = World::start().await;
    world
        .set("acme", json!({"credits": "50", "add_on": "active"}))
        .await;
    let owner = world.owner("acme");
    owner.say_hello().await;
    asked(&world);
    let secret = |operation: &str| vec![operation.to_owned()];

    owner.say_hello().await;
    assert_eq!(asked(&world), (vec![], units(1.0, 15.0)), "on credits");
    owner.save_key(KEY).await;
    let saved = (secret("CreateSecret"), units(4.0, 10.0));
    assert_eq!(asked(&world), saved, "a key is saved");
    owner.say_hello().await;
    let first = (secret("GetSecretValue"), units(1.0, 0.0));
    assert_eq!(asked(&world), first, "the first call of a function");
    owner.say_hello().await;
    assert_eq!(asked(&world), (vec![], units(1.0, 0.0)), "each other call");
    owner.card().await;
    assert_eq!(asked(&world), (vec![], units(1.0, 0.0)), "the card");
    let tick = async || {
        world.tick_after(SignedDuration::from_mins(5)).await;
        asked(&world)
    };
    tick().await;
    assert_eq!(tick().await, (vec![], units(72.0, 0.0)), "an idle tick");
    assert_eq!(owner.disconnect().await.status, 200);
    let disconnected = (secret("DeleteSecret"), units(1.0, 9.0));
    assert_eq!(asked(&world), disconnected, "a disconnect");
}
