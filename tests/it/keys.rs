//! Connecting, testing, replacing and disconnecting a key.

use http::Method;
use jiff::SignedDuration;
use local::engines::SecretsFault;
use local::openrouter::{KeyBehaviour, key_sha256};
use serde_json::{Value, json};

use crate::support::{Caller, KEY, OTHER_KEY, World};

async fn user_secrets(world: &World) -> Vec<String> {
    let names = world.engines().secret_names().await;
    names.into_iter().filter(|name| name.starts_with("greta/openrouter/")).collect()
}

#[tokio::test]
async fn a_saved_key_is_confirmed_in_the_products_wording() {
    let world = World::start().await;
    world.set("acme", json!({"plan": "enterprise"})).await;
    let owner = world.owner("acme");
    assert_eq!(owner.card().await["status"], "available");
    let saved = owner.save_key(&format!("  {KEY}\n")).await;
    assert_eq!(saved.status, 200);
    let saved = saved.json();
    assert_eq!(saved["message"], "OpenRouter API key saved successfully.");
    assert_eq!(saved["integration"], owner.card().await);
    let card = &saved["integration"];
    assert_eq!(
        (&card["status"], &card["enabled"], &card["always_use_key"]),
        (&json!("connected"), &json!(true), &json!(false))
    );
    let next = json!({"payer": "openrouter", "reason": "key_enabled"});
    assert_eq!(card["next_call"], next);
    let key = &card["key"];
    assert_eq!(
        (&key["last4"], &key["state"], &key["saved_by"]),
        (&json!("cdef"), &json!("usable"), &json!("user_acme_owner"))
    );
    assert_eq!(key["sha256"], key_sha256(KEY));
    assert_eq!((&key["limit_usd"], &key["limit_remaining_usd"]), (&json!("20"), &json!("12.3")));
    let names = user_secrets(&world).await;
    assert_eq!(names.len(), 1);
    assert!(names[0].starts_with("greta/openrouter/acme/key_"), "{names:?}");
}

/// The engine has no KMS keys, so naming one makes the request fail.
#[tokio::test]
async fn a_secret_is_encrypted_with_the_configured_kms_key() {
    let kms_key = "arn:aws:kms:us-east-1:1:key/k";
    let world = World::with_settings(&[("SECRETS_KMS_KEY", kms_key)]).await;
    world.set("acme", json!({"plan": "enterprise"})).await;
    let owner = world.owner("acme");
    world.wire.refuse_about(Some(kms_key));
    assert_eq!(owner.save_key(KEY).await.status, 503);
    world.wire.refuse_about(None);
    assert_eq!(owner.save_key(KEY).await.status, 200);
}

#[tokio::test]
async fn a_refused_key_changes_nothing() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "0").await;
    let before = owner.card().await;
    let refused = [
        ("sk-or-v1-short", 422, "invalid_key_format"),
        ("not a key", 422, "invalid_key_format"),
        ("sk-or-v1-rejected-0123456789abcdef", 422, "key_rejected"),
        ("sk-or-v1-management-0123456789abcdef", 422, "management_key"),
        ("sk-or-v1-down-0123456789abcdef", 502, "openrouter_unavailable"),
        ("sk-or-v1-busy-0123456789abcdef", 503, "openrouter_busy"),
    ];
    for (key, status, code) in refused {
        let reply = owner.save_key(key).await;
        assert_eq!(reply.error(), (status, code.to_owned()), "{key}");
        assert!(!reply.text().contains(key), "the key is not repeated");
        assert_eq!(owner.card().await, before, "{key}");
    }
    assert_eq!(user_secrets(&world).await.len(), 1);
    assert_eq!(owner.say_hello().await.header("x-greta-payer"), "openrouter");
}

