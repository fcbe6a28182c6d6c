//! A key that OpenRouter stops accepting, and later accepts again.

use jiff::SignedDuration;
use local::openrouter::KeyBehaviour;
use serde_json::json;

use crate::odd_responses::{JSON, RawUpstream, response};
use crate::support::{KEY, OTHER_KEY, World};

async fn events(world: &World, account: &str) -> Vec<String> {
    let found = world
        .engines()
        .dynamodb()
        .query()
        .table_name("AccountsTable")
        .key_condition_expression("account_id = :id AND begins_with(#item, :event)")
        .expression_attribute_names("#item", "item")
        .expression_attribute_values(
            ":id",
            aws_sdk_dynamodb::types::AttributeValue::S(account.into()),
        )
        .expression_attribute_values(
            ":event",
            aws_sdk_dynamodb::types::AttributeValue::S("event#".into()),
        )
        .send()
        .await
        .unwrap();
    let kind = |item: &std::collections::HashMap<
        String,
        aws_sdk_dynamodb::types::AttributeValue,
    >| { item["kind"].as_s().unwrap().clone() };
    found.items().iter().map(kind).collect()
}

#[tokio::test]
async fn a_401_is_confirmed_before_the_key_is_marked() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "7").await;
    let state = async || owner.card().await["key"]["state"].clone();
    // The call gets a 401, but the key check succeeds.
    let reply = owner.say_hello_to("sim/status-401").await;
    assert_eq!(reply.receipt().1, "fallback_key_rejected");
    assert_eq!(state().await, "usable");
    assert_eq!(events(&world, "acme").await, Vec::<String>::new());

    world.openrouter().set_key(KEY, KeyBehaviour::Rejected);
    let reply = owner.say_hello().await;
    assert_eq!(reply.receipt().1, "fallback_key_rejected");
    assert_eq!(state().await, "rejected");
    let reply = owner.say_hello().await;
    assert_eq!(reply.receipt(), ("greta_credits".to_owned(), "key_rejected".to_owned()));
    assert_eq!(events(&world, "acme").await, ["key.rejected"]);

    // Under "always" every call goes to OpenRouter, and the event is emitted only once.
    owner.switch(json!({"always_use_key": true})).await;
    for _ in 0..2 {
        let reply = owner.say_hello().await;
        assert_eq!(reply.error(), (403, "openrouter_key_rejected".to_owned()));
    }
    assert_eq!(events(&world, "acme").await, ["key.rejected"]);
}

#[tokio::test]
async fn a_rejected_key_is_re_checked_every_five_minutes() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "7").await;
    world.openrouter().set_key(KEY, KeyBehaviour::Rejected);
    owner.say_hello().await;
    let checks = world.openrouter().key_checks();
    let checked_at = owner.card().await["key"]["checked_at"].clone();

    world.openrouter().set_key(KEY, KeyBehaviour::Usable);
    world.system.clock.advance(SignedDuration::from_secs(4 * 60 + 50));
    assert_eq!(owner.say_hello().await.receipt().1, "key_rejected");
    assert_eq!(world.openrouter().key_checks(), checks, "not before its time");

    world.openrouter().set_key(KEY, KeyBehaviour::Down);
    world.system.clock.advance(SignedDuration::from_secs(15));
    assert_eq!(owner.say_hello().await.receipt().1, "key_rejected", "the stored state is kept");
    assert_eq!(owner.say_hello().await.receipt().1, "key_rejected");
    assert_eq!(world.openrouter().key_checks(), checks + 1, "once in five minutes");
    assert_eq!(owner.card().await["key"]["checked_at"], checked_at, "it was not checked");

    world.openrouter().set_key(KEY, KeyBehaviour::Usable);
    world.system.clock.advance(SignedDuration::from_secs(5 * 60));
    assert_eq!(owner.say_hello().await.receipt().1, "key_enabled");
    assert_eq!(owner.card().await["key"]["state"], "usable");
    assert_eq!(world.openrouter().key_checks(), checks + 2);
}

/// A call waits at most two seconds for the check.
#[tokio::test]
async fn a_slow_re_check_leaves_the_stored_state() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "7").await;
    world.openrouter().set_key(KEY, KeyBehaviour::Rejected);
    owner.say_hello().await;
    world.openrouter().set_key(KEY, KeyBehaviour::Slow);
    world.system.clock.advance(SignedDuration::from_mins(6));
    let reply = owner.say_hello().await;
    assert_eq!((reply.status.as_u16(), reply.receipt().1), (200, "key_rejected".to_owned()));
}

/// A 401 that arrives after the key was replaced is not about the new key.
#[tokio::test]
async fn a_late_401_of_an_old_key_marks_nothing() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "7").await;
    let slow = owner.say_hello_to("sim/slow-head-200");
    let replace = async {
        let sent = |calls: &[local::openrouter::RecordedCall]| !calls.is_empty();
        world.openrouter().until(sent).await;
        assert_eq!(owner.save_key(OTHER_KEY).await.status, 200);
        world.openrouter().set_key(KEY, KeyBehaviour::Rejected);
    };
    tokio::join!(slow, replace);
    let card = owner.card().await;
    assert_eq!(card["key"]["state"], "usable");
    assert_eq!(events(&world, "acme").await, Vec::<String>::new());
}

/// A 403 without a reason may be about the key: `GET /key` tells.
#[tokio::test]
async fn a_403_without_a_reason_is_about_the_key_only_if_the_key_check_says_so() {
    let upstream = RawUpstream::start().await;
    let world = World::with_settings(&[("OPENROUTER_BASE_URL", upstream.url.as_str())]).await;
    let owner = world.enterprise_with_key("acme", "7").await;
    let forbidden = json!({"error": {"code": 403, "message": "Forbidden"}}).to_string();
    upstream.respond(vec![response(403, JSON, &forbidden)]);
    let refused = (403, "openrouter_request_refused".to_owned());
    let rejected = (403, "openrouter_key_rejected".to_owned());

    assert_eq!(owner.say_hello().await.error(), refused);
    // The key was checked for the call before.
    upstream.reject_key();
    assert_eq!(owner.say_hello().await.error(), refused);
    assert_eq!(owner.card().await["key"]["state"], "usable");

    world.system.clock.advance(SignedDuration::from_mins(5));
    let reply = owner.say_hello().await;
    let receipt = ("greta_credits".to_owned(), "fallback_key_rejected".to_owned());
    assert_eq!((reply.status.as_u16(), reply.receipt()), (200, receipt));
    assert_eq!(owner.card().await["key"]["state"], "rejected");
    assert_eq!(events(&world, "acme").await, ["key.rejected"]);

    owner.switch(json!({"always_use_key": true})).await;
    assert_eq!(owner.say_hello().await.error(), rejected);
    assert_eq!(events(&world, "acme").await, ["key.rejected"]);
}
