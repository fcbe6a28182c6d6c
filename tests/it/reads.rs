//! Reads of items: the first by the SDK, the next ones without it, and by the SDK again where one of those fails.

use account::{Account, AccountId};
use serde_json::json;
use store::Store;

use crate::support::World;
use crate::wire::Fault;

async fn read(store: &Store, id: &str) -> Option<Account> {
    let id = AccountId::new(id).unwrap();
    store.account(&id).await.unwrap()
}

#[tokio::test]
async fn whoever_reads_an_item_it_is_the_same() {
    let world = World::start().await;
    world.enterprise_with_key("with-key", "3").await;
    let buyer = json!({"credits": "7", "add_on": "past_due"});
    world.set("buyer", buyer).await;
    world.set("plain", json!({})).await;
    let direct = world.store_over_the_wire();
    read(&direct, "plain").await;
    for id in ["with-key", "buyer", "plain", "nobody"] {
        let by_sdk = read(&world.store_over_the_wire(), id).await;
        assert_eq!(by_sdk.is_none(), id == "nobody");
        world.wire.take();
        assert_eq!(read(&direct, id).await, by_sdk, "{id}");
        assert_eq!(world.wire.take(), ["GetItem"], "{id}");
    }
}

#[tokio::test]
async fn nobody_hears_of_a_read_that_fails_in_passing() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let once = [Fault::NeverArrives, Fault::AnswerLost, Fault::Repeated];
    let once = once.map(|fault| (fault, 1));
    // The SDK has three attempts, each of which may be throttled but for its last one.
    let faults = once.into_iter().chain([(Fault::Throttled, 3)]);
    for (fault, times) in faults {
        let store = world.store_over_the_wire();
        let account = read(&store, "acme").await;
        world.wire.disturb("GetItem", fault, times);
        assert_eq!(read(&store, "acme").await, account, "{fault:?}");
    }
}