#[tokio::test]
async fn checks_run_in_the_order_of_section_2() {
    let world = World::start().await;
    world.set("acme", json!({})).await;
    let path = "/v1/integrations/openrouter/key";
    let bad_key = json!({"key": "nonsense"});
    let nobody = world.request(Method::PUT, path).body(bad_key.to_string());
    assert_eq!(world.send(nobody).await.error().0, 401);
    let member = world.caller("acme", "member");
    assert_eq!(
        member.call(Method::PUT, path, &bad_key).await.error(),
        (403, "not_owner".to_owned())
    );
    let owner = world.owner("acme");
    assert_eq!(
        owner.call(Method::PUT, path, &bad_key).await.error(),
        (402, "add_on_required".to_owned())
    );
    world.set("acme", json!({"add_on": "active"})).await;
    assert_eq!(
        owner.call(Method::PUT, path, &bad_key).await.error(),
        (422, "invalid_key_format".to_owned())
    );
    assert_eq!(world.openrouter().key_checks(), 0, "nothing was called");
    for _ in 0..5 {
        assert_eq!(owner.save_key(KEY).await.status, 200);
    }
    assert_eq!(
        owner.call(Method::PUT, path, &bad_key).await.error(),
        (429, "too_many_attempts".to_owned())
    );
}

#[tokio::test]
async fn checks_and_saves_per_hour_are_limited() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "0").await;
    for _ in 0..4 {
        assert_eq!(owner.save_key(KEY).await.status, 200);
    }
    let refused = owner.save_key(KEY).await;
    assert_eq!(refused.error(), (429, "too_many_attempts".to_owned()));
    let wait: i64 = refused.header("retry-after").parse().unwrap();
    assert!((3_500..=3_600).contains(&wait), "{wait}");
    for _ in 0..5 {
        assert_eq!(owner.test_key().await.status, 200, "the save limit is separate");
    }
    assert_eq!(owner.test_key().await.error(), (429, "too_many_attempts".to_owned()));
    assert_eq!(world.openrouter().key_checks(), 10);
    world.system.clock.advance(SignedDuration::from_secs(wait));
    assert_eq!(owner.save_key(KEY).await.status, 200);
}

#[tokio::test]
async fn failed_saves_count_as_checks_only() {
    let world = World::start().await;
    world.set("acme", json!({"plan": "enterprise"})).await;
    let owner = world.owner("acme");
    for _ in 0..7 {
        let reply = owner.save_key("sk-or-v1-rejected-0123456789abcdef").await;
        assert_eq!(reply.error().1, "key_rejected");
    }
    for _ in 0..3 {
        assert_eq!(owner.save_key(KEY).await.status, 200);
    }
    assert_eq!(owner.save_key(KEY).await.error().1, "too_many_attempts");
}

#[tokio::test]
async fn a_swap_and_a_disconnect_affect_the_next_call() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "7").await;
    owner.switch(json!({"always_use_key": true})).await;
    let key_of_last_call = || world.openrouter().calls().pop().unwrap().key_sha256.unwrap();
    owner.say_hello().await;
    assert_eq!(key_of_last_call(), key_sha256(KEY));
    let first = user_secrets(&world).await;

    let replaced = owner.save_key(OTHER_KEY).await.json();
    assert_eq!(replaced["integration"]["always_use_key"], true, "replacing keeps the switches");
    owner.say_hello().await;
    assert_eq!(key_of_last_call(), key_sha256(OTHER_KEY));
    let second = user_secrets(&world).await;
    assert_eq!(second.len(), 1, "the old secret is gone at once");
    assert_ne!(first, second);

    let gone = owner.disconnect().await.json();
    let card = &gone["integration"];
    assert_eq!(
        (&card["key"], &card["enabled"], &card["always_use_key"]),
        (&Value::Null, &json!(false), &json!(false))
    );
    assert_eq!(owner.disconnect().await.json(), gone, "disconnecting is idempotent");
    assert_eq!(user_secrets(&world).await, Vec::<String>::new());
    let reply = owner.say_hello().await;
    assert_eq!(reply.receipt(), ("greta_credits".to_owned(), "not_connected".to_owned()));
    assert_eq!(world.openrouter().calls().len(), 2);
    let again = owner.save_key(KEY).await.json();
    assert_eq!(
        (&again["integration"]["enabled"], &again["integration"]["always_use_key"]),
        (&json!(true), &json!(false))
    );
}

