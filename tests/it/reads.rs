//! Reads of items: the first by the SDK, the next ones without it, and by the SDK again where one of those fails.

use account::AccountId;
use serde_json::json;
use store::StoreError;

use crate::support::World;
use crate::wire::Fault;

/// The SDK's own.
const ATTEMPTS: usize = 3;

#[tokio::test]
async fn whoever_reads_an_item_it_is_the_same() {
    let world = World::start().await;
    world.enterprise_with_key("with-key", "3").await;
    world
        .set("buyer", json!({"credits": "7", "add_on": "past_due"}))
        .await;
    world.set("plain", json!({})).await;
    let read = async |store: &store::Store, id| {
        let id = AccountId::new(id).unwrap();
        store.account(&id).await.unwrap()
    };
    let direct = world.store_over_the_wire();
    read(&direct, "plain").await;
    for id in ["with-key", "buyer", "plain", "nobody"] {
        let by_sdk = read(&world.store_over_the_wire(), id).await;
        assert_eq!(by_sdk.is_none(), id == "nobody");
        assert_eq!(read(&direct, id).await, by_sdk, "{id}");
    }
}

#[tokio::test]
async fn a_read_that_fails_is_the_sdks_until_it_succeeds() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let store = world.store_over_the_wire();
    let id = AccountId::new("acme").unwrap();
    // How often AWS is asked, and whether it comes to something, where it has too much to do so many times.
    let asked = async |throttled: usize| {
        world.wire.disturb("GetItem", Fault::Throttled, throttled);
        let read = store.account(&id).await;
        world.wire.disturb("GetItem", Fault::Throttled, 0);
        match read {
            Ok(account) => account.is_some(),
            Err(StoreError::Unavailable { .. }) => false,
            Err(error) => panic!("{error:?}"),
        }
    };
    assert!(!asked(ATTEMPTS).await, "the first one is the SDK's");
    assert!(asked(ATTEMPTS - 1).await, "which tries it again");
    assert!(asked(ATTEMPTS).await, "one more than the SDK's");
    assert!(!asked(ATTEMPTS + 1).await);
    assert!(!asked(ATTEMPTS).await, "the SDK's again");
    assert!(asked(0).await);
    assert!(asked(ATTEMPTS).await);
}

#[tokio::test]
async fn nobody_hears_of_a_read_that_fails_in_passing() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let store = world.store_over_the_wire();
    let id = AccountId::new("acme").unwrap();
    let account = store.account(&id).await.unwrap();
    for fault in [Fault::NeverArrives, Fault::AnswerLost, Fault::Repeated] {
        world.wire.disturb("GetItem", fault, 1);
        assert_eq!(store.account(&id).await.unwrap(), account, "{fault:?}");
    }
}