/// Parallel calls read the secret once, and later ones not at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_read_once() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "7").await;
    let replies = futures_util::future::join_all((0..30).map(|_| owner.say_hello())).await;
    assert!(replies.iter().all(|reply| reply.status == 200));
    owner.say_hello().await;
    let reads = world.engines().secret_operations();
    let reads = reads.iter().filter(|operation| *operation == "GetSecretValue");
    assert_eq!(reads.count(), 1);
}

#[tokio::test]
async fn replacing_a_key_keeps_the_switches() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "7").await;
    owner.switch(json!({"enabled": false})).await;
    let replaced = owner.save_key(OTHER_KEY).await.json();
    let card = &replaced["integration"];
    assert_eq!((&card["enabled"], &card["status"]), (&json!(false), &json!("disabled")));
    assert_eq!(owner.say_hello().await.receipt().1, "key_disabled");
}

#[tokio::test]
async fn without_a_key_there_is_nothing_to_test_or_switch() {
    let world = World::start().await;
    world.set("acme", json!({"plan": "enterprise"})).await;
    let owner = world.owner("acme");
    assert_eq!(owner.test_key().await.error(), (409, "not_connected".to_owned()));
    assert_eq!(
        owner.switch(json!({"enabled": true})).await.error(),
        (409, "not_connected".to_owned())
    );
    assert_eq!(owner.disconnect().await.status, 200);
}

#[tokio::test]
async fn a_test_returns_the_keys_state() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "0").await;
    let state = |reply: crate::support::Reply| reply.json()["integration"]["key"]["state"].clone();
    world.openrouter().set_key(KEY, KeyBehaviour::Rejected);
    assert_eq!(state(owner.test_key().await), "rejected");
    assert_eq!(owner.card().await["status"], "attention");
    world.openrouter().set_key(KEY, KeyBehaviour::Usable);
    assert_eq!(state(owner.test_key().await), "usable");
    world.openrouter().set_key(KEY, KeyBehaviour::Down);
    assert_eq!(owner.test_key().await.error(), (502, "openrouter_unavailable".to_owned()));
    assert_eq!(owner.card().await["key"]["state"], "usable");
}

/// Reading, testing, switching and disconnecting are not gated by plan, add-on or balance.
#[tokio::test]
async fn a_lapsed_account_can_still_manage_its_key() {
    let world = World::start().await;
    world.set("acme", json!({"credits": "5", "add_on": "active"})).await;
    let owner = world.owner("acme");
    owner.save_key(KEY).await;
    world.set("acme", json!({"credits": "0", "add_on": "none"})).await;
    assert_eq!(owner.card().await["status"], "attention");
    assert_eq!(owner.save_key(OTHER_KEY).await.error(), (402, "add_on_required".to_owned()));
    assert_eq!(owner.test_key().await.status, 200);
    assert_eq!(owner.switch(json!({"always_use_key": true})).await.status, 200);
    assert_eq!(owner.switch(json!({"always_use_key": false, "enabled": false})).await.status, 200);
    assert_eq!(owner.disconnect().await.status, 200);
}

#[tokio::test]
async fn a_member_can_read_and_call_but_not_change() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "7").await;
    let member = world.caller("acme", "member");
    let refusals = [
        member.save_key(KEY).await,
        member.test_key().await,
        member.disconnect().await,
        member.switch(json!({"enabled": false})).await,
    ];
    for refused in refusals {
        assert_eq!(refused.error(), (403, "not_owner".to_owned()));
    }
    let (mut seen, whole) = (member.card().await, owner.card().await);
    assert_eq!(seen["can_edit"], false);
    seen["can_edit"] = json!(true);
    assert_eq!(seen, whole);
    for path in ["/v1/credits", "/v1/credits/ledger", "/v1/credits/daily", "/v1/models"] {
        assert_eq!(member.get(path).await.status, 200, "{path}");
    }
    assert_eq!(member.say_hello().await.status, 200);
}

/// The process dies after its first request to AWS, then after the second, and so on; a later tick
/// cleans up. The loop ends with the first run in which no request was refused.
async fn crash_everywhere(start: impl AsyncFn(&Caller<'_>), act: impl AsyncFn(&Caller<'_>)) {
    for survived in 0.. {
        let world = World::start().await;
        world.set("acme", json!({"plan": "enterprise", "credits": "7"})).await;
        let owner = world.owner("acme");
        start(&owner).await;
        world.wire.die_after(survived);
        act(&owner).await;
        let died = world.wire.revive();

        // The account either has a key that works, or none.
        let connected = !owner.card().await["key"].is_null();
        let payer = if connected { "openrouter" } else { "greta_credits" };
        let reply = owner.say_hello().await;
        assert_eq!(reply.header("x-greta-payer"), payer, "after {survived} requests");

        // In the end, exactly the secrets that no account names are deleted.
        tick(&world, SignedDuration::from_mins(61)).await;
        let secrets = user_secrets(&world).await;
        assert_eq!(secrets.len(), usize::from(connected), "after {survived}: {secrets:?}");
        let reply = owner.say_hello().await;
        assert_eq!(reply.header("x-greta-payer"), payer, "after {survived} requests");
        if !died {
            assert!(survived > 2, "only {survived} steps were found");
            return;
        }
    }
}

async fn tick(world: &World, later: SignedDuration) {
    let time = world.system.clock.now() + later;
    let request = world.request(Method::POST, "/_dev/tick").body(json!({"time": time}).to_string());
    let report = world.send(request).await.json();
    assert_eq!(report["errors"], 0, "{report}");
}

async fn no_key_before(_: &Caller<'_>) {}

async fn connected_before(owner: &Caller<'_>) {
    assert_eq!(owner.save_key(OTHER_KEY).await.status, 200);
}

#[tokio::test]
async fn a_crash_anywhere_in_connecting_is_harmless() {
    crash_everywhere(no_key_before, async |owner| {
        drop(owner.save_key(KEY).await);
    })
    .await;
}

#[tokio::test]
async fn a_crash_anywhere_in_replacing_is_harmless() {
    crash_everywhere(connected_before, async |owner| {
        drop(owner.save_key(KEY).await);
    })
    .await;
}

#[tokio::test]
async fn a_crash_anywhere_in_disconnecting_is_harmless() {
    crash_everywhere(connected_before, async |owner| {
        drop(owner.disconnect().await);
    })
    .await;
}

#[tokio::test]
async fn a_lost_response_to_the_switch_is_a_success() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "7").await;
    world.wire.lose_next_response_of("TransactWriteItems");
    assert_eq!(owner.save_key(OTHER_KEY).await.status, 200);
    assert_eq!(owner.card().await["key"]["sha256"], key_sha256(OTHER_KEY));
    assert_eq!(owner.say_hello().await.header("x-greta-payer"), "openrouter");
    tick(&world, SignedDuration::from_mins(61)).await;
    assert_eq!(user_secrets(&world).await.len(), 1);
    assert_eq!(owner.say_hello().await.header("x-greta-payer"), "openrouter");
}

#[tokio::test]
async fn a_secrets_manager_failure_keeps_the_old_key() {
    let world = World::start().await;
    let owner = world.enterprise_with_key("acme", "7").await;
    let before = owner.card().await;
    world.engines().fail_secrets(Some("CreateSecret"), SecretsFault::AccessDenied);
    assert_eq!(owner.save_key(OTHER_KEY).await.error(), (503, "storage_unavailable".to_owned()));
    assert_eq!(owner.card().await, before);
    world.engines().heal_secrets();
    world.engines().fail_secrets(Some("DeleteSecret"), SecretsFault::AccessDenied);
    assert_eq!(owner.save_key(OTHER_KEY).await.status, 200, "the old secret is left to the tick");
    assert_eq!(user_secrets(&world).await.len(), 2);
    world.engines().heal_secrets();
    tick(&world, SignedDuration::from_mins(59)).await;
    assert_eq!(user_secrets(&world).await.len(), 2, "not before an hour has passed");
    tick(&world, SignedDuration::from_mins(61)).await;
    assert_eq!(user_secrets(&world).await.len(), 1);
    assert_eq!(owner.say_hello().await.header("x-greta-payer"), "openrouter");
}
